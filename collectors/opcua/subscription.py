"""A subscription of a group of tags: made on the server, its silence and the holes in its messages noticed.

Promises: messages carry numbers without holes (OPC UA Part 4, 5.13.1.1): a missing number is noticed with the next
message or keep-alive, also by servers that count keep-alives although they must not. What its nodes do is `items`.

May import: `collectors.opcua.{items,session}`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from collectors.opcua.items import Items
from collectors.opcua.session import Session
from collectors.opcua.timing import Timing

MOST_MISSING: Final = 64
"""Missing messages that are asked for again; servers keep fewer than that."""
_NUMBERS: Final = 0xFFFF_FFFF
"""Messages are numbered 1 to this, and from 1 again."""


class Subscription:
    """One group's subscription on the server of one session.

    Attributes:
        id: the server's.
        group: whose.
        items: its nodes.
        heard: monotonic time of its last message.
        keepalive_s: how often it shows life without news.
        turn: held while a message is taken in: a later one waits until what is missing before it was fetched.
    """

    def __init__(self, session: Session, group: str, interval: float, items: Items, timing: Timing) -> None:
        self.id = 0
        self.group = group
        self.items = items
        self.heard = time.monotonic()
        self.keepalive_s = interval
        self.turn = asyncio.Lock()
        self._session = session
        self._interval = interval
        self._timing = timing
        self._last: int | None = None
        self._announced: int | None = None
        """Number that a keep-alive announced for the next message."""
        self._counts_keepalives = 0

    async def create(self) -> None:
        """Make it on the server. Raises Unavailable."""
        ua = self._session.ua
        request = ua.CreateSubscriptionRequest()
        wanted = request.Parameters
        keepalives = max(1, round(self._timing.keepalive / self._interval))
        wanted.RequestedPublishingInterval = self._interval * 1000
        wanted.RequestedMaxKeepAliveCount = keepalives
        # The server drops the subscription of a client that is gone after ten missed keep-alives (at least three).
        wanted.RequestedLifetimeCount = keepalives * 10
        wanted.MaxNotificationsPerPublish = 0
        wanted.PublishingEnabled = True
        granted = (await self._session.call(request, ua.CreateSubscriptionResponse)).Parameters
        self.id = self.items.subscription_id = granted.SubscriptionId
        self.keepalive_s = granted.RevisedPublishingInterval / 1000 * max(1, granted.RevisedMaxKeepAliveCount)
        self.heard = time.monotonic()

    def silent_s(self, now: float) -> float | None:
        """Seconds of silence if they are too many, else None."""
        silence = now - self.heard
        return silence if silence > self._timing.silence * max(self.keepalive_s, self._interval) else None

    def missing(self, number: int, *, news: bool) -> list[int] | None:
        """Take note of a message's number; returns the numbers before it that never came, None = it came before.

        Args:
            number: of the message; a keep-alive carries that of the next message.
            news: whether it is a message rather than a keep-alive.
        """
        if number == 0 or (self._last is None and not news):
            return []
        last = self._last
        expected = number if last is None else last % _NUMBERS + 1
        ahead = (number - expected) % _NUMBERS
        if ahead > _NUMBERS // 2:
            # A keep-alive with the number of the last message is an old habit of some servers.
            return None if news else []
        missing = [(expected + step - 1) % _NUMBERS + 1 for step in range(min(ahead, MOST_MISSING))]
        if missing == [self._announced] and news:
            # Either that message was lost, or the server counts its keep-alives: the second time it is a habit.
            self._counts_keepalives += 1
            if self._counts_keepalives > 1:
                missing = []
        if news:
            self._last, self._announced = number, None
        else:
            self._announced = number
            if missing:
                self._last = (number - 2) % _NUMBERS + 1
        return missing
