"""Calls into the operating system that may never come back, each with a deadline, on a thread of their own.

Promises: one call at a time; a call that outlasts its patience keeps its thread and the next call gets a new one; a
call that has not come back is not made again before it has; never more than `MAX_STUCK` threads hang in the whole
process, and the last of them is kept for calls that do not block by nature. The event loop is never blocked and the
end of the process never waits for a stuck call. May import: the standard library.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
MAX_STUCK = 5
PATIENCE_S = 0.5
"""How long the other calls wait for a slow one before they go on without it."""

MISSING_ERRORS = (OSError, ValueError, LookupError, RuntimeError, AttributeError)
"""What reading raises where a kernel or a library lacks the thing, or writes it in a form that nobody knows."""


class Failure(Enum):
    """Why a call brought nothing."""

    TIMEOUT = "timeout"
    MISSING = "missing"


class Call(Protocol[R_co]):
    """One call: `key` tells it from others in the whole process; `may_block` if it touches devices or mounts."""

    @property
    def key(self) -> str: ...  # noqa: D102 - see the class
    @property
    def may_block(self) -> bool: ...  # noqa: D102 - see the class
    @property
    def read(self) -> Callable[[], R_co]: ...  # noqa: D102 - see the class


class _Job(Generic[R]):
    """One call on its way: run in the thread, its outcome carried to the loop, bugs included."""

    def __init__(self, read: Callable[[], R]) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[R | Failure] = self.loop.create_future()
        self.finished = False
        self._read = read

    def run(self) -> None:
        with self:
            self._tell(self.future.set_result, self._read())

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        # nothing is swallowed: a bug is raised where the outcome is awaited
        if isinstance(error, MISSING_ERRORS):
            self._tell(self.future.set_result, Failure.MISSING)
        elif error is not None:
            self._tell(self.future.set_exception, error)
        return True

    def _tell(self, settle: Callable[[Any], None], outcome: object) -> None:
        self.finished = True
        with suppress(RuntimeError):  # the loop ended before the call did
            self.loop.call_soon_threadsafe(self._settle, settle, outcome)

    def _settle(self, settle: Callable[[Any], None], outcome: object) -> None:
        if not self.future.done():
            settle(outcome)


class StuckCalls:
    """The calls of this process that have not come back; shared by all objects, because threads are."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job[Any]] = {}

    def add(self, key: str, job: _Job[Any]) -> None:
        """Remember a call that outlasts its patience."""
        self._jobs[key] = job

    def allows(self, key: str, *, may_block: bool) -> bool:
        """Whether this call may be made now."""
        self._jobs = {name: job for name, job in self._jobs.items() if not job.finished}
        return key not in self._jobs and len(self._jobs) < (MAX_STUCK - 1 if may_block else MAX_STUCK)


_STUCK = StuckCalls()


class CallThread:
    """Makes calls on one thread, replaced when a call hangs in it. Used from one event loop."""

    def __init__(self, stuck: StuckCalls = _STUCK, patience_s: float = PATIENCE_S) -> None:
        self._stuck = stuck
        self._patience_s = patience_s
        self._jobs: SimpleQueue[_Job[Any] | None] | None = None
        self._thread: threading.Thread | None = None

    async def call_all(self, calls: Iterable[Call[R]], deadline_s: float) -> dict[str, R | Failure]:
        """Make the calls in their order; each has `deadline_s` from its start, slow ones overlap with the next.

        `calls` is iterated while the calls are made, so that later ones may depend on what earlier ones found.
        """
        results: dict[str, R | Failure] = {}
        slow: dict[str, asyncio.Future[R | Failure]] = {}
        last_start = time.monotonic()
        for call in calls:
            if not self._stuck.allows(call.key, may_block=call.may_block):
                results[call.key] = Failure.TIMEOUT
                continue
            job = _Job(call.read)
            last_start = time.monotonic()
            self._submit(job)
            await asyncio.wait((job.future,), timeout=min(self._patience_s, deadline_s))
            if job.future.done():
                results[call.key] = job.future.result()
            else:
                self._stuck.add(call.key, job)
                self._let_go()
                slow[call.key] = job.future
        if slow:
            await asyncio.wait(slow.values(), timeout=max(0.0, last_start + deadline_s - time.monotonic()))
        for key, future in slow.items():
            results[key] = future.result() if future.done() else Failure.TIMEOUT
            future.cancel()
        return results

    def close(self) -> None:
        """End the thread; one that hangs is left to itself. Safe twice."""
        self._let_go()

    def _submit(self, job: _Job[Any]) -> None:
        if self._jobs is None or self._thread is None or not self._thread.is_alive():
            self._jobs = SimpleQueue()
            self._thread = threading.Thread(target=_serve, args=(self._jobs,), name="host-metrics", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _let_go(self) -> None:
        if self._jobs is not None:
            self._jobs.put(None)
        self._jobs = self._thread = None


def _serve(jobs: SimpleQueue[_Job[Any] | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
