"""A connection that several devices share: one owner, one at a time, whoever was due first goes first.

Promises: never two connections of one line, not even while one closes and the next opens; turns never overlap; among
those who wait, the one with the earliest due time goes next; a failed attempt to connect answers all who waited for it,
so that ten devices of a dead gateway knock once; between two requests lies the line's pause, and what `max_load` leaves
to others. Closing leaves a line usable: who comes in the meantime reopens it.

May import: the standard library, `collectors.api`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from collectors.api import Unavailable


class Connection(Protocol):
    """What a line owns."""

    @property
    def alive(self) -> bool:
        """Whether requests may be sent."""

    async def close(self) -> None:
        """Give it back; returns when the other side can no longer count it as open. Safe twice."""


C = TypeVar("C", bound=Connection)


@dataclass(slots=True)
class LineStats:
    """What a line did since the start; outlives its connections.

    Attributes:
        state: `connected`, or the cause why it is not, `closed` if nobody uses it.
        busy_s: seconds in which it was used: requests, answers, the silences they need.
        slowest_s: the longest time an answer took.
        requests, late: requests sent; polls that had to wait notably for their turn.
        connects: connections made.
        answering: devices that answered last time they were asked.
    """

    state: str = "closed"
    busy_s: float = 0.0
    slowest_s: float = 0.0
    requests: int = 0
    late: int = 0
    connects: int = 0
    answering: set[str] = field(default_factory=set)


class Line(Generic[C]):
    """Owns the connection to one address.

    Args:
        where: the address for people.
        connect: makes a connection within so many seconds, one attempt; raises Unavailable.
        stats: where to count.
        pause: seconds of silence between requests.
        max_load: share of the time that is used; the rest stays free for another master.
        leave: gives back what `connect` needs, when the line is closed.
    """

    def __init__(
        self,
        where: str,
        connect: Callable[[float], Awaitable[C]],
        *,
        stats: LineStats | None = None,
        pause: float = 0.0,
        max_load: float = 1.0,
        leave: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.where = where
        self.stats = stats if stats is not None else LineStats()
        self.paced = pause > 0 or max_load < 1
        """Whether something comes between two requests."""
        self._connect = connect
        self._leave = leave
        self._pause = pause
        self._rest = 1 / max_load - 1
        self._free_at = float("-inf")
        self._connection: C | None = None
        self._failure: tuple[float, Unavailable] | None = None
        self._taken = False
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def turn(self, due: float) -> Turn[C]:
        """The right to use the line, to be entered with `async with`; `due` in monotonic seconds orders who waits."""
        return Turn(self, due)

    async def close(self) -> None:
        """Wait for the turn that is on, then close the connection. The line may be used again afterwards."""
        async with self.turn(float("-inf")) as turn:
            await turn.disconnect()
            self.stats.state = "closed"
            if self._leave is not None:
                await self._leave()

    # -- for Turn ------------------------------------------------------------------------------------------------

    async def _take(self, due: float) -> None:
        if not self._taken:
            self._taken = True
            return
        self._count += 1
        place = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (due, self._count, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give()
            raise

    def _give(self) -> None:
        while self._waiting:
            _, _, place = heappop(self._waiting)
            if not place.done():
                place.set_result(None)
                return
        self._taken = False

    def _first_due(self) -> float | None:
        while self._waiting and self._waiting[0][2].done():
            heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    async def _open(self, timeout: float, asked_at: float) -> C:
        if self._connection is not None:
            if self._connection.alive:
                return self._connection
            await self._drop()
        if self._failure is not None and asked_at <= self._failure[0]:
            error = self._failure[1]
            raise Unavailable(error.reason, error.cause, error.text, **error.facts)
        try:
            self._connection = await self._connect(timeout)
        except Unavailable as error:
            self._failure = (time.monotonic(), error)
            self.stats.state = error.cause
            raise
        self._failure = None
        self.stats.state = "connected"
        self.stats.connects += 1
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Turn(Generic[C]):
    """One user's turn on a line."""

    __slots__ = ("_asked_at", "_due", "_held", "_line", "_waited")

    def __init__(self, line: Line[C], due: float) -> None:
        self._line = line
        self._due = due
        self._held = False
        self._asked_at = 0.0
        self._waited = 0.0

    async def __aenter__(self) -> Turn[C]:
        self._asked_at = time.monotonic()
        await self._line._take(self._due)  # noqa: SLF001  # Turn and Line are one mechanism, in one module
        self._held = True
        self._waited = time.monotonic() - self._asked_at
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._held = False
            self._line._give()  # noqa: SLF001  # as above

    async def connection(self, timeout: float) -> C:
        """The line's connection; opened, with one attempt of at most `timeout` seconds, if there is none.

        Raises:
            Unavailable: there is none to be had.
        """
        return await self._line._open(timeout, self._asked_at)  # noqa: SLF001  # as above

    @property
    def paced(self) -> bool:
        """Whether something comes between two requests: then each is sent by itself, after `ready`."""
        return self._line.paced

    @property
    def waited_s(self) -> float:
        """Seconds between asking for the turn and getting it."""
        return self._waited

    async def ready(self) -> None:
        """Wait until the line may be used again after the last request: its pause, and what is left to others."""
        delay = self._line._free_at - time.monotonic()  # noqa: SLF001  # as above
        if delay > 0:
            await asyncio.sleep(delay)

    def used(self, seconds: float, silent: float = 0.0) -> None:
        """A request has its outcome, after so many seconds; in `silent` of them the line was kept free of anything."""
        line = self._line
        line.stats.requests += 1
        line.stats.busy_s += seconds
        line._free_at = time.monotonic() + max(line._pause, (seconds - silent) * line._rest)  # noqa: SLF001  # as above

    async def disconnect(self) -> None:
        """Close the connection; the next `connection` opens another."""
        await self._line._drop()  # noqa: SLF001  # as above

    def blocks_others(self) -> bool:
        """Whether somebody waits who was due earlier; `step_aside` lets them go first."""
        first = self._line._first_due()  # noqa: SLF001  # as above
        return first is not None and first < self._due

    async def step_aside(self, due: float | None = None) -> None:
        """Let those go first who were due earlier; with `due`, than that: who held up the line goes to its end."""
        if due is not None:
            self._due = due
        if self.blocks_others():
            self._held = False
            self._line._give()  # noqa: SLF001  # as above
            await self._line._take(self._due)  # noqa: SLF001  # as above
            self._held = True
