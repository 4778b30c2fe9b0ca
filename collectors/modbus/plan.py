"""Which requests read a set of tags: few, within the device's limits, and never past what was named for long.

Promises: every tag lies whole in exactly one request; no request crosses areas, exceeds the limit of its area, or reads
more than `max_gap` addresses in a row that no tag names; none begins or ends with an unnamed one.

Pure. May import: the standard library, `collectors.modbus.address`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from collectors.modbus.address import AREAS, BIT_AREAS, Area


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
    def is_bits(self) -> bool:
        """Whether the reply carries bits rather than registers."""
        return self.area in BIT_AREAS

    @property
    def payload(self) -> int:
        """Bytes of data that the reply must carry."""
        return (self.count + 7) // 8 if self.is_bits else 2 * self.count

    def __str__(self) -> str:
        last = self.offset + self.count - 1
        what = "bit" if self.is_bits else "register"
        place = f"{self.offset}..{last}" if self.count > 1 else str(self.offset)
        return f"{self.area} {place} ({self.count} {what}{'s' if self.count > 1 else ''})"


def plan(spans: Iterable[Span], *, max_registers: int, max_coils: int, max_gap: int) -> list[Block]:
    """Return the requests in the order of areas and offsets.

    Args:
        spans: none wider than the limit of its area, none past 65,535 (the configuration sees to that).
        max_registers, max_coils: how much one request of the two kinds of areas may read, >= 1.
        max_gap: how many unnamed addresses in a row may be read along, >= 0.
    """
    by_area: dict[Area, list[Span]] = {area: [] for area in AREAS}
    for span in spans:
        by_area[span.area].append(span)
    blocks: list[Block] = []
    for area, members in by_area.items():
        limit = max_coils if area in BIT_AREAS else max_registers
        blocks.extend(_plan_area(area, sorted(members, key=lambda span: (span.offset, span.width)), limit, max_gap))
    return blocks


def _plan_area(area: Area, spans: Sequence[Span], limit: int, max_gap: int) -> Iterable[Block]:
    # Extending the current block as far as it goes is optimal here: spans come by offset, and a block that starts
    # later reaches no less far.
    begun: list[Span] = []
    start = end = 0
    for span in spans:
        if begun and span.offset - end <= max_gap and max(end, span.end) - start <= limit:
            end = max(end, span.end)
            begun.append(span)
            continue
        if begun:
            yield Block(area, start, end - start, tuple(begun))
        begun, start, end = [span], span.offset, span.end
    if begun:
        yield Block(area, start, end - start, tuple(begun))
