"""Reads one OPC UA server by subscriptions: one session, one subscription for each publishing interval.

Promises: nothing is retried here but single nodes: a connection that is lost, a session that is ended, a subscription
that is silent for three keep-alives end this object with `Unavailable`, and the runner opens a fresh one from nothing;
no task per value, none left behind by `close`; `collect` may be cancelled and loses nothing.

May import: `collectors.api`, `collectors.opcua.*`, structlog.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

import structlog

from collectors.api import Batch, CollectorStats, Context, JsonType, TagInfo, Unavailable
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.news import Kept, News, Tag
from collectors.opcua.session import Session
from collectors.opcua.subscription import DEFAULT_TIMING, Subscription, Timing
from collectors.opcua.values import to_ms

log = structlog.get_logger("shopfloor.device")

LONGEST_WAIT_S = 10.0
"""`collect` shows life at least this often."""
MOST_PUBLISHERS = 5
"""Publish requests that wait at the server at once."""

_NODE_PROBLEMS = frozenset({0x8033_0000, 0x8034_0000})


class OpcuaCollector:
    """One server.

    Args:
        config: the device.
        context: keeps what the device's next object inherits.
        timing: for tests.
    """

    pushes: ClassVar[bool] = True

    def __init__(self, config: OpcuaConfig, context: Context, timing: Timing = DEFAULT_TIMING) -> None:
        self.tags_version = 0
        self._config = config
        self._timing = timing
        self._kept = context.kept(("opcua", config.name), Kept)
        self._news = News(config.name, config.time, config.max_skew, self._kept)
        self._tags = []
        for tag, info in zip(config.tags, config.tag_infos(), strict=True):
            shortest = info.rules.scale is None and info.rules.offset is None
            kind = self._kept.kinds.get((info.name, info.source))
            self._tags.append(Tag(info, tag.address(), shortest, kind))
        self._session = Session(config.url, config.name, config.timeout, channel_s=timing.channel, probe_s=timing.probe)
        self._subscriptions: dict[int, Subscription] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._handles = count(1)
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._closed = False
        self._publishers = 0

    @property
    def groups(self) -> Mapping[str, float]:
        """Group name -> publishing interval."""
        return self._config.groups()

    def tags(self) -> Sequence[TagInfo]:
        """The tags; their types as far as values came."""
        kept = self._kept
        return [
            replace(tag.info, type=_published_type(tag.info, kept.kinds.get(tag.key)), wide=tag.key in kept.wide)
            for tag in self._tags
        ]

    def stats(self) -> CollectorStats:
        """Counters so far."""
        return CollectorStats(requests=self._session.requests, samples_lost=self._news.samples_lost)

    async def open(self) -> None:
        """Connect, resolve the nodes, subscribe. Raises Unavailable, Misconfigured."""
        await self._session.connect()
        namespaces = await self._session.namespaces()
        for group, interval in self._config.groups().items():
            tags = [tag for tag in self._tags if tag.info.group == group]
            subscription = Subscription(self._session, self._news, group, interval, tags, self._timing)
            await subscription.create()
            self._subscriptions[subscription.id] = subscription
            await subscription.monitor(tags, namespaces, self._next_handle)
        now = time.monotonic()
        for subscription in self._subscriptions.values():
            subscription.heard = now
        self._publishers = min(len(self._subscriptions) + 1, MOST_PUBLISHERS)
        for _ in range(self._publishers):
            self._start(self._publish())
        self._start(self._watch())

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        """Return the news, or nothing after 10 s; raises what ended the connection once the news are taken."""
        if not self._news and self._failure is None:
            self._wake.clear()
            timer = asyncio.get_running_loop().call_later(LONGEST_WAIT_S, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
        batches = self._news.take()
        if not batches and self._failure is not None:
            raise self._failure
        self._report()
        return batches

    async def close(self) -> None:
        """Give session and connection back, within `session.CLOSE_S`. Safe without `open`, safe twice."""
        self._closed = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            await self._session.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task ended by itself: what it raised ends the connection."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and self._failure is None and not self._closed:
            self._failure = error
            self._wake.set()

    def _next_handle(self) -> int:
        return next(self._handles)

    async def _publish(self) -> None:
        """Keep one publish request at the server, and take what it brings."""
        ua = self._session.ua
        acknowledge: list[Any] = []
        while True:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = acknowledge
            try:
                answer = await self._session.call(request, ua.PublishResponse, waits=True)
            except Unavailable as error:
                detail = str(error.facts.get("detail", ""))
                acknowledge = []
                if detail == "BadTimeout":
                    # Of this request only; the next one takes its place.
                    continue
                if detail.startswith("BadTooManyPublishRequests") and self._publishers > 1:
                    self._publishers -= 1
                    return
                raise
            result = answer.Parameters
            acknowledge = []
            message = result.NotificationMessage
            if message.NotificationData:
                acknowledge.append(
                    ua.SubscriptionAcknowledgement(
                        SubscriptionId=result.SubscriptionId, SequenceNumber=message.SequenceNumber
                    )
                )
            subscription = self._subscriptions.get(result.SubscriptionId)
            if subscription is not None:
                self._take(subscription, message, answer.ResponseHeader.Timestamp)

    def _take(self, subscription: Subscription, message: Any, server_time: Any) -> None:
        ua = self._session.ua
        now = subscription.heard = time.monotonic()
        now_ms = time.time_ns() // 1_000_000
        self._news.server_clock(to_ms(server_time), now_ms)
        items: list[Any] = []
        for data in message.NotificationData or ():
            if isinstance(data, ua.DataChangeNotification):
                items.extend(data.MonitoredItems)
            elif isinstance(data, ua.StatusChangeNotification):
                self._status_changed(subscription, data.Status.value)
        if items:
            subscription.lose(self._news.add(subscription.group, items, now, now_ms))
        if self._news:
            self._wake.set()

    def _status_changed(self, subscription: Subscription, status: int) -> None:
        if status & 0xFFFF_0000 in _NODE_PROBLEMS:
            # Not as the specification means it, but some servers tell so that a node was deleted, and not which.
            subscription.check = True
            return
        raise self._session.ended(f"subscription status 0x{status:08X}")

    async def _watch(self) -> None:
        """Look after silence, the channel and nodes that could not be monitored."""
        tick = self._timing.tick
        while True:
            before = time.monotonic()
            await asyncio.sleep(tick)
            now = time.monotonic()
            if now - before < tick + 1.0:
                # Otherwise this process slept, and answers may wait unread.
                self._check_silence(now)
            await self._session.keep()
            for subscription in self._subscriptions.values():
                await subscription.retry(self._session.namespaces, self._next_handle)
            if self._news:
                self._wake.set()

    def _check_silence(self, now: float) -> None:
        for subscription in self._subscriptions.values():
            silence = subscription.silent_s(now)
            if silence is not None:
                where, seconds = self._session.where, round(silence, 1)
                raise Unavailable(
                    "stale",
                    "silent_subscription",
                    f"{where} is connected, but its subscription {subscription.group} has been silent for {seconds} s",
                    where=where,
                    seconds=seconds,
                )

    def _report(self) -> None:
        """Pass on what the news taught, and tell once what people should know."""
        news, config = self._news, self._config
        self.tags_version = news.learned
        if news.skew_s is not None and not self._kept.skew_reported:
            self._kept.skew_reported = True
            log.warning("device_clock_skew", device=config.name, label=config.label, offset_s=round(news.skew_s, 1))
        while news.undecodable:
            tag, what = news.undecodable.pop(0)
            log.warning("tag_unreadable", device=config.name, label=config.label, tag=tag, what=what)


def _published_type(info: TagInfo, kind: JsonType | None) -> JsonType | None:
    """The JSON type after scale, map and the like."""
    if info.type is not None:
        return info.type
    if kind == "boolean" and (info.rules.scale is not None or info.rules.offset is not None):
        return "number"
    return kind
