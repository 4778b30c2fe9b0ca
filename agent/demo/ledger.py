"""Accounts for every message that reaches a subscriber: what came, what came twice, what is missing. Pure.

`(run, seq)` names a message: `run` is one start of the agent, `seq` counts its messages from 1. A hole is therefore a
message lost (or still to be replayed, which closes the hole again). Bounded: of a leap over more than a hundred
thousand messages only the number is kept.
May import: the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_REMEMBERED_HOLES = 100_000


@dataclass(slots=True)
class Tally:
    """What one device delivered: messages (each once), readings with a value, readings without."""

    messages: int = 0
    values: int = 0
    bad: int = 0


@dataclass(slots=True)
class _Run:
    highest: int = 0
    holes: set[int] = field(default_factory=set)
    leapt: int = 0


class Ledger:
    """The account of a subscriber that has listened since before the agent's start."""

    def __init__(self) -> None:
        self.devices: dict[str, Tally] = {}
        self.duplicates = 0
        self._runs: dict[str, _Run] = {}

    def take(self, message: Mapping[str, Any]) -> bool:
        """Enter a data message; True when it is new, False when it came before."""
        if not self._first_time(message["run"], message["seq"]):
            self.duplicates += 1
            return False
        tally = self.devices.setdefault(message["device"], Tally())
        values = message["values"]
        usable = sum(value is not None for value in values.values())
        tally.messages += 1
        tally.values += usable
        tally.bad += len(values) - usable
        return True

    def _first_time(self, name: str, seq: int) -> bool:
        run = self._runs.setdefault(name, _Run())
        if seq <= run.highest:
            if seq not in run.holes:
                return False
            run.holes.remove(seq)
            return True
        skipped = seq - run.highest - 1
        if len(run.holes) + skipped <= _REMEMBERED_HOLES:
            run.holes.update(range(run.highest + 1, seq))
        else:
            run.leapt += skipped
        run.highest = seq
        return True

    @property
    def lost(self) -> int:
        """Messages that were numbered before the last one seen of their run, and have not come."""
        return sum(len(run.holes) + run.leapt for run in self._runs.values())

    @property
    def runs(self) -> int:
        """How many starts of the agent were seen."""
        return len(self._runs)

    @property
    def messages(self) -> int:
        """Messages, each once."""
        return sum(tally.messages for tally in self.devices.values())

    @property
    def values(self) -> int:
        """Readings with a value."""
        return sum(tally.values for tally in self.devices.values())
