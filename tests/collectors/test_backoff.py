from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.backoff import Backoff


def upper(low: float, high: float) -> float:
    return high


def test_delays_grow_to_the_ceiling_and_start_over() -> None:
    backoff = Backoff(1.0, 10.0, uniform=upper)
    assert [backoff.next_delay() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    backoff.reset()
    assert backoff.next_delay() == 1.0


@given(st.integers(0, 50), st.floats(0.01, 5), st.floats(5, 600), st.floats(1, 4))
@settings(max_examples=100)
def test_every_delay_lies_within_its_limits(before: int, first: float, ceiling: float, factor: float) -> None:
    backoff = Backoff(first, ceiling, factor)
    for _ in range(before):
        backoff.next_delay()
    longest = backoff.longest
    assert first / 10 <= backoff.next_delay() <= longest <= ceiling


def test_delays_differ_between_devices() -> None:
    assert len({Backoff().next_delay() for _ in range(20)}) > 15


@pytest.mark.parametrize(("first", "ceiling", "factor"), [(0, 1, 2), (2, 1, 2), (1, 2, 0.5)])
def test_impossible_limits_are_refused(first: float, ceiling: float, factor: float) -> None:
    with pytest.raises(ValueError, match="no delays"):
        Backoff(first, ceiling, factor)
