"""How long to wait between attempts: growing delays with full jitter, so that many devices never knock together.

Pure: no clock, no sleeping; whoever holds a `Backoff` sleeps. May import: the standard library.
"""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_REFUSED_S, LONGEST_REFUSED_S = 10.0, 300.0
_REFUSED_FACTOR, _REFUSED_STEADY = 6.0, 0.95


class Backoff:
    """Delays of one thing that is tried again and again.

    The n-th delay lies between `first` / 10 and min(`first` x `factor`^n, `ceiling`), evenly distributed: full jitter
    spreads a hall of devices that come back together better than a fixed share of the delay does.

    Args:
        first: ceiling of the first delay in seconds, > 0.
        ceiling: no delay is longer, in seconds.
        factor: how fast the delays grow, >= 1.
        steady: at the ceiling no delay is shorter than this share of it, 0 to 1: for what must not be tried more often
            than so many times an hour.
        uniform: `random.uniform` or what a test puts in its place.
    """

    def __init__(
        self,
        first: float = 1.0,
        ceiling: float = 60.0,
        factor: float = 2.0,
        steady: float = 0.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if not (first > 0 and ceiling >= first and factor >= 1 and 0 <= steady <= 1):
            raise ValueError(f"no delays between {first} and {ceiling} s growing by {factor}, at last by {steady}")
        self._first = first
        self._ceiling = ceiling
        self._factor = factor
        self._steady = steady
        self._uniform = uniform
        self._longest = first

    @property
    def longest(self) -> float:
        """Seconds that the next delay may last at most."""
        return self._longest

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt; the one after it may be longer."""
        shortest = self._first / 10
        if self._longest == self._ceiling:
            shortest = max(shortest, self._steady * self._ceiling)
        delay = self._uniform(shortest, self._longest)
        self._longest = min(self._longest * self._factor, self._ceiling)
        return delay

    def reset(self) -> None:
        """Start over: it worked."""
        self._longest = self._first


def after_refusals(
    first: float = FIRST_REFUSED_S,
    ceiling: float = LONGEST_REFUSED_S,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Backoff:
    """Delays after a login was refused: by default fifteen attempts in any hour at most. More would not help, and lock
    accounts.
    """
    return Backoff(first, ceiling, _REFUSED_FACTOR, _REFUSED_STEADY, uniform)
