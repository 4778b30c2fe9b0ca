"""The demo's child processes: started on free loopback ports, watched, ended; their output goes to log files.

Children stand in a session of their own, so that Ctrl-C reaches only the demo, which then ends them in order; and they
are tied to it (`agent.demo.leash`), so that they end even when the demo is killed.
May import: the standard library.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import agent

_ATTEMPTS = 3
_STEP_S = 0.05


class ChildFailed(Exception):
    """A child ended, or was not ready in time.

    Args:
        name: of the child.
        code: its exit code; None = it is alive but not ready.
        log: the end of its log.
    """

    def __init__(self, name: str, code: int | None, log: str) -> None:
        super().__init__(f"{name}: exit {code}")
        self.name = name
        self.code = code
        self.log = log


class Child:
    """A process that dies with this one.

    Args:
        name: for people.
        command: program and arguments; `tied` when it ties itself to this process.
        log: file that takes its standard error (and output, unless it reports ready there).
        environment: its variables.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], *, tied: bool
    ) -> None:
        self.name = name
        self._log = log
        leash = [] if tied else [sys.executable, "-m", "agent.demo.leash", str(os.getpid())]
        with log.open("ab") as sink:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                [*leash, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if tied else sink,
                stderr=sink,
                env=dict(environment),
                start_new_session=True,
            )

    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def log_end(self, lines: int = 8) -> str:
        """The last lines of its log."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait_ready(self, is_ready: Callable[[], bool] | None, timeout: float) -> None:
        """Return when it is ready: when `is_ready` says so, without it at its first line of output.

        Raises:
            ChildFailed: it ended, or the time is over.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.code() is None and (is_ready() if is_ready else self._has_spoken()):
                return
            if self.code() is not None:
                raise ChildFailed(self.name, self.code(), self.log_end())
            if is_ready:
                time.sleep(_STEP_S)
        raise ChildFailed(self.name, None, self.log_end())

    def _has_spoken(self) -> bool:
        stdout = self._process.stdout
        assert stdout is not None
        readable, _, _ = select.select([stdout], [], [], _STEP_S)
        return bool(readable) and stdout.readline().strip() == b"ready"

    def stop(self, grace: float) -> int:
        """End it: SIGTERM, after `grace` seconds SIGKILL. Returns its exit code."""
        if self.code() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


def environment() -> dict[str, str]:
    """What children inherit: our variables without a service manager's, and the way to our packages."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"}
    }
    root = str(Path(agent.__file__).resolve().parent.parent)
    inherited["PYTHONPATH"] = os.pathsep.join(filter(None, [root, inherited.get("PYTHONPATH", "")]))
    return inherited


def serving(name: str, module: str, log: Path, environment: Mapping[str, str]) -> Server:
    """Start one of our own servers: a module that takes a port and our process id, and says `ready`."""

    def start(port: int) -> Child:
        command = [sys.executable, "-m", module, str(port), str(os.getpid())]
        return Child(name, command, log, environment, tied=True)

    return Server(start)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of the loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A child that serves on a port. Somebody may take a free port before it does: then another one is tried.

    Args:
        start: starts the child on this port.
        is_ready: tells whether it serves on this port; None = it says `ready` on its output.
    """

    def __init__(self, start: Callable[[int], Child], is_ready: Callable[[int], bool] | None = None) -> None:
        self._start = start
        self._is_ready = is_ready
        self.port = free_port()
        self.child = start(self.port)

    def wait_ready(self, timeout: float) -> None:
        """Return when it serves.

        Raises:
            ChildFailed: it does not, after three ports or in time.
        """
        ready = self._is_ready
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self.child.wait_ready((lambda: ready(self.port)) if ready else None, timeout)
            except ChildFailed as failure:
                if failure.code is None or attempt == _ATTEMPTS:
                    raise
                self.child.stop(0)
                self.port = free_port()
                self.child = self._start(self.port)
            else:
                return
