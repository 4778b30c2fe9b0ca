"""The set of runners, one per configured device, and its change on reload.

Promises: a device whose configuration is equal (contents of named files included) keeps its very task; a changed one
ends its poll in flight and starts afresh, never before that poll has ended, and stays paused if it was; a device that
does not end holds up no other; a failure of the core behind the runners ends `run`.
May import: `agent.normaliser`, `agent.runner`, `collectors.api`, `collectors.fields`, `collectors.line`,
`collectors.line_config`, `collectors.line_lock`, `collectors.registry`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.normaliser import Normaliser
from agent.runner import Runner, look
from collectors.api import Batch, Collector, CollectorType, Context, TagInfo
from collectors.fields import DeviceConfig
from collectors.line import LineStats
from collectors.line_config import OnLine
from collectors.line_lock import LineLocks

STOP_S = 1.0
"""How long the polls in flight may take at the end of the process before they are cancelled."""
LEAVE_S = 5.0
"""How long a reload waits for the polls in flight of devices that changed; longer than a time-out of theirs."""
PATIENCE = 3
"""Time-outs of its device that a call into a collector may last without a request: look-up, connect, answer."""


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
        state_dir: where collectors may keep files.
        locks: of lines that one process at a time may have open.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        sink: Callable[[Sequence[Batch], str], Awaitable[None]],
        announce: Callable[[DeviceConfig, Mapping[str, float], Sequence[TagInfo]], str],
        state_dir: Path | None = None,
        locks: LineLocks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = Context(state_dir, locks)
        self._sink = sink
        self._announce = announce
        self._clock = clock
        self._runners: dict[str, Runner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._entries: dict[str, Entry] = {}
        # Told to end and not asked about any more: their tasks, and what they had counted when they ended.
        self._leaving: dict[asyncio.Task[None], Runner] = {}
        self._left_missed = self._left_lost = 0
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()

    @property
    def runners(self) -> Mapping[str, Runner]:
        """Device -> its runner, in the order of the configuration."""
        return self._runners

    def config(self, device: str) -> DeviceConfig:
        """The configuration a device runs with."""
        return self._entries[device].config

    def lines(self) -> dict[str, tuple[LineStats, list[str]]]:
        """Line, by name or address -> what it did since the start, and the devices on it."""
        found: dict[str, tuple[LineStats, list[str]]] = {}
        for device, entry in self._entries.items():
            label = entry.config.line_label if isinstance(entry.config, OnLine) else None
            if label is not None:
                found.setdefault(label, (self._context.kept(("line", label), LineStats), []))[1].append(device)
        return found

    async def pause(self, devices: Iterable[str], seconds: float) -> None:
        """Leave these devices alone for so long; what only they use is closed."""
        names = list(devices)
        for name in names:
            self._runners[name].pause(seconds)
        await self._context.unpark(names)

    @property
    def missed(self) -> int:
        """Polls that were skipped since the start, of devices that are gone too."""
        return self._left_missed + sum(runner.state.missed for runner in self._all())

    @property
    def samples_lost(self) -> int:
        """Samples that devices threw away since the start, of devices that are gone too."""
        return self._left_lost + sum(runner.stats().samples_lost for runner in self._all())

    async def run(self, entries: Sequence[Entry]) -> None:
        """Run the devices until `stop`."""
        async with asyncio.TaskGroup() as self._group:
            for index, entry in enumerate(entries):
                self._start(entry, index / len(entries))
            await self._stopped.wait()
            for runner in self._runners.values():
                runner.stop()
            tasks = [*self._tasks.values(), *self._leaving]
            if tasks:
                await asyncio.wait(tasks, timeout=STOP_S)
            for task in tasks:
                task.cancel()
            await self._context.unpark(self._entries)

    def stop(self) -> None:
        """End every runner: polls in flight may finish within `STOP_S`."""
        self._stopped.set()

    async def apply(self, entries: Sequence[Entry]) -> Change:
        """Bring the fleet to a new configuration; devices that stay equal are not touched.

        Waits up to `LEAVE_S` for those that go or change; one that takes longer ends behind the scenes, and what
        takes its name starts when it has.
        """
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
        going = [*change.removed, *change.changed]
        for name in going:
            self._runners[name].stop()
        if going:
            await asyncio.wait([self._tasks[name] for name in going], timeout=LEAVE_S)
        if self._stopped.is_set():
            return change
        await self._context.unpark(going)
        for name in going:
            self._leave(name)
        for name in change.removed:
            del self._entries[name], self._runners[name], self._tasks[name]
        for index, name in enumerate(new):
            if name not in change.kept:
                self._start(new[name], index / len(new))
        self._runners = {name: self._runners[name] for name in new}
        return change

    def refresh(self) -> None:
        """Publish every device whole at the next opportunity."""
        for runner in self._runners.values():
            runner.refresh()

    def announce(self) -> None:
        """Announce the tags of every device again."""
        for runner in self._runners.values():
            runner.announce()

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
        groups, pushes = look(make, config.name)
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
            patience=PATIENCE * config.timeout,
            clock=self._clock,
        )
        before = self._tasks.get(config.name)
        if before is not None and (paused_s := self._runners[config.name].paused_s):
            runner.pause(paused_s)
        self._entries[config.name] = entry
        self._runners[config.name] = runner
        self._tasks[config.name] = self._group.create_task(_run(runner, before), name=f"runner {config.name}")

    def _leave(self, name: str) -> None:
        """Look after a runner that was told to end, until it has."""
        task = self._tasks[name]
        self._leaving[task] = self._runners[name]
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        runner = self._leaving.pop(task)
        self._left_missed += runner.state.missed
        self._left_lost += runner.stats().samples_lost

    def _all(self) -> list[Runner]:
        return [*self._runners.values(), *self._leaving.values()]


async def _run(runner: Runner, before: asyncio.Task[None] | None) -> None:
    """Run a runner when the one before it, of the same device, has ended: a device never has two."""
    if before is not None:
        await asyncio.wait({before})
    await runner.run()
