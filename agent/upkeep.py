"""What the daemon does again and again beside its work: status files, the clock, the watchdog, the retained status.

Promises: what may block on a sick disk or a silent system service runs in threads of its own, one call at a time, and
holds up neither the loop nor one another; the watchdog is fed while runners, store and publisher come round, whatever
they come round with; who does not for half a minute ends the process. The first status stands at the first turn of
the loop.

May import: `agent.aside`, `agent.buffer`, `agent.clock`, `agent.fleet`, `agent.notify`, `agent.overview`,
`agent.publisher`, `agent.status`, `collectors.host.clock`, structlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from functools import partial

import structlog

from agent.aside import Aside, Died, Late, Stuck
from agent.buffer.outbox import Outbox
from agent.clock import Clock
from agent.fleet import Fleet
from agent.notify import Notifier
from agent.overview import Overview
from agent.publisher import Publisher
from agent.status import StatusFiles
from collectors.host.clock import clock_synchronised

log = structlog.get_logger("shopfloor.agent")

TICK_S = 1.0
FILES_EVERY_S = 5.0
CLOCK_EVERY_S = 10.0
SETTLED_S = 3.0
"""After so long what a start makes is made."""
STUCK_S = 20.0
"""The watchdog is not fed when runners, store or publisher did not come round for so long."""
GIVEN_UP_S = 30.0
"""After so long the service manager is asked for a restart: what has not come back by now will not, and every further
second is one that nobody reads."""


class Upkeep:
    """The chores of one process; `run` does them until it is cancelled."""

    def __init__(
        self,
        *,
        overview: Overview,
        files: StatusFiles,
        clock: Clock,
        notifier: Notifier,
        outbox: Outbox,
        publisher: Publisher,
        fleet: Fleet,
    ) -> None:
        self._overview = overview
        self._files = files
        self._clock = clock
        self._notifier = notifier
        self._outbox = outbox
        self._publisher = publisher
        self._fleet = fleet
        self._file_thread: Aside[bool] = Aside("status-files")
        self._clock_thread: Aside[None] = Aside("clock")
        self._files_error: str | None = None

    async def run(self) -> None:
        """Do the chores until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._files_loop())
            group.create_task(self._clock_loop())
            group.create_task(self._tick_loop())
            group.create_task(self._settle())

    async def look_at_clock(self, within: float) -> None:
        """Ask whether the clock can be believed, and wait so many seconds for the answer."""
        with contextlib.suppress(Late, Stuck, Died):
            await self._clock_thread.run(self._look_at_clock, within)

    async def write_files(self, within: float = FILES_EVERY_S) -> None:
        """Write status and metrics as they are now; a disk that does not answer is left to itself after so long."""
        until = time.monotonic() + within
        while self._file_thread.busy and time.monotonic() < until:  # noqa: ASYNC110 - a thread sets no event
            await asyncio.sleep(0.02)
        snapshot = self._overview.snapshot(self._publisher)
        try:
            await self._file_thread.run(partial(self._files.write, snapshot), max(0.0, until - time.monotonic()))
        except Stuck:
            return  # the call before this one has said so, or has only just begun
        except Late:
            error: str | None = f"{self._files.run_dir} does not answer"
        except Died:
            error = "see the error above"
        else:
            error = self._files.error
        if (error is None) != (self._files_error is None) and error is not None:
            log.warning("status_not_written", text=error)
        self._files_error = error

    def tell_status(self) -> None:
        """Bring the retained status and systemd's status line up to date."""
        self._publisher.status_changed()
        states = list(self._overview.device_states().values())
        fine = sum(state == "ok" for state in states)
        self._notifier.status(f"{fine} of {len(states)} devices ok, broker {self._publisher.state}")

    async def _settle(self) -> None:
        """Switch the garbage collector on, which `run` starts without: what a start makes stays, and is never gone
        through; only what comes later is.
        """
        await asyncio.sleep(SETTLED_S)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()

    async def _files_loop(self) -> None:
        while True:
            began = time.monotonic()
            await self.write_files()
            await asyncio.sleep(max(0.0, began + FILES_EVERY_S - time.monotonic()))

    async def _clock_loop(self) -> None:
        while True:
            await self.look_at_clock(CLOCK_EVERY_S)
            await asyncio.sleep(CLOCK_EVERY_S)

    async def _tick_loop(self) -> None:
        watchdog_at = float("-inf")
        told: object = None
        given_up: str | None = None
        while True:
            began = time.monotonic()
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._overview.loop_lag_s = max(self._overview.loop_lag_s, now - began - TICK_S)
            shown = (self._overview.device_states(), self._outbox.state, self._publisher.state)
            if shown != told:
                told = shown
                self.tell_status()
            interval = self._notifier.watchdog_interval
            if interval is None or now < watchdog_at + min(interval, FILES_EVERY_S):
                continue
            stuck, part = self._stuck(now)
            if stuck < STUCK_S:
                self._notifier.watchdog()
                watchdog_at = now
            elif stuck >= GIVEN_UP_S:
                if given_up != part:
                    log.critical("agent_stuck", part=part, seconds=round(stuck))
                    given_up = part
                self._notifier.give_up()

    def _stuck(self, now: float) -> tuple[float, str]:
        """Seconds since runners, store and publisher all came round, and which did not; that they get errors is no
        matter.
        """
        return max(
            (now - self._outbox.alive_at, "store"),
            (now - self._publisher.alive_at, "publisher"),
            (self._fleet.stuck_s(), "devices"),
        )

    def _look_at_clock(self) -> None:
        before = self._clock.mark
        self._clock.synchronised = clock_synchronised()
        stepped = self._clock.stepped()
        mark = self._clock.mark
        if mark is not None and before is None:
            log.warning("clock_unsynced")
        elif mark is None and before is not None:
            log.info("clock_synced", stepped_ms=round(stepped * 1000))
        elif stepped:
            log.warning("clock_stepped", stepped_ms=round(stepped * 1000))
