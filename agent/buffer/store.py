"""The rows of the outbox in SQLite: what makes a message outlive the process, the power and a full disk.

Runs in the store's thread alone. Promises: what `commit` returned for is on the medium (WAL, synchronous=FULL); a
commit that fails reports nothing as kept; the files stay below the cap, for which the oldest rows go and are named;
a commit needs no new block of the volume; a row that is not what was written is never returned.

May import: the standard library, `agent.message`, and of this package `records`, `room`, `database`, `schema`.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.buffer import room
from agent.buffer.database import DAMAGE_AT_OPEN, bytes_written, code_of, transaction, translated
from agent.buffer.records import (
    Done,
    Opened,
    Page,
    Row,
    StoreDamaged,
    StoreFailure,
    Work,
    ranges,
)
from agent.buffer.schema import VERSION, create, lost_runs, refuse_newer, take_over
from agent.message import belongs

DATABASE = "outbox.db"
DAMAGED = "outbox.db.damaged"
SPARE = "outbox.reserve"

_CHECKPOINT = 400 * 1024
"""Bytes after which the log is written back; with the largest transaction it stays below `room.WAL_ROOM`."""

Connect = Callable[..., sqlite3.Connection]


class Store:
    """The database of one data directory.

    Args:
        connect: `sqlite3.connect`, or what puts a medium of its own below the database.
    """

    def __init__(
        self,
        directory: Path,
        *,
        run: str,
        started_at: int,
        max_size: int,
        max_payload: int,
        connect: Connect = sqlite3.connect,
    ) -> None:
        self._directory = directory
        self._connect = connect
        self._path = directory / DATABASE
        self._run = run
        self._started_at = started_at
        self._max_size = max(max_size, room.SMALLEST)
        self._spare = min(10 * max_payload, self._max_size // 8)  # bytes of free pages that are kept in reserve
        self._page = self._spare_pages = 0
        self._connection: sqlite3.Connection | None = None
        self._fd = -1
        self._condemned = False
        self._known: list[tuple[str, int]] = []  # run, base of those with rows and the own one, by base

    # -- opening -------------------------------------------------------------------------------------------------

    def open(self, known: Sequence[tuple[str, int]] = ()) -> Opened:
        """Open or create the database; a damaged one is set aside and a new one begun, which tells of the loss.

        Args:
            known: runs and their bases, when this process had the store open before: a new file continues them.

        Raises:
            StoreFailure: not now.
        """
        self.close()
        try:
            with translated(DAMAGE_AT_OPEN):
                self._directory.mkdir(parents=True, exist_ok=True)
                if self._condemned:
                    raise StoreDamaged("found while it was in use")
                return self._open_giving_way(known, None)
        except StoreDamaged:
            self.close()
            lost = lost_runs(self._path) or (None,)
            with translated(DAMAGE_AT_OPEN):
                aside = self._set_aside()
            self._condemned = False
        except StoreFailure:
            self.close()
            raise
        try:
            with translated(DAMAGE_AT_OPEN):
                opened = self._open_giving_way(known, lost)
        except StoreFailure:
            self.close()
            raise
        return replace(opened, fresh=True, damaged=True, set_aside=aside)

    def _open_giving_way(self, known: Sequence[tuple[str, int]], lost: Sequence[str | None] | None) -> Opened:
        """Open; on a full disk once more without the spare file."""
        try:
            return self._open(known, lost)
        except sqlite3.OperationalError as error:
            code = code_of(error)
            spare = self._directory / SPARE
            if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) or not spare.exists():
                raise
            self.close()
            spare.unlink()
            return self._open(known, lost)

    def _open(self, known: Sequence[tuple[str, int]], lost: Sequence[str | None] | None) -> Opened:
        """Open or create.

        Args:
            lost: None = the file that there was; else a new one, in place of a damaged one that had rows of these runs.
        """
        refuse_newer(self._path)
        if lost is None and (self._directory / SPARE).exists() and not room.size(self._path):
            raise StoreDamaged("there was a database, and now it is empty or gone")  # the spare file comes after it
        # autocommit: transactions are written out; exclusive: no shared memory file, which a full disk could refuse.
        connection = self._connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.text_factory = bytes
        connection.execute(f"PRAGMA page_size={room.PAGE}")  # of a new file; an older one keeps its own
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        version = int(self._pragma("user_version"))
        if version not in (0, VERSION):
            raise StoreDamaged(f"the header says format {version:#x}")
        if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != b"wal":
            raise StoreFailure("cannot-open", "the file system does not allow a write-ahead log")
        for setting in ("synchronous=FULL", "secure_delete=OFF", "cell_size_check=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {setting}")
        self._page = int(self._pragma("page_size"))
        self._spare_pages = self._spare // self._page + 4
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT // self._page}")
        if version == 0:
            create(connection, self._spare, lost or ())
        # After a failed sync the kernel may hold pages that the medium does not: write all of the log back, and begin
        # it anew, before anything is reported as kept on top of it.
        self._checkpoint("RESTART")
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        room.allocate(self._directory / f"{DATABASE}-wal", room.WAL_ROOM)
        opened, self._known = take_over(connection, self._run, self._started_at, known)
        # A log with a damaged header is an empty one to SQLite: that this run was there must not stand in it alone.
        self._checkpoint("PASSIVE")
        self._keep_spare_file()
        return opened

    def _set_aside(self) -> Path | None:
        """Move the damaged database and its log out of the way, and return where to; the copy before it goes. Of an
        empty one nothing is kept.
        """
        log = self._directory / f"{DATABASE}-wal"
        if not room.size(self._path):
            self._path.unlink(missing_ok=True)
            log.unlink(missing_ok=True)
            return None
        aside = self._directory / DAMAGED
        self._path.replace(aside)
        Path(f"{aside}-wal").unlink(missing_ok=True)
        if log.exists():
            log.replace(f"{aside}-wal")
        if self._damaged_size() > self._max_size // 2:  # it counts in the cap, and the living have the right to it
            aside.unlink()
            Path(f"{aside}-wal").unlink(missing_ok=True)
        return aside

    # -- work ----------------------------------------------------------------------------------------------------

    def commit(self, work: Work) -> Done:
        """Do a piece of work in one transaction; when it returns it is on the medium.

        Raises:
            StoreFailure: nothing of it is certain; the store is closed unless only room was missing.
        """
        rows = [(id_, device, group, zlib.compress(body, 1)) for id_, device, group, body in work.rows]
        need = sum(len(row[3]) + len(row[1]) + len(row[2]) + 24 for row in rows)
        alone = sum(1 for row in rows if len(row[3]) > self._page // 2)
        pages = need * 9 // 8 // self._page + 3 + alone if rows else 0
        with self._failing_closes():
            while True:
                try:
                    dropped = self._commit(work, rows, pages)
                    break
                except sqlite3.OperationalError as error:
                    if code_of(error) != sqlite3.SQLITE_FULL or pages > 4 * need // self._page + 64:
                        raise
                    pages = max(8, pages * 2)  # the estimate was low
            used, cap = self.extent()
        return Done(dropped, bool(dropped), bytes_written(), used, cap)

    def _commit(self, work: Work, rows: Sequence[tuple[int, str, str, bytes]], pages: int) -> tuple[int, ...]:
        connection = self._open_connection()
        changes: Counter[str] = Counter()
        if pages:
            self._allocate(pages)
        with transaction(connection):
            for run, ids in self._by_run(work.delete):
                cursor = connection.executemany("DELETE FROM rows WHERE id = ?", ((id_,) for id_ in ids))
                changes[run] -= cursor.rowcount
            if work.gaps is not None:
                connection.execute("DELETE FROM gaps")
                connection.executemany(
                    "INSERT INTO gaps (run, first, last, reason, told) VALUES (?, ?, ?, ?, ?)", work.gaps
                )
            dropped = self._make_room(pages, work.keep) if pages else []
            for run, ids in self._by_run(dropped):
                changes[run] -= len(ids)
                base = dict(self._known)[run]
                connection.executemany(
                    "INSERT INTO gaps (run, first, last, reason, told) VALUES (?, ?, ?, 'cap', 0)",
                    ((run, first - base, last - base) for first, last in ranges(ids)),
                )
            for row in rows:
                cursor = connection.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)", row)
                changes[self._run_of(row[0])[0]] += cursor.rowcount
            for run, change in changes.items():
                connection.execute("UPDATE runs SET count = count + ? WHERE run = ?", (change, run))
            connection.execute("UPDATE runs SET seen_at = ?, ended = ? WHERE run = ?", (work.now, work.end, self._run))
        return tuple(dropped)

    def page(self, after: int, below: int, *, rows: int, size: int) -> Page:
        """Read rows in order.

        Args:
            after, below: ids, both exclusive.
            rows, size: at most so many rows, and about so many bytes of bodies.

        Raises:
            StoreFailure: the store cannot be read now.
        """
        page = Page(last=after)
        total = 0
        with self._failing_closes():
            found = self._open_connection().execute(
                "SELECT id, device, grp, body FROM rows WHERE id > ? AND id < ? ORDER BY id LIMIT ?",
                (after, below, rows),
            )
            with closing(found):
                for id_, device, group, body in found:
                    if id_ <= page.last:
                        raise StoreDamaged("rows are out of order")
                    page.last = id_
                    row = self._sound_row(id_, device, group, body)
                    if row is None:
                        page.bad.append(id_)
                        continue
                    page.rows.append(row)
                    total += len(row[3])
                    if total >= size:
                        break
            page.end = len(page.rows) + len(page.bad) < rows and total < size
        return page

    def close(self) -> None:
        """Close the files; safe when they are not open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # -- room ----------------------------------------------------------------------------------------------------

    def _allocate(self, pages: int) -> None:
        """Get blocks for new pages, as far as cap and volume allow, and let the database grow no further."""
        count, free = int(self._pragma("page_count")), int(self._pragma("freelist_count"))
        physical = os.fstat(self._fd).st_size // self._page
        wanted = count + max(0, pages + self._spare_pages - free)
        limit = max(self._cap_pages(), count)
        if wanted > physical and limit > physical:
            target = min(limit, -(-wanted * self._page // room.GROWTH) * room.GROWTH // self._page)
            with suppress(OSError):  # no room: rows are dropped instead
                os.posix_fallocate(self._fd, physical * self._page, (target - physical) * self._page)
                physical = target
        self._pragma(f"max_page_count={max(count, min(physical, limit))}")

    def _make_room(self, pages: int, keep: frozenset[int]) -> list[int]:
        """Delete the oldest rows until the pages are there and the reserve is whole; return their ids."""
        connection = self._open_connection()
        dropped: list[int] = []
        after = -1
        while self._free_pages() < pages + self._spare_pages:
            found = connection.execute("SELECT id FROM rows WHERE id > ? ORDER BY id LIMIT 32", (after,)).fetchall()
            if not found:
                if self._free_pages() < pages:
                    raise StoreFailure("no-room", "the store has no room and nothing that may be dropped")
                break  # the reserve itself is what it is for
            after = found[-1][0]
            for (id_,) in found:
                if id_ not in keep and self._free_pages() < pages + self._spare_pages:
                    connection.execute("DELETE FROM rows WHERE id = ?", (id_,))
                    dropped.append(id_)
        return dropped

    def _free_pages(self) -> int:
        limit = int(self._pragma("max_page_count"))
        return limit - int(self._pragma("page_count")) + int(self._pragma("freelist_count"))

    def extent(self) -> tuple[int, int]:
        """Bytes that messages take in the open database, and bytes that they may take.

        Raises:
            StoreFailure: the store cannot be read now.
        """
        with self._failing_closes():
            taken = int(self._pragma("page_count")) - int(self._pragma("freelist_count"))
        return taken * self._page, max(taken, self._cap_pages()) * self._page

    def _cap_pages(self) -> int:
        """Pages that the database may have: the cap without what the other files take."""
        volume = os.statvfs(self._directory)
        log = room.allocated(self._directory / f"{DATABASE}-wal")
        others = log + room.allocated(self._directory / SPARE) + self._damaged_size()
        used = others + room.allocated(self._path)
        free = volume.f_bavail * volume.f_frsize
        whole = room.cap(self._max_size, used, free, volume.f_blocks * volume.f_frsize)
        return (whole - others) // self._page

    def _damaged_size(self) -> int:
        return room.allocated(self._directory / DAMAGED) + room.allocated(self._directory / f"{DAMAGED}-wal")

    def _keep_spare_file(self) -> None:
        spare = self._directory / SPARE
        if not spare.exists() and not room.allocate(spare, room.SPARE_FILE):
            with suppress(OSError):
                spare.unlink(missing_ok=True)

    # -- SQLite --------------------------------------------------------------------------------------------------

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreFailure("cannot-open", "the store is not open")
        return self._connection

    def _pragma(self, text: str) -> Any:
        return self._open_connection().execute(f"PRAGMA {text}").fetchone()[0]

    def _checkpoint(self, mode: str) -> None:
        busy, _, _ = self._open_connection().execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if busy:
            raise StoreFailure("busy", "another program reads the database")

    @contextmanager
    def _failing_closes(self) -> Iterator[None]:
        """Close the files on any failure but lack of room: what SQLite believes of them may not be so."""
        try:
            with translated():
                yield
        except StoreFailure as failure:
            self._condemned = self._condemned or isinstance(failure, StoreDamaged)
            if failure.reason not in ("disk-full", "no-room"):
                self.close()
            raise

    def _run_of(self, id_: int) -> tuple[str, int]:
        """Run and base of an id: the last base below it."""
        at = bisect_left(self._known, id_, key=lambda entry: entry[1]) - 1
        return self._known[max(at, 0)]

    def _by_run(self, ids: Iterable[int]) -> list[tuple[str, list[int]]]:
        grouped: dict[str, list[int]] = {}
        for id_ in sorted(ids):
            grouped.setdefault(self._run_of(id_)[0], []).append(id_)
        return list(grouped.items())

    def _sound_row(self, id_: int, device: object, group: object, body: object) -> Row | None:
        """The row as it was written, None if it is not."""
        if not (isinstance(device, bytes) and isinstance(group, bytes) and isinstance(body, bytes)):
            return None
        try:
            text = zlib.decompress(body)
            row = (id_, device.decode(), group.decode(), text)
        except (zlib.error, UnicodeDecodeError):
            return None
        run, base = self._run_of(id_)
        return row if belongs(text, run, id_ - base, row[1], row[2]) else None
