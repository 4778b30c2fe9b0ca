"""The set of runners, one per configured device, and its change on reload.

Promises: a device whose configuration is equal (contents of named files included) keeps its very task; a changed one
ends its poll in flight and starts afresh; a failure of the core behind the runners ends `run`.
May import: `agent.normaliser`, `agent.runner`, `collectors.api`, `collectors.fields`, `collectors.registry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.normaliser import Normaliser
from agent.runner import Runner
from collectors.api import Batch, Collector, CollectorType, Context, TagInfo
from collectors.fields import DeviceConfig

STOP_S = 1.0
"""How long the polls in flight may take at the end of the process before they are cancelled."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A device to run: its configuration, what makes its collector, and what tells whether it changed."""

    config: DeviceConfig
    type: CollectorType
    fingerprint: str


@dataclass(slots=True)
class Change:
    """What a reload did, by name of device."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


class Fleet:
    """Runs the devices.

    Args:
        sink: takes what is to be published of a device, with the revision of its meta.
        announce: takes a device's configuration, groups and tags; returns the revision of its meta.
    """

    def __init__(
        self,
        *,
        sink: Callable[[Sequence[Batch], str], Awaitable[None]],
        announce: Callable[[DeviceConfig, Mapping[str, float], Sequence[TagInfo]], str],
    ) -> None:
        self._context = Context()
        self._sink = sink
        self._announce = announce
        self._runners: dict[str, Runner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._entries: dict[str, Entry] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()

    @property
    def runners(self) -> Mapping[str, Runner]:
        """Device -> its runner, in the order of the configuration."""
        return self._runners

    def config(self, device: str) -> DeviceConfig:
        """The configuration a device runs with."""
        return self._entries[device].config

    async def run(self, entries: Sequence[Entry]) -> None:
        """Run the devices until `stop`."""
        async with asyncio.TaskGroup() as self._group:
            for index, entry in enumerate(entries):
                self._start(entry, index / len(entries))
            await self._stopped.wait()
            await self._end(list(self._runners))
            for task in self._tasks.values():
                task.cancel()

    def stop(self) -> None:
        """End every runner: polls in flight may finish within `STOP_S`."""
        self._stopped.set()

    async def apply(self, entries: Sequence[Entry]) -> Change:
        """Bring the fleet to a new configuration; devices that stay equal are not touched."""
        new = {entry.config.name: entry for entry in entries}
        change = Change()
        for name, old in self._entries.items():
            if name not in new:
                change.removed.append(name)
            elif new[name].fingerprint != old.fingerprint:
                change.changed.append(name)
            else:
                change.kept.append(name)
        change.added = [name for name in new if name not in self._entries]
        await self._end([*change.removed, *change.changed], deadline_s=None)
        for name in change.removed:
            self._forget(name)
        for index, name in enumerate(new):
            if name in change.added or name in change.changed:
                self._start(new[name], index / len(new))
        self._runners = {name: self._runners[name] for name in new}
        return change

    def refresh(self) -> None:
        """Publish every device whole at the next opportunity."""
        for runner in self._runners.values():
            runner.refresh()

    def stuck_s(self) -> float:
        """Seconds without progress of the device that made most progress; 0 while any waits for its due time."""
        return min((runner.stuck_s() for runner in self._runners.values()), default=0.0)

    def _start(self, entry: Entry, stagger: float) -> None:
        assert self._group is not None
        config = entry.config
        made = entry.type

        def make() -> Collector:
            return made.create(config, self._context)

        # The groups follow from the configuration alone, so a first object tells them without being opened.
        first = make()
        groups = dict(first.groups)
        pushes = first.pushes
        heartbeat = config.report.heartbeat if config.report is not None else (60.0 if pushes else None)
        runner = Runner(
            config.name,
            config.label,
            make=make,
            sink=self._sink,
            announce=lambda _device, tags: self._announce(config, groups, tags),
            normaliser=Normaliser(config.name, groups, heartbeat=heartbeat, pushes=pushes),
            groups=groups,
            stagger=stagger,
        )
        self._entries[config.name] = entry
        self._runners[config.name] = runner
        self._tasks[config.name] = self._group.create_task(runner.run(), name=f"runner {config.name}")

    async def _end(self, names: Sequence[str], deadline_s: float | None = STOP_S) -> None:
        for name in names:
            self._runners[name].stop()
        tasks = [self._tasks[name] for name in names]
        if tasks:
            await asyncio.wait(tasks, timeout=deadline_s)

    def _forget(self, name: str) -> None:
        del self._entries[name], self._runners[name], self._tasks[name]
