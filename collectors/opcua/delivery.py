"""Keeps publish requests at the server and takes what they bring: values in order, nothing twice, every hole told.

Promises: a message that is missing is asked for again (Republish) and comes before the later ones; what the server no
longer has is counted, and every node of that subscription is monitored anew, so that no tag stays at a value that is
past. Raises what ends the connection; retries nothing else.

May import: `collectors.api`, `collectors.opcua.{fast,news,sample,session,subscription,values}`, structlog.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from collectors.api import Unavailable
from collectors.opcua.fast import read
from collectors.opcua.news import News
from collectors.opcua.sample import Message, message_of
from collectors.opcua.session import Session
from collectors.opcua.subscription import Subscription
from collectors.opcua.values import ticks_to_ms

log = structlog.get_logger("shopfloor.device")

MOST_PUBLISHERS = 5
"""Publish requests that wait at the server at once."""

FAST = True
"""Whether responses are read by `fast` where it can; what it brings is the same without it, at ten times the cost."""
_NODE_PROBLEMS = frozenset({0x8033_0000, 0x8034_0000})


class Delivery:
    """What the subscriptions of one session bring.

    Args:
        device, label: for the log.
        subscriptions: by the server's id.
        wake: called when there is news.
    """

    def __init__(
        self,
        session: Session,
        news: News,
        subscriptions: Mapping[int, Subscription],
        wake: Callable[[], None],
        *,
        device: str,
        label: str | None,
    ) -> None:
        self._session = session
        self._news = news
        self._subscriptions = subscriptions
        self._wake = wake
        self._device = device
        self._label = label
        self.publishers = min(len(subscriptions) + 1, MOST_PUBLISHERS)
        """How many times `publish` is to run at once."""

    async def publish(self) -> None:
        """Keep one publish request at the server, and take what it brings. Raises Unavailable."""
        ua = self._session.ua
        acknowledge: list[Any] = []
        while True:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = acknowledge
            acknowledge = []
            try:
                answer = await self._session.call(request, ua.PublishResponse, waits=True, quick=read if FAST else None)
            except Unavailable as error:
                detail = str(error.facts.get("detail", ""))
                if detail == "BadTimeout":
                    # Of this request only; the next one takes its place.
                    continue
                if detail.startswith("BadTooManyPublishRequests") and self.publishers > 1:
                    self.publishers -= 1
                    return
                raise
            message = answer if isinstance(answer, Message) else self._message(answer)
            subscription = self._subscriptions.get(message.subscription)
            if subscription is None:
                continue
            subscription.heard = time.monotonic()
            async with subscription.turn:
                numbers = await self._take(subscription, message)
            acknowledge = [
                ua.SubscriptionAcknowledgement(SubscriptionId=subscription.id, SequenceNumber=number)
                for number in numbers
            ]

    def _message(self, answer: Any) -> Message:
        """What the library decoded."""
        result = answer.Parameters
        header = answer.ResponseHeader
        return message_of(self._session.ua, result.SubscriptionId, result.NotificationMessage, header.Timestamp)

    async def _take(self, subscription: Subscription, message: Message) -> list[int]:
        """Take a message, and before it what is missing; returns the numbers to acknowledge."""
        missing = subscription.missing(message.number, news=message.news)
        if missing is None:
            return [message.number]
        numbers = await self._fetch(subscription, missing) if missing else []
        now_ms = time.time_ns() // 1_000_000
        self._news.server_clock(ticks_to_ms(message.server_ticks), now_ms)
        self._deliver(subscription, message, now_ms)
        if message.news:
            numbers.append(message.number)
        return numbers

    async def _fetch(self, subscription: Subscription, missing: list[int]) -> list[int]:
        """Ask again for messages that never came; returns those that came now."""
        ua = self._session.ua
        fetched = []
        for number in missing:
            request = ua.RepublishRequest()
            request.Parameters.SubscriptionId = subscription.id
            request.Parameters.RetransmitSequenceNumber = number
            try:
                answer = await self._session.call(request, ua.RepublishResponse)
            except Unavailable as error:
                if error.cause != "session_refused":
                    raise
                continue
            message = message_of(ua, subscription.id, answer.NotificationMessage, None)
            if message.number == number and message.news:
                self._deliver(subscription, message, time.time_ns() // 1_000_000)
                fetched.append(number)
        lost = len(missing) - len(fetched)
        if lost:
            self._news.samples_lost += lost
            subscription.items.renew()
        log.warning(
            "subscription_gap", device=self._device, label=self._label, missing=len(missing), recovered=len(fetched)
        )
        return fetched

    def _deliver(self, subscription: Subscription, message: Message, now_ms: int) -> None:
        for status in message.statuses:
            self._status_changed(subscription, status)
        if message.samples:
            gone = self._news.take_in(subscription.group, message.samples, time.monotonic(), now_ms)
            subscription.items.lose(gone)
        if self._news:
            self._wake()

    def _status_changed(self, subscription: Subscription, status: int) -> None:
        if status & 0xFFFF_0000 in _NODE_PROBLEMS:
            # Not as the specification means it, but some servers tell so that a node was deleted, and not which.
            subscription.items.check = True
            return
        raise self._session.ended(f"subscription status 0x{status:08X}")
