"""Carries out what `healing.py` wants to know: within a poll, in the time that it leaves, and never at others' cost.

May import: the standard library, `collectors.api`, the other modules of this package but `collector`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from collectors.api import group_name
from collectors.modbus.config import ModbusConfig, ModbusTag
from collectors.modbus.decode import Decoder
from collectors.modbus.healing import SILENT, Ask, Knowledge, Outcome, left_out
from collectors.modbus.layout import blocks_of, limits_of, spans_of
from collectors.modbus.plan import Block
from collectors.modbus.reading import Reading, reading_of

SHARE = 0.5
"""Of the shortest interval that is due: as much of it a poll may take, further questions included."""
MOST_ASKED = 32
"""Further questions in one poll."""
MUTE_AFTER = 2
"""Polls in a row in which a block stays mute while others answer, before it is cut or rests."""
ADDRESS_CODES = frozenset({2, 3})
PLANS_KEPT = 16
"""Compiled plans by set of due groups; more sets than this come up only with very odd intervals."""


_SILENCES = frozenset({"bad:timeout", "bad:not-connected"})


class Part(NamedTuple):
    """What of a plan is one group's: its requests, the decoder of each, and the tags in the order of their values."""

    readings: Sequence[Reading]
    decoders: Sequence[Decoder]
    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one poll reads.

    Attributes:
        readings: the requests.
        missing: group -> tags that are in none -> their quality.
    """

    readings: Sequence[Reading]
    missing: Mapping[str, Mapping[str, str]]
    _parts: dict[str, Part] = field(default_factory=dict, init=False)

    def part(self, group: str) -> Part:
        """A group's part, put together once."""
        found = self._parts.get(group)
        if found is None:
            readings = tuple(reading for reading in self.readings if group in reading.decoders)
            decoders = tuple(reading.decoders[group] for reading in readings)
            names = tuple(name for decoder in decoders for name in decoder.names)
            found = self._parts[group] = Part(readings, decoders, names)
        return found


