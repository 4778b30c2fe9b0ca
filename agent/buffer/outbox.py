"""The outbox: everything between the runners, which append, and the publisher, which takes.

Promises: what was appended is delivered, or counted as dropped and told in `gaps`, or still here; it is on disk at
most `commit_interval` after it was appended, unless it was acknowledged before (then it never touches the disk);
nobody waits for the broker here, and for a commit in progress at most a second; trouble with the disk is a state
(`degraded`), not an error, and ends by itself.

Belongs to the thread of the loop; all files are touched in the store's thread. May import: structlog,
`agent.alarm`, `agent.message`, `agent.buffer`.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from agent.alarm import Alarm
from agent.buffer.lanes import HEAD_BYTES, PARK_S, Lanes
from agent.buffer.lock import DataDirectoryInUse, DirectoryLock
from agent.buffer.records import Done, Opened, Page, StoreDamaged, StoreFailure, Work
from agent.buffer.store import Connect, Store
from agent.buffer.worker import Outcome, Worker
from agent.message import Heading, Message, encode, ts_of
from collectors.api import Batch

__all__ = ["DataDirectoryInUse", "Outbox", "Previous", "State"]

State = Literal["ok", "degraded", "full"]

_log = structlog.get_logger("agent.buffer")

_TRANSACTION_BYTES = 1_000_000
_EARLY_BYTES = 4_000_000
"""So much uncommitted does not wait for the interval."""
_APPEND_WAIT_S = 1.0
_DELETE_AFTER_S = 0.2
_DELETE_AFTER = 100
_GAPS_AFTER_S = 10.0
_EAGER = 0.8
"""Share of the interval after which a commit begins: it shall have ended within it."""
_SIGN_OF_LIFE_S = 600.0
_PAGE_ROWS = 250
_PAGE_BYTES = 1_000_000
_OPEN_WAIT_S = 8.0
_CLOSE_WAIT_S = 3.0
_QUIET_S = 60.0
"""Dropping that paused for so long is reported anew."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The run before this one: how it ended, and when it was last seen (ms UTC)."""

    run: str
    ended: Literal["stopped", "lost"]
    at: int


