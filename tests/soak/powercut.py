"""Power cuts below SQLite: the store's own code writes through a VFS that keeps a log, and the log is cut anywhere.

What was synced before the cut is there; of what was not, any 512-byte sector may be there or not. After every cut the
store must open without a hand, hold every row of every commit that had returned, and hold it as it was written.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from agent.buffer.records import Done, Work
from agent.buffer.store import Store
from agent.message import Heading, encode
from collectors.api import Batch
from tests.soak.claims import Claim, Options

SECTOR = 512
RUN = "0123456789abcdef"


@dataclass
class Log:
    """What reached the operating system, in order: (kind, file, offset or size, bytes)."""

    entries: list[tuple[str, str, int, bytes]] = field(default_factory=list)
    acknowledged: list[tuple[int, frozenset[int]]] = field(default_factory=list)  # length of entries, ids


class RecordingFile(apsw.VFSFile):
    def __init__(self, log: Log, inherit: str, name: Any, flags: Any) -> None:
        super().__init__(inherit, name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.log, self.name = log, Path(path).name

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self.log.entries.append(("write", self.name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802 - SQLite's name
        self.log.entries.append(("truncate", self.name, size, b""))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        super().xSync(flags)
        self.log.entries.append(("sync", self.name, 0, b""))


class RecordingVFS(apsw.VFS):
    def __init__(self, log: Log) -> None:
        self.log = log
        super().__init__(f"recording-{id(log)}", "")

    def xOpen(self, name: Any, flags: list[int]) -> RecordingFile:  # noqa: N802 - SQLite's name
        return RecordingFile(self.log, "", name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802 - SQLite's name
        self.log.entries.append(("delete", Path(name).name, 0, b""))
        super().xDelete(name, sync)


class Cursor:
    """As much of sqlite3's cursor as the store uses."""

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int) -> None:
        self.rows, self.rowcount = rows, rowcount

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.rows

    def close(self) -> None:
        self.rows = []


class Connection:
    """As much of sqlite3's connection as the store uses, on apsw."""

    def __init__(self, path: Path, vfs: RecordingVFS, synchronous: str) -> None:
        self._synchronous = synchronous
        self._connection = apsw.Connection(str(path), vfs=vfs_name(vfs))

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def execute(self, sql: str, parameters: Any = ()) -> Cursor:
        before = self._connection.total_changes()
        if sql == "PRAGMA synchronous=FULL":
            sql = f"PRAGMA synchronous={self._synchronous}"
        rows = [
            tuple(value.encode() if isinstance(value, str) else value for value in row)
            for row in self._connection.execute(sql, parameters)
        ]
        return Cursor(rows, self._connection.total_changes() - before)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Cursor:
        before = self._connection.total_changes()
        self._connection.executemany(sql, parameters)
        return Cursor([], self._connection.total_changes() - before)

    def close(self) -> None:
        self._connection.close()


def vfs_name(vfs: RecordingVFS) -> str:
    return f"recording-{id(vfs.log)}"


