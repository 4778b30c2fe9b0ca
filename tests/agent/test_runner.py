"""The runner on a virtual clock, with collectors as a plug-in author would write them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from agent.normaliser import Normaliser
from agent.runner import CoreFailure, Runner
from collectors.api import ALL_TAGS, Batch, CollectorStats, Misconfigured, TagInfo, Unavailable
from tests.virtual_time import run_virtual


class Polled:
    """Reads a counter; what `trouble` says at a given time goes wrong."""

    pushes: ClassVar[bool] = False
    tags_version = 0
    groups: ClassVar[dict[str, float]] = {"1s": 1.0}

    def __init__(self, trouble: Callable[[float], Exception | None] = lambda _: None, cost_s: float = 0.01) -> None:
        self._trouble = trouble
        self._cost_s = cost_s
        self._requests = 0
        self.closed = 0

    async def open(self) -> None:
        error = self._trouble(asyncio.get_running_loop().time())
        if error is not None:
            raise error

    def tags(self) -> Sequence[TagInfo]:
        return [TagInfo("n", "1s", "holding:0", "number")]

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        now = asyncio.get_running_loop().time
        self._requests += 1
        await asyncio.sleep(self._cost_s)
        error = self._trouble(now())
        if error is not None:
            raise error
        return [Batch("press", group, now(), {"n": self._requests}) for group in due]

    def stats(self) -> CollectorStats:
        return CollectorStats(requests=self._requests)

    async def close(self) -> None:
        self.closed += 1


class Pushed(Polled):
    pushes: ClassVar[bool] = True

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        now = asyncio.get_running_loop().time
        self._requests += 1
        if self._requests == 1:
            return [Batch("press", "1s", now(), {"n": 7}, ts=1)]
        await asyncio.sleep(10)
        return []


class Rig:
    """A runner and what it brought."""

    def __init__(self, make: Callable[[], Any], *, heartbeat: float | None = None) -> None:
        self.batches: list[tuple[float, Batch]] = []
        self.made: list[Any] = []
        loop = asyncio.get_running_loop()

        def remember() -> Any:
            self.made.append(make())
            return self.made[-1]

        async def sink(batches: Sequence[Batch], rev: str) -> None:
            assert rev == "rev"
            self.batches.extend((loop.time(), batch) for batch in batches)

        sample = make()
        self.runner = Runner(
            "press",
            "冲床",
            make=remember,
            sink=sink,
            announce=lambda _device, _tags: "rev",
            normaliser=Normaliser("press", sample.groups, heartbeat=heartbeat, pushes=sample.pushes),
            groups=sample.groups,
            clock=loop.time,
        )

    async def run(self, seconds: float, during: Callable[[], Any] | None = None, at: float = 0.0) -> None:
        task = asyncio.create_task(self.runner.run())
        if during is not None:
            await asyncio.sleep(at)
            during()
        await asyncio.sleep(seconds - at)
        self.runner.stop()
        await asyncio.wait_for(task, 60)

    def values(self) -> list[Any]:
        return [batch.values.get("n") for _, batch in self.batches]


def test_polls_are_due_at_the_previous_due_time_plus_interval() -> None:
    async def main() -> None:
        rig = Rig(Polled)
        await rig.run(3600)
        assert len(rig.batches) == 3600
        assert rig.runner.state.missed == 0
        assert rig.runner.state.state == "ok"

    run_virtual(main())


def test_a_poll_slower_than_its_interval_skips_and_counts() -> None:
    async def main() -> None:
        rig = Rig(lambda: Polled(cost_s=2.5))
        await rig.run(60)
        assert rig.runner.state.polls == pytest.approx(20, abs=1)
        assert rig.runner.state.missed == pytest.approx(40, abs=2)

    run_virtual(main())


def test_a_dead_device_is_told_at_once_and_every_heartbeat_and_comes_back() -> None:
    async def main() -> None:
        start = asyncio.get_running_loop().time()

        def trouble(now: float) -> Exception | None:
            gone = 10 <= now - start < 310
            return Unavailable("timeout", "no_answer", "no answer", where="plc") if gone else None

        rig = Rig(lambda: Polled(trouble))
        await rig.run(400)
        bad = [round(at - start) for at, batch in rig.batches if batch.quality == {ALL_TAGS: "bad:timeout"}]
        assert bad[:6] == [10, 70, 130, 190, 250, 310]
        assert rig.runner.state.state == "ok"
        good_again = next(at for at, batch in rig.batches if not batch.quality and at > start + 310)
        assert good_again - start < 310 + 61
        assert all(collector.closed for collector in rig.made)

    run_virtual(main())


def test_a_bug_in_a_collector_costs_one_device_its_data_and_no_more() -> None:
    async def main() -> None:
        start = asyncio.get_running_loop().time()

        def trouble(now: float) -> Exception | None:
            return ZeroDivisionError("oops") if now - start < 5 else None

        rig = Rig(lambda: Polled(trouble))
        await rig.run(120)
        assert rig.runner.state.state == "ok"
        assert rig.values()[0] is None

    run_virtual(main())


def test_misconfigured_device_waits_for_another_configuration() -> None:
    async def main() -> None:
        rig = Rig(lambda: Polled(lambda _: Misconfigured("missing_package", "no such package")))
        await rig.run(600)
        assert len(rig.made) == 1
        assert rig.runner.state.state == "misconfigured"
        assert {batch.quality[ALL_TAGS] for _, batch in rig.batches} == {"bad:config"}

    run_virtual(main())


@pytest.mark.parametrize("kind", [Polled, Pushed])
def test_pause_closes_the_collector_and_ends_by_itself(kind: type[Polled]) -> None:
    async def main() -> None:
        rig = Rig(kind)
        await rig.run(300, during=lambda: rig.runner.pause(100), at=50)
        assert len(rig.made) == 2
        paused = [batch.quality for _, batch in rig.batches if batch.quality]
        assert paused == [{ALL_TAGS: "bad:paused"}] * 2
        assert rig.runner.state.state == "ok"
        assert rig.batches[-1][1].values["n"] is not None

    run_virtual(main())


def test_push_device_sends_heartbeats_while_it_has_no_news() -> None:
    async def main() -> None:
        rig = Rig(Pushed, heartbeat=60)
        start = asyncio.get_running_loop().time()
        await rig.run(200)
        assert [(round(at - start), batch.ts) for at, batch in rig.batches] == [
            (0, 1),
            (60, None),
            (120, None),
            (180, None),
        ]

    run_virtual(main())


def test_refresh_brings_the_whole_group_at_once() -> None:
    async def main() -> None:
        rig = Rig(Pushed, heartbeat=600)
        start = asyncio.get_running_loop().time()
        await rig.run(100, during=rig.runner.refresh, at=33)
        assert round(rig.batches[-1][0] - start) == 33

    run_virtual(main())


def test_failure_behind_the_collector_is_no_device_trouble() -> None:
    async def main() -> None:
        rig = Rig(Polled)

        async def broken(batches: Sequence[Batch], rev: str) -> None:
            raise RuntimeError("bug in the core")

        rig.runner._sink = broken
        with pytest.raises(CoreFailure):
            await rig.runner.run()

    run_virtual(main())


def test_stop_ends_a_push_device_at_once() -> None:
    async def main() -> None:
        rig = Rig(Pushed, heartbeat=600)
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(rig.runner.run())
        await asyncio.sleep(5)
        rig.runner.stop()
        await task
        assert loop.time() - 1000.0 == pytest.approx(5, abs=0.1)

    run_virtual(main())
