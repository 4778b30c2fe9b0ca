"""The tables, and what is done with them when a file is opened.

Rows are numbered in order of append over all runs: a message's id is `base` of its run plus its seq, so run and seq
need no columns, and a row whose body disagrees with its id is a damaged one.

May import: the standard library, and of this package `database`, `records`, `gaps`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from agent.buffer.database import transaction
from agent.buffer.gaps import Gap
from agent.buffer.records import Opened, StoreDamaged, StoredRun, StoreNewer

SCHEMA = 1
VERSION = SCHEMA << 16 | SCHEMA
"""What stands in `user_version`: the number twice, so that a damaged header is not taken for a later version."""
_TABLES = """
CREATE TABLE rows (id INTEGER PRIMARY KEY, device TEXT NOT NULL, grp TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE runs (
    n INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, base INTEGER NOT NULL, count INTEGER NOT NULL,
    started_at INTEGER NOT NULL, seen_at INTEGER NOT NULL, ended TEXT);
CREATE TABLE gaps (n INTEGER PRIMARY KEY, run TEXT, first INTEGER, last INTEGER, reason TEXT NOT NULL, told INTEGER);
CREATE TABLE spare (n INTEGER PRIMARY KEY, body BLOB);
"""
_GAP = "INSERT INTO gaps (run, first, last, reason, told) VALUES (?, ?, ?, ?, ?)"


def create(connection: sqlite3.Connection, spare: int, lost: Iterable[str | None]) -> None:
    """Make the tables, and free pages in reserve.

    Args:
        spare: bytes of these.
        lost: runs that had rows in a damaged file, in whose place this one comes; None = which ones is not known. They
            stand in it from its first moment: a crash right now must not make the loss one that nobody tells of.
    """
    with transaction(connection):
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.executemany(_GAP, ((run, None, None, "store-damaged", 0) for run in lost))
        connection.execute(f"PRAGMA user_version={VERSION}")
    with transaction(connection):
        connection.execute("INSERT INTO spare VALUES (1, zeroblob(?))", (spare * 99 // 100,))
    with transaction(connection):
        connection.execute("DELETE FROM spare")


def refuse_newer(path: Path) -> None:
    """Look at the format before SQLite may touch the file.

    Raises:
        StoreNewer: a later version wrote it.
    """
    try:
        with path.open("rb") as file:
            header = file.read(64)
    except FileNotFoundError:
        return
    found = int.from_bytes(header[60:64], "big")
    if header.startswith(b"SQLite format 3\0") and found >> 16 == found & 0xFFFF > SCHEMA:
        raise StoreNewer(found & 0xFFFF, SCHEMA)


def take_over(
    connection: sqlite3.Connection, own_run: str, started_at: int, known: Sequence[tuple[str, int]]
) -> tuple[Opened, list[tuple[str, int]]]:
    """Read what earlier runs left, tell of those that crashed, enter the own run.

    Args:
        known: runs and bases that a new file must continue; empty at the first opening.

    Returns:
        What was found, and all runs with their bases, ascending, by which ids are understood.
    """
    with transaction(connection):
        runs = _read_runs(connection)
        own = next((run for run in runs if run.run == own_run), None)
        fresh = own is None
        if own is None and known:  # a new file in the middle of a run
            if runs:
                raise StoreDamaged("this run is missing in its own file")
            for run, base in known:
                _enter(connection, run, base, started_at)
            runs, own = [], StoredRun(own_run, known[-1][1], 0, 0, 0, 0, 0, None)
        if own is None:
            last = connection.execute("SELECT max(id) FROM rows").fetchone()[0] or 0
            base = max(last, max((run.base for run in runs), default=0))
            for crashed in connection.execute("SELECT run FROM runs WHERE ended IS NULL").fetchall():
                gap = (crashed[0].decode(), None, None, "crash", 0)
                connection.execute(_GAP, gap)
            connection.execute("UPDATE runs SET ended = 'lost' WHERE ended IS NULL")
            connection.execute("DELETE FROM runs WHERE count = 0 AND n < (SELECT max(n) FROM runs)")
            _enter(connection, own_run, base, started_at)
            own = StoredRun(own_run, base, 0, 0, 0, 0, 0, None)
        gaps = tuple(
            Gap(run and run.decode(), first, last, reason.decode(), bool(told))
            for run, first, last, reason, told in connection.execute(
                "SELECT run, first, last, reason, told FROM gaps ORDER BY n"
            )
        )
    earlier = [run for run in runs if run.run != own_run]
    bases = [(run.run, run.base) for run in earlier] + [(own.run, own.base)]
    if known and not earlier:
        bases = list(known)
    carried = tuple(run for run in earlier if run.count)
    previous = earlier[-1] if earlier else None
    return Opened(own.base, carried, previous, gaps, fresh), bases


def _enter(connection: sqlite3.Connection, run: str, base: int, started_at: int) -> None:
    connection.execute(
        "INSERT INTO runs (run, base, count, started_at, seen_at) VALUES (?, ?, 0, ?, ?)",
        (run, base, started_at, started_at),
    )


def _read_runs(connection: sqlite3.Connection) -> list[StoredRun]:
    found = connection.execute("SELECT run, base, count, started_at, seen_at, ended FROM runs ORDER BY n").fetchall()
    runs: list[StoredRun] = []
    for at, (run, base, count, started_at, seen_at, ended) in enumerate(found):
        if not all(isinstance(number, int) for number in (base, count, started_at, seen_at)):
            raise StoreDamaged("the table of runs is not readable")
        end = found[at + 1][1] if at + 1 < len(found) else 2**62
        first, last = connection.execute(
            "SELECT (SELECT min(id) FROM rows WHERE id > :base AND id <= :end),"
            " (SELECT max(id) FROM rows WHERE id > :base AND id <= :end)",
            {"base": base, "end": end},
        ).fetchone()
        if first is None:
            real = 0
        elif 0 < count <= last - first + 1:
            real = count
        else:  # the count is not what was written: counting is slow, so only then
            real = connection.execute("SELECT count(*) FROM rows WHERE id BETWEEN ? AND ?", (first, last)).fetchone()[0]
        if real != count:
            connection.execute("UPDATE runs SET count = ? WHERE run = ?", (real, run.decode()))
        runs.append(
            StoredRun(run.decode(), base, real, first or 0, last or 0, started_at, seen_at, ended and ended.decode())
        )
    return runs


def lost_runs(path: Path) -> tuple[str, ...]:
    """Names of the runs that had rows in a damaged file, as far as it still tells."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0)) as connection:
            found = connection.execute("SELECT run FROM runs WHERE count > 0 ORDER BY n").fetchall()
    except (sqlite3.Error, UnicodeDecodeError):
        return ()
    return tuple(str(run) for (run,) in found if isinstance(run, str))
