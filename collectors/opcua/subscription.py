"""A subscription of a group of tags: made on the server, its nodes monitored one by one, its silence noticed.

Promises: each node has its own status; those that cannot be monitored are told at once and tried again alone, after
5 s, 10 s, ... 60 s, with the namespaces as they are then; queue size and sampling interval are explicit.

May import: `collectors.api`, `collectors.opcua.{config,news,session,values}`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from collectors.api import Unavailable
from collectors.opcua.config import TAGS_PER_CALL, queue_size
from collectors.opcua.news import GONE, News, Tag
from collectors.opcua.session import CHANNEL_S, PROBE_S, Session
from collectors.opcua.values import quality_of

UNKNOWN_NODE = 0x8034_0000
"""BadNodeIdUnknown."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; tests make them short.

    Attributes:
        keepalive: a subscription without news shows life this often (at least every interval).
        silence: how many keep-alives may be missing.
        retry_first, retry_longest: delays between attempts to monitor a node, doubling.
        verify: how often every node is asked for whether it still exists; some servers do not tell.
        tick: how often silence and retries are looked at.
        channel, probe: see `session.CHANNEL_S`, `session.PROBE_S`.
    """

    keepalive: float = 3.0
    silence: int = 3
    retry_first: float = 5.0
    retry_longest: float = 60.0
    verify: float = 60.0
    tick: float = 1.0
    channel: float = CHANNEL_S
    probe: float = PROBE_S


DEFAULT_TIMING = Timing()


class Subscription:
    """One group's subscription on the server of one session."""

    def __init__(
        self, session: Session, news: News, group: str, interval: float, tags: Sequence[Tag], timing: Timing
    ) -> None:
        self.id = 0
        self.group = group
        self.tags = tags
        self.heard = time.monotonic()
        """Monotonic time of its last message."""
        self.keepalive_s = interval
        self._verify_at = self.heard + timing.verify
        self.check = False
        """Some node of it is gone and the server did not say which."""
        self._session = session
        self._news = news
        self._interval = interval
        self._timing = timing

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
        self.id = granted.SubscriptionId
        self.keepalive_s = granted.RevisedPublishingInterval / 1000 * max(1, granted.RevisedMaxKeepAliveCount)
        self.heard = time.monotonic()

    def silent_s(self, now: float) -> float | None:
        """Seconds of silence if they are too many, else None."""
        silence = now - self.heard
        return silence if silence > self._timing.silence * max(self.keepalive_s, self._interval) else None

    def lose(self, tags: Sequence[Tag]) -> None:
        """Plan another attempt for nodes that are gone."""
        now = time.monotonic()
        for tag in tags:
            if tag.retry_at is None:
                self._plan(tag, now)

    async def monitor(self, tags: Sequence[Tag], namespaces: Sequence[str | None], handle: Callable[[], int]) -> None:
        """Let the server watch these nodes; what it refuses is told and planned anew. Raises Unavailable."""
        found = []
        refused: list[Tag] = []
        for tag in tags:
            index = tag.address.index(namespaces)
            if index is None:
                self._refuse(tag, UNKNOWN_NODE, refused)
            else:
                found.append((tag, index))
        rest = iter(found)
        while chunk := list(islice(rest, TAGS_PER_CALL)):
            await self._monitor_some(chunk, handle, refused)
        if refused:
            self._news.tell(refused, time.monotonic())

    async def retry(self, namespaces: Callable[[], Any], handle: Callable[[], int]) -> None:
        """Try the nodes again whose time has come. Raises Unavailable."""
        now = time.monotonic()
        if self.check or now >= self._verify_at:
            self.check, self._verify_at = False, now + self._timing.verify
            try:
                await self._find_gone()
            except Unavailable as error:
                if error.cause != "session_refused":
                    raise
                # It does not want to be asked (its limits, its rights): no reason to give up what it delivers.
                self._verify_at = float("inf")
        due = [tag for tag in self.tags if tag.retry_at is not None and tag.retry_at <= now]
        if not due:
            return
        await self._forget([tag for tag in due if tag.item is not None])
        await self.monitor(due, await namespaces(), handle)

    async def _monitor_some(
        self, chunk: Sequence[tuple[Tag, int]], handle: Callable[[], int], refused: list[Tag]
    ) -> None:
        ua = self._session.ua
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = self.id
        request.Parameters.TimestampsToReturn = self._timestamps()
        items = []
        for tag, index in chunk:
            # A fresh handle: what the server still sends for an earlier attempt is no longer known.
            self._news.tags.pop(tag.handle, None)
            tag.handle = handle()
            self._news.tags[tag.handle] = tag
            items.append(self._item(tag, index))
        request.Parameters.ItemsToCreate = items
        results = (await self._session.call(request, ua.CreateMonitoredItemsResponse)).Results
        if len(results) != len(chunk):
            raise self._session.bad_reply(f"{len(chunk)} nodes were to be monitored and {len(results)} answers came")
        for (tag, _), result in zip(chunk, results, strict=True):
            if quality_of(result.StatusCode.value) is None:
                tag.item, tag.retry_at, tag.retry_s = result.MonitoredItemId, None, 0.0
            else:
                self._refuse(tag, result.StatusCode.value, refused)

    def _timestamps(self) -> Any:
        kinds = self._session.ua.TimestampsToReturn
        return {"source": kinds.Source, "server": kinds.Server, "gateway": kinds.Neither}[self._news.time]

    def _item(self, tag: Tag, index: int) -> Any:
        ua = self._session.ua
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor.NodeId = node_id(ua, tag, index)
        item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        item.MonitoringMode = ua.MonitoringMode.Reporting
        wanted = item.RequestedParameters
        wanted.ClientHandle = tag.handle
        wanted.SamplingInterval = self._interval * 1000
        wanted.QueueSize = queue_size(self._interval, self._interval)
        wanted.DiscardOldest = True
        return item

    def _refuse(self, tag: Tag, status: int, refused: list[Tag]) -> None:
        quality = quality_of(status)
        if quality != tag.quality:
            tag.quality = quality
            refused.append(tag)
        self._plan(tag, time.monotonic())

    def _plan(self, tag: Tag, now: float) -> None:
        timing = self._timing
        tag.retry_s = min(timing.retry_longest, tag.retry_s * 2) if tag.retry_s else timing.retry_first
        tag.retry_at = now + tag.retry_s

    async def _forget(self, tags: Sequence[Tag]) -> None:
        """Take back what monitors nodes that are gone; whether the server still knows it does not matter."""
        if not tags:
            return
        ua = self._session.ua
        request = ua.DeleteMonitoredItemsRequest()
        request.Parameters.SubscriptionId = self.id
        request.Parameters.MonitoredItemIds = [tag.item for tag in tags]
        await self._session.call(request, ua.DeleteMonitoredItemsResponse)
        for tag in tags:
            tag.item = None

    async def _find_gone(self) -> None:
        """Ask for every monitored node whether it still exists, and tell those that do not."""
        ua = self._session.ua
        namespaces = await self._session.namespaces()
        watched = [
            (tag, index)
            for tag in self.tags
            if tag.item is not None and (index := tag.address.index(namespaces)) is not None
        ]
        gone = []
        rest = iter(watched)
        while chunk := list(islice(rest, TAGS_PER_CALL)):
            nodes = [node_id(ua, tag, index) for tag, index in chunk]
            values = await self._session.read(nodes, ua.AttributeIds.NodeClass)
            for (tag, _), value in zip(chunk, values, strict=True):
                quality = quality_of(value.StatusCode.value) if value.StatusCode is not None else None
                if quality in GONE:
                    tag.quality = quality
                    gone.append(tag)
        self._news.tell(gone, time.monotonic())
        self.lose(gone)


def node_id(ua: Any, tag: Tag, index: int) -> Any:
    """The library's form of a tag's node id."""
    address = tag.address
    kinds = ua.NodeIdType
    kind = {"i": kinds.Numeric, "s": kinds.String, "g": kinds.Guid, "b": kinds.ByteString}[address.kind]
    return ua.NodeId(address.identifier, index, kind)
