"""Batches are stamped on their way into a real outbox, with a clock that is set while they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent.buffer.outbox import Outbox
from agent.clock import EARLIEST, Clock
from agent.intake import HELD_BATCHES, HOLD_S, Intake
from collectors.api import Batch

NOW = EARLIEST + 86_400.0


class Watch:
    """A wall clock and a monotonic clock, both set by hand."""

    def __init__(self, wall: float) -> None:
        self.wall = wall
        self.monotonic = 500.0
        self.clock = Clock(lambda: self.wall, lambda: self.monotonic)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    outbox = Outbox(
        tmp_path,
        site="s",
        gateway="g",
        max_size=10_000_000,
        commit_interval=1.0,
        max_payload=60_000,
        replay="live-first",
    )
    await outbox.open()
    outbox.begin_session()
    yield outbox
    await outbox.close(clean=True)


def reading(at: float, n: int, ts: int | None = None) -> Batch:
    return Batch("press", "1s", at, {"n": n}, ts=ts)


def sent(outbox: Outbox) -> list[tuple[Any, ...]]:
    """(seq, n, ts, clock) of what can be sent now."""
    bodies = [orjson.loads(message.body) for message in outbox.take_live(1000)]
    return [(body["seq"], body["values"]["n"], body["ts"], body.get("clock")) for body in bodies]


async def test_good_clock_holds_nothing(outbox: Outbox) -> None:
    watch = Watch(NOW)
    intake = Intake(outbox, watch.clock)
    watch.passes(2)
    await intake.put([reading(501, 1)], "r")
    assert sent(outbox) == [(1, 1, round((NOW + 1) * 1000), None)]


async def test_readings_before_the_clock_is_set_get_the_time_they_were_read(outbox: Outbox) -> None:
    watch = Watch(3.0)  # 1970, seconds after the start
    intake = Intake(outbox, watch.clock)
    await intake.put([reading(500, 1), reading(501, 2, ts=1_790_000_000_123)], "r")
    watch.passes(30)
    await intake.put([reading(530, 3)], "r")
    assert sent(outbox) == []
    watch.wall = NOW
    await intake.release_loop()
    await intake.put([reading(530, 4)], "r")
    assert sent(outbox) == [
        (1, 1, round((NOW - 30) * 1000), None),
        (2, 2, 1_790_000_000_123, None),
        (3, 3, round(NOW * 1000), None),
        (4, 4, round(NOW * 1000), None),
    ]


async def test_clock_that_nobody_sets_is_waited_for_so_long_and_marked(outbox: Outbox) -> None:
    watch = Watch(3.0)
    intake = Intake(outbox, watch.clock)
    waiting = asyncio.create_task(intake.release_loop())
    await intake.put([reading(500, 1)], "r")
    watch.passes(HOLD_S - 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    watch.passes(1)
    async with asyncio.timeout(2):
        await waiting
    assert sent(outbox) == [(1, 1, 3000, "unsynced")]


async def test_what_waits_is_bounded_and_what_is_lost_is_counted(outbox: Outbox) -> None:
    watch = Watch(3.0)
    intake = Intake(outbox, watch.clock)
    await intake.put([reading(500, n) for n in range(HELD_BATCHES + 5)], "r")
    assert intake.values == HELD_BATCHES + 5
    assert intake.values_lost == 5
    await intake.release()
    assert outbox.counters()["produced"] == HELD_BATCHES
    assert sent(outbox)[0][:2] == (1, 5)


async def test_clock_that_is_set_back_orders_by_seq(outbox: Outbox) -> None:
    watch = Watch(NOW)
    intake = Intake(outbox, watch.clock)
    await intake.put([reading(500, 1)], "r")
    watch.passes(1)
    watch.wall -= 3600
    assert watch.clock.stepped() == pytest.approx(-3600)
    assert watch.clock.stepped() == 0.0
    await intake.put([reading(501, 2)], "r")
    (first, second) = sent(outbox)
    assert (first[0], second[0]) == (1, 2)
    assert second[2] < first[2]


@pytest.mark.parametrize(
    ("wall", "synchronised", "mark"),
    [(NOW, None, None), (NOW, True, None), (NOW, False, "unsynced"), (3.0, None, "unsynced"), (3.0, True, "unsynced")],
)
def test_mark_says_whether_the_time_can_be_believed(wall: float, synchronised: bool | None, mark: str | None) -> None:
    clock = Watch(wall).clock
    clock.synchronised = synchronised
    assert clock.mark == mark
