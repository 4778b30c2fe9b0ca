"""Calls that hang, are slow, are missing, or are wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest

from collectors.host.thread import MAX_STUCK, CallThread, Failure, StuckCalls


@dataclass
class Ask:
    key: str
    read: Callable[[], object]
    may_block: bool = False


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hanging calls wait for; opened at the end, so that no thread outlives its test for long."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def calls() -> AsyncIterator[CallThread]:
    thread = CallThread(StuckCalls(), patience_s=0.02)
    yield thread
    thread.close()


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "host-metrics"]


async def test_calls_run_in_order_on_one_other_thread(calls: CallThread) -> None:
    seen: list[int] = []

    def note() -> int:
        seen.append(threading.get_ident())
        return len(seen)

    results = await calls.call_all([Ask("a", note), Ask("b", note), Ask("c", note)], 1.0)
    assert results == {"a": 1, "b": 2, "c": 3}
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()


async def test_later_calls_may_depend_on_earlier_ones(calls: CallThread) -> None:
    found: list[str] = []

    def plan() -> Iterator[Ask]:
        yield Ask("list", lambda: found.extend(["x", "y"]))
        for name in found:
            yield Ask(name, lambda: True)

    assert await calls.call_all(plan(), 1.0) == {"list": None, "x": True, "y": True}


async def test_a_hanging_call_costs_only_itself(calls: CallThread, gate: threading.Event) -> None:
    results = await calls.call_all([Ask("hangs", gate.wait, True), Ask("fine", lambda: 1)], 0.05)
    assert results == {"hangs": Failure.TIMEOUT, "fine": 1}


async def test_a_slow_call_is_waited_for_while_others_go_on(calls: CallThread, gate: threading.Event) -> None:
    order: list[str] = []

    def slow() -> str:
        gate.wait()
        order.append("slow")
        return "late but good"

    def quick() -> int:
        order.append("quick")
        gate.set()
        return 1

    results = await calls.call_all([Ask("slow", slow, True), Ask("quick", quick)], 5.0)
    assert results == {"slow": "late but good", "quick": 1}
    assert order == ["quick", "slow"]


async def test_a_call_that_hangs_is_not_made_again_until_it_came_back(calls: CallThread, gate: threading.Event) -> None:
    made = 0

    def hang() -> str:
        nonlocal made
        made += 1
        gate.wait()
        return "back"

    for _ in range(3):
        assert await calls.call_all([Ask("nfs", hang, True)], 0.03) == {"nfs": Failure.TIMEOUT}
    assert made == 1
    gate.set()
    deadline = time.monotonic() + 2
    while (await calls.call_all([Ask("nfs", hang, True)], 1.0)) != {"nfs": "back"}:
        assert time.monotonic() < deadline
    assert made == 2


async def test_threads_are_capped_and_the_last_is_kept_for_calls_that_do_not_block(gate: threading.Event) -> None:
    before = len(_threads())
    stuck = StuckCalls()
    for round_ in range(3):  # fresh objects, as after reloads: the cap is that of the process
        calls = CallThread(stuck, patience_s=0.01)
        asks = [Ask(f"mount {round_}.{number}", gate.wait, True) for number in range(6)]
        results = await calls.call_all([*asks, Ask("memory", lambda: 1)], 0.02)
        assert results.pop("memory") == 1
        assert set(results.values()) == {Failure.TIMEOUT}
        calls.close()
    assert len(_threads()) - before <= MAX_STUCK


@pytest.mark.parametrize("error", [FileNotFoundError("x"), ValueError("odd kernel"), KeyError("x"), RuntimeError("x")])
async def test_what_is_not_there_is_missing(calls: CallThread, error: Exception) -> None:
    def fail() -> None:
        raise error

    assert await calls.call_all([Ask("a", fail), Ask("b", lambda: 1)], 1.0) == {"a": Failure.MISSING, "b": 1}


async def test_a_bug_reaches_the_caller(calls: CallThread) -> None:
    def wrong() -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        await calls.call_all([Ask("a", wrong)], 1.0)
    assert await calls.call_all([Ask("b", lambda: 1)], 1.0) == {"b": 1}


def test_a_call_may_come_back_after_the_loop_ended(gate: threading.Event) -> None:
    calls = CallThread(StuckCalls(), patience_s=0.01)
    asyncio.run(calls.call_all([Ask("hangs", gate.wait, True)], 0.02))
    calls.close()
    calls.close()
    gate.set()
