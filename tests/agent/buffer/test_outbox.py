"""What the outbox promises its two users, one promise a test."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.buffer.lanes import HEAD_BYTES, PARK_S
from agent.buffer.outbox import Outbox
from agent.message import Message
from collectors.api import Batch
from tests.agent.buffer.model import Clock
from tests.faulty.medium import Medium

Make = Callable[..., Awaitable[Outbox]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def medium() -> Medium:
    return Medium()


@pytest.fixture
async def make(tmp_path: Path, clock: Clock, medium: Medium) -> AsyncIterator[Make]:
    """Opens outboxes and closes what is still open."""
    opened: list[Outbox] = []

    async def open_(
        *,
        commit_interval: float = 1.0,
        replay: Literal["live-first", "in-order"] = "live-first",
        now: Callable[[], float] = clock,
    ) -> Outbox:
        outbox = Outbox(
            tmp_path,
            site="s",
            gateway="g",
            max_size=50_000_000,
            commit_interval=commit_interval,
            max_payload=60_000,
            replay=replay,
            clock=now,
            connect=medium.connect,
        )
        await outbox.open()
        opened.append(outbox)
        return outbox

    yield open_
    medium.heal()
    for outbox in opened:
        await outbox.close(clean=False)


async def put(outbox: Outbox, count: int = 1, size: int = 10) -> None:
    for _ in range(count):
        await outbox.append(Batch("press", "1s", 0.0, {"text": "x" * size}), ts=1_700_000_000_000, rev="r")


def seqs(messages: list[Message]) -> list[int]:
    return [message.seq for message in messages]


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


async def test_what_is_acknowledged_in_time_never_touches_the_disk(make: Make, medium: Medium, clock: Clock) -> None:
    outbox = await make()
    commits = medium.commits
    outbox.begin_session()
    for _ in range(50):
        await put(outbox, 2)
        outbox.ack(outbox.take_live(10))
        clock.now += 0.1
        if outbox._due() <= clock.now:
            await outbox.tick()
    assert medium.commits == commits
    assert outbox.counters()["delivered"] == 100


async def test_what_is_not_acknowledged_is_on_disk_within_the_interval(make: Make, medium: Medium) -> None:
    outbox = await make(commit_interval=0.2, now=time.monotonic)
    loop = asyncio.create_task(outbox.commit_loop())
    outbox.begin_session()
    commits = medium.commits
    began = time.monotonic()
    await put(outbox)
    (message,) = outbox.take_live(10)  # available before it is committed
    assert medium.commits == commits
    await until(lambda: message.stored)
    assert time.monotonic() - began < 0.2 + 0.3  # the machine may be busy
    outbox.ack([message])
    await until(lambda: not outbox._lanes.deleting)
    await outbox.close(clean=True)
    await loop


async def test_interval_zero_commits_first(make: Make, medium: Medium) -> None:
    outbox = await make(commit_interval=0.0)
    outbox.begin_session()
    medium.hang()
    append = asyncio.create_task(put(outbox))
    await asyncio.sleep(0.05)
    assert outbox.take_live(10) == []
    assert not append.done()
    medium.heal()
    await append
    (message,) = outbox.take_live(10)
    assert message.stored


async def test_append_waits_at_most_a_second_for_a_slow_disk(make: Make, medium: Medium) -> None:
    outbox = await make(commit_interval=0.0)
    medium.hang()
    began = time.monotonic()
    await put(outbox)
    assert 0.9 < time.monotonic() - began < 1.5
    outbox.begin_session()
    assert outbox.take_live(10) == []
    medium.heal()
    await until(lambda: outbox.take_live(10))


async def test_a_hanging_disk_is_seen_by_the_watchdog(make: Make, medium: Medium) -> None:
    outbox = await make()
    medium.hang()
    commit = asyncio.create_task(outbox.commit_now())
    await put(outbox, 2)
    await asyncio.sleep(0.05)
    stuck = outbox.alive_at
    await asyncio.sleep(1.1)
    assert outbox.alive_at == stuck
    medium.heal()
    await commit
    await until(lambda: outbox.alive_at > stuck)


async def test_memory_is_bounded_while_the_store_is_degraded(make: Make, medium: Medium, clock: Clock) -> None:
    outbox = await make()
    medium.fail("begin", sqlite3.SQLITE_READONLY)
    await put(outbox)
    await outbox.commit_now()
    assert (outbox.state, outbox.reason) == ("degraded", "read-only")
    count = HEAD_BYTES // 50_000 + 100
    await put(outbox, count, 50_000)
    counters = outbox.counters()
    assert outbox._lanes.head_bytes <= HEAD_BYTES
    lost = counters["dropped"]["store-failing"]
    assert lost + counters["buffered"] == count + 1
    assert outbox.gaps() == [{"run": outbox.run, "from": 1, "to": lost, "reason": "store-failing"}]
    medium.heal()
    clock.now += 10.0
    await outbox.tick()
    assert outbox.state == "ok"
    assert await outbox.commit_now()
    assert outbox.counters()["dropped"]["store-failing"] == lost


async def test_a_sync_that_fails_is_never_a_commit(make: Make, medium: Medium, clock: Clock) -> None:
    """The rows may be there or not: they are written again, and are there once."""
    outbox = await make()
    await put(outbox, 5)
    medium.fail("after", sqlite3.SQLITE_IOERR)
    assert not await outbox.commit_now()
    assert outbox.state == "degraded"
    medium.heal()
    clock.now += 10.0
    await outbox.tick()
    await put(outbox, 5)
    assert await outbox.commit_now()
    outbox.begin_session(-1.0)
    assert seqs(await outbox.take_backlog(100)) == list(range(1, 11))


async def test_fresh_data_stays_live_and_the_rest_is_late(make: Make, clock: Clock) -> None:
    outbox = await make()
    await put(outbox, 3)
    clock.now += 5.0
    await put(outbox, 3)
    clock.now += 1.0
    await outbox.commit_now()
    outbox.begin_session(2.0)
    assert outbox.backlog == 3
    live = outbox.take_live(100)
    late = await outbox.take_backlog(100)
    assert (seqs(live), seqs(late)) == ([4, 5, 6], [1, 2, 3])
    assert not any(message.replayed for message in live)
    assert all(message.replayed for message in late)


async def test_in_order_gives_out_nothing_live_while_there_is_a_backlog(make: Make, clock: Clock) -> None:
    outbox = await make(replay="in-order")
    await put(outbox, 3)
    clock.now += 5.0
    await outbox.commit_now()
    outbox.begin_session()
    await put(outbox, 2)
    assert outbox.take_live(100) == []
    assert seqs(await outbox.take_backlog(4)) == [1, 2, 3, 4]
    await put(outbox)
    assert outbox.take_live(100) == []
    assert seqs(await outbox.take_backlog(100)) == [5, 6]
    await put(outbox)
    assert seqs(outbox.take_live(100)) == [7]


async def test_a_lost_session_sends_again_in_order_byte_by_byte(make: Make) -> None:
    outbox = await make()
    outbox.begin_session()
    await put(outbox, 10)
    first = outbox.take_live(7)
    bodies = [message.body for message in first]
    outbox.ack(first[2:4])
    await outbox.commit_now()
    outbox.end_session()
    outbox.ack(first)  # what comes late for a session that is gone does not count
    outbox.begin_session()
    again = await outbox.take_backlog(100)
    assert seqs(again) == [1, 2, 5, 6, 7]
    assert [message.body for message in again] == [bodies[at] for at in (0, 1, 4, 5, 6)]
    assert seqs(outbox.take_live(100)) == [8, 9, 10]
    assert outbox.complete_to() == {outbox.run: 0}
    outbox.ack(again[:2])
    assert outbox.complete_to() == {outbox.run: 4}


async def test_a_refused_message_rests_behind_the_others_and_goes_after_three_tries(make: Make, clock: Clock) -> None:
    outbox = await make()
    outbox.begin_session()
    await put(outbox, 2)
    bad, good = outbox.take_live(2)
    assert not outbox.refuse(bad, "refused")
    outbox.ack([good])
    assert await outbox.take_backlog(10) == []
    clock.now += PARK_S[0]
    assert await outbox.take_backlog(10) == [bad]
    assert not outbox.refuse(bad, "refused")
    clock.now += PARK_S[1]
    assert await outbox.take_backlog(10) == [bad]
    assert outbox.refuse(bad, "too-large")
    counters = outbox.counters()
    assert counters["dropped"]["too-large"] == 1
    assert counters["buffered"] == 0
    assert outbox.gaps() == [{"run": outbox.run, "from": 1, "to": 1, "reason": "too-large"}]
    assert outbox.complete_to() == {outbox.run: 2}


async def test_gaps_survive_a_restart_and_are_told_until_acknowledged(make: Make, clock: Clock) -> None:
    outbox = await make()
    outbox.begin_session()
    await put(outbox)
    (message,) = outbox.take_live(1)
    for _ in range(3):
        outbox.refuse(message, "refused")
        clock.now += 10.0
        await outbox.take_backlog(1)
    await outbox.close(clean=True)
    gap: dict[str, Any] = {"run": outbox.run, "from": 1, "to": 1, "reason": "refused"}
    again = await make()
    assert again.gaps() == [gap]
    again.gaps_told(again.gaps())
    assert again.gaps() == [gap]  # the last twenty are repeated
    await again.close(clean=True)


async def test_an_end_that_was_not_clean_is_told_though_nothing_is_missing(make: Make) -> None:
    outbox = await make()
    await put(outbox, 3)
    await outbox.close(clean=False)
    again = await make()
    assert again.previous is not None
    assert (again.previous.run, again.previous.ended) == (outbox.run, "lost")
    assert again.gaps() == []
    assert again.counters()["carried_over"] == again.backlog == 3
    assert again.complete_to() == {outbox.run: 0, again.run: 0}
    again.begin_session()
    again.ack(await again.take_backlog(10))
    assert again.complete_to() == {outbox.run: 3, again.run: 0}


async def test_wait_returns_on_news(make: Make) -> None:
    outbox = await make()
    outbox.begin_session()
    await outbox.wait()
    waiting = asyncio.create_task(outbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await put(outbox)
    await waiting
    waiting = asyncio.create_task(outbox.wait())
    outbox.ack(outbox.take_live(1))
    await waiting


async def test_what_a_session_cannot_send_in_time_is_late(make: Make, clock: Clock) -> None:
    outbox = await make()
    outbox.begin_session()
    await put(outbox, 3)
    clock.now += 6.0
    await put(outbox, 1)
    assert seqs(outbox.take_live(10)) == [4]
    assert seqs(await outbox.take_backlog(10)) == [1, 2, 3]


async def test_memory_does_not_grow_with_the_backlog(make: Make, clock: Clock) -> None:
    outbox = await make()
    for _ in range(30):
        await put(outbox, 100, 300)
        clock.now += 3.0
        assert await outbox.commit_now()
    assert len(outbox._lanes.held) <= 100
    assert outbox._lanes.disk >= 2900
    outbox.begin_session()
    expected = 1
    while taken := await outbox.take_backlog(100):
        assert seqs(taken) == list(range(expected, expected + len(taken)))
        expected += len(taken)
        outbox.ack(taken)
        assert len(outbox._lanes.held) <= 700
    assert expected == 3001
    await outbox.commit_now()
    assert outbox.counters()["buffered"] == 0


async def test_an_outbox_that_was_never_opened_closes(tmp_path: Path) -> None:
    outbox = Outbox(
        tmp_path / "none",
        site="s",
        gateway="g",
        max_size=10**9,
        commit_interval=1.0,
        max_payload=60_000,
        replay="live-first",
    )
    await outbox.close(clean=True)
    assert not (tmp_path / "none").exists()
