"""How long to wait between attempts: growing delays with full jitter, so that many devices never knock together.

Pure: no clock, no sleeping; whoever holds a `Backoff` sleeps. May import: the standard library.
"""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays of one thing that is tried again and again.

    The n-th delay lies between `first` / 10 and min(`first` x `factor`^n, `ceiling`), evenly distributed: full jitter
    spreads a hall of devices that come back together better than a fixed share of the delay does.

    Args:
        first: ceiling of the first delay in seconds, > 0.
        ceiling: no delay is longer, in seconds.
        factor: how fast the delays grow, >= 1.
        uniform: `random.uniform` or what a test puts in its place.
    """

    def __init__(
        self,
        first: float = 1.0,
        ceiling: float = 60.0,
        factor: float = 2.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if not (first > 0 and ceiling >= first and factor >= 1):
            raise ValueError(f"no delays between {first} and {ceiling} s growing by {factor}")
        self._first = first
        self._ceiling = ceiling
        self._factor = factor
        self._uniform = uniform
        self._longest = first

    @property
    def longest(self) -> float:
        """Seconds that the next delay may last at most."""
        return self._longest

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt; the one after it may be longer."""
        delay = self._uniform(self._first / 10, self._longest)
        self._longest = min(self._longest * self._factor, self._ceiling)
        return delay

    def reset(self) -> None:
        """Start over: it worked."""
        self._longest = self._first
