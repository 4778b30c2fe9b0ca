"""The runner on a virtual clock, with collectors as a plug-in author would write them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from agent.normaliser import Normaliser
from agent.runner import CoreFailure, Runner, look
from collectors.api import ALL_TAGS, Batch, CollectorStats, LoginRefused, Misconfigured, TagInfo, Unavailable
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

    def __init__(self, make: Callable[[], Any], *, heartbeat: float | None = None, **more: Any) -> None:
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
            **more,
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


@pytest.mark.parametrize("where", ["open", "collect", "close"])
@pytest.mark.parametrize("kind", [Polled, Pushed])
def test_cancellation_inside_a_collector_is_its_own_affair(kind: type[Polled], where: str) -> None:
    class Cancelling(kind):  # type: ignore[valid-type, misc]  # a parameter
        failed = False

        async def _fail(self, call: str) -> None:
            if call == where and not Cancelling.failed:
                Cancelling.failed = True
                task = asyncio.ensure_future(asyncio.sleep(1))
                task.cancel()
                await task

        async def open(self) -> None:
            await self._fail("open")

        async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
            await self._fail("collect")
            found: Sequence[Batch] = await super().collect(due)
            return found

        async def close(self) -> None:
            await super().close()
            await self._fail("close")

    async def main() -> None:
        rig = Rig(Cancelling)
        with capture_logs() as logs:
            if where == "close":
                await rig.run(100, during=lambda: rig.runner.pause(10), at=20)
            else:
                await rig.run(100)
        assert Cancelling.failed
        assert rig.runner.state.state == "ok"
        assert [line["event"] for line in logs if line["log_level"] == "error"] == [
            "device_close_failed" if where == "close" else "device_bug"
        ]

    run_virtual(main())


def test_cancelling_the_runner_ends_it() -> None:
    class Slow(Polled):
        async def open(self) -> None:
            await asyncio.sleep(1000)

    async def main() -> None:
        rig = Rig(Slow)
        task = asyncio.create_task(rig.runner.run())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert rig.made[0].closed == 1

    run_virtual(main())


def test_the_same_bug_is_written_out_once() -> None:
    async def main() -> None:
        rig = Rig(lambda: Polled(lambda _: ZeroDivisionError("oops")))
        with capture_logs() as logs:
            await rig.run(300)
        assert len(rig.made) > 10
        assert [line["event"] for line in logs] == ["device_bug", "device_lost"]

    run_virtual(main())


def test_counters_that_fail_harm_nobody() -> None:
    class Bad(Polled):
        def stats(self) -> CollectorStats:
            raise RuntimeError("bug")

    async def main() -> None:
        rig = Rig(Bad)
        seen: list[Any] = []
        await rig.run(30, during=lambda: seen.extend((rig.runner.stats(), rig.runner.stuck_s())), at=10)
        assert seen == [CollectorStats(), 0.0]
        assert rig.runner.state.state == "ok"

    run_virtual(main())


def test_collector_that_cannot_be_made_tells_nothing_and_raises_nothing() -> None:
    def make() -> Any:
        raise RuntimeError("bug")

    assert look(make, "press") == ({}, False)
    assert look(Pushed, "press") == ({"1s": 1.0}, True)


@pytest.mark.parametrize(("first", "second", "lasts"), [(1000, 10, 15), (10, 100, 105), (100, 100, 105)])
def test_the_last_word_on_a_pause_counts(first: float, second: float, lasts: float) -> None:
    async def main() -> None:
        rig = Rig(Polled)
        start = asyncio.get_running_loop().time()

        def pause() -> None:
            rig.runner.pause(first)
            asyncio.get_running_loop().call_later(5, rig.runner.pause, second)

        await rig.run(500, during=pause, at=20)
        back = next(at for at, batch in rig.batches if not batch.quality and at > start + 21)
        assert back - start - 20 == pytest.approx(lasts, abs=0.1)

    run_virtual(main())


def test_pause_while_the_device_is_being_opened_leaves_it_alone() -> None:
    class Slow(Polled):
        async def open(self) -> None:
            await asyncio.sleep(5)

    async def main() -> None:
        rig = Rig(Slow)
        await rig.run(300, during=lambda: rig.runner.pause(100), at=2)
        assert [collector._requests for collector in rig.made] == [0, pytest.approx(193, abs=2)]
        assert rig.batches[0][1].quality == {ALL_TAGS: "bad:paused"}

    run_virtual(main())


def test_a_refused_login_is_tried_fifteen_times_an_hour_at_most_and_other_trouble_as_ever() -> None:
    def refused(_: float) -> Exception:
        return LoginRefused("not-connected", "login_refused", "no", where="cnc", detail="BadUserAccessDenied")

    async def main() -> None:
        rig = Rig(lambda: Polled(refused))
        await rig.run(3599)
        assert 3 < len(rig.made) <= 15
        start = asyncio.get_running_loop().time()
        rig = Rig(lambda: Polled(lambda now: refused(now) if now < start + 1800 else None))
        await rig.run(2400)
        assert rig.runner.state.state == "ok"
        rig = Rig(lambda: Polled(lambda _: Unavailable("timeout", "no_answer", "no answer", where="plc")))
        await rig.run(600)
        assert len(rig.made) > 60

    run_virtual(main())


def test_pause_of_a_dead_device_is_told_and_ends_with_the_trouble_told_again() -> None:
    async def main() -> None:
        rig = Rig(lambda: Polled(lambda _: Unavailable("timeout", "no_answer", "no answer", where="plc")))
        start = asyncio.get_running_loop().time()
        await rig.run(120, during=lambda: rig.runner.pause(50), at=20)
        assert [(round(at - start), *batch.quality.values()) for at, batch in rig.batches] == [
            (0, "bad:timeout"),
            (20, "bad:paused"),
            (70, "bad:timeout"),
        ]

    run_virtual(main())


def test_stop_during_a_pause_says_nothing_of_an_end_of_the_pause() -> None:
    async def main() -> None:
        rig = Rig(Polled)
        with capture_logs() as logs:
            await rig.run(60, during=lambda: rig.runner.pause(1000), at=20)
        assert [line["event"] for line in logs] == ["device_ok", "device_paused"]
        assert rig.runner.state.state == "paused"

    run_virtual(main())


def test_groups_with_long_intervals_are_read_soon_after_each_connect() -> None:
    class Slow(Polled):
        groups: ClassVar[dict[str, float]] = {"1s": 1.0, "1h": 3600.0}

    async def main() -> None:
        rig = Rig(Slow, stagger=0.9)
        start = asyncio.get_running_loop().time()
        await rig.run(10)
        assert next(at for at, batch in rig.batches if batch.group == "1h") - start < 1.5

    run_virtual(main())


def test_refresh_tells_of_a_dead_device_at_once() -> None:
    async def main() -> None:
        rig = Rig(lambda: Polled(lambda _: Unavailable("timeout", "no_answer", "no answer", where="plc")))
        start = asyncio.get_running_loop().time()
        await rig.run(50, during=rig.runner.refresh, at=33)
        assert [round(at - start) for at, _ in rig.batches] == [0, 33]

    run_virtual(main())


def test_stuck_is_what_takes_longer_than_the_device_is_allowed() -> None:
    class Slow(Polled):
        async def open(self) -> None:
            await asyncio.sleep(1000)

    async def main() -> None:
        rig = Rig(Slow, patience=90.0)
        task = asyncio.create_task(rig.runner.run())
        seen = []
        for _ in range(3):
            await asyncio.sleep(50)
            seen.append(rig.runner.stuck_s())
        assert seen == pytest.approx([0, 10, 60], abs=0.1)
        task.cancel()
        await asyncio.wait({task})

    run_virtual(main())
