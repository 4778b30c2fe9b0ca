"""The publisher: one MQTT session after the other, for as long as the process lives.

Promises: no more than one session at a time, and a pause that grows, with jitter, before the next; 3.1.1 only where
the broker explicitly refused 5; what happened to the broker is logged once per change; in each session the retained
status comes first; at the end `stopped` stands at the broker, or the last will does.

May import: `agent.aside`, `agent.buffer.outbox`, `agent.config_model`, `agent.formats`, `agent.mqtt`,
`agent.mqtt_endpoint`, `agent.mqtt_errors`, `agent.pace`, `agent.pump`, `agent.retained`, `agent.suspicion`,
`agent.topics`, structlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal
from typing import Protocol as Interface

import structlog

from agent import topics
from agent.aside import Aside
from agent.formats import make_format
from agent.mqtt import MAX_WINDOW, Protocol, Session, Will
from agent.mqtt_endpoint import endpoint_of
from agent.mqtt_errors import RETAIN_UNSUPPORTED, TOO_FAST, SessionError
from agent.pace import Reconnect, Timing
from agent.pump import Pump
from agent.suspicion import TRIES, Shunned, Suspicion

if TYPE_CHECKING:
    from agent.buffer.outbox import Outbox
    from agent.config_model import MqttConfig
    from agent.retained import Retained

log = structlog.get_logger("shopfloor.broker")

AFTER_REFUSAL_S = 1.0
"""A session that the broker ends so soon after it refused a message was ended for that message."""
LONGEST_WAIT_S = 5.0
"""Waiting for the next attempt, the publisher comes round at least so often."""

State = Literal["connected", "connecting", "refused", "unreachable"]


class StatusDocument(Interface):
    """Makes the retained status."""

    def __call__(self, state: str, *, at: float | None = None) -> bytes:
        """Return the document of this state, `at` this monotonic instant (None = now)."""


class Publisher:
    """Owns the way out. One `run` per object; everything else may be called from the loop at any time.

    Args:
        mqtt: the section of the configuration, its files as absolute paths.
        replay_rate: backlog messages a second, 0 = no limit.
        status: makes the retained status: `online`, and `lost` for the last will.
        agent_message: makes the agent's counters; its gaps are those of `outbox.gaps()` at that moment.
        on_session: called when a session begins.
        timing: only tests give one.

    Attributes:
        state, since: of the broker, since this monotonic instant.
        cause, text: of the last failure, None while connected.
        protocol: MQTT version of the session, or None.
        window: how many unacknowledged messages there may be now.
        alive_at: monotonic instant of the last sign of life, for the watchdog.
    """

    def __init__(
        self,
        mqtt: MqttConfig,
        *,
        site: str,
        gateway: str,
        replay_rate: float,
        outbox: Outbox,
        retained: Retained,
        status: StatusDocument,
        agent_message: Callable[[], bytes],
        on_session: Callable[[], None] = lambda: None,
        timing: Timing | None = None,
    ) -> None:
        self.state: State = "connecting"
        self.since = self.alive_at = time.monotonic()
        self.cause: str | None = None
        self.text: str | None = None
        self.protocol: Protocol | None = None
        self._mqtt = mqtt
        self._names = {"site": site, "gateway": gateway}
        self._replay_rate = replay_rate
        self._outbox = outbox
        self._retained = retained
        self._status = status
        self._agent_message = agent_message
        self._on_session = on_session
        self._timing = timing or Timing()
        self._reconnect = Reconnect(self._timing)
        self._suspicion = Suspicion()
        self._shunned = Shunned()
        self._most = MAX_WINDOW
        self._blamed: Counter[str] = Counter()
        self._aside: Aside[SessionError | None] = Aside("mqtt-connect")
        self._wake = outbox.news  # what comes from the network and from `retained` wakes the pump by the same event
        self._pump: Pump | None = None
        self._interrupt = asyncio.Event()
        self._stopping: bytes | None = None
        self._clean = False
        self._running = False
        self._finished = asyncio.Event()
        self._fallback: Protocol | None = None
        self._fallback_told = False
        self._retain = True
        self._status_at = 0.0
        self._told: tuple[str, str] | None = None
        retained.on_due(self._wake.set)
        self._announce_status()

    @property
    def window(self) -> int:
        """How many unacknowledged messages there may be now."""
        return self._pump.window if self._pump is not None else self._mqtt.window

    def status_changed(self) -> None:
        """The retained status is to be published anew."""
        if (topic := self._topic(self._mqtt.status_topic)) is not None:
            self._retained.touch(topic)

    def reconfigure(self, mqtt: MqttConfig) -> None:
        """Go on with a new session of this configuration."""
        old = self._topic(self._mqtt.status_topic)
        self._mqtt = mqtt
        self._fallback, self._fallback_told, self._told, self._retain = None, False, None, True
        self._reconnect = Reconnect(self._timing)
        self._blamed.clear()
        self._shunned = Shunned()
        if old is not None and old != self._topic(mqtt.status_topic):
            self._retained.clear(old)
        self._announce_status()
        self._break_off()

    async def stop(self, stopped: bytes) -> bool:
        """End the session and `run`, within 5 s; True if `stopped` stands at the broker as the retained status.

        Otherwise the connection is closed without a goodbye, and the broker publishes the last will.
        """
        self._stopping = stopped
        self._break_off()
        if self._running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * self._timing.farewell + 0.9):
                    await self._finished.wait()
        return self._clean

    async def run(self) -> None:
        """Connect and publish until `stop`."""
        self._running = True
        keeper = asyncio.create_task(self._retained.save_loop())
        try:
            while self._stopping is None:
                self._interrupt.clear()
                delay = await self._one_session()
                await self._wait(delay)
                if keeper.done():
                    keeper.result()
        finally:
            keeper.cancel()
            self._running = False
            self._finished.set()

    # One session.

    async def _one_session(self) -> float:
        """Hold one session from connect to its end; return how long to wait for the next."""
        mqtt = self._mqtt
        began = time.monotonic()
        status_topic = self._topic(mqtt.status_topic)
        protocol: Protocol = (self._fallback or "5") if mqtt.protocol == "auto" else mqtt.protocol
        session = Session(
            endpoint_of(mqtt),
            protocol,
            will=Will(status_topic, self._status("lost", at=began), self._retain) if status_topic is not None else None,
            aside=self._aside,
            on_news=self._wake.set,
            connect_s=self._timing.connect,
        )
        try:
            pump = await self._open(session)
        except SessionError as error:
            return self._failed(error, protocol)
        if pump is None:
            return 0.0
        connected = time.monotonic()
        goodbye = False
        guilty = False
        try:
            loss = await pump.run()
            if loss is None:
                goodbye = await self._say_goodbye(pump, mqtt)
            else:
                await session.close(goodbye=False)
                guilty = self._look_for_the_guilty(pump, loss, time.monotonic() - connected)
        finally:
            await session.close(goodbye=goodbye)
            pump.settle()
            self._pump = None
            self._outbox.end_session()
        if loss is None:
            self._set_state("connecting")
            return 0.0
        return self._lost(loss, time.monotonic() - connected, window=pump.window, guilty=guilty)

    def _look_for_the_guilty(self, pump: Pump, loss: SessionError, lasted: float) -> bool:
        """Whether a message was found that made the broker end the session."""
        pump.settle()
        refused = pump.refused_last(AFTER_REFUSAL_S)
        if refused is not None and loss.cause == "closed_by_peer" and loss.code not in TOO_FAST:
            self._suspicion.careful = 0
            self._blame(*refused)
            return True
        under_way = pump.under_way
        guilty = self._suspicion.after_session(
            under_way,
            [item for item in under_way if (self._blamed[item] if isinstance(item, str) else item.tries)],
            closed=loss.cause == "closed_by_peer" and lasted < self._timing.short,
            code=loss.code,
            alone=pump.careful,
        )
        if guilty is None:
            return False
        if isinstance(guilty, str):
            self._blamed[guilty] += 1
            if self._blamed[guilty] == TRIES:
                log.error("topic_barred", topic=guilty, text="the broker ends the session when this is published")
        else:
            self._blame(*pump.give_up(guilty, loss.code))
        return True

    def _blame(self, topic: str, size: int) -> None:
        if self._shunned.blame(topic, size, time.monotonic()):
            log.error("topic_shunned", topic=topic, text="the broker ends the session when this is published")

    async def _say_goodbye(self, pump: Pump, mqtt: MqttConfig) -> bool:
        """We end the session: whether the broker is told so, or left to publish the last will."""
        topic = self._topic(mqtt.status_topic)
        if self._stopping is None:
            # Where a broker is left for another one, its retained `online` would stand for ever: the will speaks.
            return (mqtt.url, mqtt.status_topic) == (self._mqtt.url, self._mqtt.status_topic)
        self._clean = topic is None or await pump.say_last(topic, self._stopping, self._timing.farewell)
        return self._clean

    async def _open(self, session: Session) -> Pump | None:
        """Connect; None if interrupted.

        Raises:
            SessionError: no session.
        """
        mqtt = self._mqtt
        self._set_state("connecting" if self.state == "connected" else self.state)
        attempt = asyncio.create_task(session.connect())
        interrupted = asyncio.create_task(self._interrupt.wait())
        try:
            while not attempt.done() and not interrupted.done():
                self.alive_at = time.monotonic()
                await asyncio.wait({attempt, interrupted}, timeout=LONGEST_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
            if not attempt.done():
                attempt.cancel()
                await asyncio.wait({attempt})
        if attempt.cancelled():
            return None
        limits = attempt.result()
        self._outbox.begin_session()
        self._retained.begin_session(self._topic(mqtt.status_topic))
        self._status_at = time.monotonic() + self._timing.every
        self._pump = Pump(
            session,
            limits,
            form=make_format(mqtt.format, mqtt.topic, **self._names),
            window=min(mqtt.window, self._most),
            careful=self._suspicion.careful,
            shunned=self._shunned,
            barred=[topic for topic, times in self._blamed.items() if times >= TRIES],
            replay_rate=self._replay_rate,
            outbox=self._outbox,
            retained=self._retained,
            agent_topic=self._topic(mqtt.agent_topic),
            agent_message=self._agent_message,
            timing=self._timing,
            on_round=self._round,
            wake=self._wake,
        )
        if self._interrupt.is_set():  # it came after the attempt and before there was a pump to tell
            self._pump.stop()
        self._connected(limits.protocol)
        return self._pump

    def _round(self) -> None:
        """The pump came round."""
        now = self.alive_at = time.monotonic()
        if now >= self._status_at:
            self._status_at = now + self._timing.every
            self.status_changed()

    async def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._interrupt.is_set():
            self.alive_at = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LONGEST_WAIT_S)):
                    await self._interrupt.wait()
        self.alive_at = time.monotonic()

    def _break_off(self) -> None:
        self._interrupt.set()
        if self._pump is not None:
            self._pump.stop()

    # What is said of it.

    def _connected(self, protocol: Protocol) -> None:
        mqtt = self._mqtt
        self.cause = self.text = None
        self.protocol = protocol
        self._told = None
        self._set_state("connected")
        if mqtt.protocol == "auto" and protocol == "3.1.1" and not self._fallback_told:
            self._fallback_told = True
            log.warning("broker_fallback", url=mqtt.url, text="the broker refused MQTT 5")
        log.info("broker_connected", url=mqtt.url, protocol=protocol)
        self._on_session()

    def _failed(self, error: SessionError, protocol: Protocol) -> float:
        """An attempt brought no session; return how long to wait."""
        if self._mqtt.protocol == "auto" and error.unsupported_protocol and protocol == "5":
            self._fallback = "3.1.1"
            return 0.0
        if error.code == RETAIN_UNSUPPORTED and self._retain:
            self._retain = False
            return 0.0
        if protocol == "3.1.1" and not self._fallback_told:
            self._fallback = None  # nothing is remembered of a version that did not work either
        delay = self._reconnect.after_failure(refused=error.refused)
        self._set_state("refused" if error.refused else "unreachable", error)
        self.protocol = None
        event = "broker_refused" if error.refused else "broker_unreachable"
        if self._told != (event, error.cause):
            self._told = (event, error.cause)
            log.warning(event, url=self._mqtt.url, cause=error.cause, text=error.text, retry_s=round(delay, 1))
        return delay

    def _lost(self, loss: SessionError, lasted: float, *, window: int, guilty: bool) -> float:
        """A session was lost; return how long to wait.

        Args:
            window: how many messages it had under way at most.
            guilty: a message was found that is the reason.
        """
        self.protocol = None
        self._set_state("unreachable", loss)
        counts = self._outbox.counters()
        log.warning("broker_lost", url=self._mqtt.url, cause=loss.cause, text=loss.text, buffered=counts["buffered"])
        if guilty:
            self._reconnect.start_over()
        if lasted >= self._timing.short:
            self._most = MAX_WINDOW
        if loss.code in TOO_FAST:
            self._most = max(1, window // 2)
        was_twin = self._reconnect.twin
        # Not every broker says that it was a take-over: MQTT 3.1.1 cannot, and mosquitto 2.0 does not.
        kicked = loss.taken_over or (loss.cause == "closed_by_peer" and loss.code is None and not guilty)
        delay = self._reconnect.after_session(lasted, time.monotonic(), kicked=kicked)
        if self._reconnect.twin and not was_twin:
            log.error("broker_twin", client_id=self._mqtt.client_id, times=self._reconnect.kicks)
        return delay

    def _set_state(self, state: State, error: SessionError | None = None) -> None:
        if state != self.state:
            self.state = state
            self.since = time.monotonic()
        if error is not None:
            self.cause, self.text = error.cause, error.text

    def _announce_status(self) -> None:
        if (topic := self._topic(self._mqtt.status_topic)) is not None:
            self._retained.set(topic, lambda: self._status("online"))

    def _topic(self, template: str | None) -> str | None:
        return topics.expand(template, **self._names) if template is not None else None
