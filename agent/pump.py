"""The pump of one MQTT session: fills the window from the outbox's lanes, and hands back what is acknowledged.

Into the window go, in this order: retained documents and the agent's own counters (a quarter of it at most), fresh
messages, backlog (three quarters at most, less when acknowledgements slow, at `replay_rate`).

Promises: never more unacknowledged than the broker and the configuration allow; nothing larger than the broker takes is
sent; a refused message goes aside and nothing waits for it; fresh messages never wait for the backlog's disk; no
task, future or log line per message.

May import: `agent.alarm`, `agent.buffer.outbox`, `agent.formats`, `agent.message`, `agent.mqtt`, `agent.mqtt_errors`,
`agent.pace`, `agent.replay`, `agent.retained`, `agent.suspicion`, structlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

import structlog

from agent.alarm import Alarm
from agent.mqtt import Limits, Session
from agent.mqtt_errors import TOO_FAST, SessionError
from agent.pace import Timing
from agent.replay import Replay

if TYPE_CHECKING:
    from agent.buffer.outbox import Outbox
    from agent.formats import Format
    from agent.message import Message
    from agent.retained import Retained
    from agent.suspicion import Shunned

log = structlog.get_logger("shopfloor.broker")

TICK_S = 1.0
ACK_LATER_S = 0.1
"""Acknowledgements that nothing waits for may lie so long: then many cost one round, or none of their own."""
_REFUSED = 0x80
_TOO_LARGE = 0x95
_REASONS = {
    0x80: "unspecified",
    0x83: "implementation-specific",
    0x87: "not-authorized",
    0x90: "topic-name-invalid",
    _TOO_LARGE: "too-large",
    0x99: "payload-format-invalid",
}
_TELL_AT_MOST = 100
"""Refusals of so many devices and reasons are told each; further ones are only counted."""


class _Sent(NamedTuple):
    """What waits for its acknowledgement: a message, or what to do with the answer to something else."""

    at: float
    message: Message | None
    backlog: bool
    topic: str
    answered: Callable[[int], None] | None


class Pump:
    """Publishes through one session until it ends or `stop` is called.

    Args:
        session: connected.
        limits: what `session.connect` returned.
        form: how messages are written.
        window: configured; less if the broker allows less.
        careful: how many messages are sent one at a time first.
        shunned: topics of readings that are not published now; those that work again are taken from it.
        barred: topics of our own that are not published.
        replay_rate: backlog messages a second, 0 = no limit.
        agent_topic: where the agent's counters go, or None.
        agent_message: makes them; the gaps in it are those of `outbox.gaps()`.
        on_round: called at least once a second.
        wake: the outbox's event of news, which the session and `retained` set too.
    """

    def __init__(
        self,
        session: Session,
        limits: Limits,
        *,
        form: Format,
        window: int,
        careful: int,
        shunned: Shunned,
        barred: Collection[str],
        replay_rate: float,
        outbox: Outbox,
        retained: Retained,
        agent_topic: str | None,
        agent_message: Callable[[], bytes],
        timing: Timing,
        on_round: Callable[[], None],
        wake: asyncio.Event,
    ) -> None:
        now = time.monotonic()
        self._full_window = min(window, limits.window)
        self._careful = careful
        self._shunned = shunned
        self._refusal: tuple[float, str, int] | None = None
        self._barred = barred
        self.window = 1 if careful else self._full_window
        self._session = session
        self._limits = limits
        self._form = form
        self._outbox = outbox
        self._retained = retained
        self._agent_topic = agent_topic
        self._agent_message = agent_message
        self._agent_at = now
        self._timing = timing
        self._on_round = on_round
        self._wake = wake
        self._stopping = False
        self._sent: dict[int, _Sent] = {}
        self._own = 0
        self._own_turn = True
        self._again: deque[Message] = deque()
        self._resume_at = now
        self._pause = 1.0
        self._heard_at = now
        self._newest_acked = self._next_at = now
        # Before the outbox would write what is acknowledged already.
        self._ack_later = min(ACK_LATER_S, outbox.commit_interval / 5)
        self._alarm = Alarm(lambda: self._next_at, wake.set)
        self._told: set[tuple[str, int]] = set()
        most = self._full_window - max(1, self._full_window // 4)
        self._replay = Replay(outbox, rate=replay_rate, most=most, timing=timing, arrived=wake.set, now=now)

    @property
    def under_way(self) -> list[Message | str]:
        """What waits for an acknowledgement, oldest first: messages, and topics of what is our own."""
        return [sent.message or sent.topic for sent in self._sent.values()]

    @property
    def careful(self) -> bool:
        """One message at a time."""
        return self._careful > 0

    async def run(self) -> SessionError | None:
        """Publish until the session ends (returns why) or `stop` is called (returns None)."""
        try:
            while True:
                now = time.monotonic()
                self._on_round()
                self._take_answers(now)
                if self._session.lost is not None:
                    return self._session.lost
                if self._stopping:
                    return None
                if (silence := self._silence(now)) is not None:
                    return silence
                self._fill(now)
                self._wake.clear()  # whatever was new when this round began, and what it did itself, is dealt with
                self._set_timer(now)
                await self._wake.wait()
        finally:
            self._alarm.cancel()
            await self._replay.finish()

    def stop(self) -> None:
        """Send nothing more and let `run` return."""
        self._stopping = True
        self._wake.set()

    async def say_last(self, topic: str, payload: bytes, seconds: float) -> bool:
        """After `run`: publish a retained document and wait for its acknowledgement; True if it came in time."""
        answers: list[int] = []
        sent = False
        self._session.patient = False
        deadline = time.monotonic() + seconds
        while not answers:
            now = time.monotonic()
            if now >= deadline or self._session.lost is not None:
                return False
            if not sent and len(self._sent) < self.window:
                if not self._limits.fits(topic, payload):
                    return False
                self._publish_own(topic, payload, answers.append, now, retain=True)
                sent = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - now):
                    await self._wake.wait()
            self._wake.clear()
            self._take_answers(time.monotonic())
        return answers[0] < _REFUSED

    def give_up(self, message: Message, code: int | None) -> tuple[str, int]:
        """After the session: this message is what made the broker end it; its topic and size."""
        self._refused(message, _REFUSED if code is None else code, time.monotonic())
        return self._form.publication(message)[0], len(message.body)

    def refused_last(self, within: float) -> tuple[str, int] | None:
        """Topic and size of a message refused so many seconds ago at most: some brokers end the session then."""
        if self._refusal is None or time.monotonic() - self._refusal[0] > within:
            return None
        return self._refusal[1:]

    def settle(self) -> None:
        """Take the last acknowledgements of a session that has ended."""
        self._take_answers(time.monotonic())

    # What comes back.

    def _take_answers(self, now: float) -> None:
        acks = self._session.take_acks()
        if not acks:
            return
        delivered: list[Message] = []
        replayed = self._replay.sent
        newest: _Sent | None = None
        for mid, code in acks:
            sent = self._sent.pop(mid, None)
            if sent is None:
                continue
            newest = sent
            self._replay.sent -= sent.backlog
            if sent.message is None:
                self._own -= 1
                if sent.answered is not None:
                    sent.answered(code)
            elif code < _REFUSED:
                delivered.append(sent.message)
                if self._shunned:
                    self._shunned.worked(sent.topic, len(sent.message.body))
            else:
                self._refusal = (now, sent.topic, len(sent.message.body))
                self._refused(sent.message, code, now)
            self._careful -= self._careful > 0
        if newest is not None:
            self._heard_at = now
            self._newest_acked = newest.at
            if not self._session.patient:  # else it lay here, and how long it took is not known
                self._replay.acknowledged(now - newest.at, now, replayed)
        if delivered:
            self._outbox.ack(delivered)
            if not self._careful and now >= self._resume_at:
                self.window = min(self._full_window, self.window + len(delivered))
                self._pause = 1.0 if self.window == self._full_window else self._pause

    def _refused(self, message: Message, code: int, now: float) -> None:
        if code in TOO_FAST:
            message.replayed = True
            self._again.append(message)
            if now >= self._resume_at:  # once for all that were under way
                self.window = max(1, self.window // 2)
                self._resume_at = now + self._pause
                self._pause = min(2 * self._pause, 60.0)
            return
        dropped = self._outbox.refuse(message, "too-large" if code == _TOO_LARGE else "refused")
        event = "message_dropped" if dropped else "message_parked"
        key = (f"{event} {message.device}", code)
        if key not in self._told and len(self._told) < _TELL_AT_MOST:
            self._told.add(key)
            reason = _REASONS.get(code, f"0x{code:02x}")
            log.warning(event, device=message.device, seq=message.seq, reason=reason, code=code)

    def _silence(self, now: float) -> SessionError | None:
        """Whether the broker stopped acknowledging, although the connection stands."""
        oldest = next(iter(self._sent.values()), None)
        if oldest is None:
            return None
        where = self._session.endpoint.where
        waited = now - max(oldest.at, self._heard_at)
        if waited > self._timing.silent:
            return SessionError("silent", f"{where} acknowledged nothing for {waited:.0f} s", where=where)
        if now - oldest.at > self._timing.skipped and self._newest_acked > oldest.at:
            return SessionError("silent", f"{where} acknowledges later messages but not earlier ones", where=where)
        return None

    # What goes out.

    def _fill(self, now: float) -> None:
        if self._own_turn or self.window > 1:
            self._send_own(now)
        if now >= self._resume_at:
            before = len(self._sent)
            if self._careful % 2:  # one at a time: each lane in turn, since the guilty one is in either
                self._send_backlog(now)
            while self._again and len(self._sent) < self.window:
                self._publish(self._again.popleft(), now)
            self._send_live(now)
            self._send_backlog(now)
            if len(self._sent) > before:
                self._own_turn = True
        self._send_own(now)

    @property
    def _most_own(self) -> int:
        return max(1, self.window // 4)

    def _send_own(self, now: float) -> None:
        while self._own < self._most_own and len(self._sent) < self.window:
            following = self._retained.next(now)
            if following is None:
                if self._agent_topic is not None and now >= self._agent_at:
                    self._agent_at = now + self._timing.every
                    self._send_counters(self._agent_topic, now)
                return
            topic, payload = following
            if topic in self._barred:
                continue
            if not self._limits.fits(topic, payload):
                log.warning("retained_too_large", topic=topic, bytes=len(payload), limit=self._limits.packet_size)
                continue
            self._publish_own(topic, payload, self._retained_answer(topic, payload), now, retain=True)

    def _send_counters(self, topic: str, now: float) -> None:
        if topic in self._barred:
            return
        gaps = self._outbox.gaps()
        payload = self._agent_message()
        if not self._limits.fits(topic, payload):
            log.warning("counters_too_large", topic=topic, bytes=len(payload), limit=self._limits.packet_size)
            return

        def answered(code: int) -> None:
            if code < _REFUSED:
                self._outbox.gaps_told(gaps)

        self._publish_own(topic, payload, answered, now, retain=False)

    def _retained_answer(self, topic: str, payload: bytes) -> Callable[[int], None]:
        return lambda code: self._retained.answered(topic, payload, accepted=code < _REFUSED)

    def _publish_own(
        self, topic: str, payload: bytes, answered: Callable[[int], None], now: float, *, retain: bool
    ) -> None:
        mid = self._session.publish(topic, payload, retain=retain and self._limits.retain)
        self._sent[mid] = _Sent(now, None, False, topic, answered)
        self._own += 1
        self._own_turn = False

    def _send_live(self, now: float) -> None:
        while (free := self.window - len(self._sent)) > 0:
            messages = self._outbox.take_live(free)
            if not messages:
                return
            for message in messages:
                self._publish(message, now)

    def _publish(self, message: Message, now: float, *, backlog: bool = False) -> None:
        topic, payload = self._form.publication(message)
        if not self._limits.fits(topic, payload):
            self._refused(message, _TOO_LARGE, now)
            return
        if self._shunned and self._shunned.shuns(topic, len(message.body), now):
            self._refused(message, _REFUSED, now)
            return
        self._sent[self._session.publish(topic, payload)] = _Sent(now, message, backlog, topic, None)
        self._replay.sent += backlog

    def _send_backlog(self, now: float) -> None:
        for message in self._replay.next(now, self.window - len(self._sent)):
            self._publish(message, now, backlog=True)
        self._replay.tell(now)

    # When.

    def _set_timer(self, now: float) -> None:
        """See to it that the next round begins in time."""
        was_patient = self._session.patient
        self._session.patient = patient = self._may_wait(now)
        delay = TICK_S
        if patient and self._sent:
            delay = self._ack_later
        elif was_patient and self._session.has_acks:  # came while nobody was told of them
            delay = 0.0
        if len(self._sent) < self.window:
            if (wait := self._retained.wait_s(now)) is not None:
                delay = min(delay, wait)
            if (wait := self._replay.wait_s()) is not None:
                delay = min(delay, wait)
            if self._again:
                delay = min(delay, max(0.0, self._resume_at - now))
        self._next_at = now + delay
        self._alarm.look_at(self._next_at)

    def _may_wait(self, now: float) -> bool:
        """Whether nothing is sent sooner for seeing an acknowledgement at once."""
        return (
            self._ack_later > 0
            and self._careful == 0
            and now >= self._resume_at
            and self._replay.idle
            and self._own < self._most_own
            and len(self._sent) <= self.window // 4
        )
