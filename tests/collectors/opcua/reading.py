"""A collector under test, and what it brought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from collectors.api import Batch, Context, Value
from collectors.opcua.collector import OpcuaCollector
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.timing import Timing

SHORT = Timing(keepalive=0.2, silence=3, retry_first=0.2, retry_longest=0.4, verify=0.3, tick=0.05)
EMPTY: frozenset[str] = frozenset()


def config(url: str, nodes: Mapping[str, Any], **keys: Any) -> OpcuaConfig:
    """A device `d`; a node is its id, or the whole tag."""
    tags = [{"name": name, **(node if isinstance(node, dict) else {"node": node})} for name, node in nodes.items()]
    base = {"name": "d", "type": "opcua", "url": url, "security": {"policy": "None"}, "interval": 0.1, "timeout": 2.0}
    return OpcuaConfig.model_validate({**base, "tags": tags, **keys})


class Reading:
    """An open collector, closed at the end."""

    def __init__(
        self, url: str, nodes: Mapping[str, Any], context: Context | None = None, timing: Timing = SHORT, **keys: Any
    ) -> None:
        self.collector = OpcuaCollector(config(url, nodes, **keys), context or Context(), timing)
        self.batches: list[Batch] = []
        self.values: dict[str, Value] = {}
        self.quality: dict[str, str] = {}

    async def __aenter__(self) -> Reading:
        try:
            await self.collector.open()
        except BaseException:
            await self.collector.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.collector.close()

    async def more(self) -> list[Batch]:
        """What the next `collect` brings."""
        batches = list(await self.collector.collect(EMPTY))
        for batch in batches:
            self.batches.append(batch)
            for name, value in batch.values.items():
                self.values[name] = value
                self.quality.pop(name, None)
            self.quality.update(batch.quality)
        return batches

    async def until(self, done: Callable[[], bool], seconds: float = 8.0) -> None:
        """Collect until something holds."""
        async with asyncio.timeout(seconds):
            while not done():
                await self.more()

    async def all(self) -> None:
        """Collect until every tag was told once."""
        names = {tag.name for tag in self.collector.tags()}
        await self.until(lambda: names <= self.values.keys())
