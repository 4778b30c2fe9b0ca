"""The outbox: everything between the runners, which append, and the publisher, which takes.

Promises: what was appended is delivered, or counted as dropped and told in `gaps`, or still here; it is on disk at
most `commit_interval` after it was appended, unless it was acknowledged before (then it never touches the disk);
nobody waits for the broker here, and for a commit in progress at most a second; trouble with the disk is a state
(`degraded`), not an error, and ends by itself.

Belongs to the thread of the loop; all files are touched in the store's thread. May import: `agent.alarm`,
`agent.message`, `agent.buffer`.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from agent.alarm import Alarm
from agent.buffer.access import DELETE_AFTER_S, PAGE_ROWS, Previous, StoreAccess, patiently
from agent.buffer.condition import Condition, State
from agent.buffer.lanes import HEAD_BYTES, PARK_S, Lanes
from agent.buffer.lock import DataDirectoryInUse
from agent.buffer.store import Connect, Store
from agent.message import Heading, Message, encode
from collectors.api import Batch

__all__ = ["DataDirectoryInUse", "Outbox", "Previous", "State"]

_EARLY_BYTES = 4_000_000
"""So much uncommitted does not wait for the interval."""
_APPEND_WAIT_S = 1.0
_DELETE_AFTER = 100
_GAPS_AFTER_S = 10.0
_EAGER = 0.8
"""Share of the interval after which a commit begins: it shall have ended within it."""
_SIGN_OF_LIFE_S = 600.0


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
        commit_interval: as given.
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
        self._directory = directory
        self._heading = Heading(site, gateway, self.run)
        self.commit_interval = commit_interval
        self._max_payload = max_payload
        self._clock = clock
        self._wall = wall
        self._news = asyncio.Event()
        self._kick = asyncio.Event()
        self._lanes = Lanes(self.run, in_order=replay == "in-order")
        self._condition = Condition(self._lanes, retry_s, clock, self._wake)
        store = Store(
            directory,
            run=self.run,
            started_at=self._now_ms(),
            max_size=max_size,
            max_payload=max_payload,
            connect=connect,
        )
        self._access = StoreAccess(
            directory,
            store,
            self._lanes,
            self._condition,
            cap=max_size,
            clock=clock,
            now_ms=self._now_ms,
            wake=self._wake,
        )
        self._closed = False
        self._epoch = 0
        self._alarm = Alarm(self._due, self._kick.set, clock)

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the directory and open the store; with trouble on the disk the outbox is degraded, not refused.

        Raises:
            DataDirectoryInUse: another process owns the directory.
        """
        try:
            await self._access.open()
        except DataDirectoryInUse:
            self._closed = True
            raise
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
        if self._condition.degraded:
            if not self._condition.retries():
                return
            if not self._condition.readable:
                await self._access.reopen()
            if not self._condition.readable:
                return
        # While messages are being acknowledged, the youngest are left to it: most never need to be written.
        leave = self._lanes.session and self._lanes.head_bytes <= _EARLY_BYTES
        await self._access.commit(now - self.commit_interval / 4 if leave else now)

    async def commit_now(self) -> bool:
        """Commit all that was appended and delete all that is done with; whether nothing is left to commit."""
        return await self._access.commit_all()

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
        await self._access.close("stopped" if clean else "lost")

    @property
    def alive_at(self) -> float:
        """When the store's thread last came round (`time.monotonic()`)."""
        return self._access.alive_at

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
        admit = self.commit_interval > 0 or self._condition.degraded
        for body in bodies:
            message = Message(self.run, lanes.seq + 1, batch.device, batch.group, body, at=now)
            lanes.add(message, admit=admit)
        if admit:
            self._news.set()
        if lanes.head_bytes > _EARLY_BYTES:
            self._kick.set()
        else:
            self._alarm.look_at(now + self.commit_interval * _EAGER)  # by then it is mostly acknowledged
        if not self._condition.degraded and (not admit or lanes.head_bytes > _EARLY_BYTES):
            await self._wait_for_commit(message)
        if lanes.head_bytes > HEAD_BYTES:
            lanes.drop_oldest_uncommitted(HEAD_BYTES * 9 // 10)
            self._condition.say_dropping("store-failing")

    async def _wait_for_commit(self, message: Message) -> None:
        """Wait until a message is committed or memory is not crowded any more, at most a second."""
        deadline = time.monotonic() + _APPEND_WAIT_S
        lanes = self._lanes
        while message.order in lanes.head and (self.commit_interval == 0 or lanes.head_bytes > _EARLY_BYTES):
            left = deadline - time.monotonic()
            if left <= 0 or self._closed or self._condition.bug is not None or self._condition.degraded:
                return
            if self._access.committing is None:
                self._access.submit_commit(self._clock())
            await patiently(self._access.committing, left)

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
        access, epoch = self._access, self._epoch
        while not self._closed:
            taken = self._lanes.take_backlog(limit, self._clock(), readable=self._condition.readable)
            if self._condition.readable and access.paging is None and self._lanes.wants_page(PAGE_ROWS // 4):
                access.submit_page(lambda: epoch == self._epoch)
            if taken or access.paging is None:
                return taken
            await asyncio.wait({access.paging})
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

    @property
    def state(self) -> State:
        """ok, degraded (the store cannot be written: memory only), full (the oldest go to make room)."""
        return self._condition.state

    @property
    def reason(self) -> str:
        """Why it is degraded, a stable word; empty otherwise."""
        return self._condition.reason

    @property
    def text(self) -> str:
        """Why it is degraded, as the system says it; empty otherwise."""
        return self._condition.text

    @property
    def bytes_stored(self) -> int:
        """Bytes that messages take on disk, as of the last transaction."""
        return self._access.bytes_stored

    @property
    def cap(self) -> int:
        """Bytes that messages may take on disk, as of the last transaction."""
        return self._access.cap

    @property
    def previous(self) -> Previous | None:
        """The run before; None if there was none or it is not known (yet)."""
        return self._access.previous

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
            "bytes_written": self._access.bytes_written,
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

    # -- when to commit ------------------------------------------------------------------------------------------

    def _due(self) -> float:
        """When `tick` is wanted next."""
        lanes = self._lanes
        if self._condition.degraded:
            return self._condition.retry_at
        committed_at = self._access.committed_at
        due = committed_at + _SIGN_OF_LIFE_S
        if lanes.head:
            oldest = next(iter(lanes.head.values())).at
            due = min(due, 0.0 if lanes.head_bytes > _EARLY_BYTES else oldest + self.commit_interval * _EAGER)
        if lanes.gaps.changed:
            due = min(due, committed_at + _GAPS_AFTER_S)
        if lanes.deleting:
            due = min(due, 0.0 if len(lanes.deleting) >= _DELETE_AFTER else self._access.delete_due)
        return due

    def _deletions_due(self) -> None:
        count, access = len(self._lanes.deleting), self._access
        if count and (access.delete_due == 0.0 or count >= _DELETE_AFTER):
            if access.delete_due == 0.0:
                access.delete_due = self._clock() + DELETE_AFTER_S
            self._kick.set()

    # -- small things --------------------------------------------------------------------------------------------

    def _raise_bug(self) -> None:
        if self._condition.bug is not None:
            raise self._condition.bug

    def _wake(self) -> None:
        self._news.set()
        self._kick.set()

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
