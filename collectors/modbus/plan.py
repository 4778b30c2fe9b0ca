"""Which requests read a set of tags: the least time on the wire, within limits, and never past what must not be read.

Promises: every tag lies whole in exactly one request, but those that are refused themselves, which are in none; no
request crosses areas, exceeds the limit of its area, or reads more than `max_gap` addresses in a row that no tag names;
none begins or ends with an unnamed one; none that reads more than one place contains a stretch that the device refuses,
or crosses a cut.

Pure. May import: the standard library, `collectors.modbus.address`, `collectors.modbus.wire`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from collectors.modbus.address import AREAS, BIT_AREAS, Area
from collectors.modbus.wire import TCP, Wire

Stretch: TypeAlias = tuple[int, int]
"""First offset, and the first behind it."""
Cut: TypeAlias = tuple[int, int]
"""Offset and width: places are ordered so, and no request holds some that come before it and some that do not."""


@dataclass(frozen=True, slots=True)
class Span:
    """The addresses that one tag takes; `index` says which tag."""

    area: Area
    offset: int
    width: int
    index: int

    @property
    def end(self) -> int:
        """First offset behind it."""
        return self.offset + self.width


@dataclass(frozen=True, slots=True)
class Block:
    """One request: `count` registers or bits of an area from `offset` on, and the spans that lie in it."""

    area: Area
    offset: int
    count: int
    spans: tuple[Span, ...]

    @property
    def end(self) -> int:
        """First offset behind it."""
        return self.offset + self.count

    @property
    def is_bits(self) -> bool:
        """Whether the reply carries bits rather than registers."""
        return self.area in BIT_AREAS

    @property
    def payload(self) -> int:
        """Bytes of data that the reply must carry."""
        return payload(self.area, self.count)

    def __str__(self) -> str:
        last = self.offset + self.count - 1
        what = "bit" if self.is_bits else "register"
        place = f"{self.offset}..{last}" if self.count > 1 else str(self.offset)
        return f"{self.area} {place} ({self.count} {what}{'s' if self.count > 1 else ''})"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the device takes, as it showed.

    Attributes:
        limits: how much one request of an area may read at most, where that is less than configured. A place that is
            wider is read alone all the same.
        refused: stretches that the device refuses, by area, sorted.
        cuts: where requests end for now, by area, sorted.
    """

    limits: Mapping[Area, int] = field(default_factory=dict)
    refused: Mapping[Area, Sequence[Stretch]] = field(default_factory=dict)
    cuts: Mapping[Area, Sequence[Cut]] = field(default_factory=dict)


