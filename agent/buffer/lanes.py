"""Where each message is, and in which order it goes out. The outbox's book-keeping, without disk and without loop.

Every message is in one place at a time (`Place`), so what is buffered and in flight is counted, not derived, and
`produced = delivered + buffered + in flight + dropped` can fail if there is a mistake in here. Three views cut across
the places: `head` (not yet committed), `held` (committed, and in memory), `deleting` (committed, done with).

Order: `order` rises with every append, over all runs; a row's id on disk is its run's base + seq. Everything that is
only on disk and not yet read in this session lies above `cursor` and below whatever is in the live lane.

Pure: no asyncio, no I/O, no clock. May import: the standard library, `agent.message`, and `gaps` and `records` of this
package.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from agent.buffer.gaps import Gaps
from agent.buffer.records import Page, StoredRun, ranges
from agent.message import Message, ts_of

OWN = 1 << 62
"""`order` of own messages is this + seq: above all earlier runs, whose rows may not have been seen yet."""
HEAD_BYTES = 16 * 1000 * 1000
"""Bodies that may wait for a commit; beyond it the oldest go, counted `store-failing`."""
LIVE_BYTES = 8 * 1000 * 1000
LIVE_S = 5.0
"""What a session could not send within this stays for the backlog: the live lane is for fresh data."""
PARKED_BYTES = 4 * 1000 * 1000
PARKED = 1000
TRIES = 3
PARK_S = (1.0, 5.0)
"""How long a message rests after its first and second refusal."""
DROP_REASONS = ("cap", "refused", "too-large", "store-failing")


class Place(IntEnum):
    """Where a message is."""

    GONE = 0  # delivered or dropped
    WAITING = 1  # not to be sent before it is committed
    LIVE = 2
    BACKLOG = 3  # in memory, to be sent again or late, not committed
    PAGE = 4  # read back from disk, to be sent
    FLIGHT = 5  # lent to the publisher
    PARKED = 6  # refused, resting
    DISK = 7  # only on disk; this object is not used any more


@dataclass(slots=True)
class Tally:
    """What is only on disk of one run: how many, and an id that none of them is below."""

    run: str
    base: int
    disk: int
    low: int
    last: int


class Lanes:
    """The places of all messages of one outbox."""

    def __init__(self, run: str, *, in_order: bool) -> None:
        self.run = run
        self.gaps = Gaps()
        self.delivered = 0
        self.carried_over = 0
        self.dropped = dict.fromkeys(DROP_REASONS, 0)
        self.head: dict[int, Message] = {}
        self.head_bytes = 0
        self.held: dict[int, Message] = {}
        self.deleting: dict[int, None] = {}
        self.disk = 0
        self.session = False
        self.seq = 0
        self.base = 0
        self._in_order = in_order
        self._count = [0] * len(Place)
        self._waiting: deque[Message] = deque()
        self._live: deque[Message] = deque()
        self._live_bytes = 0
        self._backlog: deque[Message] = deque()
        self._page: deque[Message] = deque()
        self._flight: dict[int, Message] = {}
        self._parked: dict[int, tuple[Message, float]] = {}
        self._parked_bytes = 0
        self._writing: frozenset[int] = frozenset()
        self._fresh_s = 2.0
        self._tallies: list[Tally] = [Tally(run, 0, 0, 0, 0)]
        self._cursor = 0
        self._released_low = OWN
        self._suspect = False
        self._uncertain: set[int] = set()  # uncommitted, but a failed commit may have left their rows
        self._disk_ts: int | None = None

    # -- counts --------------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Messages lent to the publisher."""
        return self._count[Place.FLIGHT]

    @property
    def buffered(self) -> int:
        """Messages that wait, in memory or on disk."""
        count = self._count
        return (
            count[Place.WAITING]
            + count[Place.LIVE]
            + count[Place.BACKLOG]
            + count[Place.PAGE]
            + count[Place.PARKED]
            + self.disk
        )

    @property
    def backlog(self) -> int:
        """Messages that go out late, without those that were refused and rest."""
        return self._count[Place.BACKLOG] + self._count[Place.PAGE] + self.disk

    @property
    def produced(self) -> int:
        """Own messages and those found in the store."""
        return self.seq + self.carried_over

    def oldest_backlog_ts(self) -> int | None:
        """`ts` of the oldest message of the backlog, as far as it was seen; None without backlog."""
        if self._page:
            return ts_of(self._page[0].body)
        if self.disk:
            return self._disk_ts
        return next((ts_of(message.body) for message in self._backlog if message.place == Place.BACKLOG), None)

    def complete_to(self) -> dict[str, int]:
        """Per run: the seq up to which everything was delivered or given up."""
        lowest: dict[str, int] = {}
        for message in self._in_memory():
            lowest[message.run] = min(lowest.get(message.run, message.seq), message.seq)
        complete = {}
        for tally in self._tallies:
            end = self.seq if tally.run == self.run else tally.last - tally.base
            low = min(lowest.get(tally.run, end + 1), tally.low - tally.base if tally.disk else end + 1)
            complete[tally.run] = low - 1
        return complete

    def _in_memory(self) -> Iterator[Message]:
        """One of the lowest of each lane, and all of those lanes that are short or have no order."""
        yield from self._flight.values()
        yield from (message for message, _ in self._parked.values())
        yield from (message for message in self._page if message.place == Place.PAGE)
        for lane, place in (
            (self._backlog, Place.BACKLOG),
            (self._live, Place.LIVE),
            (self._waiting, Place.WAITING),
        ):
            runs: set[str] = set()
            for message in lane:
                if message.place == place and message.run not in runs:
                    yield message
                    runs.add(message.run)
                    if message.run == self.run:
                        break

    # -- in ------------------------------------------------------------------------------------------------------

    def add(self, message: Message, *, admit: bool) -> None:
        """Take a new message; without `admit` it is not given out before it is committed."""
        message.order = OWN + message.seq
        self.seq = message.seq
        self.head[message.order] = message
        self.head_bytes += len(message.body)
        message.place = Place.WAITING
        self._count[Place.WAITING] += 1
        if admit:
            self._admit(message)
        else:
            self._waiting.append(message)

    def admit_waiting(self) -> None:
        """Give out what waits for a commit: there will be none for a while."""
        while self._waiting:
            message = self._waiting.popleft()
            if message.place == Place.WAITING:
                self._admit(message)

    def _admit(self, message: Message) -> None:
        if self._in_order and self.backlog:
            self._to_backlog(message)
        else:
            self._move(message, Place.LIVE)
            self._live.append(message)
            self._live_bytes += len(message.body)

    def _to_backlog(self, message: Message) -> None:
        """To the end of the backlog: memory only as long as it is not on disk."""
        if message.stored:
            self._release(message)
        else:
            self._move(message, Place.BACKLOG)
            self._backlog.append(message)

    def _move(self, message: Message, place: Place) -> None:
        self._count[message.place] -= 1
        self._count[place] += 1
        message.place = place

    # -- sessions ------------------------------------------------------------------------------------------------

    def begin_session(self, now: float, fresh_s: float) -> None:
        """What is younger than `fresh_s` and was never sent stays live; all else is backlog."""
        self._fresh_s = fresh_s
        self.session = True
        self._cursor = 0
        while self._live:
            message = self._live[0]
            if message.place == Place.LIVE and now - message.at <= fresh_s:
                break
            self._pop_live_to_backlog()
        self._obey_order()

    def end_session(self) -> None:
        """What is in flight goes back, to be sent again in order."""
        self.session = False
        back: list[Message] = []
        for message in self._flight.values():
            if message.tries:
                self._park(message, 0.0)
            elif message.stored:
                self._release(message)
            else:
                self._move(message, Place.BACKLOG)
                back.append(message)
        self._flight.clear()
        while self._page:
            message = self._page.popleft()
            if message.place != Place.PAGE:
                continue
            if message.stored:
                self._release(message)
            else:
                self._move(message, Place.BACKLOG)
                back.append(message)
        if back:
            back += [message for message in self._backlog if message.place == Place.BACKLOG]
            self._backlog = deque(sorted(back, key=lambda message: message.order))
        self._cursor = 0
        self._obey_order()

    def sweep(self, now: float) -> None:
        """Move from the live lane what has waited too long, or what memory should not hold any longer."""
        age = LIVE_S if self.session else self._fresh_s
        while self._live:
            message = self._live[0]
            if message.place == Place.LIVE:
                if now - message.at <= age and self._live_bytes <= LIVE_BYTES:
                    break
                if not self.session and not message.stored:
                    break  # it is in memory anyway until it is committed, and a session may come in time
            self._pop_live_to_backlog()
        self._obey_order()

    def _pop_live_to_backlog(self) -> None:
        message = self._live.popleft()
        self._live_bytes -= len(message.body)
        if message.place == Place.LIVE:
            self._to_backlog(message)

    def _obey_order(self) -> None:
        """With in-order replay nothing is live while there is a backlog."""
        if self._in_order and self._live and self.backlog:
            while self._live:
                self._pop_live_to_backlog()

    # -- out -----------------------------------------------------------------------------------------------------

    def take_live(self, limit: int) -> list[Message]:
        """Lend fresh messages, oldest first."""
        taken: list[Message] = []
        if self._in_order and self.backlog:
            return taken
        while self._live and len(taken) < limit:
            message = self._live.popleft()
            self._live_bytes -= len(message.body)
            if message.place == Place.LIVE:
                self._lend(message)
                taken.append(message)
        return taken

    def take_backlog(self, limit: int, now: float, *, readable: bool) -> list[Message]:
        """Lend what memory has of the backlog, in order; nothing when a page must be read first.

        Args:
            readable: whether the store can be read. If not, memory waits for its turn behind the disk only until it
                is half full: losing a message is worse than sending it early.
        """
        taken: list[Message] = []
        if len(self._parked) > PARKED or self._parked_bytes > PARKED_BYTES:
            self._take_parked(taken, limit, None)
        while self._page and len(taken) < limit:
            message = self._page.popleft()
            if message.place == Place.PAGE:
                taken.append(self._lend(message, replayed=True))
        if not self.disk or (not readable and self.head_bytes > HEAD_BYTES // 2):
            while self._backlog and len(taken) < limit:
                message = self._backlog.popleft()
                if message.place == Place.BACKLOG:
                    taken.append(self._lend(message, replayed=True))
        if not taken and not self.backlog:
            self._take_parked(taken, limit, now)
        return taken

    def _take_parked(self, taken: list[Message], limit: int, now: float | None) -> None:
        due = [message for message, rest in self._parked.values() if now is None or rest <= now]
        for message in due[: limit - len(taken)]:
            del self._parked[message.order]
            self._parked_bytes -= len(message.body)
            taken.append(self._lend(message, replayed=True))

    def _lend(self, message: Message, *, replayed: bool = False) -> Message:
        self._move(message, Place.FLIGHT)
        message.replayed = replayed
        self._flight[message.order] = message
        return message

    def ack(self, message: Message) -> bool:
        """Count a message as delivered; False when it is not in flight (any more)."""
        if message.place != Place.FLIGHT:
            return False
        del self._flight[message.order]
        self.delivered += 1
        self._leave(message)
        return True

    def refuse(self, message: Message, reason: str, now: float) -> bool:
        """Park a message behind the others; the third time drop it. Whether it was dropped."""
        if message.place != Place.FLIGHT:
            return False
        del self._flight[message.order]
        message.tries += 1
        if message.tries < TRIES:
            self._park(message, now + PARK_S[message.tries - 1])
            return False
        self._drop(message, reason)
        return True

    def _park(self, message: Message, rest: float) -> None:
        self._move(message, Place.PARKED)
        self._parked[message.order] = (message, rest)
        self._parked_bytes += len(message.body)

    def _drop(self, message: Message, reason: str) -> None:
        self.dropped[reason] += 1
        self.gaps.add(message.run, message.seq, message.seq, reason)
        self._leave(message)

    def _leave(self, message: Message) -> None:
        """The message is done with. While it is being written, `committed` sees to its row."""
        self._move(message, Place.GONE)
        if message.stored:
            del self.held[message.order]
            self.deleting[self.id_of(message)] = None
        else:
            del self.head[message.order]
            self.head_bytes -= len(message.body)
            if message.order in self._uncertain:
                self._uncertain.discard(message.order)
                self.deleting[self.id_of(message)] = None

    # -- disk ----------------------------------------------------------------------------------------------------

    def id_of(self, message: Message) -> int:
        """Id of the message's row."""
        return message.order - OWN + self.base if message.order >= OWN else message.order

    def uncommitted(self, before: float, size: int) -> list[Message]:
        """The oldest messages that were appended at or before this, about `size` bytes of them; they are now being
        written.
        """
        batch: list[Message] = []
        for message in self.head.values():
            if message.at > before or size <= 0:
                break
            batch.append(message)
            size -= len(message.body)
        self._writing = frozenset(message.order for message in batch)
        return batch

    def committed(self, batch: Sequence[Message], now: float) -> None:
        """These are on disk."""
        self._writing = frozenset()
        for message in batch:
            if message.place == Place.GONE:
                self.deleting[self.id_of(message)] = None
                continue
            del self.head[message.order]
            self._uncertain.discard(message.order)
            self.head_bytes -= len(message.body)
            message.stored = True
            self.held[message.order] = message
            if message.place == Place.WAITING:
                self._admit(message)
            elif message.place == Place.BACKLOG:
                self._release(message)
        for lane, place in ((self._waiting, Place.WAITING), (self._backlog, Place.BACKLOG)):
            while lane and lane[0].place != place:
                lane.popleft()
        self.sweep(now)

    def failed(self, batch: Sequence[Message]) -> None:
        """These may be on disk or not: what was done with meanwhile must be deleted if it is."""
        self._writing = frozenset()
        for message in batch:
            if message.place == Place.GONE:
                self.deleting[self.id_of(message)] = None
            else:
                self._uncertain.add(message.order)

    def drop_oldest_uncommitted(self, limit: int) -> int:
        """Drop uncommitted messages, oldest first, until `limit` bytes are left; how many. Not those in flight."""
        dropped = 0
        for message in list(self.head.values()):
            if self.head_bytes <= limit:
                break
            if message.place == Place.FLIGHT or message.order in self._writing:
                continue
            if message.place == Place.PARKED:
                del self._parked[message.order]
                self._parked_bytes -= len(message.body)
            self._drop(message, "store-failing")
            dropped += 1
        for lane, place in ((self._waiting, Place.WAITING), (self._backlog, Place.BACKLOG)):
            while lane and lane[0].place != place:
                lane.popleft()
        while self._live and self._live[0].place != Place.LIVE:
            self._live_bytes -= len(self._live.popleft().body)
        return dropped

    def kept_ids(self) -> frozenset[int]:
        """Ids that making room must spare: they are being sent, or not committed. The live lane's go like others."""
        held = (message for message in self.held.values() if message.place != Place.LIVE)
        return frozenset(self.id_of(message) for message in (*held, *self.head.values()))

    def carry_over(self, base: int, runs: Iterable[StoredRun], oldest_ts: int | None) -> None:
        """Take in what earlier runs left on disk."""
        self.base = base
        tallies = [Tally(run.run, run.base, run.count, run.first, run.last) for run in runs]
        self._tallies = [*tallies, Tally(self.run, base, 0, 0, 0)]
        self.disk = sum(tally.disk for tally in tallies)
        self.carried_over = self.disk
        self._disk_ts = oldest_ts
        self._obey_order()

    def known_runs(self) -> list[tuple[str, int]]:
        """Runs and bases by which ids are understood."""
        return [(tally.run, tally.base) for tally in self._tallies]

    def forget_disk(self, reason: str) -> int:
        """The file is gone: what was only there is lost, what memory still has must be committed anew. How many."""
        lost = 0
        for tally in self._tallies:
            lost += self._lose(tally, reason)
        self.gaps.changed = True  # none of them is in the new file
        self.deleting.clear()
        self._uncertain.clear()
        for message in self.held.values():
            message.stored = False
            self.head_bytes += len(message.body)
        together = [*self.held.values(), *self.head.values()]
        self.head = {message.order: message for message in sorted(together, key=lambda message: message.order)}
        self.held.clear()
        return lost

    def _lose(self, tally: Tally, reason: str) -> int:
        lost, tally.disk = tally.disk, 0
        if lost:
            self.gaps.add(tally.run, None, None, reason)
            self.dropped["store-failing"] += lost
            self.disk -= lost
        return lost

    def dropped_for_room(self, ids: Sequence[int]) -> bool:
        """These rows went to make room; whether all of them are lost, and not one was lent or done with meanwhile."""
        lost: list[int] = []
        lent: list[Message] = []
        for id_ in ids:
            message = self.held.get(self._order_of(id_))
            if message is None:
                if id_ not in self.deleting:
                    lost.append(id_)
            elif message.place == Place.LIVE:
                del self.held[message.order]
                self._move(message, Place.DISK)
                self._tallies[self._tally_at(id_)].disk += 1
                self.disk += 1
                lost.append(id_)
            else:
                lent.append(message)
        self.dropped_on_disk(lost, "cap")
        for message in lent:
            message.stored = False
            del self.held[message.order]
            self.head_bytes += len(message.body)
            self.head[message.order] = message
        if lent:
            self.head = dict(sorted(self.head.items()))
        return len(lost) == len(ids)

    def dropped_on_disk(self, ids: Sequence[int], reason: str) -> None:
        """Rows that were only on disk are gone."""
        counter = "cap" if reason == "cap" else "store-failing"
        by_tally: dict[int, list[int]] = {}
        for id_ in ids:
            by_tally.setdefault(self._tally_at(id_), []).append(id_)
        for at, own in by_tally.items():
            tally = self._tallies[at]
            tally.disk -= len(own)
            self.disk -= len(own)
            self.dropped[counter] += len(own)
            for first, last in ranges(own):
                self.gaps.add(tally.run, first - tally.base, last - tally.base, reason)

    def _release(self, message: Message) -> None:
        """Forget a committed message: the disk has it."""
        del self.held[message.order]
        self._move(message, Place.DISK)
        id_ = self.id_of(message)
        tally = self._tallies[self._tally_at(id_)]
        tally.low = min(tally.low, id_) if tally.disk else id_
        tally.disk += 1
        if not self.disk:
            self._disk_ts = ts_of(message.body)
        self.disk += 1
        self._released_low = min(self._released_low, id_)
        self._cursor = min(self._cursor, id_ - 1)

    def wants_page(self, room_for: int) -> bool:
        """Whether rows should be read: there are some, and memory has fewer than this."""
        return self.disk > 0 and len(self._page) <= room_for

    def page_bounds(self) -> tuple[int, int]:
        """Ids between which to read, exclusive; `accept` takes what was found."""
        self._released_low = OWN
        floor = next((m for lane, p in self._lanes_by_age() for m in lane if m.place == p), None)
        return self._cursor, OWN if floor is None or self._suspect else self.id_of(floor)

    def _lanes_by_age(self) -> tuple[tuple[deque[Message], Place], ...]:
        return (self._backlog, Place.BACKLOG), (self._live, Place.LIVE), (self._waiting, Place.WAITING)

    def accept(self, page: Page) -> None:
        """Take in rows read from disk within `page_bounds`."""
        self._cursor = min(page.last, self._released_low - 1)  # what was released meanwhile must be read again
        for id_, device, group, body in page.rows:
            tally = self._tallies[self._tally_at(id_)]
            order = self._order_of(id_)
            if order in self.held or order in self.head or id_ in self.deleting:
                continue
            message = Message(tally.run, id_ - tally.base, device, group, body, order=order, stored=True)
            message.place = Place.PAGE
            self._count[Place.PAGE] += 1
            self.held[order] = message
            self._page.append(message)
            tally.disk -= 1
            self.disk -= 1
        unknown = [id_ for id_ in page.bad if id_ not in self.deleting and not self._has(id_)]
        self.dropped_on_disk(unknown, "store-damaged")
        self.deleting.update(dict.fromkeys(unknown))
        if self._page:
            self._disk_ts = ts_of(self._page[-1].body)
        for tally in self._tallies:
            tally.low = max(tally.low, self._cursor + 1)
        if not page.end or self._released_low != OWN:
            return
        if self.disk and self._suspect:  # the file has fewer rows than it said, also at a second look
            for tally in self._tallies:
                self._lose(tally, "store-damaged")
        self._suspect = self.disk > 0
        if self._suspect:
            self._cursor = 0

    def _has(self, id_: int) -> bool:
        order = self._order_of(id_)
        return order in self.held or order in self.head

    def _order_of(self, id_: int) -> int:
        """`order` of the message that a row is."""
        tally = self._tallies[self._tally_at(id_)]
        return OWN + id_ - tally.base if tally.run == self.run else id_

    def _tally_at(self, id_: int) -> int:
        """Index of the run that an id belongs to: the last base below it."""
        return max(bisect_left(self._tallies, id_, key=lambda tally: tally.base) - 1, 0)
