"""The last resort of a process that has to end: a thread that ends it when the orderly way takes too long.

A disk, a name server or a library that hangs can hold a thread that nothing interrupts; Python waits for such threads
before it lets a process go. Promises: the process is gone when the time is up, with the exit code it had earned until
then; nothing here waits for anything but the log, and for that a moment only.

May import: the standard library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class LastResort:
    """Ends the process.

    Args:
        before: called just before the end, to get the last log lines out; must end within a fraction of a second.

    Attributes:
        code: exit code of the process if the last resort is what ends it.
    """

    def __init__(self, before: Callable[[], object]) -> None:
        self.code = 1
        self._before = before
        self._timer: threading.Timer | None = None

    def arm(self, seconds: float) -> None:
        """End the process after so long; the first call counts."""
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def disarm(self) -> None:
        """There is nothing to end any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        try:
            self._before()
        finally:
            os._exit(self.code)
