"""What outbox and store say to each other: work, results, failures. Plain data.

    StoreFailure
    ├── StoreDamaged    SQLite says CORRUPT or NOTADB: only this sets a file aside
    └── StoreNewer      written by a later version: left untouched

May import: the standard library, `agent.buffer.gaps`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.buffer.gaps import Gap


class StoreFailure(Exception):
    """The store cannot do this now.

    Attributes:
        reason: stable word: `disk-full` `io-error` `cannot-open` `read-only` `busy` `no-memory` `no-room` `damaged`
            `newer` `failing`.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class StoreDamaged(StoreFailure):
    """The file is not what was written."""

    def __init__(self, text: str) -> None:
        super().__init__("damaged", text)


class StoreNewer(StoreFailure):
    """The file was written by a later version of the agent."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__("newer", f"the store has format {found}, written by a newer version; this one knows {known}")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run that has rows, or the one before this.

    Attributes:
        base: ids of its rows are above it, `base + seq`.
        count: its rows.
        first, last: lowest and highest id of its rows, 0 without any.
        started_at, seen_at: ms UTC; `seen_at` when it last committed.
        ended: `stopped`, `lost`, or None when it did not come to say.
    """

    run: str
    base: int
    count: int
    first: int
    last: int
    started_at: int
    seen_at: int
    ended: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found.

    Attributes:
        base: of the own run.
        runs: earlier runs with rows, oldest first, and the last one in any case.
        gaps: not yet acknowledged ones, those of crashed runs included.
        fresh: whether the file is new: nothing committed before is in it.
        damaged: whether it is new in place of one that could not be used, or was empty or gone.
        set_aside: where the damaged file was moved to; None if there was nothing in it.
    """

    base: int
    runs: tuple[StoredRun, ...]
    previous: StoredRun | None
    gaps: tuple[Gap, ...]
    fresh: bool
    damaged: bool = False
    set_aside: Path | None = None


Row = tuple[int, str, str, bytes]
"""id, device, group, canonical body."""


@dataclass(frozen=True, slots=True)
class Work:
    """One transaction: deletions first, then rows.

    Attributes:
        keep: ids that must not be dropped to make room: the outbox holds them.
        gaps: the whole list of gaps, None = unchanged.
        now: ms UTC, kept as the run's last sign of life.
        end: `stopped` or `lost`: marks the own run as ended with all its messages in the store.
    """

    rows: Sequence[Row] = ()
    delete: Sequence[int] = ()
    keep: frozenset[int] = frozenset()
    gaps: Sequence[tuple[str | None, int | None, int | None, str, bool]] | None = None
    now: int = 0
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What a transaction did besides what it was asked.

    Attributes:
        dropped: ids that went to make room, ascending.
        full: whether room was made by dropping.
        bytes_written: by the store's thread so far, as the kernel counts them.
        used, cap: bytes that messages take, and may take.
    """

    dropped: tuple[int, ...]
    full: bool
    bytes_written: int
    used: int
    cap: int


@dataclass(slots=True)
class Page:
    """Rows in order, ids that cannot be read, the last id looked at, and whether nothing lies behind it."""

    rows: list[Row] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    last: int = 0
    end: bool = True


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as (first, last) of each unbroken stretch."""
    stretches: list[tuple[int, int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][1] + 1:
            stretches[-1] = (stretches[-1][0], number)
        else:
            stretches.append((number, number))
    return stretches
