from __future__ import annotations

import asyncio

import pytest

from collectors.api import Context, Unavailable
from collectors.line import Line


class Socket:
    """A connection that counts itself; closing takes a moment, as with real ones."""

    standing = 0

    def __init__(self) -> None:
        self.alive = True
        Socket.standing += 1
        assert Socket.standing == 1, "two connections at once"

    async def close(self) -> None:
        self.alive = False
        for _ in range(5):
            await asyncio.sleep(0)
        Socket.standing -= 1


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Socket.standing = 0


async def connect(timeout: float) -> Socket:
    await asyncio.sleep(0)
    return Socket()


async def use(line: Line[Socket], due: float, order: list[float], steps: int = 1) -> None:
    async with line.turn(due) as turn:
        for _ in range(steps):
            if turn.blocks_others():
                await turn.step_aside()
            order.append(due)
            await asyncio.sleep(0)


async def test_turns_go_to_whoever_was_due_first() -> None:
    line, order = Line("here", connect), list[float]()
    async with line.turn(0.0):
        waiting = [asyncio.create_task(use(line, due, order)) for due in (5.0, 2.0, 9.0, 2.5)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == [2.0, 2.5, 5.0, 9.0]


async def test_who_was_due_earlier_goes_between_two_requests_and_who_was_due_later_waits() -> None:
    line, order = Line("here", connect), list[float]()
    first = asyncio.create_task(use(line, 5.0, order, steps=4))
    await asyncio.sleep(0)
    others = [asyncio.create_task(use(line, due, order)) for due in (9.0, 1.0)]
    await asyncio.gather(first, *others)
    assert order.count(5.0) == 4
    assert order.index(1.0) <= 2, "did not wait for the end of the poll under way"
    assert order[-1] == 9.0


async def test_who_held_up_the_line_goes_to_the_end() -> None:
    line, order = Line("here", connect), list[float]()

    async def slow() -> None:
        async with line.turn(1.0) as turn:
            await asyncio.sleep(0.01)
            await turn.step_aside(100.0)
            order.append(1.0)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    await asyncio.gather(task, use(line, 50.0, order), use(line, 60.0, order))
    assert order == [50.0, 60.0, 1.0]


async def test_a_cancelled_waiter_and_a_cancelled_holder_pass_the_turn_on() -> None:
    line, order = Line("here", connect), list[float]()

    async def hold() -> None:
        async with line.turn(0.0):
            await asyncio.sleep(60)

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    waiters = [asyncio.create_task(use(line, due, order)) for due in (1.0, 2.0, 3.0)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    holder.cancel()
    # The turn is handed to the second waiter in the same step in which it is cancelled.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiters[1].cancel()
    await asyncio.gather(holder, *waiters, return_exceptions=True)
    assert order[-1] == 3.0
    async with asyncio.timeout(1), line.turn(0.0):
        pass


async def test_a_dead_connection_is_replaced_and_closed_before() -> None:
    line = Line("here", connect)
    async with line.turn(0.0) as turn:
        first = await turn.connection(1.0)
        assert await turn.connection(1.0) is first
        first.alive = False
        assert await turn.connection(1.0) is not first
    await line.close()
    assert (Socket.standing, line.stats.connects) == (0, 2)


async def test_a_failed_attempt_answers_all_who_wait() -> None:
    attempts = 0

    async def refuse(timeout: float) -> Socket:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.01)
        raise Unavailable("not-connected", "refused", "no", where="here")

    line = Line("here", refuse)

    async def opens() -> str:
        try:
            async with line.turn(0.0) as turn:
                await turn.connection(1.0)
        except Unavailable as error:
            return f"{error.cause} {error.facts['where']}"
        return "connected"

    assert set(await asyncio.gather(*(opens() for _ in range(12)))) == {"refused here"}
    assert attempts == 1
    assert await opens() == "refused here"
    assert attempts == 2, "who comes afterwards has an attempt of their own"


async def test_reopening_during_a_close_never_makes_a_second_connection() -> None:
    context = Context()

    async def device(rounds: int) -> None:
        for _ in range(rounds):
            lease = context.shared("plc", lambda: Line("plc", connect))
            async with lease.resource.turn(0.0) as turn:
                assert (await turn.connection(1.0)).alive
            await asyncio.sleep(0)
            await lease.release()
            await lease.release()

    async with asyncio.timeout(5):
        await asyncio.gather(*(device(30) for _ in range(4)))
    assert Socket.standing == 0
    assert context.users("plc") == 0


async def test_closing_waits_for_the_turn_that_is_on() -> None:
    line = Line("here", connect)
    async with line.turn(0.0) as turn:
        connection = await turn.connection(1.0)
        closing = asyncio.create_task(line.close())
        await asyncio.sleep(0.01)
        assert connection.alive
    await closing
    assert not connection.alive