class Outbox:
    """Keeps messages from append to acknowledgement.

    Args:
        directory: data directory; made if it does not exist.
        max_size: bytes that all files of the store may take together.
        commit_interval: seconds; 0 = a message can be taken only when it is committed.
        max_payload: bytes of a message.
        replay: `live-first`: fresh data beside the backlog; `in-order`: nothing fresh while there is a backlog.
        clock: monotonic seconds; by it go intervals, retries and ages.
        wall: seconds since the epoch; a label only.
        retry_s: seconds between attempts while the store is degraded.
        connect: opens the database; a test puts a faulty medium below it.

    Attributes:
        run: 16 hex digits, random.
        state: ok, degraded (the store cannot be written: memory only), full (the oldest go to make room).
        reason, text: why it is degraded; empty otherwise.
        commit_interval: as given.
        bytes_stored, cap: bytes that messages take on disk, and may take; as of the last transaction.
        previous: the run before, None if there was none or it is not known (yet).
    """

    def __init__(
        self,
        directory: Path,
        *,
        site: str,
        gateway: str,
        max_size: int,
        commit_interval: float,
        max_payload: int,
        replay: Literal["live-first", "in-order"],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        retry_s: float = 10.0,
        connect: Connect = sqlite3.connect,
    ) -> None:
        self.run = secrets.token_hex(8)
        self.state: State = "ok"
        self.reason = ""
        self.text = ""
        self.bytes_stored = 0
        self.cap = max_size
        self.previous: Previous | None = None
        self._directory = directory
        self._heading = Heading(site, gateway, self.run)
        self.commit_interval = commit_interval
        self._max_payload = max_payload
        self._clock = clock
        self._wall = wall
        self._retry_s = retry_s
        self._lock = DirectoryLock(directory)
        self._worker = Worker("outbox")
        self._store = Store(
            directory,
            run=self.run,
            started_at=self._now_ms(),
            max_size=max_size,
            max_payload=max_payload,
            connect=connect,
        )
        self._lanes = Lanes(self.run, in_order=replay == "in-order")
        self._news = asyncio.Event()
        self._kick = asyncio.Event()
        self._opened_once = False
        self._readable = False
        self._closed = False
        self._bug: BaseException | None = None
        self._committing: asyncio.Future[bool] | None = None
        self._opening: asyncio.Future[None] | None = None
        self._paging: asyncio.Future[None] | None = None
        self._epoch = 0
        self._alarm = Alarm(self._due, self._kick.set, clock)
        self._damaged_at = -retry_s
        self._retry_at = 0.0
        self._degraded_at = 0.0
        self._committed_at = clock()
        self._delete_due = 0.0
        self._dropping_at = -_QUIET_S
        self._bytes_written = 0

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the directory and open the store; with trouble on the disk the outbox is degraded, not refused.

        Raises:
            DataDirectoryInUse: another process owns the directory.
        """
        self._worker.start()
        try:
            self._lock.acquire()
        except OSError as error:
            self._degrade(StoreFailure("io-error", str(error)))
            return
        except DataDirectoryInUse:
            self._worker.stop()
            self._closed = True
            raise
        self._submit_open()
        await self._patiently(self._opening, _OPEN_WAIT_S)
        if not self._opened_once and self.state == "ok":
            self._degrade(StoreFailure("io-error", f"{self._directory} does not answer"))
        self._raise_bug()

    async def commit_loop(self) -> None:
        """Commit what has waited long enough, delete what was acknowledged, retry a store in trouble.

        A task of the core: ends only when the outbox is closed, raises only on a bug.
        """
        while not self._closed:
            self._raise_bug()
            due = self._due()
            if due <= self._clock():
                await self.tick()
                continue
            self._kick.clear()
            self._alarm.look_at(due)
            await self._kick.wait()

    async def tick(self) -> None:
        """Do once what is due now: what `commit_loop` does all the time."""
        now = self._clock()
        if self.state == "degraded":
            if now < self._retry_at:
                return
            self._retry_at = now + self._retry_s
            if not self._readable:
                await self._reopen()
            if not self._readable:
                return
        # While messages are being acknowledged, the youngest are left to it: most never need to be written.
        leave = self._lanes.session and self._lanes.head_bytes <= _EARLY_BYTES
        await self._commit(now - self.commit_interval / 4 if leave else now)

    async def commit_now(self) -> bool:
        """Commit all that was appended and delete all that is done with; whether nothing is left to commit."""
        while (self._lanes.head or self._lanes.deleting) and self._readable and self._bug is None:
            if not await self._commit(self._clock()):
                break
        return not self._lanes.head

    async def close(self, clean: bool) -> None:
        """Commit what is in memory and give everything back, within about five seconds; safe twice.

        Args:
            clean: the run ended on purpose and the broker knows; else the next run's status says `lost`.
        """
        if self._closed:
            return
        self._closed = True
        self._alarm.cancel()
        self._kick.set()
        self._news.set()
        if not self._worker.started:
            return
        try:
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self._finish("stopped" if clean else "lost")
                await self._worker.call(self._store.close)
        except (TimeoutError, StoreFailure):  # a disk that hangs or refuses: the next run tells the gap
            pass
        self._worker.stop()
        self._lock.release()

    async def _finish(self, end: str) -> None:
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._opened_once and not self._readable:
            await self._reopen()
        if not self._opened_once or not await self.commit_now():
            return
        gaps = self._lanes.gaps.rows()
        await self._worker.call(lambda: self._store.commit(Work(gaps=gaps, now=self._now_ms(), end=end)))

    @property
    def alive_at(self) -> float:
        """When the store's thread last came round (`time.monotonic()`)."""
        return self._worker.alive_at

    # -- appending -----------------------------------------------------------------------------------------------

    async def append(self, batch: Batch, *, ts: int, rev: str, clock: str | None = None) -> None:
        """Number, encode and keep a batch.

        Waits only for a commit in progress, at most a second, and only with `commit_interval` 0 or when much is
        uncommitted.

        Args:
            ts: ms UTC. rev: which `meta` explains it. clock: `unsynced`, or None.
        """
        lanes = self._lanes
        bodies = encode(
            self._heading,
            batch,
            ts=ts,
            rev=rev,
            clock=clock,
            first_seq=lanes.seq + 1,
            max_payload=self._max_payload,
        )
        now = self._clock()
        admit = self.commit_interval > 0 or self.state == "degraded"
        for body in bodies:
            message = Message(self.run, lanes.seq + 1, batch.device, batch.group, body, at=now)
            lanes.add(message, admit=admit)
        if admit:
            self._news.set()
        if lanes.head_bytes > _EARLY_BYTES:
            self._kick.set()
        else:
            self._alarm.look_at(now + self.commit_interval * _EAGER)  # by then it is mostly acknowledged
        if self.state != "degraded" and (not admit or lanes.head_bytes > _EARLY_BYTES):
            await self._wait_for_commit(message)
        if lanes.head_bytes > HEAD_BYTES:
            lanes.drop_oldest_uncommitted(HEAD_BYTES * 9 // 10)
            self._say_dropping("store-failing")

    async def _wait_for_commit(self, message: Message) -> None:
        """Wait until a message is committed or memory is not crowded any more, at most a second."""
        deadline = time.monotonic() + _APPEND_WAIT_S
        lanes = self._lanes
        while message.order in lanes.head and (self.commit_interval == 0 or lanes.head_bytes > _EARLY_BYTES):
            left = deadline - time.monotonic()
            if left <= 0 or self._closed or self._bug is not None or self.state == "degraded":
                return
            if self._committing is None:
                self._submit_commit(self._clock())
            await self._patiently(self._committing, left)

    # -- the publisher's side ------------------------------------------------------------------------------------

    def begin_session(self, fresh_s: float = 2.0) -> None:
        """A session stands: what was appended in the last `fresh_s` seconds and never sent is live, all else late."""
        self._epoch += 1
        self._lanes.begin_session(self._clock(), fresh_s)
        self._news.set()

    def end_session(self) -> None:
        """The session is lost: what was in flight will be sent again, marked."""
        self._epoch += 1
        self._lanes.end_session()
        self._wake()

    def take_live(self, limit: int) -> list[Message]:
        """Lend fresh messages in order; each must be given back by `ack`, `refuse` or `end_session`."""
        self._lanes.sweep(self._clock())
        return self._lanes.take_live(limit)

    async def take_backlog(self, limit: int) -> list[Message]:
        """Lend messages of the backlog in order, marked `replayed`; behind them those that were refused.

        Returns nothing when there are none, or the store cannot be read now.
        """
        epoch = self._epoch
        while not self._closed:
            taken = self._lanes.take_backlog(limit, self._clock(), readable=self._readable)
            if self._readable and self._paging is None and self._lanes.wants_page(_PAGE_ROWS // 4):
                self._submit_page()
            if taken or self._paging is None:
                return taken
            await asyncio.wait({self._paging})
            if epoch != self._epoch:
                break
        return []

    @property
    def backlog(self) -> int:
        """Messages to be sent late: from before this session, or from before the last start."""
        return self._lanes.backlog

    @property
    def backlog_age_s(self) -> float:
        """Age of the oldest message of the backlog, by its `ts`; 0 without backlog."""
        oldest = self._lanes.oldest_backlog_ts() if self._lanes.backlog else None
        return 0.0 if oldest is None else max(0.0, (self._now_ms() - oldest) / 1000)

    def ack(self, messages: Iterable[Message]) -> None:
        """The broker has these. What is not in flight (any more) is ignored."""
        lanes = self._lanes
        for message in messages:
            lanes.ack(message)
        self._deletions_due()
        self._news.set()

    def refuse(self, message: Message, reason: Literal["refused", "too-large"]) -> bool:
        """The broker does not take this one: it goes behind the others, and the third time it is dropped.

        Returns:
            Whether it was dropped for good, counted under `reason`.
        """
        dropped = self._lanes.refuse(message, reason, self._clock())
        if not dropped:
            delay = PARK_S[min(message.tries, len(PARK_S)) - 1] if message.tries else 0.0
            asyncio.get_running_loop().call_later(delay, self._news.set)
        self._deletions_due()
        self._news.set()
        return dropped

    async def wait(self) -> None:
        """Return when there may be something to take, or something was acknowledged, since the last return."""
        await self._news.wait()
        self._news.clear()

    @property
    def news(self) -> asyncio.Event:
        """The event behind `wait`, for one who waits for other things too, and may set and clear it."""
        return self._news

    # -- telling -------------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, Any]:
        """Counts in messages; `produced = delivered + buffered + in_flight + sum(dropped)` at every moment."""
        lanes = self._lanes
        return {
            "produced": lanes.produced,
            "carried_over": lanes.carried_over,
            "delivered": lanes.delivered,
            "buffered": lanes.buffered,
            "in_flight": lanes.in_flight,
            "dropped": dict(lanes.dropped),
            "bytes_written": self._bytes_written,
        }

    def complete_to(self) -> dict[str, int]:
        """Per run with messages here, and this one: all up to this seq was delivered or given up."""
        return self._lanes.complete_to()

    def gaps(self) -> list[dict[str, Any]]:
        """What will never come: {run, from, to, reason}; each until `gaps_told`, the last 20 in any case."""
        return self._lanes.gaps.listing()

    def gaps_told(self, gaps: Iterable[Mapping[str, Any]]) -> None:
        """These, as `gaps` returned them, were acknowledged."""
        self._lanes.gaps.told(gaps)

    # -- committing ----------------------------------------------------------------------------------------------

    def _due(self) -> float:
        """When `tick` is wanted next."""
        lanes = self._lanes
        if self.state == "degraded":
            return self._retry_at
        due = self._committed_at + _SIGN_OF_LIFE_S
        if lanes.head:
            oldest = next(iter(lanes.head.values())).at
            due = min(due, 0.0 if lanes.head_bytes > _EARLY_BYTES else oldest + self.commit_interval * _EAGER)
        if lanes.gaps.changed:
            due = min(due, self._committed_at + _GAPS_AFTER_S)
        if lanes.deleting:
            due = min(due, 0.0 if len(lanes.deleting) >= _DELETE_AFTER else self._delete_due)
        return due

    def _deletions_due(self) -> None:
        count = len(self._lanes.deleting)
        if count and (self._delete_due == 0.0 or count >= _DELETE_AFTER):
            if self._delete_due == 0.0:
                self._delete_due = self._clock() + _DELETE_AFTER_S
            self._kick.set()

    async def _commit(self, before: float) -> bool:
        """Run one transaction with what was appended up to then; whether it succeeded."""
        while self._committing is not None:
            await asyncio.wait({self._committing})
        running = self._submit_commit(before)
        await asyncio.wait({running})
        return running.result()

    def _submit_commit(self, before: float) -> asyncio.Future[bool]:
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
            self._committing = None
            finished.set_result(self._committed(batch, deletions, gaps is not None, outcome))

        self._committing = finished
        self._worker.submit(lambda: self._store.commit(work), done)
        return finished

    def _committed(
        self, batch: Sequence[Message], deletions: Sequence[int], told: bool, outcome: Outcome[Done]
    ) -> bool:
        lanes = self._lanes
        try:
            done = outcome.get()
        except StoreFailure as failure:
            lanes.failed(batch)
            lanes.gaps.changed = lanes.gaps.changed or told
            self._degrade(failure)
            return False
        except BaseException as error:  # noqa: BLE001 - raised in commit_loop, where the core sees it
            self._bug = error
            self._kick.set()
            return False
        self._committed_at = self._clock()
        self._bytes_written, self.bytes_stored, self.cap = done.bytes_written, done.used, done.cap
        for id_ in deletions:
            lanes.deleting.pop(id_, None)
        self._delete_due = self._clock() + _DELETE_AFTER_S if lanes.deleting else 0.0
        changed = lanes.gaps.changed
        if done.dropped:
            # The transaction wrote these gaps itself, unless some turn out to be none.
            lanes.gaps.changed = not lanes.dropped_for_room(done.dropped) or changed
            self._say_dropping("cap")
        lanes.committed(batch, self._clock())
        if self.state == "degraded":
            self._recovered()
        if batch or deletions:
            self.state = "full" if done.full else "ok"
        self._wake()
        return True

    # -- the store's troubles ------------------------------------------------------------------------------------

    async def _reopen(self) -> None:
        try:
            self._lock.acquire()
        except (OSError, DataDirectoryInUse) as error:
            self.text = str(error)
            return
        if self._opening is None:
            self._submit_open()
        await self._patiently(self._opening, _OPEN_WAIT_S)

    def _submit_open(self) -> None:
        finished = asyncio.get_running_loop().create_future()
        known = self._lanes.known_runs() if self._opened_once else ()

        def job() -> tuple[Opened, int | None, tuple[int, int]]:
            opened = self._store.open(known)
            first = self._store.page(0, 2**62, rows=1, size=1).rows if opened.runs else ()
            return opened, ts_of(first[0][3]) if first else None, self._store.extent()

        def done(outcome: Outcome[tuple[Opened, int | None, tuple[int, int]]]) -> None:
            self._opening = None
            try:
                opened, oldest_ts, (self.bytes_stored, self.cap) = outcome.get()
                self._opened(opened, oldest_ts)
            except StoreFailure as failure:
                self._degrade(failure)
            except BaseException as error:  # noqa: BLE001 - raised in commit_loop, where the core sees it
                self._bug = error
            finished.set_result(None)
            self._wake()

        self._opening = finished
        self._worker.submit(job, done)

    def _opened(self, opened: Opened, oldest_ts: int | None) -> None:
        lanes = self._lanes
        self._readable = True
        if opened.set_aside is not None:
            _log.error("store_set_aside", file=str(opened.set_aside), reason="damaged")
        elif opened.damaged:
            _log.error("store_gone", directory=str(self._directory))
        if not self._opened_once:
            self._opened_once = True
            lanes.gaps.load(opened.gaps)
            lanes.carry_over(opened.base, opened.runs, oldest_ts)
            if opened.previous is not None:
                previous = opened.previous
                ended: Literal["stopped", "lost"] = "stopped" if previous.ended == "stopped" else "lost"
                self.previous = Previous(previous.run, ended, previous.seen_at)
        elif opened.fresh:
            lanes.forget_disk("store-damaged")
        if self.state == "degraded":
            self._recovered()

    def _degrade(self, failure: StoreFailure) -> None:
        """Go on in memory. A damaged file is replaced at once, everything else is tried again later."""
        now = self._clock()
        self._readable = self._readable and failure.reason in ("disk-full", "no-room")
        at_once = isinstance(failure, StoreDamaged) and now - self._damaged_at >= self._retry_s
        self._damaged_at = now if at_once else self._damaged_at
        self._retry_at = now if at_once else now + self._retry_s
        self.reason, self.text = failure.reason, str(failure)
        if self.state != "degraded":
            self.state = "degraded"
            self._degraded_at = now
            _log.error("store_degraded", reason=self.reason, text=self.text)
        self._lanes.admit_waiting()
        self._wake()

    def _recovered(self) -> None:
        self.state, self.reason, self.text = "ok", "", ""
        seconds = round(self._clock() - self._degraded_at, 1)
        _log.info("store_ok", degraded_s=seconds, dropped=self._lanes.dropped["store-failing"])

    def _say_dropping(self, reason: str) -> None:
        now = self._clock()
        if now - self._dropping_at >= _QUIET_S:
            _log.error("store_dropping", dropped=sum(self._lanes.dropped.values()), reason=reason)
        self._dropping_at = now

    # -- reading back --------------------------------------------------------------------------------------------

    def _submit_page(self) -> None:
        finished = asyncio.get_running_loop().create_future()
        epoch = self._epoch
        after, below = self._lanes.page_bounds()

        def done(outcome: Outcome[Page]) -> None:
            self._paging = None
            try:
                page = outcome.get()
                if epoch == self._epoch:
                    self._lanes.accept(page)
            except StoreFailure as failure:
                self._degrade(failure)
            except BaseException as error:  # noqa: BLE001 - raised in commit_loop, where the core sees it
                self._bug = error
                self._kick.set()
            finished.set_result(None)

        self._paging = finished
        self._worker.submit(lambda: self._store.page(after, below, rows=_PAGE_ROWS, size=_PAGE_BYTES), done)

    # -- small things --------------------------------------------------------------------------------------------

    @staticmethod
    async def _patiently(future: asyncio.Future[Any] | None, seconds: float) -> None:
        """Wait for a future without cancelling it, at most so long."""
        if future is not None:
            await asyncio.wait({future}, timeout=seconds)

    def _raise_bug(self) -> None:
        if self._bug is not None:
            raise self._bug

    def _wake(self) -> None:
        self._news.set()
        self._kick.set()

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
