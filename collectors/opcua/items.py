"""The monitored items of one subscription: made, refused, looked after, each for itself.

Promises: each node has its own status; those that cannot be monitored are told at once and tried again alone, after
5 s, 10 s, ... 60 s, resolved as the server is then; a call that fails as a whole is divided until only what is at fault
is left out; queue size and sampling interval are explicit; a node that is accepted and sends nothing, or no longer what
it reads as, is read instead, told, and monitored anew.

May import: `collectors.api`, `collectors.opcua.{news,resolve,sample,services,session,state,tag,timing,values}`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from collectors.api import Unavailable
from collectors.opcua.news import GONE, News
from collectors.opcua.resolve import Resolver
from collectors.opcua.sample import Sample, sample_of
from collectors.opcua.services import TOO_LARGE, Services
from collectors.opcua.state import Kept, Tag
from collectors.opcua.tag import queue_size
from collectors.opcua.timing import Timing
from collectors.opcua.values import quality_of

FILTER_REFUSED: Final = frozenset({0x8043_0000, 0x8044_0000, 0x8045_0000, 0x808E_0000})
"""BadMonitoredItemFilterInvalid, BadMonitoredItemFilterUnsupported, BadFilterNotAllowed, BadDeadbandFilterInvalid."""
MOST_FAULTS: Final = 16
"""Single nodes that make a call fail as a whole, before the server is believed to refuse all the rest too."""
VERIFIED_PER_S: Final = 50
"""Nodes that are read a second, on average, to see whether their news still come: a thousandth of a core here, and less
work for a PLC than one visualisation gives it. Of 750 nodes or fewer a silent one is found in 25 s, of 3000 in 70 s."""
MOST_READ: Final = 100
"""Nodes in one call of those looks: a server that publishes much is busy enough."""
_INTERNAL_ERROR: Final = 0x8002_0000
_DEADBAND_ABSOLUTE: Final = 1


class _Answer(NamedTuple):
    status: int
    item: int


class Items:
    """What a subscription monitors.

    Args:
        services, resolver: of the session.
        news: takes values and qualities.
        kept: what the device's connections remember.
        interval: publishing interval in seconds.
        tags: those that are monitored, without their readers.
        handle: gives a number that was not given before.
    """

    def __init__(
        self,
        services: Services,
        resolver: Resolver,
        news: News,
        kept: Kept,
        interval: float,
        tags: list[Tag],
        timing: Timing,
        handle: Callable[[], int],
    ) -> None:
        self.subscription_id = 0
        self.tags = tags
        self.check = False
        """Some node of it is gone and the server did not say which."""
        self._services = services
        self._session = services.session
        self._resolver = resolver
        self._news = news
        self._kept = kept
        self._interval = interval
        self._timing = timing
        self._handle = handle
        self._verify_at = time.monotonic() + self._verify_s()
        self._look_at = 0.0
        """Nothing is asked before."""
        self._faults = 0
        self._suspects: set[int] = set()

    async def monitor(self, tags: Sequence[Tag]) -> None:
        """Let the server watch these; what it refuses is told and planned anew. Raises Unavailable."""
        refused: list[Tag] = []
        for tag, status in await self._resolver.resolve(tags):
            self._refuse(tag, status, refused)
        found = [tag for tag in tags if tag.node is not None]
        self._faults = 0
        without = await self._create(found, refused)
        if without:
            await self._create(without, refused)
        if refused:
            self._news.tell(refused, time.monotonic())

    def lose(self, tags: Sequence[Tag]) -> None:
        """Plan another attempt for nodes that are gone."""
        now = time.monotonic()
        for tag in tags:
            if tag.retry_at is None:
                self._plan(tag, now)

    def renew(self) -> None:
        """Monitor everything anew at the next look: every node then tells its value as it is."""
        now = time.monotonic()
        for tag in self.tags:
            if tag.item is not None:
                tag.retry_at, tag.retry_s = now, 0.0

    async def look(self) -> None:
        """See after the nodes; to be called every tick. Raises Unavailable."""
        now = time.monotonic()
        if now >= self._look_at:
            try:
                await self._question(now)
            except Unavailable as error:
                # Answers are slow, or it does not want to be asked (its limits, its rights): no reason to give up what
                # it delivers. Whether it lives is told by its keep-alives.
                if error.cause == "session_refused":
                    self._verify_at = float("inf")
                elif error.cause != "no_answer":
                    raise
                self._look_at = time.monotonic() + self._timing.retry_longest
        due = [tag for tag in self.tags if tag.retry_at is not None and tag.retry_at <= now]
        if due:
            await self._forget([tag for tag in due if tag.item is not None])
            await self.monitor(due)

    async def _question(self, now: float) -> None:
        """Read what may be silent or gone."""
        await self._read_silent(now)
        if self.check or now >= self._verify_at:
            self.check, self._verify_at = False, now + self._verify_s()
            await self._verify()

    async def _read(self, tags: Sequence[Tag], timestamps: Any = None) -> list[Any]:
        """Their values, in calls so small that others are not held up."""
        values: list[Any] = []
        for at in range(0, len(tags), MOST_READ):
            nodes = [tag.node for tag in tags[at : at + MOST_READ]]
            values += await self._services.read(nodes, timestamps=timestamps)
        return values

    async def _create(self, tags: Sequence[Tag], refused: list[Tag]) -> list[Tag]:
        """Returns the tags that the server would monitor without a filter."""
        again: list[Tag] = []
        answers = await self._services.batched("monitor", tags, self._divided)
        now = time.monotonic()
        for tag, answer in zip(tags, answers, strict=True):
            if quality_of(answer.status) is None:
                tag.item, tag.retry_at, tag.monitored = answer.item, None, now
                if tag.heard:
                    # Was silent or gone before: the delay starts over only once it sends.
                    tag.heard, tag.last = 0.0, None
            elif answer.status & 0xFFFF_0000 in FILTER_REFUSED and self._filtered(tag):
                self._kept.no_filter.add(tag.key)
                again.append(tag)
            else:
                self._refuse(tag, answer.status, refused)
        return again

    async def _divided(self, chunk: Sequence[Tag]) -> Sequence[_Answer]:
        """One call; if it fails as a whole for another reason than its size, two of half the size."""
        try:
            return await self._request(chunk)
        except Unavailable as error:
            if error.cause != "session_refused" or (error.facts.get("status") in TOO_LARGE and len(chunk) > 1):
                raise
            code = error.facts.get("code")
            self._faults += len(chunk) == 1
            if len(chunk) == 1 or self._faults >= MOST_FAULTS:
                return [_Answer(code if isinstance(code, int) else _INTERNAL_ERROR, 0)] * len(chunk)
        half = len(chunk) // 2
        return [*await self._divided(chunk[:half]), *await self._divided(chunk[half:])]

    async def _request(self, chunk: Sequence[Tag]) -> Sequence[_Answer]:
        ua = self._session.ua
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = self.subscription_id
        request.Parameters.TimestampsToReturn = timestamps(ua, self._news.time)
        items = []
        for tag in chunk:
            # A fresh handle: what the server still sends for an earlier attempt is no longer known.
            self._news.tags.pop(tag.handle, None)
            tag.handle = self._handle()
            self._news.tags[tag.handle] = tag
            items.append(self._item(tag))
        request.Parameters.ItemsToCreate = items
        results = (await self._session.call(request, ua.CreateMonitoredItemsResponse)).Results or ()
        return [_Answer(result.StatusCode.value, result.MonitoredItemId) for result in results]

    def _item(self, tag: Tag) -> Any:
        ua = self._session.ua
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor.NodeId = tag.node
        item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        item.MonitoringMode = ua.MonitoringMode.Reporting
        wanted, sampling = item.RequestedParameters, tag.sampling
        interval = sampling.interval if sampling.interval is not None else self._interval
        wanted.ClientHandle = tag.handle
        wanted.SamplingInterval = interval * 1000
        wanted.QueueSize = sampling.queue or queue_size(self._interval, interval)
        wanted.DiscardOldest = sampling.discard_oldest
        if self._filtered(tag):
            rules = tag.info.rules
            wanted.Filter = ua.DataChangeFilter(
                Trigger=ua.DataChangeTrigger.StatusValue,
                DeadbandType=_DEADBAND_ABSOLUTE,
                DeadbandValue=(rules.deadband or 0.0) / (abs(rules.scale) if rules.scale else 1.0),
            )
        return item

    def _filtered(self, tag: Tag) -> bool:
        """Whether the server is asked to apply the deadband: only where it is one of the number itself."""
        if not tag.sampling.filter or not tag.info.rules.deadband or tag.key in self._kept.no_filter:
            return False
        return tag.element is None and not tag.enum_text and tag.info.rules.map is None

    def _refuse(self, tag: Tag, status: int, refused: list[Tag]) -> None:
        quality = quality_of(status) or quality_of(_INTERNAL_ERROR)
        if quality != tag.quality:
            tag.quality = quality
            refused.append(tag)
        self._plan(tag, time.monotonic())

    def _plan(self, tag: Tag, now: float) -> None:
        timing = self._timing
        tag.retry_s = min(timing.retry_longest, tag.retry_s * 2) if tag.retry_s else timing.retry_first
        tag.retry_at = now + tag.retry_s

    async def _forget(self, tags: Sequence[Tag]) -> None:
        """Take back what monitors these; whether the server still knows it does not matter."""
        ua = self._session.ua

        async def call(chunk: Sequence[Tag]) -> Sequence[Any]:
            request = ua.DeleteMonitoredItemsRequest()
            request.Parameters.SubscriptionId = self.subscription_id
            request.Parameters.MonitoredItemIds = [tag.item for tag in chunk]
            await self._session.call(request, ua.DeleteMonitoredItemsResponse)
            return chunk

        await self._services.batched("monitor", tags, call)
        for tag in tags:
            tag.item = None

    def _verify_s(self) -> float:
        """Seconds between two looks at all nodes."""
        timing = self._timing
        return min(timing.verify, max(timing.verify_soonest, len(self.tags) / VERIFIED_PER_S))

    async def _read_silent(self, now: float) -> None:
        """Read the nodes that are monitored and never sent anything, and plan to monitor them anew."""
        patience = max(self._timing.first_value, 2 * self._interval)
        silent = [tag for tag in self.tags if tag.item is not None and not tag.heard and now - tag.monitored > patience]
        if silent:
            await self._read_instead(silent, now)

    async def _read_instead(self, tags: Sequence[Tag], now: float) -> None:
        values = await self._read(tags, timestamps(self._session.ua, self._news.time))
        items = []
        for tag, value in zip(tags, values, strict=True):
            if tag.heard > now:
                # It has just spoken up: what it said is newer.
                continue
            items.append(SimpleNamespace(ClientHandle=tag.handle, Value=value))
            if ("tag_silent", tag.info.name) not in self._kept.told:
                self._news.silent.append(tag.info.name)
            if tag.retry_at is None:
                self._plan(tag, now)
        self._news.add(tags[0].info.group, items, now, time.time_ns() // 1_000_000, every=True)
        for tag in tags:
            # Read, not sent: it is still silent.
            tag.heard, tag.monitored = 0.0, now

    async def _verify(self) -> None:
        """Read every monitored node: tell those that are gone, and find those whose news no longer come."""
        watched = [tag for tag in self.tags if tag.item is not None and tag.retry_at is None and tag.node is not None]
        values = await self._read(watched)
        now = time.monotonic()
        quiet = 3 * max(self._interval, self._timing.keepalive)
        gone: list[Tag] = []
        stuck: list[Tag] = []
        suspects: set[int] = set()
        for tag, value in zip(watched, values, strict=True):
            quality = quality_of(value.StatusCode.value) if value.StatusCode is not None else None
            if quality in GONE:
                tag.quality = quality
                gone.append(tag)
            elif now - tag.heard > quiet and not self._filtered(tag) and _differs(tag.last, value):
                # Once may be chance: its news may be on the way. Twice, and nothing came between: it is dead.
                suspects.add(tag.handle)
                if tag.handle in self._suspects:
                    stuck.append(tag)
        if suspects - self._suspects:
            self._verify_at = min(self._verify_at, now + quiet)
        self._suspects = suspects
        self._news.tell(gone, now)
        self.lose(gone)
        if stuck:
            await self._read_instead(stuck, now)


def timestamps(ua: Any, time_of: str) -> Any:
    """The library's word for whose time is wanted."""
    kinds = ua.TimestampsToReturn
    return {"source": kinds.Source, "server": kinds.Server, "gateway": kinds.Neither}[time_of]


def _differs(sent: Sample | None, data_value: Any) -> bool:
    """Whether a node reads as something else than it last sent; not if it has sent nothing."""
    if sent is None:
        return False
    read = sample_of(sent[0], data_value)
    # Not NaN, which differs from itself.
    return bool(sent[1] == read[1] and sent[2] != read[2] and (sent[2] == sent[2] or read[2] == read[2]))
