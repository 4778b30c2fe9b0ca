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
from contextlib import suppress
from itertools import count
from typing import Any, ClassVar

from collectors.api import Batch, CollectorStats, Context, TagInfo, Unavailable
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.delivery import Delivery
from collectors.opcua.findings import tell
from collectors.opcua.items import Items
from collectors.opcua.news import News
from collectors.opcua.resolve import Resolver
from collectors.opcua.roster import Roster
from collectors.opcua.security import Security
from collectors.opcua.services import Services
from collectors.opcua.session import Session
from collectors.opcua.state import Kept
from collectors.opcua.subscription import Subscription
from collectors.opcua.timing import DEFAULT_TIMING, Timing

LONGEST_WAIT_S = 10.0
"""`collect` shows life at least this often."""


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
        self._roster = Roster(config, self._kept)
        self._session = Session(
            config.url,
            config.name,
            config.timeout,
            Security(config, context),
            channel_s=timing.channel,
            probe_s=timing.probe,
        )
        self._services = Services(self._session, self._kept.limits)
        self._resolver = Resolver(self._services)
        self._subscriptions: dict[int, Subscription] = {}
        self._expand_at = float("inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._handles = count(1)
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._closed = False

    @property
    def groups(self) -> Mapping[str, float]:
        """Group name -> publishing interval."""
        return self._config.groups()

    def tags(self) -> Sequence[TagInfo]:
        """The tags; their types as far as values came."""
        return self._roster.infos()

    def stats(self) -> CollectorStats:
        """Counters so far."""
        return CollectorStats(requests=self._session.requests, samples_lost=self._news.samples_lost)

    async def open(self) -> None:
        """Connect, resolve the nodes, subscribe. Raises Unavailable, Misconfigured."""
        await self._session.connect()
        await self._services.learn()
        await self._expand()
        for group, interval in self._config.groups().items():
            items = Items(
                self._services,
                self._resolver,
                self._news,
                self._kept,
                interval,
                self._roster.leads[group],
                self._timing,
                lambda: next(self._handles),
            )
            subscription = Subscription(self._session, group, interval, items, self._timing)
            await subscription.create()
            self._subscriptions[subscription.id] = subscription
        delivery = Delivery(
            self._session,
            self._news,
            self._subscriptions,
            self._wake.set,
            device=self._config.name,
            label=self._config.label,
        )
        monitored = asyncio.Event()
        for _ in range(delivery.publishers):
            self._start(self._publish(delivery, monitored))
        for subscription in self._subscriptions.values():
            await subscription.items.monitor(subscription.items.tags)
        monitored.set()
        now = time.monotonic()
        for subscription in self._subscriptions.values():
            subscription.heard = now
        self._start(self._guard())
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
        self.tags_version = self._news.learned + self._resolver.learned
        tell(self._config, self._kept, self._news, self._roster)
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

    async def _expand(self) -> None:
        """Look for what patterns find, and again later for those that found nothing."""
        new = await self._roster.expand(self._resolver)
        self._resolver.learned += bool(new)
        self._expand_at = time.monotonic() + self._timing.verify if self._roster.incomplete else float("inf")
        for subscription in self._subscriptions.values():
            late = [tag for tag in new if tag.info.group == subscription.group]
            if late:
                await subscription.items.monitor(late)

    async def _publish(self, delivery: Delivery, monitored: asyncio.Event) -> None:
        """Ask for messages once the nodes are monitored: all first values come at once then, not an interval later.

        A server that takes long for that would forget the subscription of a client that asks for none: not for longer
        than a keep-alive.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.keepalive):
                await monitored.wait()
        await delivery.publish()

    async def _guard(self) -> None:
        """Look after silence and the channel, whatever else waits for answers."""
        tick = self._timing.tick
        while True:
            before = time.monotonic()
            await asyncio.sleep(tick)
            now = time.monotonic()
            if now - before < tick + 1.0:
                # Otherwise this process slept, and answers may wait unread.
                self._check_silence(now)
            await self._session.keep()

    async def _watch(self) -> None:
        """Look after nodes that could not be monitored, fell silent, or appear late."""
        while True:
            await asyncio.sleep(self._timing.tick)
            if time.monotonic() >= self._expand_at:
                await self._expand()
            for subscription in self._subscriptions.values():
                await subscription.items.look()
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
