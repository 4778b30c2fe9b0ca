"""The backlog of one MQTT session, on its way from the disk into the window.

Promises: no more of it is unacknowledged than fresh messages bear, no more of it goes out a second than the
configuration says, and nobody waits for the disk that it is read from. May import: `agent.buffer.outbox`,
`agent.pace`, structlog.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from agent.pace import BacklogWindow, Timing, TokenBucket

if TYPE_CHECKING:
    from agent.buffer.outbox import Outbox
    from agent.message import Message

log = structlog.get_logger("shopfloor.broker")

_LOOK_AGAIN_S = 1.0
_BURST_S = 0.05
"""A limited backlog goes out in bursts of so many seconds' worth, not message by message."""
_FETCH_S = 2.0
_TOLD = 100
"""A backlog of fewer messages is not worth a line in the log."""


class Replay:
    """What was not sent when it was new.

    Args:
        rate: messages a second, 0 = no limit.
        most: unacknowledged at once, at most.
        arrived: called when something came from the disk.
        now: monotonic seconds.

    Attributes:
        sent: unacknowledged now; whoever publishes keeps it.
    """

    def __init__(
        self, outbox: Outbox, *, rate: float, most: int, timing: Timing, arrived: Callable[[], None], now: float
    ) -> None:
        self.sent = 0
        self._outbox = outbox
        self._arrived = arrived
        self._bucket = TokenBucket(rate, now)
        self._window = BacklogWindow(most)
        self._ready: deque[Message] = deque()
        self._fetch_at = self._look_again_at = now
        self._fetch: asyncio.Task[list[Message]] | None = None
        late = outbox.backlog_age_s > timing.long_backlog
        self._from = now + (random.uniform(0, timing.spread) if late else 0.0)
        self._since: float | None = None

    @property
    def idle(self) -> bool:
        """Nothing of it is on its way."""
        return not self.sent and not self._ready

    def next(self, now: float, room: int) -> list[Message]:
        """The messages that go out now, `room` of them at most; what comes after them is read meanwhile."""
        if now < self._from:
            return []
        self._collect(now)
        size = self._window.size
        room = min(room, size - self.sent, len(self._ready))
        going = self._bucket.available(now, room) if room > 0 else 0
        self._bucket.take(going)
        messages = [self._ready.popleft() for _ in range(going)]
        wanted = size - len(self._ready)
        if wanted > size // 2 and self._fetch is None and now >= self._fetch_at and self._something_waits(now):
            self._fetch = asyncio.create_task(self._outbox.take_backlog(wanted))
            self._fetch.add_done_callback(lambda _: self._arrived())
        return messages

    def wait_s(self) -> float | None:
        """Seconds until more may go; None while that hangs on something else."""
        if not self._ready or self.sent >= self._window.size:
            return None
        return max(self._bucket.wait_s(), _BURST_S)

    def acknowledged(self, latency: float, now: float, used: int) -> None:
        """The newest message that the broker acknowledged took so long, while `used` of the backlog were on the way."""
        self._window.observe(latency, now, used)

    def tell(self, now: float) -> None:
        """Log the beginning and the end of a long one."""
        if now < self._from:
            return
        left = self._outbox.backlog + len(self._ready) + self.sent
        if self._since is None and left >= _TOLD:
            self._since = now
            log.info("backlog_replay", messages=left)
        elif self._since is not None and left == 0:
            log.info("backlog_done", seconds=round(now - self._since, 1))
            self._since = None

    async def finish(self) -> None:
        """Let a reading of the disk come to its end: what it took is the outbox's to count when the session ends."""
        if self._fetch is None:
            return
        await asyncio.wait({self._fetch}, timeout=_FETCH_S)
        if self._fetch.done():
            self._fetch.result()
        else:
            self._fetch.cancel()

    def _something_waits(self, now: float) -> bool:
        """Whether there may be backlog to take; refused messages that rest are seen in `buffered` only."""
        if self._outbox.backlog > 0:
            return True
        if now < self._look_again_at:
            return False
        self._look_again_at = now + _LOOK_AGAIN_S
        return bool(self._outbox.counters()["buffered"])

    def _collect(self, now: float) -> None:
        if self._fetch is None or not self._fetch.done():
            return
        messages = self._fetch.result()
        self._fetch = None
        self._ready.extend(messages)
        if not messages:
            self._fetch_at = now + _LOOK_AGAIN_S