ANYTHING = Rules()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration allows.

    Attributes:
        max_registers, max_coils: how much one request of the two kinds of areas may read, >= 1.
        max_gap: how many unnamed addresses in a row may be read along, >= 0.
        wire: what requests cost.
    """

    max_registers: int
    max_coils: int
    max_gap: int
    wire: Wire = TCP


def payload(area: Area, count: int) -> int:
    """Bytes of data that so many registers or bits take in a reply."""
    return (count + 7) // 8 if area in BIT_AREAS else 2 * count


def plan(spans: Iterable[Span], limits: Limits, rules: Rules = ANYTHING) -> list[Block]:
    """Return the requests in the order of areas and offsets.

    Args:
        spans: none wider than the limit of its area, none past 65,535 (the configuration sees to that).
        limits: what the configuration allows.
        rules: what the device allows.
    """
    by_area: dict[Area, dict[Stretch, list[Span]]] = {area: {} for area in AREAS}
    for span in spans:
        by_area[span.area].setdefault((span.offset, span.end), []).append(span)
    return [block for area, places in by_area.items() if places for block in _plan_area(area, places, limits, rules)]


def _plan_area(area: Area, places: Mapping[Stretch, list[Span]], limits: Limits, rules: Rules) -> Iterable[Block]:
    refused = rules.refused.get(area, ())
    configured = limits.max_coils if area in BIT_AREAS else limits.max_registers
    reach = _Reach(min(configured, rules.limits.get(area, configured)), refused)
    worth = _gap_worth(area, limits)
    alone = set(refused)
    wanted = sorted(place for place in places if place not in alone)
    for run in _runs(wanted, worth, rules.cuts.get(area, ())):
        for first, behind in _split(area, run, reach, worth, limits.wire):
            members = run[first:behind]
            end = max(end for _, end in members)
            found = tuple(span for place in members for span in places[place])
            yield Block(area, members[0][0], end - members[0][0], found)


def _gap_worth(area: Area, limits: Limits) -> int:
    """How many unnamed addresses it is worth to read along rather than to ask once more."""
    per_byte = 8 if area in BIT_AREAS else 0.5
    saved = limits.wire.request_s / limits.wire.byte_s * per_byte if limits.wire.byte_s else inf
    return int(min(limits.max_gap, saved))


def _runs(places: Sequence[Stretch], max_gap: int, cuts: Sequence[Cut]) -> Iterable[Sequence[Stretch]]:
    """Split where requests must end whatever their length."""
    begun = end = 0
    for index, (offset, behind) in enumerate(places):
        if index > begun and (offset - end > max_gap or _is_cut(places[index - 1], places[index], cuts)):
            yield places[begun:index]
            begun, end = index, 0
        end = max(end, behind)
    if places:
        yield places[begun:]


def _is_cut(before: Stretch, after: Stretch, cuts: Sequence[Cut]) -> bool:
    if not cuts:
        return False
    low, high = ((place[0], place[1] - place[0]) for place in (before, after))
    return bisect_right(cuts, low) < bisect_right(cuts, high)


class _Reach:
    """How far a request of several places may go that begins at an offset."""

    def __init__(self, limit: int, refused: Sequence[Stretch]) -> None:
        self._limit = limit
        self._firsts = [first for first, _ in refused]
        # From each refused stretch on: the nearest end, which no request may reach that begins before them.
        self._bounds = [end for _, end in refused]
        for index in range(len(refused) - 2, -1, -1):
            self._bounds[index] = min(self._bounds[index], self._bounds[index + 1])

    def __call__(self, offset: int) -> int:
        """The last offset allowed, plus one."""
        index = bisect_left(self._firsts, offset)
        reach = offset + self._limit
        return min(reach, self._bounds[index] - 1) if index < len(self._bounds) else reach


def _split(area: Area, run: Sequence[Stretch], reach: _Reach, worth: int, wire: Wire) -> Iterable[tuple[int, int]]:
    """Indices of the requests of a run, within which every gap is worth to be read along."""
    if max(end for _, end in run) <= reach(run[0][0]):
        return [(0, len(run))]
    if area in BIT_AREAS or _has_no_gap(run):
        # What is read along costs next to nothing: as far as each request goes, so that they are few. A request that
        # begins later reaches no less far.
        return _as_far_as_it_goes(run, reach, worth)
    return _cheapest(area, run, reach, worth, wire)


def _has_no_gap(run: Sequence[Stretch]) -> bool:
    end = run[0][0]
    for offset, behind in run:
        if offset > end:
            return False
        end = max(end, behind)
    return True


def _as_far_as_it_goes(run: Sequence[Stretch], reach: _Reach, worth: int) -> Iterable[tuple[int, int]]:
    begun = allowed = end = 0
    for index, (offset, behind) in enumerate(run):
        # A place may bridge a gap between others that it overlaps, and be in another request than they.
        if index > begun and (behind > allowed or offset - end > worth):
            yield begun, index
            begun = index
        if index == begun:
            allowed, end = reach(offset), 0
            if behind > allowed:
                allowed = 0  # wider than any request of several: it stays alone
        end = max(end, behind)
    yield begun, len(run)


def _cheapest(area: Area, run: Sequence[Stretch], reach: _Reach, worth: int, wire: Wire) -> list[tuple[int, int]]:
    """Where to end requests that must end somewhere: at the widest gaps, as far as that needs no more requests."""
    count = len(run)
    best = [0.0] + [inf] * count
    came_from = [0] * (count + 1)
    for begun in range(count):
        first, end = run[begun]
        allowed = reach(first)
        for index in range(begun, count):
            offset, behind = run[index]
            if index > begun and (max(end, behind) > allowed or offset - end > worth):
                break
            end = max(end, behind)
            cost = best[begun] + wire.request_s + wire.byte_s * payload(area, end - first)
            if cost < best[index + 1]:
                best[index + 1], came_from[index + 1] = cost, begun
    found = []
    behind = count
    while behind:
        found.append((came_from[behind], behind))
        behind = came_from[behind]
    return found[::-1]
