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
from collectors.line import Line
from collectors.modbus.config import ModbusConfig
from collectors.modbus.connector import line_key, line_stats, make_line
from collectors.modbus.guard import Guard
from collectors.modbus.healing import Knowledge
from collectors.modbus.link import ModbusLink
from collectors.modbus.mending import Mender, Plan
from collectors.modbus.poll import Poll, line_facts
from collectors.modbus.reading import Reading
from collectors.modbus.silence import Silence

LATE_S = 0.05
LATE_SHARE = 0.1
"""A poll that waits for its turn longer than both is late (the share is of the shortest interval that is due)."""
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
        self._lease: Lease[Line[ModbusLink]] | None = None
        self._stats = CollectorStats()
        self._key = line_key(config.settings)
        self._line_stats = line_stats(context, config.line_label)
        self._silence = context.kept(("modbus silence", str(config.endpoint), config.unit_id), Silence)
        self._park = False
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
        """Join the device's line; connect it if no other device has. Raises Unavailable, Misconfigured."""
        config, settings = self._config, self._config.settings
        if self._lease is None:
            parked = self._context.parked(config.name)
            self._lease = self._context.shared(self._key, lambda: make_line(settings, self._context, config.line_label))
            if parked is not None:
                await parked.release()  # only now: the line has not been without a user in between
        try:
            if self._has_company and self._silence.lasts(time.monotonic()):
                raise self._silence.error(line_facts(config, self._line_stats))
            async with self._lease.resource.turn(time.monotonic()) as turn:
                await turn.connection(config.timeout)
        except Unavailable:
            self._park = settings.is_rtu
            self._line_stats.answering.discard(config.name)
            raise
        self._mender.known.reconnected()

    async def close(self) -> None:
        """Leave the line; the last one closes it. A serial line is kept for the next attempt of a silent device."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self._park:
            await self._context.unpark([self._config.name])
            self._context.park(self._config.name, lease)
        else:
            self._line_stats.answering.discard(self._config.name)
            await lease.release()

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        """Read the due groups. Raises Unavailable when no request was answered."""
        if self._lease is None:
            raise Unavailable("not-connected", "closed", "collect before open")
        plan = self._mender.plan(due)
        company = self._has_company
        longest, slowest = self._config.timeout, self._line_stats.slowest_s
        first = self._silence.timeout(time.monotonic(), longest, slowest) if company else None
        poll = Poll(self._config, self._stats, self._line_stats, first_timeout=first, hasty=company)
        async with self._lease.resource.turn(time.monotonic()) as turn:
            began = time.monotonic()
            self._line_stats.late += turn.waited_s > max(LATE_S, LATE_SHARE * min(self._groups[group] for group in due))
            probe = self._mender.probe(plan)
            if probe is not None:
                await poll.read(turn, [probe])
            await poll.read(turn, _in_order(plan.readings))
            if poll.was_answered:
                await self._guard.look(
                    plan.readings, lambda one: poll.read(turn, [one]), time.monotonic(), self._line_stats.connects
                )
            # Where everything was refused nothing is planned, and only questions show that it is read again.
            if self._mender.wants(plan) and (poll.was_answered or not plan.readings):
                plan = await self._mender.mend(
                    plan, due, began, lambda one: poll.read(turn, [one]), lambda: not turn.blocks_others()
                )
        self._mender.known.mute = self._mender.known.mute or (bool(plan.readings) and not poll.was_answered)
        self._note(poll)
        poll.raise_if_nothing_came()
        return [self._batch(group, plan) for group in self._groups if group in due]

    @property
    def _has_company(self) -> bool:
        """Whether other devices are on the line, who must not wait for this one."""
        return self._context.users(self._key) > 1

    def _note(self, poll: Poll) -> None:
        """Remember whether the device answered, for the next attempt and for what is said of the line."""
        self._park = False
        if poll.was_answered:
            self._silence.broken(poll.slowest_s)
            self._line_stats.answering.add(self._config.name)
            return
        self._line_stats.answering.discard(self._config.name)
        try:
            poll.raise_if_nothing_came()
        except Unavailable as error:
            self._park = self._config.settings.is_rtu
            if poll.silent_s:
                self._silence.goes_on(time.monotonic(), poll.silent_s, error)

    def _batch(self, group: str, plan: Plan) -> Batch:
        part = plan.part(group)
        values: list[Value] = []
        quality: dict[str, str] = {}
        times = [reading.at for reading in part.readings if reading.data is not None]
        at = max(times or [reading.at for reading in part.readings], default=0.0) or time.monotonic()
        batch = Batch(self._config.name, group, at, {}, quality)
        allowed = max(AGE_S, AGE_SHARE * self._groups[group])
        for reading, decoder in zip(part.readings, part.decoders, strict=True):
            if reading.data is None:
                values.extend([None] * len(decoder.names))
                quality.update(dict.fromkeys(decoder.names, reading.quality))
                continue
            decoded, bad = decoder.decode(reading.data)
            values.extend(decoded)
            quality.update(bad)
            if at - reading.at > allowed:
                batch.age_ms.update(dict.fromkeys(decoder.names, round((at - reading.at) * 1000)))
        batch.values = dict(zip(part.names, values, strict=True))
        if missing := plan.missing.get(group):
            batch.values.update(dict.fromkeys(missing))
            quality.update(missing)
        return batch


def _in_order(readings: Sequence[Reading]) -> Sequence[Reading]:
    """What did not answer last time goes last: it must not make the others late."""
    return sorted(readings, key=lambda reading: reading.failures) if any(r.failures for r in readings) else readings
