"""What is missing and why: the list that subscribers are told until they have it.

Promises: every loss that was added is told until `told` names it unchanged; neighbours are one entry; the list is
bounded, and what the bound merges is still covered. Pure. May import: the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_GAPS = 200
"""Entries kept; beyond it the two oldest neighbours of one run and reason become one range."""
REPEATED = 20
"""How many of the newest are told again although they were acknowledged."""


@dataclass(slots=True)
class Gap:
    """Messages `first` to `last` of a run that will never come; None = which ones is not known.

    `run` is None when even that is not known (a damaged store).
    """

    run: str | None
    first: int | None
    last: int | None
    reason: str
    told: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The entry as subscribers see it."""
        return {"run": self.run, "from": self.first, "to": self.last, "reason": self.reason}


class Gaps:
    """The bounded list of gaps, oldest first."""

    def __init__(self) -> None:
        self._gaps: list[Gap] = []
        self.changed = False

    def __len__(self) -> int:
        return len(self._gaps)

    def load(self, gaps: Iterable[Gap]) -> None:
        """Put gaps of earlier runs before those of this one."""
        self._gaps[:0] = gaps
        self._bound()

    def add(self, run: str | None, first: int | None, last: int | None, reason: str) -> None:
        """Tell that these are missing; joins a neighbouring range of the same run and reason."""
        self.changed = True
        if first is not None and last is not None:
            for gap in reversed(self._gaps[-REPEATED:]):
                if self._joins(gap, run, first, last, reason):
                    gap.first = min(gap.first or 0, first)
                    gap.last = max(gap.last or 0, last)
                    gap.told = False
                    return
        elif any(gap.run == run and gap.reason == reason and gap.first is None for gap in self._gaps):
            return
        self._gaps.append(Gap(run, first, last, reason))
        self._bound()

    def listing(self) -> list[dict[str, Any]]:
        """All that were not acknowledged, and the newest `REPEATED` in any case."""
        newest = len(self._gaps) - REPEATED
        return [gap.as_dict() for at, gap in enumerate(self._gaps) if at >= newest or not gap.told]

    def told(self, gaps: Iterable[Mapping[str, Any]]) -> None:
        """Note that these, as `listing` gave them, arrived. One that grew meanwhile stays untold."""
        arrived = {(gap["run"], gap["from"], gap["to"], gap["reason"]) for gap in gaps}
        for gap in self._gaps:
            if not gap.told and (gap.run, gap.first, gap.last, gap.reason) in arrived:
                gap.told = True
                self.changed = True
        spare = len(self._gaps) - REPEATED
        if spare > 0:
            self._gaps = [gap for at, gap in enumerate(self._gaps) if at >= spare or not gap.told]

    def rows(self) -> list[tuple[str | None, int | None, int | None, str, bool]]:
        """What the store keeps."""
        return [(gap.run, gap.first, gap.last, gap.reason, gap.told) for gap in self._gaps]

    @staticmethod
    def _joins(gap: Gap, run: str | None, first: int, last: int, reason: str) -> bool:
        if gap.run != run or gap.reason != reason or gap.first is None or gap.last is None:
            return False
        return first <= gap.last + 1 and last >= gap.first - 1

    def _bound(self) -> None:
        while len(self._gaps) > MAX_GAPS:
            if not self._merge_two():
                oldest_told = next((at for at, gap in enumerate(self._gaps) if gap.told), 0)
                del self._gaps[oldest_told]

    def _merge_two(self) -> bool:
        """Make one range of the two oldest of a run and reason; what lies between them was delivered."""
        seen: dict[tuple[str | None, str], Gap] = {}
        for at, gap in enumerate(self._gaps):
            if gap.first is None or gap.last is None:
                continue
            earlier = seen.setdefault((gap.run, gap.reason), gap)
            if earlier is not gap:
                earlier.first = min(earlier.first or 0, gap.first)
                earlier.last = max(earlier.last or 0, gap.last)
                earlier.told = earlier.told and gap.told
                del self._gaps[at]
                return True
        return False
