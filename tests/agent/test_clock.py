"""The wall clock as a label: two clocks cannot be read at once."""

from __future__ import annotations

import pytest

from agent.clock import Clock

EPOCH = 1_800_000_000.0


class Machine:
    """Takes the processor away for a while each time after the wall clock was read, as often as `pauses` says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def wall(self) -> float:
        wall = EPOCH + self.now
        self.now += self.pauses.pop() if self.pauses else 0.0
        return wall


@pytest.mark.parametrize("pauses", [[0.13], [0.5, 0.13]])
def test_a_pause_between_the_two_clocks_does_not_move_the_label(pauses: list[float]) -> None:
    machine = Machine()
    clock = Clock(machine.wall, machine.monotonic)
    machine.pauses = list(pauses)
    assert abs(clock.stamp(990.0) - (EPOCH + 990.0) * 1000) <= 1
    machine.pauses = [5.0]
    assert clock.stepped() == 0.0


def test_on_a_machine_that_always_pauses_the_least_pause_counts() -> None:
    machine = Machine()
    clock = Clock(machine.wall, machine.monotonic)
    machine.pauses = [0.3, 0.01, 0.3, 0.3, 0.3]
    assert abs(clock.stamp(990.0) - (EPOCH + 990.0) * 1000) <= 10
    assert len(machine.pauses) < 5
