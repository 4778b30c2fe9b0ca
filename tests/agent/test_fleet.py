"""The fleet on a virtual clock: what a reload keeps, what a stop waits for, what a sick device costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, cast

import pytest

from agent.fleet import LEAVE_S, STOP_S, Entry, Fleet
from agent.runner import CoreFailure
from collectors.api import ALL_TAGS, Batch, CollectorStats, CollectorType, Context, TagInfo
from collectors.fields import DeviceConfig
from tests.virtual_time import run_virtual


class Plant:
    """What the collectors of a test have in common: who is connected, who hangs."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.most: dict[str, int] = {}
        self.made: list[str] = []
        self.hangs: set[str] = set()
        self.unmakeable: set[str] = set()
        self.batches: list[tuple[float, Batch, str]] = []
        self.announced: list[str] = []

    def make(self, config: DeviceConfig, _: Context) -> Any:
        if config.name in self.unmakeable:
            raise RuntimeError("bug in a constructor")
        return Device(self, config.name)

    def entry(self, name: str, print_: str = "1") -> Entry:
        kind = CollectorType("test", DeviceConfig, self.make, cast("Any", None), cast("Any", None))
        return Entry(DeviceConfig(name=name, type="test"), kind, print_)

    def fleet(self) -> Fleet:
        time = asyncio.get_running_loop().time

        async def sink(batches: Sequence[Batch], rev: str) -> None:
            self.batches.extend((time(), batch, rev) for batch in batches)

        def announce(config: DeviceConfig, _groups: Any, _tags: Any) -> str:
            self.announced.append(config.name)
            return f"rev{len(self.announced)}"

        return Fleet(sink=sink, announce=announce, clock=time)

    def of(self, name: str) -> list[Batch]:
        return [batch for _, batch, _ in self.batches if batch.device == name]


class Device:
    pushes: ClassVar[bool] = False
    tags_version = 0
    groups: ClassVar[dict[str, float]] = {"1s": 1.0}

    def __init__(self, plant: Plant, name: str) -> None:
        self._plant = plant
        self._name = name
        plant.made.append(name)

    async def open(self) -> None:
        self._plant.open.append(self._name)
        self._plant.most[self._name] = max(self._plant.most.get(self._name, 0), self._plant.open.count(self._name))

    def tags(self) -> Sequence[TagInfo]:
        return [TagInfo("n", "1s", "x", "number")]

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        while self._name in self._plant.hangs:  # noqa: ASYNC110 - hanging is what it is for
            await asyncio.sleep(1)
        await asyncio.sleep(0.01)
        return [Batch(self._name, "1s", asyncio.get_running_loop().time(), {"n": 1})]

    def stats(self) -> CollectorStats:
        return CollectorStats(samples_lost=3)

    async def close(self) -> None:
        if self._name in self._plant.open:
            self._plant.open.remove(self._name)


def live(plant: Plant, names: str, then: Callable[[Fleet], Awaitable[None]]) -> float:
    """Run devices for 10 s, then `then`, then stop; returns how long the stop took."""

    async def main() -> float:
        fleet = plant.fleet()
        task = asyncio.create_task(fleet.run([plant.entry(name) for name in names]))
        await asyncio.sleep(10)
        await then(fleet)
        now = asyncio.get_running_loop().time()
        fleet.stop()
        async with asyncio.timeout(100):
            await task
        return asyncio.get_running_loop().time() - now

    return run_virtual(main())


def test_reload_touches_only_what_changed() -> None:
    plant = Plant()

    async def reload(fleet: Fleet) -> None:
        kept = fleet.runners["a"]
        change = await fleet.apply([plant.entry("d"), plant.entry("a"), plant.entry("b", "2")])
        assert (change.added, change.removed, change.changed, change.kept) == (["d"], ["c"], ["b"], ["a"])
        assert fleet.runners["a"] is kept
        assert list(fleet.runners) == ["d", "a", "b"]
        await asyncio.sleep(10)

    live(plant, "abc", reload)
    assert plant.most == dict.fromkeys("abcd", 1)
    assert not plant.open
    assert len(plant.of("a")) == pytest.approx(20, abs=1)


