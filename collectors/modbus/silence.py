"""How often a silent unit is asked where others wait for the line.

Each attempt holds the line up until its time is over; so attempts grow rare until they cost the others a small share of
their time, and wait only as long as answers of this line, and of this unit, took before. Now and then one waits as long
as the unit may take: a slow one must be able to come. Pure: no clock, no sleeping. May import: the standard library,
`collectors.api`.
"""

from __future__ import annotations

from collections.abc import Mapping

from collectors.api import Unavailable

FIRST_S = 2.0
FACTOR = 4.0
LEAST_CAP_S, MOST_CAP_S = 10.0, 60.0
COST_TIMES = 30.0
"""Attempts become at most so rare that one takes a thirtieth of the time between them, within the caps."""
PATIENT_TIMES = 40.0
"""One that waits long takes a fortieth of the time until the next such one."""
ANSWER_TIMES = 4.0
OWN_TIMES = 3.0
LEAST_TIMEOUT_S = 0.3


class Silence:
    """Of one unit; outlives its connections."""

    def __init__(self) -> None:
        self._own_s = 0.0
        self.broken(0.0)

    def broken(self, slowest_s: float) -> None:
        """It answers, and took at most so many seconds for it."""
        self._own_s = max(slowest_s, 0.99 * self._own_s)
        self._patient = True
        self._patient_at = float("-inf")
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

    def timeout(self, now: float, longest: float, slowest_s: float) -> float | None:
        """Seconds to wait for its first answer; None = it is not silent.

        Args:
            now: monotonic seconds.
            longest: what its configuration allows.
            slowest_s: what answers on this line take at most; 0 = not known.
        """
        if self._error is None:
            return None
        self._patient = slowest_s <= 0 or now >= self._patient_at
        if self._patient:
            return longest
        return min(longest, max(LEAST_TIMEOUT_S, ANSWER_TIMES * slowest_s, OWN_TIMES * self._own_s))

    def goes_on(self, now: float, cost_s: float, error: Unavailable) -> None:
        """It was asked and did not answer, which held the line up for `cost_s` seconds."""
        cap = min(MOST_CAP_S, max(LEAST_CAP_S, COST_TIMES * cost_s))
        self._until = now + min(self._pause, cap)
        self._pause = min(self._pause * FACTOR, cap)
        if self._patient:
            self._patient_at = now + PATIENT_TIMES * cost_s
        self._error = error
