"""Reads one Modbus device: due groups -> few requests -> one batch per group.

Promises: one bad block never spoils the others; requests on the line never overlap those of its other devices; a tag
is None with a quality unless its own reply was checked. May import: the standard library, `collectors.api`,
`collectors.line`, the other modules of this package.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from collectors.api import Batch, CollectorStats, Context, Lease, TagInfo, Unavailable, Value
from collectors.line import Line, Turn
from collectors.modbus.config import ModbusConfig
from collectors.modbus.guard import Guard
from collectors.modbus.healing import Knowledge
from collectors.modbus.link import DeviceException, Link, LinkLost, NoAnswer, connect
from collectors.modbus.mending import Mender, Plan
from collectors.modbus.reading import Reading

GIVE_UP_AFTER = 3
"""Time-outs in a row after which the rest of a poll is not asked for any more."""
REOPEN_IN_A_POLL = 1
"""How often a connection that is lost within a poll is opened again: one bad block must not spoil the others."""
GATEWAY_EXCEPTIONS = frozenset({10, 11})
"""A gateway answers for a unit that it cannot reach."""
AGE_S = 0.1
AGE_SHARE = 0.1
"""Tags sampled earlier than the batch by more than both (the share is of the interval) are told with their age."""


class ModbusCollector:
    """See `collectors.api.Collector`."""

    pushes: ClassVar[bool] = False

    def __init__(self, config: ModbusConfig, context: Context) -> None:
        self.tags_version = 1
        self._config = config
        self._context = context
        self._groups = config.groups()
        self._lease: Lease[Line[Link]] | None = None
        self._stats = CollectorStats()
        known = context.kept(("modbus", config.where, config.unit_id, config.name), lambda: Knowledge(time.monotonic))
        self._mender = Mender(config, known)
        self._guard = Guard(config, config.expect)

    @property
    def groups(self) -> Mapping[str, float]:
        """Group name -> interval in seconds."""
        return self._groups

    def tags(self) -> Sequence[TagInfo]:
        """What the configuration says; the device tells nothing of its tags."""
        return self._config.tag_infos()

    def stats(self) -> CollectorStats:
        """Counters so far."""
        return self._stats

    async def open(self) -> None:
        """Join the line of the device's address; connect it if no other device has. Raises Unavailable."""
        config = self._config
        host, port = config.endpoint
        if self._lease is None:
            self._lease = self._context.shared(
                ("modbus", host, port),
                lambda: Line(config.where, lambda timeout: connect(host, port, config.where, timeout)),
            )
        async with self._lease.resource.turn(time.monotonic()) as turn:
            await turn.connection(config.timeout)
        self._mender.known.reconnected()

    async def close(self) -> None:
        """Leave the line; the last one closes it."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        """Read the due groups. Raises Unavailable when no request was answered."""
        if self._lease is None:
            raise Unavailable("not-connected", "closed", "collect before open")
        plan = self._mender.plan(due)
        poll = _Poll(self._config, self._stats)
        async with self._lease.resource.turn(time.monotonic()) as turn:
            began = time.monotonic()
            probe = self._mender.probe(plan)
            if probe is not None:
                await poll.read(turn, [probe])
            await poll.read(turn, _in_order(plan.readings))
            if self._mender.wants(plan) and poll.was_answered:
                plan = await self._mender.mend(
                    plan, due, began, lambda one: poll.read(turn, [one]), lambda: not turn.blocks_others()
                )
            now, connects = time.monotonic(), self._lease.resource.connects
            if poll.was_answered and self._guard.is_due(now, connects):
                await self._guard.check(lambda one: poll.read(turn, [one]), now, connects)
        self._mender.known.mute = self._mender.known.mute or not poll.was_answered
        poll.raise_if_nothing_came()
        return [self._batch(group, plan) for group in self._groups if group in due]

    def _batch(self, group: str, plan: Plan) -> Batch:
        names: list[str] = []
        values: list[Value] = []
        quality: dict[str, str] = {}
        mine = [reading for reading in plan.readings if group in reading.decoders]
        times = [reading.at for reading in mine if reading.data is not None] or [reading.at for reading in mine]
        at = max(times, default=0.0) or time.monotonic()
        batch = Batch(self._config.name, group, at, {}, quality)
        allowed = max(AGE_S, AGE_SHARE * self._groups[group])
        for reading in mine:
            decoder = reading.decoders[group]
            names.extend(decoder.names)
            if reading.data is None:
                values.extend([None] * len(decoder.names))
                quality.update(dict.fromkeys(decoder.names, reading.quality))
                continue
            decoded, bad = decoder.decode(reading.data)
            values.extend(decoded)
            quality.update(bad)
            if at - reading.at > allowed:
                batch.age_ms.update(dict.fromkeys(decoder.names, round((at - reading.at) * 1000)))
        batch.values = dict(zip(names, values, strict=True))
        if missing := plan.missing.get(group):
            batch.values.update(dict.fromkeys(missing))
            quality.update(missing)
        return batch


def _in_order(readings: Sequence[Reading]) -> Sequence[Reading]:
    """What did not answer last time goes last: it must not make the others late."""
    return sorted(readings, key=lambda reading: reading.failures) if any(r.failures for r in readings) else readings


class _Poll:
    """One round of requests to one device: what came of each, and when to stop asking."""

    def __init__(self, config: ModbusConfig, stats: CollectorStats) -> None:
        self._config = config
        self._stats = stats
        self._good = 0
        self._unanswered = 0
        self._lost = 0
        self._began = 0.0
        self._over: Unavailable | None = None
        self._last: Unavailable | None = None

    async def read(self, turn: Turn[Link], readings: Sequence[Reading]) -> None:
        """Ask for the blocks; the outcome of each stands in its reading afterwards."""
        done = 0
        while done < len(readings):
            if turn.blocks_others():
                await turn.step_aside()
            link = await self._link(turn)
            if link is None:
                assert self._over is not None  # _link says why there is none
                for reading in readings[done:]:
                    reading.failed(f"bad:{self._over.reason}", time.monotonic(), asked=False)
                return
            done += await self._read_in_a_row(turn, link, readings[done:])

    async def _read_in_a_row(self, turn: Turn[Link], link: Link, readings: Sequence[Reading]) -> int:
        """Ask until somebody else has the right to the line, or one request fails; how many have an outcome."""
        config = self._config
        answers = iter(readings)
        done = 0

        def took(answer: bytes | DeviceException) -> bool:
            nonlocal done
            done += 1
            now = self._ended()
            if isinstance(answer, bytes):
                next(answers).came(answer, now)
                self._good += 1
                self._unanswered = 0
            else:
                self._refused(next(answers), now, answer.code)
            return not turn.blocks_others()

        self._began = time.monotonic()
        try:
            await link.read(config.unit_id, [reading.request for reading in readings], config.timeout, took)
        except NoAnswer:
            self._no_answer(readings[done], self._ended())
            # Whoever was due meanwhile goes first: one silent unit must not hold the line for a whole poll.
            await turn.step_aside(time.monotonic())
        except LinkLost as error:
            self._link_lost(readings[done], self._ended(), error)
            if error.cause == "closed_by_peer" and self._good == 0 and self._over is None:
                # Most likely the device closed an idle connection just as this poll began: that costs no reading.
                return done
        else:
            return done
        return done + 1

    @property
    def was_answered(self) -> bool:
        """Whether the device answered anything."""
        return self._good > 0

    def raise_if_nothing_came(self) -> None:
        """Raise what kept every request from being answered, if that is so."""
        if self._good == 0 and self._last is not None:
            raise self._last

    async def _link(self, turn: Turn[Link]) -> Link | None:
        """The connection, opened if need be; None once this poll is over."""
        if self._over is not None:
            return None
        try:
            return await turn.connection(self._config.timeout)
        except Unavailable as error:
            self._over = self._last = error
            return None

    def _ended(self) -> float:
        """Count a request that has its outcome, and the time it took; returns the time."""
        now = time.monotonic()
        self._stats.requests += 1
        self._stats.wire_s += now - self._began
        self._began = now  # of the next one, if there is one
        return now

    def _no_answer(self, reading: Reading, at: float) -> None:
        reading.failed("bad:timeout", at)
        config = self._config
        text = f"unit {config.unit_id} at {config.where} did not answer within {config.timeout:g} s"
        self._last = self._unavailable("timeout", "no_answer", text)
        self._unanswered += 1
        if self._unanswered >= GIVE_UP_AFTER:
            self._over = self._last

    def _refused(self, reading: Reading, at: float, code: int) -> None:
        reading.failed(f"bad:exception-{code}", at, code=code)
        self._unanswered = 0
        if code in GATEWAY_EXCEPTIONS:
            config = self._config
            text = f"the gateway {config.where} cannot reach unit {config.unit_id} (exception {code})"
            self._last = self._unavailable(f"exception-{code}", "no_answer", text)
        else:
            self._good += 1

    def _link_lost(self, reading: Reading, at: float, error: LinkLost) -> None:
        reading.failed(f"bad:{error.reason}", at)
        self._last = self._unavailable(error.reason, error.cause, error.text, error.detail)
        self._lost += 1
        if self._lost > REOPEN_IN_A_POLL:
            self._over = self._last

    def _unavailable(self, reason: str, cause: str, text: str, detail: str = "") -> Unavailable:
        facts: dict[str, str | int | float] = {"where": self._config.where, "unit_id": self._config.unit_id}
        if detail:
            facts["detail"] = detail
        return Unavailable(reason, cause, text, **facts)
