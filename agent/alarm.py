"""A moment at which something is to be done, which mostly moves on before it comes.

May import: the standard library.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_EARLY_S = 0.001
"""So much earlier than asked for a loop may call."""


class Alarm:
    """Calls `ring` when `due` has come. To be used from one event loop.

    A moment that moves on is noticed when the old one comes: to look then costs less than to set a timer every time.

    Args:
        due: the moment, by `clock`.
        ring: what is called; must not raise.
        clock: monotonic seconds.
    """

    def __init__(
        self, due: Callable[[], float], ring: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._due = due
        self._ring = ring
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def look_at(self, moment: float) -> None:
        """Look by then, at the latest, whether it is due."""
        if self._timer is not None:
            if self._timer_at <= moment:
                return
            self._timer.cancel()
        self._timer_at = moment
        self._timer = asyncio.get_running_loop().call_later(max(0.0, moment - self._clock()), self._look)

    def cancel(self) -> None:
        """Ring no more, until `look_at` is called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        due = self._due()
        if due <= self._clock() + _EARLY_S:
            self._ring()
        else:
            self.look_at(due)
