"""A stand-in for systemd: starts a daemon, hears its sd_notify, kills it when its watchdog is not fed, starts it again.

    with ServiceManager(address, make) as manager: ...

As systemd.service(5) has it for `Type=notify`, `Restart=always`, `WatchdogSec=`, `RestartSec=`: SIGABRT (and SIGCONT
with it), SIGKILL when that did not help; `WATCHDOG=trigger` is a watchdog that was not fed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.daemon import Daemon, eventually


@dataclass
class Life:
    """One process, in seconds of the monotonic clock.

    Attributes:
        ready: when it said so, None = never.
        ended: when it had ended, None = it runs.
        why: of its end: `watchdog`, `trigger`, `itself`.
    """

    started: float
    ready: float | None = None
    ended: float | None = None
    why: str = "itself"


class ServiceManager:
    """Keeps one daemon running.

    Args:
        address: where the socket goes.
        make: makes the daemon, given what its environment must have.
        before_restart: called before each start but the first.
    """

    def __init__(
        self,
        address: Path,
        make: Callable[[Mapping[str, str]], Daemon],
        *,
        watchdog_s: float = 30.0,
        restart_s: float = 2.0,
        abort_s: float = 15.0,
        before_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.lives: list[Life] = []
        self._watchdog_s, self._restart_s, self._abort_s = watchdog_s, restart_s, abort_s
        self._before_restart = before_restart
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._socket.settimeout(0.05)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
        self.daemon = make(environment)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wait_ready(self, life: int, within: float) -> Life:
        """Wait until the process of this number, from 0 on, said that it is ready."""
        eventually(lambda: len(self.lives) > life and self.lives[life].ready, f"start {life + 1} ready", within)
        return self.lives[life]

    def stop(self) -> int:
        """Stop it for good; its exit code."""
        self._end.set()
        code = self.daemon.stop()
        self._thread.join()
        return code

    def _run(self) -> None:
        while not self._end.is_set():
            if self.lives:
                self._before_restart()
            self.daemon.launch()
            self.lives.append(Life(time.monotonic()))
            self._watch(self.lives[-1])
            self._end.wait(self._restart_s)

    def _watch(self, life: Life) -> None:
        fed: float | None = None
        while self.daemon.alive():
            words = self._hear()
            now = time.monotonic()
            if "READY=1" in words:
                life.ready = life.ready or now
            if "READY=1" in words or "WATCHDOG=1" in words:
                fed = now
            if "WATCHDOG=trigger" in words or (fed is not None and now - fed > self._watchdog_s):
                life.why = "trigger" if "WATCHDOG=trigger" in words else "watchdog"
                self._abort()
        life.ended = time.monotonic()

    def _hear(self) -> list[str]:
        with contextlib.suppress(TimeoutError):
            return self._socket.recv(4096).decode().split("\n")
        return []

    def _abort(self) -> None:
        pid = self.daemon.pid
        for number in (signal.SIGABRT, signal.SIGCONT):
            os.kill(pid, number)
        deadline = time.monotonic() + self._abort_s
        while self.daemon.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.daemon.alive():
            os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> ServiceManager:
        self._thread.start()
        self.wait_ready(0, 20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self.daemon.kill()
        self._thread.join()
        self._socket.close()
