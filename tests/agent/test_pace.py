"""Delays, rates and suspicion: pure, by the clock of the test."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pace import BacklogWindow, Reconnect, Timing, TokenBucket
from agent.suspicion import Suspicion

TIMING = Timing()


class TestReconnect:
    def test_delays_grow_to_a_minute_and_to_five_when_refused(self) -> None:
        longest = Reconnect(TIMING, uniform=lambda low, high: high)
        assert [longest.after_failure(refused=False) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
        assert [longest.after_failure(refused=True) for _ in range(4)] == [10, 60, 300, 300]

    @pytest.mark.parametrize("seed", ["shortest", *range(20)])
    def test_a_refused_login_is_tried_fifteen_times_in_any_hour_at_most(self, seed: object) -> None:
        uniform = random.Random(seed).uniform if isinstance(seed, int) else lambda low, high: low
        reconnect = Reconnect(TIMING, uniform=uniform)
        now, attempts = 0.0, []
        while now < 5 * 3600:
            attempts.append(now)
            now += reconnect.after_failure(refused=True)
        for start in attempts:
            assert sum(start <= at < start + 3600 for at in attempts) <= 15

    def test_a_session_that_lasts_starts_over(self) -> None:
        longest = Reconnect(TIMING, uniform=lambda low, high: high)
        for _ in range(8):
            longest.after_failure(refused=False)
        assert longest.after_session(10, 1000, kicked=False) == 60
        assert longest.after_session(61, 2000, kicked=False) == 1

    @pytest.mark.parametrize("seed", range(20))
    def test_a_twin_leaves_six_reconnects_in_five_minutes(self, seed: int) -> None:
        reconnect = Reconnect(TIMING, uniform=random.Random(seed).uniform)
        now, connects = 0.0, []
        while now < 3600:
            connects.append(now)
            now += 0.5
            now += reconnect.after_session(0.5, now, kicked=True)
            assert reconnect.twin == (len(connects) >= 3)
        for start in connects:
            assert sum(start <= at < start + 300 for at in connects) <= 6

    def test_a_broker_that_comes_and_goes_is_no_twin(self) -> None:
        reconnect = Reconnect(TIMING)
        for now in range(0, 60, 5):
            reconnect.after_session(1, now, kicked=True)
            reconnect.after_failure(refused=False)
        assert not reconnect.twin

    def test_sessions_that_last_are_no_twin(self) -> None:
        reconnect = Reconnect(TIMING)
        for now in range(100, 1000, 70):
            reconnect.after_session(69, now, kicked=True)
        assert not reconnect.twin

    def test_a_twin_that_is_gone_is_forgotten(self) -> None:
        reconnect = Reconnect(TIMING, uniform=lambda low, high: high)
        for now in range(3):
            reconnect.after_session(0.1, now, kicked=True)
        assert reconnect.twin
        assert reconnect.after_session(700, 1000, kicked=True) == 1
        assert not reconnect.twin


class TestTokenBucket:
    @settings(max_examples=100)
    @given(
        rate=st.sampled_from([0.5, 1, 7, 100, 5000]),
        steps=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 500)), max_size=40),
    )
    def test_never_more_than_the_rate_and_its_burst(self, rate: float, steps: list[tuple[float, int]]) -> None:
        now, taken = 100.0, 0
        bucket = TokenBucket(rate, now)
        for delay, wanted in steps:
            now += delay
            going = bucket.available(now, wanted)
            assert 0 <= going <= wanted
            bucket.take(going)
            taken += going
            assert taken <= rate * (now - 100.0) + max(1.0, rate / 10) + 1e-6

    def test_the_next_one_goes_after_the_wait(self) -> None:
        bucket = TokenBucket(4, 0.0)
        bucket.take(bucket.available(0.0, 10))
        assert bucket.available(bucket.wait_s() - 0.01, 10) == 0
        assert bucket.available(0.25, 10) == 1

    def test_no_limit(self) -> None:
        bucket = TokenBucket(0, 0.0)
        assert bucket.available(0.0, 10_000) == 10_000
        assert bucket.wait_s() == 0


class TestBacklogWindow:
    def test_begins_small_on_a_way_that_nobody_knows_yet(self) -> None:
        """75 messages at once were two seconds of a thin line, and what was fresh came after them."""
        window, now = BacklogWindow(75), 0.0
        assert window.size <= 5
        for _ in range(25):
            now += 0.01
            window.observe(0.01, now)
        assert window.size == 75

    def test_slow_acknowledgements_halve_it_and_quick_ones_bring_it_back(self) -> None:
        window, now = BacklogWindow(50), 0.0
        for _ in range(20):
            now += 0.01
            window.observe(0.01, now)
        assert window.size == 50
        for _ in range(20):
            now += 1.0
            window.observe(1.0, now)
        assert window.size == 1
        now += 1.0
        for _ in range(60):
            now += 0.01
            window.observe(0.01, now)
        assert window.size == 50

    def test_what_is_not_used_does_not_grow(self) -> None:
        """Half a minute of live messages alone opened it wide, and then a backlog began with all of it at once."""
        window = BacklogWindow(75)
        for now in range(100):
            window.observe(0.01, float(now), used=0)
        assert window.size <= 5

    def test_a_long_way_is_not_slowness(self) -> None:
        window, now = BacklogWindow(50), 0.0
        for latency in (0.6, 0.65, 0.7, 0.9, 1.2, 0.6) * 5:
            now += latency
            window.observe(latency, now)
        assert window.size == 50

    def test_a_way_that_became_longer_is_accepted_after_two_minutes(self) -> None:
        window, now = BacklogWindow(50), 0.0
        window.observe(0.01, now)
        for _ in range(200):
            now += 1.0
            window.observe(0.5, now)
        assert window.size == 50

    def test_never_none(self) -> None:
        window = BacklogWindow(0)
        for now in range(20):
            window.observe(float(now * now), now)
            assert window.size == 1


class TestSuspicion:
    def test_the_one_that_is_alone_when_it_happens_again(self) -> None:
        suspicion = Suspicion()
        assert suspicion.after_session(["a", "b", "c"], [], closed=True, code=None, alone=False) is None
        assert suspicion.careful >= 2 * 3
        assert suspicion.after_session(["b"], [], closed=True, code=None, alone=True) == "b"
        assert suspicion.careful == 0

    def test_one_that_was_guilty_before(self) -> None:
        assert Suspicion().after_session(["a", "b"], ["b"], closed=True, code=0x95, alone=False) == "b"

    @pytest.mark.parametrize("code", [0x89, 0x8B, 0x8D, 0x8E, 0x93, 0x97, 0x98])
    def test_reasons_that_are_about_no_message(self, code: int) -> None:
        suspicion = Suspicion()
        assert suspicion.after_session(["a"], [], closed=True, code=code, alone=True) is None
        assert suspicion.careful == 0

    def test_an_end_that_was_not_the_brokers_and_one_without_anything_under_way(self) -> None:
        suspicion = Suspicion()
        assert suspicion.after_session(["a"], [], closed=False, code=None, alone=True) is None
        assert suspicion.after_session([], [], closed=True, code=None, alone=True) is None
        assert suspicion.careful == 0