class Mender:
    """The plans of one device, made anew whenever it shows something new."""

    def __init__(self, config: ModbusConfig, known: Knowledge) -> None:
        self.known = known
        self._config = config
        self._plans: dict[frozenset[str], Plan] = {}
        self._old: dict[frozenset[str], Plan] = {}
        self._version = known.version
        self._fitted = False

    def plan(self, due: frozenset[str]) -> Plan:
        """The requests that read the due groups together; the same as long as nothing new is known."""
        if not self._fitted:
            self._fitted = True
            self.known.fit(hash(tuple((tag.where, tag.registers) for tag in self._config.tags)))
        if self._version != self.known.version:
            self._version = self.known.version
            self._old, self._plans = self._plans, {}
        found = self._plans.get(due)
        if found is None:
            if len(self._plans) >= PLANS_KEPT:
                self._plans.pop(next(iter(self._plans)))
            old = self._old.pop(due, None)
            kept = {reading.block: reading for reading in old.readings} if old is not None else {}
            tags = list(self._config.tags)
            blocks = blocks_of(self._config, due, self.known.rules, tags=tags)
            readings = [kept.get(block) or reading_of(self._config, block, tags) for block in blocks]
            out = left_out(self.known, spans_of(self._config, due, tags=tags))
            found = self._plans[due] = Plan(readings, self._by_group(out, tags))
        return found

    def probe(self, plan: Plan) -> Reading | None:
        """A request as short as can be, to be asked first, of a device that was mute to all the longer ones.

        Some take long requests for nothing: no answer at all, or a closed connection.
        """
        if not self.known.mute or not plan.readings:
            return None
        block = min((reading.block for reading in plan.readings), key=lambda block: block.count)
        shortest = min(block.spans, key=lambda span: span.width)
        if shortest.width == block.count:
            return None
        return reading_of(self._config, Block(block.area, shortest.offset, shortest.width, ()))

    def wants(self, plan: Plan) -> bool:
        """Whether there is something to find out: after a poll that did not bring all, or because it is time."""
        return self.known.has_questions or any(reading.data is None for reading in plan.readings)

    async def mend(
        self,
        plan: Plan,
        due: frozenset[str],
        began: float,
        ask: Callable[[Reading], Awaitable[None]],
        may_go_on: Callable[[], bool],
    ) -> Plan:
        """Ask further, after a poll in which something was answered; returns the plan with what that brought of tags.

        Args:
            began: when the poll began, in monotonic seconds.
            ask: sends the request of a reading, and notes the outcome in it.
            may_go_on: whether the line is free for more.
        """
        known = self.known
        refused = {reading.block: reading for reading in plan.readings if reading.code in ADDRESS_CODES}
        came = [reading.block for reading in plan.readings if reading.data is not None]
        for block in came:
            known.was_read(block)
        for reading in plan.readings:
            if reading.data is None and reading.failures >= MUTE_AFTER and _outcome(reading) is Outcome.SILENT:
                known.not_read(reading.block, SILENT)
        if refused and not known.believes(len(came)):
            return plan
        known.mute = known.mute and not came
        if not refused and not known.has_questions:
            return plan  # a reply was lost: that alone is not worth unpacking all tags
        groups = self._config.groups()
        ends = began + SHARE * min(groups[group] for group in due)
        parts = await self._ask_further(due, list(refused), ask, lambda: time.monotonic() < ends and may_go_on())
        return self._found(plan, refused, parts) if refused or parts else plan

    async def _ask_further(
        self,
        due: frozenset[str],
        refused: Sequence[Block],
        ask: Callable[[Reading], Awaitable[None]],
        may_go_on: Callable[[], bool],
    ) -> list[Reading]:
        parts: list[Reading] = []
        every = frozenset(self._config.groups())
        tags = list(self._config.tags)
        steps = self.known.heal(refused, limits_of(self._config), spans_of(self._config, every, tags=tags))
        step = next(steps, None)
        for asked in range(MOST_ASKED):
            if step is None or (asked and not may_go_on()):
                break
            block = step.block
            if step.kind == "retry":
                here = (block.area, block.offset, block.end)
                found = (
                    one for one in spans_of(self._config, due, tags=tags) if (one.area, one.offset, one.end) == here
                )
                block = Block(block.area, block.offset, block.count, tuple(found))
            reading = reading_of(self._config, block, tags)
            await ask(reading)
            if block.spans:
                parts.append(reading)
            outcome = _outcome(reading)
            step = _next(steps, outcome)
            if outcome in {Outcome.SILENT, Outcome.UNKNOWN}:
                break  # no further question that may end in a time-out
        steps.close()
        return parts

    def _found(self, plan: Plan, refused: Mapping[Block, Reading], parts: Sequence[Reading]) -> Plan:
        """The plan as it turned out: the parts that came instead of the blocks that did not."""
        came = [reading for reading in parts if reading.data is not None]
        spans = {span.index: (span, reading) for block, reading in refused.items() for span in block.spans}
        missing = {group: dict(names) for group, names in plan.missing.items()}
        for reading in came:
            for span in reading.block.spans:
                spans.pop(span.index, None)
            for group, decoder in reading.decoders.items():
                for name in decoder.names:
                    missing.get(group, {}).pop(name, None)
        out = {
            index: self.known.quality(span.area, (span.offset, span.end)) or reading.quality
            for index, (span, reading) in spans.items()
        }
        for group, names in self._by_group(out, self._config.tags).items():
            missing.setdefault(group, {}).update(names)
        return Plan([*(one for one in plan.readings if one.block not in refused), *came], missing)

    def _by_group(self, out: Mapping[int, str], tags: Iterable[ModbusTag]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        tags = list(tags) if out else ()
        for index, quality in out.items():
            tag = tags[index]
            found.setdefault(group_name(self._config.interval_of(tag)), {})[tag.name] = quality
        return found


def _next(steps: Generator[Ask, Outcome, None], outcome: Outcome) -> Ask | None:
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


def _outcome(reading: Reading) -> Outcome:
    if reading.data is not None:
        return Outcome.READ
    if reading.code in ADDRESS_CODES:
        return Outcome.REFUSED
    return Outcome.SILENT if reading.failures and reading.quality in _SILENCES else Outcome.UNKNOWN
