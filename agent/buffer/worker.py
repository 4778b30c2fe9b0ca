"""The one thread that touches the store's files.

Promises: jobs run in the order in which they were submitted, their results arrive in the loop in that order; the
queue is bounded; `alive_at` stands still while the thread is stuck (a file system that hangs), which is what the
watchdog looks at; a stuck thread does not keep the process from ending. May import: the standard library.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

QUEUE_LENGTH = 16
"""More jobs than the outbox ever has under way."""
_ROUND_S = 5.0


class Outcome(Generic[T]):
    """What became of a job: `get` returns its result or raises what it raised."""

    __slots__ = ("_error", "_result")

    def __init__(self, result: T | None, error: BaseException | None) -> None:
        self._result = result
        self._error = error

    def get(self) -> T:
        """The result of the job."""
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # else its traceback refers to this frame, and with it to whatever the job held
        return self._result  # type: ignore[return-value]  # None only when T allows it


class Worker:
    """A thread that runs jobs one after the other and reports to the loop that started it."""

    def __init__(self, name: str) -> None:
        self.alive_at = time.monotonic()
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE_LENGTH)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def started(self) -> bool:
        """Whether the thread was started."""
        return self._loop is not None

    def start(self) -> None:
        """Start the thread; results go to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, job: Callable[[], T], done: Callable[[Outcome[T]], None]) -> None:
        """Run `job` in the thread, then `done` in the loop.

        Raises:
            queue.Full: more jobs are waiting than the outbox can have made: a bug, or a thread stuck for good.
        """
        loop = self._loop
        assert loop is not None, "start() comes first"

        def run() -> None:
            outcome: Outcome[T]
            try:
                outcome = Outcome(job(), None)
            except BaseException as error:  # noqa: BLE001 - carried to the loop, which raises it there
                outcome = Outcome(None, error)
            with suppress(RuntimeError):  # the loop ended before its store: nobody waits for this any more
                loop.call_soon_threadsafe(done, outcome)
            del outcome

        self._jobs.put_nowait(run)

    async def call(self, job: Callable[[], T]) -> T:
        """Run `job` in the thread and return its result. Cancelling the caller does not stop the job."""
        future: asyncio.Future[Outcome[T]] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome[T]) -> None:
            if not future.done():
                future.set_result(outcome)

        self.submit(job, done)
        return (await future).get()

    def stop(self) -> None:
        """Let the thread end after the jobs that wait; returns at once."""
        try:
            self._jobs.put_nowait(None)
        except queue.Full:  # stuck: it is a daemon thread and ends with the process
            return

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            self.alive_at = time.monotonic()
            try:
                job = self._jobs.get(timeout=_ROUND_S)
            except queue.Empty:
                continue
            if job is None:
                return
            self.alive_at = time.monotonic()
            job()
            del job  # what a job holds must not live until the next one comes
