"""Whether the rates that are asked of a line fit into its time, and which would.

Pure. May import: `collectors.api`, `collectors.fields`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collectors.api import Estimate, group_name
from collectors.fields import parse_duration

ROOM = 0.8
"""How much of a line's time may be planned: the rest is for repeats and slow answers."""
_ROUND_S = (
    0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 900.0, 1800.0, 3600.0
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """What one device asks of its line: the estimate, and the names of its groups (`1s`, `5min`)."""

    device: str
    estimate: Estimate
    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class Budget:
    """One line.

    Attributes:
        line: its name or address.
        busy: share of its time that the asked rates take, 1.0 = always busy.
        room: share that may be taken.
        devices: on it.
        fits: (device, group) -> the group that would fit instead; empty if the asked rates do.
    """

    line: str
    busy: float
    room: float
    devices: Sequence[str]
    fits: Mapping[tuple[str, str], str]

    def __str__(self) -> str:
        if not self.fits:
            return ""
        # One factor for all: equal groups change alike.
        slower = {group: instead for (_, group), instead in self.fits.items()}
        changes = ", ".join(f"{group} -> {instead}" for group, instead in slower.items())
        verdict = "cannot keep up" if self.busy > 1 else "nearly full: no time for repeats"
        return f"{verdict}, {self.room:.0%} may be used; these rates fit: {changes}"


def budgets(asked: Sequence[Asked], room: Mapping[str, float]) -> list[Budget]:
    """The lines in the order of their first devices.

    Args:
        asked: all devices; those without a line are left out.
        room: share of a line's time that may be used, where that is less than `ROOM`.
    """
    lines: dict[str, list[Asked]] = {}
    for one in asked:
        if one.estimate.line is not None:
            lines.setdefault(one.estimate.line, []).append(one)
    return [_budget(line, members, min(ROOM, room.get(line, ROOM))) for line, members in lines.items()]


def _budget(line: str, members: Sequence[Asked], room: float) -> Budget:
    busy = sum(one.estimate.wire_s_per_s for one in members)
    fits: dict[tuple[str, str], str] = {}
    if busy > room:
        # All by the same factor: who asked for fresher values than others still gets them.
        factor = busy / room
        fits = {
            (one.device, group): group_name(_rounded_up(parse_duration(group) * factor))
            for one in members
            for group in one.groups
        }
    return Budget(line, busy, room, [one.device for one in members], fits)


def _rounded_up(seconds: float) -> float:
    return next((nice for nice in _ROUND_S if nice >= seconds - 1e-9), -(-seconds // 3600) * 3600)
