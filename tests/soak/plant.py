"""The surroundings of a daemon under test: broker, a listener of its own process, and figures from /proc."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.daemon import GATEWAY, SITE, Daemon, eventually
from tests.ledger import Account, Ledger, read_lines, read_log
from tests.servers.mosquitto import Mosquitto

CATCH_UP_S = 10.0


class Witness:
    """A mosquitto that remembers its subscriptions, and a `mosquitto_sub` that writes down all it hears.

    What the broker acknowledged, the listener gets: it is handed on before it is acknowledged, however the broker ends.

    Args:
        directory: for the broker's files and what was heard.
        lines: configuration lines of further listeners; their settings are their own.
        at_once: enter what is heard into the ledger as it comes, instead of into a file: for long runs.
    """

    def __init__(self, directory: Path, *lines: str, at_once: bool = False) -> None:
        self.broker = Mosquitto(
            directory,
            *(("per_listener_settings true",) if lines else ()),
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {directory}/",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            *lines,
        )
        self.heard = directory / "heard"
        self._looked_at = self._entered = 0
        self.ledger = Ledger(SITE, GATEWAY)
        self._directory = directory
        self._listener: subprocess.Popen[bytes] | None = None
        self._entering = threading.Thread(target=self._enter, daemon=True) if at_once else None

    def arrivals(self) -> Iterator[tuple[float, str, bytes]]:
        """Everything heard so far."""
        return read_log(self.heard)

    def wait_for(self, text: str, topic: str, within: float = 10.0) -> None:
        """Wait until a message on a topic that ends so, and with this in it, was heard since the last call.

        Raises:
            AssertionError: none came in time.
        """

        def found() -> bool:
            with self.heard.open("rb") as log:
                log.seek(self._looked_at)
                new = log.read()
            for line in new[: new.rfind(b"\n") + 1].splitlines(keepends=True):
                self._looked_at += len(line)
                if text.encode() in line and line.split(b" ", 3)[2].endswith(topic.encode()):
                    return True
            return False

        eventually(found, f"{text} on {topic}", within)

    def _data(self) -> Iterator[bytes]:
        return (payload.removesuffix(b"}") for _, topic, payload in self.arrivals() if topic.endswith("/data"))

    def settle(self, ended: Mapping[str, int] | None = None) -> Account:
        """The account of everything heard; of one witness only once."""
        if self._entering is not None:
            assert self._listener is not None
            self._listener.terminate()
            self._entering.join()
            return self.ledger.settle(ended)
        for _, topic, payload in self.arrivals():
            self.ledger.take(topic, payload)
        return self.ledger.settle(ended)

    def settle_into(self, ledgers: Mapping[str, Ledger], look: Callable[[str, bytes], None]) -> None:
        """Enter what was heard since the last call into the ledgers of their gateways, and show it to `look`."""
        with self.heard.open("rb") as log:
            log.seek(self._entered)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._entered += len(whole)
        for _, topic, payload in read_lines(whole.splitlines(keepends=True)):
            ledger = ledgers.get(topic.split("/")[2])
            if ledger is not None:
                ledger.take(topic, payload)
                look(topic, payload)

    def catch_up(self, delivered: int) -> None:
        """Give the listener, which may have to connect again too, the time to hear so many messages."""
        deadline = time.monotonic() + CATCH_UP_S
        while len({body.removesuffix(b',"replayed":true') for body in self._data()}) < delivered:
            if time.monotonic() > deadline:
                return  # the account will tell
            time.sleep(0.2)

    def retained(self, topic: str) -> bytes:
        """What somebody who comes now finds there; empty if nothing."""
        command = ["mosquitto_sub", "-p", str(self.broker.port), "-t", topic, "-C", "1", "-W", "2"]
        return subprocess.run(command, capture_output=True, check=False).stdout.strip()

    def _enter(self) -> None:
        assert self._listener is not None
        assert self._listener.stdout is not None
        with self._listener.stdout as heard:
            for number, (_, topic, payload) in enumerate(read_lines(heard)):
                self.ledger.take(topic, payload)
                if number % 1000 == 0:
                    self.ledger.forget()

    def __enter__(self) -> Witness:
        if shutil.which("mosquitto_sub") is None:
            raise SystemExit("mosquitto_sub is not installed")
        self.broker.start()
        command = [
            "mosquitto_sub",
            "-p",
            str(self.broker.port),
            "-V",
            "311",
            "-c",
            "-i",
            "ledger",
            "-q",
            "1",
            "-t",
            "#",
        ]
        command += ["-F", "%U %r %t %p"]
        if self._entering is not None:
            self._listener = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self._entering.start()
        else:
            with self.heard.open("ab") as sink:
                self._listener = subprocess.Popen(command, stdout=sink, stderr=subprocess.DEVNULL)
        eventually(lambda: "ledger 1 #" in self.broker.log(), "the subscription")
        assert self.broker.process is not None
        self.broker.process.send_signal(signal.SIGUSR1)  # mosquitto writes down the subscription
        eventually((self._directory / "mosquitto.db").exists, "the broker's memory")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.terminate()
            self._listener.wait(5)
        self.broker.stop()


@dataclass(frozen=True)
class Usage:
    """What a process used so far: CPU seconds, peak memory and bytes written to disks."""

    cpu_s: float
    peak_rss: int
    rss: int
    written: int


def usage(pid: int) -> Usage:
    """Of a running process.

    Raises:
        OSError: there is none.
    """
    process = Path("/proc") / str(pid)
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    written = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
    return Usage(cpu, _kib(status["VmHWM"]), _kib(status["VmRSS"]), int(written["write_bytes"]))


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024


class Sampler:
    """Enters every new `status.json` of a daemon into a ledger, in a thread."""

    def __init__(self, daemon: Daemon, ledger: Ledger) -> None:
        self._daemon, self._ledger = daemon, ledger
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._seen: Any = None

    def look(self) -> dict[str, Any]:
        """Read the status now."""
        status: dict[str, Any] = {}
        with contextlib.suppress(OSError):
            status = self._daemon.status()
        written = status.get("written")
        if written != self._seen:
            self._seen = written
            self._ledger.sample(status)
        return status

    def _run(self) -> None:
        while not self._end.wait(1.0):
            self.look()

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()


def sleep_until(at: float) -> None:
    """Sleep until this monotonic instant."""
    time.sleep(max(0.0, at - time.monotonic()))


def megabytes(count: float) -> str:
    """Bytes as text."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} KB"
