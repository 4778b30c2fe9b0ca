"""The surroundings of a daemon under test: broker, a listener of its own process, and figures from /proc."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.daemon import GATEWAY, SITE, Daemon, eventually
from tests.ledger import Account, Ledger, numbered
from tests.servers.mosquitto import Mosquitto, remembering
from tests.soak.beside import Beside
from tests.soak.hearing import Hearing, read_lines

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
            *remembering(directory),
            *lines,
        )
        self.heard = directory / "heard"
        self._awaited, self._entered = (Hearing(self.heard, whole=True) for _ in range(2))
        self.ledger = Ledger(SITE, GATEWAY)
        self._directory = directory
        self._listener: subprocess.Popen[bytes] | None = None
        self._entering = threading.Thread(target=self._enter, daemon=True) if at_once else None

    def arrivals(self) -> Iterator[tuple[float, str, bytes]]:
        """Everything heard so far."""
        return Hearing(self.heard, whole=True).news()

    def wait_for(self, text: str, topic: str, within: float = 10.0) -> None:
        """Wait until a message on a topic that ends so, and with this in it, was heard since the last call.

        Raises:
            AssertionError: none came in time.
        """

        def found() -> bool:
            return any(at.endswith(topic) and text.encode() in payload for _, at, payload in self._awaited.news())

        eventually(found, f"{text} on {topic}", within)

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
        for _, topic, payload in self._entered.news():
            ledger = ledgers.get(topic.split("/")[2])
            if ledger is not None:
                ledger.take(topic, payload)
                look(topic, payload)

    def catch_up(self, delivered: int) -> None:
        """Give the listener, which may have to connect again too, the time to hear so many messages."""
        deadline = time.monotonic() + CATCH_UP_S
        heard, bodies = Hearing(self.heard, whole=True), set[bytes]()
        while len(bodies) < delivered and time.monotonic() < deadline:  # if not, the account will tell
            time.sleep(0.1)
            for _, topic, payload in heard.news():
                if topic.endswith("/data"):
                    bodies.add(payload.removesuffix(b"}").removesuffix(b',"replayed":true'))

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
        self.broker.write_down()
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
    """What a process used so far: CPU seconds, peak memory, bytes written to disks; and what it holds now."""

    cpu_s: float
    peak_rss: int
    rss: int
    written: int
    fds: int
    threads: int


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
    fds = sum(1 for _ in (process / "fd").iterdir())
    return Usage(
        cpu, _kib(status["VmHWM"]), _kib(status["VmRSS"]), int(written["write_bytes"]), fds, int(status["Threads"])
    )


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024


class Sampler(Beside):
    """Enters every new `status.json` of a daemon into a ledger, in a thread."""

    def __init__(self, daemon: Daemon, ledger: Ledger) -> None:
        super().__init__(self._run)
        self._daemon, self._ledger = daemon, ledger
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

    def _run(self, end: threading.Event) -> None:
        while not end.wait(1.0):
            self.look()


def settle(daemon: Daemon, witness: Witness, sampler: Sampler) -> tuple[Account, dict[str, Any]]:
    """After the end of all trouble: stop when all has arrived; the account of everything, and the last status."""
    eventually(lambda: waiting(sampler.look()) <= 5, "an empty buffer", 90)
    daemon.stop()
    status = sampler.look()
    witness.catch_up(status["counters"]["delivered"])
    account = witness.settle(numbered(status))
    print(account, flush=True)
    return account, status


def waiting(status: Mapping[str, Any]) -> float:
    """Messages that the broker has not acknowledged; without a status there is no end of them."""
    return status["counters"]["buffered"] + status["counters"]["in_flight"] if status else math.inf


def sleep_until(at: float) -> None:
    """Sleep until this monotonic instant."""
    time.sleep(max(0.0, at - time.monotonic()))


def megabytes(count: float) -> str:
    """Bytes as text."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} KB"
