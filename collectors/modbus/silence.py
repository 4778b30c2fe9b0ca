"""How often a silent unit is asked where others wait for the line.

Each attempt holds the line up until its time is over; so attempts grow rare until they cost the others a small share of
their time, and wait only as long as this line's answers ever took, but for every fourth: a slow unit must be able to
come back. Pure: no clock, no sleeping. May import: the standard library, `collectors.api`.
"""

from __future__ import annotations

from collections.abc import Mapping

from collectors.api import Unavailable

FIRST_S = 2.0
FACTOR = 4.0
LEAST_CAP_S, MOST_CAP_S = 10.0, 60.0
COST_TIMES = 30.0
"""Attempts become at most so rare that one takes a thirtieth of the time between them, within the caps."""
PATIENT_EVERY = 4
ANSWER_TIMES = 10.0
LEAST_TIMEOUT_S = 0.3


class Silence:
    """Of one unit; outlives its connections."""

    def __init__(self) -> None:
        self.broken()

    def broken(self) -> None:
        """It answers."""
        self._attempts = 0
        self._until = float("-inf")
        self._pause = FIRST_S
        self._error: Unavailable | None = None

    def lasts(self, now: float) -> bool:
        """Whether the unit is not to be asked yet; `now` in monotonic seconds."""
        return now < self._until and self._error is not None

    def error(self, facts: Mapping[str, str | int | float]) -> Unavailable:
        """What was the matter the last time it was asked; `facts` are newer than those of then."""
        assert self._error is not None
        known = {key: value for key, value in self._error.facts.items() if key != "others"}
        return Unavailable(self._error.reason, self._error.cause, self._error.text, **{**known, **facts})

    def timeout(self, longest: float, slowest_s: float) -> float | None:
        """Seconds to wait for its first answer; None = it is not silent.

        Args:
            longest: what its configuration allows.
            slowest_s: what answers on this line take at most; 0 = not known.
        """
        if self._error is None:
            return None
        if slowest_s <= 0 or self._attempts % PATIENT_EVERY == 0:
            return longest
        return min(longest, max(LEAST_TIMEOUT_S, ANSWER_TIMES * slowest_s))

    def goes_on(self, now: float, cost_s: float, error: Unavailable) -> None:
        """It was asked and did not answer, which held the line up for `cost_s` seconds."""
        cap = min(MOST_CAP_S, max(LEAST_CAP_S, COST_TIMES * cost_s))
        self._until = now + min(self._pause, cap)
        self._pause = min(self._pause * FACTOR, cap)
        self._attempts += 1
        self._error = error
