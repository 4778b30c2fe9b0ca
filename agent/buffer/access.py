"""The loop's access to the store: openings, transactions and pages, and what follows from them for messages and state.

Promises: of each kind one is under way at a time; the loop never touches a file, and nothing that waits here cancels
what the thread does; whatever a job raises ends in `Condition`. May import: structlog, `agent.message`, `agent.buffer`
below the outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from agent.buffer.condition import Condition
from agent.buffer.lanes import Lanes
from agent.buffer.lock import DataDirectoryInUse, DirectoryLock
from agent.buffer.records import Done, Opened, Page, StoreFailure, Work
from agent.buffer.store import Store
from agent.buffer.worker import Outcome, Worker
from agent.message import Message, ts_of

_log = structlog.get_logger("agent.buffer")

DELETE_AFTER_S = 0.2
PAGE_ROWS = 250
_PAGE_BYTES = 1_000_000
_TRANSACTION_BYTES = 1_000_000
_OPEN_WAIT_S = 8.0
_CLOSE_WAIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Previous:
    """The run before this one: how it ended, and when it was last seen (ms UTC)."""

    run: str
    ended: Literal["stopped", "lost"]
    at: int


class StoreAccess:
    """Of one outbox to its store.

    Args:
        directory: data directory; made if it does not exist.
        cap: bytes that messages may take, until the store tells.
        clock: monotonic seconds.
        now_ms: milliseconds since the epoch; a label only.
        wake: called when somebody should look again.

    Attributes:
        opened_once: whether the store was ever open: then what earlier runs left is known.
        previous: the run before, None if there was none or it is not known (yet).
        bytes_stored, cap: bytes that messages take on disk, and may take; as of the last transaction.
        bytes_written: by the store's thread so far.
        committed_at: end of the last transaction, by `clock`.
        delete_due: when deletions that wait are to be made, 0 = none waits.
        committing, paging: under way now, or None.
    """

    def __init__(
        self,
        directory: Path,
        store: Store,
        lanes: Lanes,
        condition: Condition,
        *,
        cap: int,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        self.opened_once = False
        self.previous: Previous | None = None
        self.bytes_stored = 0
        self.cap = cap
        self.bytes_written = 0
        self.committed_at = clock()
        self.delete_due = 0.0
        self.committing: asyncio.Future[bool] | None = None
        self.paging: asyncio.Future[None] | None = None
        self._opening: asyncio.Future[None] | None = None
        self._directory = directory
        self._lock = DirectoryLock(directory)
        self._worker = Worker("outbox")
        self._store = store
        self._lanes = lanes
        self._condition = condition
        self._clock = clock
        self._now_ms = now_ms
        self._wake = wake

    @property
    def alive_at(self) -> float:
        """When the store's thread last came round (`time.monotonic()`)."""
        return self._worker.alive_at

    # -- opening and closing -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the directory and open the store; trouble on the disk is noted.

        Raises:
            DataDirectoryInUse: another process owns the directory.
        """
        self._worker.start()
        try:
            self._lock.acquire()
        except OSError as error:
            self._condition.degrade(StoreFailure("io-error", str(error)))
            return
        except DataDirectoryInUse:
            self._worker.stop()
            raise
        self._submit_open()
        await patiently(self._opening, _OPEN_WAIT_S)
        if not self.opened_once and self._condition.state == "ok":
            self._condition.degrade(StoreFailure("io-error", f"{self._directory} does not answer"))

    async def reopen(self) -> None:
        """Open it after a failure; waits for a while."""
        try:
            self._lock.acquire()
        except (OSError, DataDirectoryInUse) as error:
            self._condition.text = str(error)
            return
        if self._opening is None:
            self._submit_open()
        await patiently(self._opening, _OPEN_WAIT_S)

    async def close(self, end: Literal["stopped", "lost"]) -> None:
        """Commit what is in memory, mark the run as ended so, and give everything back, as far as the disk does it."""
        if not self._worker.started:
            return
        try:
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self._finish(end)
                await self._worker.call(self._store.close)
        except (TimeoutError, StoreFailure):  # a disk that hangs or refuses: the next run tells the gap
            pass
        self._worker.stop()
        self._lock.release()

    async def _finish(self, end: str) -> None:
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self.opened_once and not self._condition.readable:
            await self.reopen()
        if not self.opened_once or not await self.commit_all():
            return
        gaps = self._lanes.gaps.rows()
        await self._worker.call(lambda: self._store.commit(Work(gaps=gaps, now=self._now_ms(), end=end)))

    def _submit_open(self) -> None:
        finished = asyncio.get_running_loop().create_future()
        known = self._lanes.known_runs() if self.opened_once else ()

        def job() -> tuple[Opened, int | None, tuple[int, int]]:
            opened = self._store.open(known)
            first = self._store.page(0, 2**62, rows=1, size=1).rows if opened.runs else ()
            return opened, ts_of(first[0][3]) if first else None, self._store.extent()

        def done(outcome: Outcome[tuple[Opened, int | None, tuple[int, int]]]) -> None:
            self._opening = None
            with self._condition.noting():
                opened, oldest_ts, (self.bytes_stored, self.cap) = outcome.get()
                self._opened(opened, oldest_ts)
            finished.set_result(None)
            self._wake()

        self._opening = finished
        self._worker.submit(job, done)

    def _opened(self, opened: Opened, oldest_ts: int | None) -> None:
        lanes = self._lanes
        self._condition.readable = True
        if opened.set_aside is not None:
            _log.error("store_set_aside", file=str(opened.set_aside), reason="damaged")
        elif opened.damaged:
            _log.error("store_gone", directory=str(self._directory))
        if not self.opened_once:
            self.opened_once = True
            lanes.gaps.load(opened.gaps)
            lanes.carry_over(opened.base, opened.runs, oldest_ts)
            if opened.previous is not None:
                previous = opened.previous
                ended: Literal["stopped", "lost"] = "stopped" if previous.ended == "stopped" else "lost"
                self.previous = Previous(previous.run, ended, previous.seen_at)
        elif opened.fresh:
            lanes.forget_disk("store-damaged")
        self._condition.works()

    # -- transactions --------------------------------------------------------------------------------------------

    async def commit_all(self) -> bool:
        """Commit all that was appended and delete all that is done with; whether nothing is left to commit."""
        lanes, condition = self._lanes, self._condition
        while (lanes.head or lanes.deleting) and condition.readable and condition.bug is None:
            if not await self.commit(self._clock()):
                break
        return not lanes.head

    async def commit(self, before: float) -> bool:
        """Run one transaction with what was appended up to then; whether it succeeded."""
        while self.committing is not None:
            await asyncio.wait({self.committing})
        running = self.submit_commit(before)
        await asyncio.wait({running})
        return running.result()

    def submit_commit(self, before: float) -> asyncio.Future[bool]:
        """Begin a transaction; the one way to do it, when none is running."""
        lanes = self._lanes
        batch = lanes.uncommitted(before, _TRANSACTION_BYTES)
        deletions = tuple(lanes.deleting)
        gaps = lanes.gaps.rows() if lanes.gaps.changed else None
        lanes.gaps.changed = False
        work = Work(
            rows=[(lanes.id_of(m), m.device, m.group, m.body) for m in batch],
            delete=deletions,
            keep=lanes.kept_ids() if batch else frozenset(),
            gaps=gaps,
            now=self._now_ms(),
        )
        finished: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome[Done]) -> None:
            self.committing = None
            succeeded = False
            with self._condition.noting():
                try:
                    result = outcome.get()
                except StoreFailure:
                    lanes.failed(batch)
                    lanes.gaps.changed = lanes.gaps.changed or gaps is not None
                    raise
                self._committed(batch, deletions, result)
                succeeded = True
            finished.set_result(succeeded)

        self.committing = finished
        self._worker.submit(lambda: self._store.commit(work), done)
        return finished

    def _committed(self, batch: Sequence[Message], deletions: Sequence[int], done: Done) -> None:
        lanes, condition = self._lanes, self._condition
        self.committed_at = self._clock()
        self.bytes_written, self.bytes_stored, self.cap = done.bytes_written, done.used, done.cap
        for id_ in deletions:
            lanes.deleting.pop(id_, None)
        self.delete_due = self._clock() + DELETE_AFTER_S if lanes.deleting else 0.0
        changed = lanes.gaps.changed
        if done.dropped:
            # The transaction wrote these gaps itself, unless some turn out to be none.
            lanes.gaps.changed = not lanes.dropped_for_room(done.dropped) or changed
            condition.say_dropping("cap")
        lanes.committed(batch, self._clock())
        condition.works()
        if batch or deletions:
            condition.state = "full" if done.full else "ok"
        self._wake()

    # -- reading back --------------------------------------------------------------------------------------------

    def submit_page(self, wanted: Callable[[], bool]) -> None:
        """Begin to read the next page of the backlog, for the lanes if it is still wanted when it comes."""
        finished = asyncio.get_running_loop().create_future()
        after, below = self._lanes.page_bounds()

        def done(outcome: Outcome[Page]) -> None:
            self.paging = None
            with self._condition.noting():
                page = outcome.get()
                if wanted():
                    self._lanes.accept(page)
            finished.set_result(None)

        self.paging = finished
        self._worker.submit(lambda: self._store.page(after, below, rows=PAGE_ROWS, size=_PAGE_BYTES), done)


async def patiently(future: asyncio.Future[Any] | None, seconds: float) -> None:
    """Wait for a future without cancelling it, at most so long."""
    if future is not None:
        await asyncio.wait({future}, timeout=seconds)
