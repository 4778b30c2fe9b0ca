"""Something that goes on in a thread of its own beside a scenario, and ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Beside:
    """Runs in a thread while it is open.

    Args:
        work: what is run; it is given the event that tells it to end.
    """

    def __init__(self, work: Callable[[threading.Event], None]) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=work, args=(self._end,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
