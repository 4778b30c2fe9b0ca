"""Starts the parts of a measurement and takes them down: broker, simulated devices, subscriber, agent."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.bench.agents import AGENTS, ROOT, Agent, Setting
from tests.bench.opcua_server import free_port
from tests.bench.process import Tree
from tests.bench.works import Work

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/local/sbin:/usr/sbin:/sbin")
START_S = 60.0
WARM_UP_S = 4.0
"""From the first values to the first window: what belongs to a start is over then."""


class NotMeasured(Exception):
    """Says why a row has no figure."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure.

    Attributes:
        agent: which of `agents.AGENTS`.
        python: interpreter that runs it.
        window_s: length of a window.
        quick: shorter rows, smaller backlogs: for a look, not for a table.
    """

    agent: str
    python: str
    window_s: float
    quick: bool


@dataclass(frozen=True, slots=True)
class Window:
    """What came of a window.

    Attributes:
        seconds: its length.
        cpu_s: of the agent's process tree.
        came: what the subscriber counted (`subscriber.Tally.report`).
    """

    seconds: float
    cpu_s: float
    came: dict[str, Any]

    @property
    def values_per_s(self) -> float:
        """Delivered, without those that were sent again."""
        return float(self.came["values"]) / self.seconds

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds per million values delivered."""
        if not self.came["values"]:
            raise NotMeasured("nothing was delivered")
        return self.cpu_s / float(self.came["values"]) * 1e6


class Child:
    """A process of ours that prints one line of JSON when it is ready, and one for each line it is given."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.said = self._line()

    def ask(self) -> Any:
        """Give it an empty line and return what it says."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise NotMeasured(f"{self.process.args!r} ended")
        return json.loads(line)


class Rig:
    """One measurement. Everything it starts ends with it, and its directory goes.

    Attributes:
        broker: port, also while no broker runs there.
    """

    def __init__(self, work: Work, options: Options) -> None:
        self.work = work
        self.options = options
        self.agent: Agent = AGENTS[options.agent]
        if not self.agent.does(work):
            raise NotMeasured(f"{options.agent} does not do this")
        self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        # Where /run is in memory, as systemd gives it to a service.
        self._run_dir = Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.broker = free_port()
        self.started_at = 0.0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._plcs: list[int] = []
        self._opcua: int | None = None
        self._subscriber: Child | None = None
        self._tree: Tree | None = None

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def start_broker(self) -> None:
        """Start mosquitto, as it is by default but for queues without a limit and no delay for small packets."""
        if MOSQUITTO is None:
            raise NotMeasured("mosquitto is not installed")
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.broker} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n"
            f"set_tcp_nodelay true\nlog_type error\nuser {getpass.getuser()}\n"
        )
        process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=subprocess.DEVNULL)
        self._processes.append(process)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.broker), 1):
                return
            time.sleep(0.02)
        raise NotMeasured("mosquitto does not start")

    def start_devices(self) -> None:
        """Start what is to be read."""
        work = self.work
        if work.devices:
            child = self._child("tests.bench.plc", str(work.devices), work.kind, str(work.tags))
            self._plcs = child.said
        if work.nodes:
            child = self._child("tests.bench.opcua_server", str(work.nodes), str(work.interval_s))
            self._opcua = child.said[0]

    def start_subscriber(self) -> None:
        """Start counting; the broker must run."""
        self._subscriber = self._child("tests.bench.subscriber", str(self.broker), self.agent.topics, self.agent.reader)

    def start_agent(self) -> Tree:
        """Start what is measured."""
        command = self.agent.command(self._setting())
        log = (self.directory / "agent.log").open("wb")
        environment = {**os.environ, "STATE_DIRECTORY": str(self.directory), "RUNTIME_DIRECTORY": str(self._run_dir)}
        with log:
            self.started_at = time.monotonic()
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._processes.append(process)
        self._tree = Tree(process.pid)
        return self._tree

    def start_all(self) -> Tree:
        """Start everything, and wait until the work goes at its full pace."""
        self.start_broker()
        self.start_devices()
        self.start_subscriber()
        tree = self.start_agent()
        self.wait_for_values()
        time.sleep(WARM_UP_S)
        return tree

    def write_configuration(self) -> Path:
        """Write what the agent would be started with, for devices that need not be there."""
        self._plcs = [free_port() for _ in range(self.work.devices)]
        return Path(self.agent.command(self._setting())[-1])

    def fill_backlog(self, messages: int, size: int) -> None:
        """Put unsent messages into the agent's store, before it starts."""
        if not self.agent.backlog(self._setting(), messages, size):
            raise NotMeasured(f"{self.options.agent} has no store to fill")

    def wait_for_values(self, within: float = START_S) -> float:
        """Wait for the first values; seconds from the agent's start to their arrival at the subscriber."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            first = self.count()["first"]
            if first is not None:
                return float(first) - self.started_at
            time.sleep(0.1)
        log = (self.directory / "agent.log").read_text(errors="replace")
        raise NotMeasured(f"nothing arrived within {within:g} s; the agent said: {log[-2000:]}")

    def count(self) -> dict[str, Any]:
        """What came since the last call."""
        assert self._subscriber is not None
        found: dict[str, Any] = self._subscriber.ask()
        return found

    def window(self, seconds: float | None = None) -> Window:
        """Let it work for so long, and count."""
        assert self._tree is not None
        tree, seconds = self._tree, seconds if seconds is not None else self.options.window_s
        self.count()
        began, before = time.monotonic(), tree.cpu_s()
        time.sleep(seconds)
        came, after = self.count(), tree.cpu_s()
        return Window(time.monotonic() - began, after - before, came)

    def _setting(self) -> Setting:
        return Setting(self.work, self.options.python, self.directory, self.broker, self._plcs, self._opcua)

    def _child(self, *arguments: str) -> Child:
        child = Child(*arguments)
        self._processes.append(child.process)
        return child