def test_device_that_does_not_end_holds_up_no_other_and_is_never_there_twice() -> None:
    plant = Plant()

    async def reload(fleet: Fleet) -> None:
        plant.hangs = {"a", "b"}
        await asyncio.sleep(2)
        began = asyncio.get_running_loop().time()
        for again in ("2", "3"):  # twice, quickly
            await fleet.apply([plant.entry("a", again), plant.entry("c", again)])
        assert asyncio.get_running_loop().time() - began <= 2 * LEAVE_S + 0.1
        count = len(plant.of("c"))
        await asyncio.sleep(5)
        assert len(plant.of("c")) > count + 3
        assert plant.open.count("a") == 1
        plant.hangs.clear()
        count = len(plant.of("a"))
        await asyncio.sleep(10)
        assert len(plant.of("a")) > count + 5
        assert "b" not in plant.open

    live(plant, "abc", reload)
    assert plant.most["a"] == 1


def test_stop_ends_devices_that_hang_also_such_as_left_before() -> None:
    plant = Plant()

    async def reload(fleet: Fleet) -> None:
        plant.hangs = {"a", "b"}
        await asyncio.sleep(2)
        await fleet.apply([plant.entry("b")])

    assert live(plant, "ab", reload) <= STOP_S + 0.1
    assert not plant.open


def test_stop_in_the_middle_of_a_reload_starts_nothing() -> None:
    plant = Plant()

    async def reload(fleet: Fleet) -> None:
        plant.hangs = {"a"}
        await asyncio.sleep(2)
        applying = asyncio.create_task(fleet.apply([plant.entry("b")]))
        await asyncio.sleep(0.5)
        fleet.stop()
        await applying

    live(plant, "a", reload)
    assert "b" not in plant.made


def test_paused_device_stays_paused_when_its_configuration_changes() -> None:
    plant = Plant()

    async def reload(fleet: Fleet) -> None:
        fleet.runners["a"].pause(60)
        await asyncio.sleep(10)
        await fleet.apply([plant.entry("a", "2")])
        await asyncio.sleep(40)
        assert not plant.open
        assert fleet.runners["a"].paused_s == pytest.approx(10, abs=0.1)
        await asyncio.sleep(20)
        assert plant.open == ["a"]

    live(plant, "a", reload)
    assert all(batch.quality == {ALL_TAGS: "bad:paused"} for batch in plant.of("a") if not batch.values)


def test_collector_that_cannot_be_made_is_a_device_in_trouble() -> None:
    plant = Plant()
    plant.unmakeable = {"b"}

    async def look(fleet: Fleet) -> None:
        assert fleet.runners["b"].state.state == "bad"
        assert fleet.runners["b"].state.cause == "bug"
        assert fleet.runners["a"].state.state == "ok"

    live(plant, "ab", look)


def test_counters_of_devices_that_left_still_count() -> None:
    plant = Plant()

    async def reload(fleet: Fleet) -> None:
        plant.hangs = {"a"}
        await asyncio.sleep(20)
        plant.hangs.clear()
        await asyncio.sleep(2)
        missed = fleet.missed
        assert missed == pytest.approx(20, abs=1)
        assert fleet.samples_lost == 6
        await fleet.apply([plant.entry("b")])
        assert fleet.missed == missed
        assert fleet.samples_lost == 6

    live(plant, "ab", reload)


def test_devices_announce_again_without_being_touched() -> None:
    plant = Plant()

    async def announce(fleet: Fleet) -> None:
        fleet.announce()
        await asyncio.sleep(2)
        assert plant.announced == ["a", "b", "a", "b"]
        assert plant.made.count("a") == 2  # the one that was looked at, and the one that reads

    live(plant, "ab", announce)
    assert plant.batches[-1][2] in {"rev3", "rev4"}


def test_failure_of_the_core_ends_the_fleet_and_closes_the_devices() -> None:
    plant = Plant()

    async def main() -> None:
        async def broken(batches: Sequence[Batch], rev: str) -> None:
            raise RuntimeError("bug")

        fleet = Fleet(sink=broken, announce=lambda *_: "rev", clock=asyncio.get_running_loop().time)
        with pytest.raises(ExceptionGroup) as caught:
            await fleet.run([plant.entry("a"), plant.entry("b")])
        assert caught.group_contains(CoreFailure)
        assert not plant.open

    run_virtual(main())
