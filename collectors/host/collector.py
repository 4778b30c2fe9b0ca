"""Reads this machine: one group, every source bounded, one source's trouble staying its own.

Tags are known from the first look at `open`; a part that appears later (a disk, an interface that gets its first
link) adds tags and raises `tags_version`; a part that goes away leaves null with `bad:not-connected`, a call that
does not come back null with `bad:timeout`. May import: `collectors.api`, this package.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

from collectors.api import Batch, CollectorStats, JsonType, Misconfigured, TagInfo, Value, group_name
from collectors.host.config import HostConfig
from collectors.host.metrics import Machine
from collectors.host.sources import Reading, Source
from collectors.host.thread import CallThread, Failure

MAX_TAGS = 200
_IMPORT_S = 60.0
_MIN_SPAN_S = 0.5
"""A share of time measured over less than this says nothing: the kernel counts in steps of 10 ms."""


class HostCollector:
    """The collector of a `type: host` device.

    Args:
        config: the device.
        sources: what to call at each look, iterated while the calls are made; None = this machine.
        thread: where to call.
    """

    pushes: ClassVar[bool] = False

    def __init__(
        self,
        config: HostConfig,
        sources: Callable[[], Iterable[Source]] | None = None,
        thread: CallThread | None = None,
    ) -> None:
        self._config = config
        self._group = group_name(config.interval)
        self._sources = sources
        self._thread = CallThread() if thread is None else thread
        self._tags: dict[str, TagInfo] = {}
        self._owner: dict[str, str] = {}
        self._stats = CollectorStats()
        self._baseline_at: float | None = None
        self.tags_version = 0

    @property
    def groups(self) -> Mapping[str, float]:
        """The one group."""
        return {self._group: self._config.interval}

    async def open(self) -> None:
        """Load psutil and take the first look, from which the tags are known.

        Raises:
            Misconfigured: psutil is not installed.
        """
        loaded = await self._thread.call_all([_IMPORT], _IMPORT_S)
        if loaded[_IMPORT.key] != []:
            text = "psutil cannot be loaded: reinstall the agent, it belongs to it"
            raise Misconfigured("missing_package", text, package="psutil", extra="")
        if self._sources is None:
            self._sources = Machine(self._config.sets).sources
        await self._look()
        self._baseline_at = time.monotonic()

    def tags(self) -> Sequence[TagInfo]:
        """What this machine has; empty before `open`."""
        return list(self._tags.values())

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        """Read everything once; nothing here makes the machine as a whole unavailable."""
        if self._group not in due:
            return []
        if self._baseline_at is not None:
            await asyncio.sleep(self._baseline_at + _MIN_SPAN_S - time.monotonic())
            self._baseline_at = None
        values, quality = await self._look()
        return [Batch(self._config.name, self._group, time.monotonic(), values, quality)]

    def stats(self) -> CollectorStats:
        """One request for each call into the system."""
        return self._stats

    async def close(self) -> None:
        """End the thread."""
        self._thread.close()

    async def _look(self) -> tuple[dict[str, Value], dict[str, str]]:
        asked: list[Source] = []

        def noted() -> Iterable[Source]:
            for source in self._sources() if self._sources is not None else ():
                asked.append(source)
                yield source

        outcomes = await self._thread.call_all(noted(), self._config.timeout)
        self._stats.requests += len(asked)
        known = len(self._tags)
        found: dict[str, Value] = {}
        late: set[str] = set()
        for source in asked:
            outcome = outcomes[source.key]
            if outcome is Failure.TIMEOUT:
                late.add(source.key)
                self._learn(source, source.tags)
            elif not isinstance(outcome, Failure):
                self._learn(source, outcome)
                found.update((reading.name, reading.value) for reading in outcome)
        self.tags_version += len(self._tags) > known
        values = {name: found.get(name) for name in self._tags}
        quality = {
            name: "bad:timeout" if self._owner[name] in late else "bad:not-connected"
            for name, value in values.items()
            if value is None
        }
        return values, quality

    def _learn(self, source: Source, readings: Iterable[Reading]) -> None:
        """Take in tags that are new; the first source that brings a name owns it."""
        for reading in readings:
            if reading.name in self._tags or len(self._tags) >= MAX_TAGS:
                continue
            kind: JsonType = "boolean" if isinstance(reading.value, bool) else "number"
            self._owner[reading.name] = source.key
            self._tags[reading.name] = TagInfo(
                name=reading.name,
                group=self._group,
                source=reading.source,
                type=kind,
                unit=reading.unit,
                description=reading.description,
                wide=reading.wide,
            )


def _load_psutil() -> list[Reading]:
    try:
        import psutil
    except ImportError as error:
        raise LookupError("psutil") from error
    return [] if psutil.LINUX else [Reading("", None, "not linux")]


_IMPORT = Source("psutil", _load_psutil)
