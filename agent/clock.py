"""The wall clock as a label of monotonic instants, and whether it can be believed.

Promises: schedules and ages never see this clock; `synchronised` may block for a moment and belongs in a thread.
May import: `collectors.host.clock` (how the operating system tells), the standard library.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

EARLIEST = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
"""The build's date: an earlier wall clock is impossible (no battery, boot in 1970)."""
STEP_S = 1.0
"""A larger change of wall clock against monotonic clock is a step, not drift."""


_AT_ONCE_S = 0.001
"""Two clocks that were read within this were read at once."""
_READS = 3


class Clock:
    """Stamps monotonic instants with wall time.

    Args:
        wall: seconds since the epoch.
        monotonic: seconds of the clock that is never set.

    Attributes:
        synchronised: what the operating system says; None = it does not tell.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.synchronised: bool | None = None
        self.monotonic = monotonic
        self._wall = wall
        self._offset = self._between()

    def stamp(self, at: float) -> int:
        """Milliseconds UTC of the monotonic instant `at`, by the wall clock as it stands now."""
        return round((self._between() + at) * 1000)

    @property
    def impossible(self) -> bool:
        """The wall clock shows a time before this program was built."""
        return self._wall() < EARLIEST

    @property
    def mark(self) -> str | None:
        """What messages say in `clock`: `unsynced`, or nothing."""
        return "unsynced" if self.synchronised is False or self.impossible else None

    def stepped(self) -> float:
        """Seconds by which the wall clock was stepped since the last call (0.0: it was not)."""
        offset = self._between()
        step, self._offset = offset - self._offset, offset
        return step if abs(step) >= STEP_S else 0.0

    def _between(self) -> float:
        """Wall clock minus monotonic clock. A busy machine may take the processor away between the two: read again."""
        best, offset = float("inf"), 0.0
        for _ in range(_READS):
            before = self.monotonic()
            wall = self._wall()
            after = self.monotonic()
            if after - before < best:
                best, offset = after - before, wall - before
            if best <= _AT_ONCE_S:
                break
        return offset
