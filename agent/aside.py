"""Blocking calls (DNS, TLS handshake, a file) in a daemon thread of their own, one at a time.

Promises: the loop never waits for a call longer than it wants to; a call that hangs costs one thread, never a second
one (`Stuck` until it comes back); a hanging call does not keep the process from ending. May import: the standard
library.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """The call before this one has not come back yet: nothing new is started."""


class Late(Exception):
    """The call did not come back in time; it goes on aside and its result is dropped."""


class Died(Exception):
    """The call ended with an exception, which is on stderr: calls report what can go wrong by what they return."""


class Aside(Generic[T]):
    """A place for one blocking call at a time. To be used from one event loop.

    Args:
        name: of the thread, for people who look at the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """A call is under way, perhaps one that was given up."""
        return self._thread is not None and self._thread.is_alive()

    async def run(self, call: Callable[[], T], timeout: float) -> T:
        """Return what `call` returns.

        Args:
            call: must not raise.
            timeout: seconds until the call is left to itself.

        Raises:
            Stuck: an earlier call is still under way.
            Late: no result within `timeout`.
            Died: the call raised.
        """
        if self.busy:
            raise Stuck
        loop = asyncio.get_running_loop()
        finished = asyncio.Event()
        results: list[T] = []

        def work() -> None:
            try:
                results.append(call())
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(finished.set)

        self._thread = threading.Thread(target=work, name=self._name, daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(timeout):
                await finished.wait()
        except TimeoutError:
            raise Late from None
        # The thread has only its last steps to go; without this a call right after this one would find it alive.
        self._thread.join(1.0)
        if not results:
            raise Died
        return results[0]