def row(seq: int, size: int, rng: random.Random) -> tuple[int, str, str, bytes]:
    batch = Batch("press", "1s", 0.0, {"text": rng.randbytes(size // 2).hex()})
    (body,) = encode(
        Heading("s", "g", RUN), batch, ts=1_700_000_000_000, rev="r", clock=None, first_seq=seq, max_payload=60_000
    )
    return seq, "press", "1s", body


def record(directory: Path, rng: random.Random, commits: int, synchronous: str) -> Log:
    """Let the store work, and note what was there after each commit."""
    log = Log()
    vfs = RecordingVFS(log)
    store = Store(
        directory,
        run=RUN,
        started_at=0,
        max_size=20_000_000,
        max_payload=6000,
        connect=lambda path, **_: Connection(path, vfs, synchronous),  # type: ignore[arg-type]  # the part that is used
    )
    base = store.open().base
    assert base == 0
    present: set[int] = set()
    seq = 0
    log.acknowledged.append((len(log.entries), frozenset()))
    for _ in range(commits):
        rows = [row(seq + at, rng.choice([10, 300, 5000]), rng) for at in range(1, rng.choice([2, 5, 40]))]
        seq += len(rows)
        gone = [id_ for id_ in sorted(present) if rng.random() < 0.3]
        done: Done = store.commit(Work(rows=rows, delete=gone, now=seq))
        present |= {id_ for id_, *_ in rows}
        present -= {*gone, *done.dropped}
        log.acknowledged.append((len(log.entries), frozenset(present)))
    store.close()
    return log


def image(log: Log, at: int, rng: random.Random) -> dict[str, bytearray]:
    """What a medium may hold after the power went at entry `at`."""
    files: dict[str, bytearray] = {}
    synced: dict[str, int] = {}
    for index, (kind, name, _, _) in enumerate(log.entries[:at]):
        if kind == "sync":
            synced[name] = index
    survival = rng.choice([0.0, 0.5, 0.9, 1.0])
    for index, (kind, name, where, data) in enumerate(log.entries[:at]):
        safe = index < synced.get(name, -1)
        content = files.setdefault(name, bytearray())
        if kind == "delete":
            files.pop(name)
        elif kind == "truncate" and (safe or rng.random() < survival):
            del content[where:]
            content.extend(bytes(where - len(content)))
        elif kind == "write":
            for start in range(0, len(data), SECTOR):
                if safe or rng.random() < survival:
                    sector = data[start : start + SECTOR]
                    end = where + start + len(sector)
                    content.extend(bytes(max(0, end - len(content))))
                    content[where + start : end] = sector
    return files


def check(log: Log, at: int, directory: Path, rng: random.Random) -> None:
    """Cut at entry `at`, open what is left, and compare with what had been acknowledged."""
    directory.mkdir()
    for name, content in image(log, at, rng).items():
        (directory / name).write_bytes(content)
    expected = next((ids for length, ids in reversed(log.acknowledged) if length <= at), None)
    later = next((ids for length, ids in log.acknowledged if length > at), frozenset())
    store = Store(directory, run="f" * 16, started_at=1, max_size=20_000_000, max_payload=6000)
    opened = store.open()
    found: set[int] = set()
    page = store.page(0, 2**62, rows=1000, size=10**9)
    while page.rows or page.bad:
        assert not page.bad, "a row is not what was written"
        found |= {id_ for id_, *_ in page.rows}
        page = store.page(page.last, 2**62, rows=1000, size=10**9)
    store.close()
    if expected is None:
        return  # before the first opening had returned: nothing was promised but to open
    assert opened.set_aside is None, "a power cut must not look like damage"
    assert expected <= found | (expected - later), f"lost {sorted(expected - found)[:5]} at {at}"
    assert found in (set(expected), set(later)), "a commit is there or not, never in part"
    assert sum(run.count for run in opened.runs) == len(found)


def soak(cuts: int, seed: int, directory: Path, *, commits: int = 60, synchronous: str = "FULL") -> None:
    """Cut the power so many times; AssertionError names what was lost.

    `synchronous` weaker than the store's own shows that these cuts find what they are for.
    """
    rng = random.Random(seed)
    for at in range(cuts):
        if at % 100 == 0:
            work = directory / f"work-{at}"
            log = record(work, rng, commits, synchronous)
            shutil.rmtree(work)
        target = directory / f"cut-{at}"
        check(log, rng.randint(0, len(log.entries)), target, rng)
        shutil.rmtree(target)


def run(options: Options) -> list[Claim]:
    """Run it."""
    cuts = options.times(3000, 100)
    lost = ""
    try:
        soak(cuts, options.seed, options.disk)
    except AssertionError as error:
        lost = str(error).splitlines()[0]
    weak = 0  # the same cuts find what a weaker setting loses: they are no idle ones
    for seed in range(20):
        try:
            soak(1, seed, options.memory / str(seed), synchronous="NORMAL")
        except AssertionError:
            weak += 1
    return [
        Claim(
            "nothing accepted is lost by a power cut",
            f"{cuts} cuts below SQLite, sectors of 512 B written or not; every file opened without a hand",
            lost or f"0 lost; of 20 cuts with synchronous=NORMAL {weak} lose some",
            not lost and weak > 0,
        )
    ]
