"""Reads one OPC UA server by asking for the values (`collect: poll`), for servers that have no subscriptions.

Promises: all nodes that are due are read in as few calls as the server's limits allow, under the ids it gave for them
(RegisterNodes) where it offers that; each node has its own status, one that cannot be found is looked for again every
minute; between polls the session is kept alive; a connection that is lost ends this object with `Unavailable`.

May import: `collectors.api`, `collectors.opcua.*`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any, ClassVar

from collectors.api import Batch, CollectorStats, Context, TagInfo, Unavailable
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.findings import tell
from collectors.opcua.items import timestamps
from collectors.opcua.news import News
from collectors.opcua.resolve import Resolver
from collectors.opcua.roster import Roster
from collectors.opcua.security import Security
from collectors.opcua.services import Services
from collectors.opcua.session import Session
from collectors.opcua.state import Kept, Tag
from collectors.opcua.timing import DEFAULT_TIMING, Timing


class OpcuaPoller:
    """One server; see `OpcuaCollector` for the arguments."""

    pushes: ClassVar[bool] = False

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
        self._handles = count(1)
        self._registered: dict[int, Any] = {}
        """By handle."""
        self._status: dict[int, int] = {}
        """Why a tag has no node, by handle."""
        self._resolve_at = 0.0
        self._keeping: asyncio.Task[None] | None = None

    @property
    def groups(self) -> Mapping[str, float]:
        """Group name -> interval."""
        return self._config.groups()

    def tags(self) -> Sequence[TagInfo]:
        """The tags; their types as far as values came."""
        return self._roster.infos()

    def stats(self) -> CollectorStats:
        """Counters so far."""
        return CollectorStats(requests=self._session.requests, samples_lost=self._news.samples_lost)

    async def open(self) -> None:
        """Connect, resolve the nodes, register them. Raises Unavailable, Misconfigured."""
        await self._session.connect()
        await self._services.learn()
        await self._resolve([])
        self._keeping = asyncio.create_task(self._keep())

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        """Read the groups that are due. Raises Unavailable."""
        if self._keeping is not None and self._keeping.done():
            self._keeping.result()
        if time.monotonic() >= self._resolve_at:
            await self._resolve([tag for tags in self._roster.leads.values() for tag in tags if tag.node is None])
        groups = [group for group in self._roster.leads if group in due]
        tags = [tag for group in groups for tag in self._roster.leads[group]]
        found = [tag for tag in tags if tag.node is not None]
        ids = [self._registered.get(tag.handle, tag.node) for tag in found]
        answers = await self._services.read(ids, timestamps=timestamps(self._session.ua, self._news.time))
        values = dict(zip((tag.handle for tag in found), answers, strict=True))
        at, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        if self._session.server_ms is not None:
            self._news.server_clock(self._session.server_ms, now_ms)
        for group in groups:
            items = [
                SimpleNamespace(ClientHandle=tag.handle, Value=values.get(tag.handle) or self._nothing(tag))
                for tag in self._roster.leads[group]
            ]
            self._news.add(group, items, at, now_ms, every=True)
        batches = self._news.take()
        self.tags_version = self._news.learned + self._resolver.learned
        tell(self._config, self._kept, self._news, self._roster)
        return batches

    async def close(self) -> None:
        """Give session and connection back. Safe without `open`, safe twice."""
        keeping, self._keeping = self._keeping, None
        try:
            if keeping is not None:
                keeping.cancel()
                await asyncio.wait([keeping])
        finally:
            await self._session.close()

    async def _resolve(self, again: list[Tag]) -> None:
        """Find the nodes of tags that have none, and register them."""
        new = await self._roster.expand(self._resolver)
        self._resolver.learned += bool(new)
        tags = again or [tag for tags in self._roster.leads.values() for tag in tags if not tag.handle]
        for tag in tags:
            if not tag.handle:
                tag.handle = next(self._handles)
                self._news.tags[tag.handle] = tag
        self._status.update((tag.handle, status) for tag, status in await self._resolver.resolve(tags))
        await self._register([tag for tag in tags if tag.node is not None])
        self._resolve_at = time.monotonic() + self._timing.verify

    async def _register(self, tags: Sequence[Tag]) -> None:
        try:
            ids = await self._services.register([tag.node for tag in tags])
        except Unavailable as error:
            if error.cause != "session_refused":
                raise
            # It does not offer this; the nodes' own ids do as well.
            return
        self._registered.update(zip((tag.handle for tag in tags), ids, strict=True))

    def _nothing(self, tag: Tag) -> Any:
        """A data value that tells why there is none."""
        status = SimpleNamespace(value=self._status.get(tag.handle, 0x8034_0000))
        return SimpleNamespace(Value=None, StatusCode=status, SourceTimestamp=None, ServerTimestamp=None)

    async def _keep(self) -> None:
        """Renew the channel and show life: a session that is asked nothing for a minute is forgotten."""
        while True:
            await asyncio.sleep(self._timing.tick)
            await self._session.keep()
