"""A moment that moves: rung once, when it has come, whichever way it moved."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agent.alarm import Alarm
from tests.virtual_time import run_virtual

MOVES = st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0.01, 5.0)), min_size=1, max_size=12)
"""Seconds until the next move, and how far in the future the moment lies then."""


@given(MOVES)
def test_it_rings_when_the_moment_has_come_and_never_before(moves: list[tuple[float, float]]) -> None:
    async def scene() -> None:
        clock = asyncio.get_running_loop().time
        due = float("inf")
        rung: list[float] = []
        alarm = Alarm(lambda: due, lambda: rung.append(clock()), clock)
        for pause, ahead in moves:
            due = clock() + ahead
            alarm.look_at(due)
            seen = len(rung)
            await asyncio.sleep(pause)
            came = rung[seen:]
            if pause > ahead + 0.01:
                assert len(came) == 1, "not rung, or twice"
            if pause < ahead - 0.01:
                assert came == [], "rung too early"
            assert all(abs(at - due) <= 0.002 for at in came)

    run_virtual(scene())


def test_nothing_rings_after_cancel() -> None:
    async def scene() -> list[float]:
        clock = asyncio.get_running_loop().time
        rung: list[float] = []
        alarm = Alarm(lambda: 1001.0, lambda: rung.append(clock()), clock)
        alarm.look_at(1001.0)
        alarm.cancel()
        await asyncio.sleep(5)
        return rung

    assert run_virtual(scene()) == []
