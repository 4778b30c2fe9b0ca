"""What a scenario returns: claims, each with what was done, the figure it came to, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent import columns


@dataclass(frozen=True)
class Claim:
    """One row of the table; `passed` None = a figure that nothing was promised of.

    `timing`: it stands or falls with how busy the machine is; told, but not judged in the short form.
    """

    claim: str
    done: str
    figure: str
    passed: bool | None = None
    timing: bool = False


@dataclass(frozen=True)
class Options:
    """What a scenario is given.

    Attributes:
        disk: an empty directory on a real disk.
        memory: an empty directory in memory, for what a gateway keeps there.
        seed: of all randomness.
        short: a few seconds of everything, as part of `make test`.
        minutes, cycles: asked for on the command line, in place of what a scenario takes by itself.
    """

    disk: Path
    memory: Path
    seed: int
    short: bool = False
    minutes: float | None = None
    cycles: int | None = None

    def times(self, long: int, short: int) -> int:
        """How often a fault is repeated."""
        return (short if self.short else long) if self.cycles is None else self.cycles

    def lasting(self, long: float, short: float) -> float:
        """How many minutes a run takes."""
        return (short if self.short else long) if self.minutes is None else self.minutes


_MARKS = {True: "pass", False: "FAIL", None: ""}


def table(claims: Iterable[Claim]) -> str:
    """The claims as text columns."""
    head = ("claim", "what was done", "figure", "result")
    rows = [(claim.claim, claim.done, claim.figure, _MARKS[claim.passed]) for claim in claims]
    return "\n".join(columns.table(head, rows))
