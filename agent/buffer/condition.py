"""How the store is: what state follows from its failures, when it is tried again, and what is said of it in the log.

Promises: trouble with the disk is a state that ends by itself, not an error; a failure that is no trouble of the disk
is a bug, and is kept for the core to raise. May import: structlog, `agent.buffer.lanes`, `agent.buffer.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

from agent.buffer.lanes import Lanes
from agent.buffer.records import StoreDamaged, StoreFailure

State = Literal["ok", "degraded", "full"]

_log = structlog.get_logger("agent.buffer")

_QUIET_S = 60.0
"""Dropping that paused for so long is reported anew."""


class Condition:
    """Of one store.

    Args:
        retry_s: seconds between attempts while it is degraded.
        clock: monotonic seconds.
        wake: called when somebody should look again.

    Attributes:
        state: ok, degraded (it cannot be written: memory only), full (the oldest go to make room).
        reason, text: why it is degraded; empty otherwise.
        readable: whether it is open, as far as is known.
        retry_at: when a degraded one is tried again.
        bug: what a job raised that is no `StoreFailure`.
    """

    def __init__(self, lanes: Lanes, retry_s: float, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self.state: State = "ok"
        self.reason = ""
        self.text = ""
        self.readable = False
        self.retry_at = 0.0
        self.bug: BaseException | None = None
        self._lanes = lanes
        self._retry_s = retry_s
        self._clock = clock
        self._wake = wake
        self._damaged_at = -retry_s
        self._degraded_at = 0.0
        self._dropping_at = -_QUIET_S

    @property
    def degraded(self) -> bool:
        """Whether messages are kept in memory only."""
        return self.state == "degraded"

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Round the outcome of a job: what is raised is noted here, and goes no further."""
        try:
            yield
        except StoreFailure as failure:
            self.degrade(failure)
        except BaseException as error:  # noqa: BLE001 - raised in commit_loop, where the core sees it
            self.bug = error
            self._wake()

    def degrade(self, failure: StoreFailure) -> None:
        """Go on in memory. A damaged file is replaced at once, everything else is tried again later."""
        now = self._clock()
        self.readable = self.readable and failure.reason in ("disk-full", "no-room")
        at_once = isinstance(failure, StoreDamaged) and now - self._damaged_at >= self._retry_s
        self._damaged_at = now if at_once else self._damaged_at
        self.retry_at = now if at_once else now + self._retry_s
        self.reason, self.text = failure.reason, str(failure)
        if not self.degraded:
            self.state = "degraded"
            self._degraded_at = now
            _log.error("store_degraded", reason=self.reason, text=self.text)
        self._lanes.admit_waiting()
        self._wake()

    def retries(self) -> bool:
        """Whether a degraded store is to be tried now; then the next attempt is `retry_s` away."""
        now = self._clock()
        if now < self.retry_at:
            return False
        self.retry_at = now + self._retry_s
        return True

    def works(self) -> None:
        """It did what was asked: the end of a trouble, if there was one."""
        if self.degraded:
            self.state, self.reason, self.text = "ok", "", ""
            seconds = round(self._clock() - self._degraded_at, 1)
            _log.info("store_ok", degraded_s=seconds, dropped=self._lanes.dropped["store-failing"])

    def say_dropping(self, reason: str) -> None:
        """Messages were dropped: said once, until it has paused."""
        now = self._clock()
        if now - self._dropping_at >= _QUIET_S:
            _log.error("store_dropping", dropped=sum(self._lanes.dropped.values()), reason=reason)
        self._dropping_at = now
