"""What a silent unit costs the others on its line, and how soon it is back."""

from __future__ import annotations

from collectors.api import Unavailable
from collectors.modbus.silence import Silence

NO_ANSWER = Unavailable("timeout", "no_answer", "no answer")
TIMEOUT_S, SLOWEST_S = 3.0, 0.06


def test_a_dead_unit_costs_the_others_few_polls_even_with_a_long_time_out() -> None:
    silence, now, missed = Silence(), 0.0, 0.0
    while now < 3600:
        timeout = silence.timeout(now, TIMEOUT_S, SLOWEST_S)
        cost = 2 * (TIMEOUT_S if timeout is None else timeout)  # the time-out, and silence of as long
        now += cost
        missed += max(0.0, cost - 1.0)  # of each neighbour, polled every second
        silence.goes_on(now, cost, NO_ANSWER)
        while silence.lasts(now):
            now += 0.5
    assert missed < 0.03 * 3600


def test_a_unit_slower_than_the_rest_is_waited_for_as_long_as_its_answers_took() -> None:
    silence = Silence()
    silence.broken(0.9)
    silence.goes_on(10.0, 2 * TIMEOUT_S, NO_ANSWER)  # one reply was lost
    timeout = silence.timeout(20.0, TIMEOUT_S, SLOWEST_S)
    assert timeout is not None
    assert 0.9 < timeout < TIMEOUT_S


def test_a_unit_that_nobody_knows_is_given_all_its_time_now_and_then() -> None:
    silence = Silence()
    silence.goes_on(0.0, 2 * TIMEOUT_S, NO_ANSWER)
    assert [silence.timeout(now, TIMEOUT_S, SLOWEST_S) == TIMEOUT_S for now in (5.0, 100.0, 250.0)] == [
        False,
        False,
        True,
    ]
