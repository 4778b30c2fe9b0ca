"""Two hours at many times the usual load, with a fault every 30 s: memory, file descriptors, threads and tasks must
come to rest where they were.

Twenty PLCs of 1,000 tags a second, an OPC UA server, the host. What happens is drawn by the seed: the broker is
restarted, killed, frozen; devices freeze, stop, fall silent, refuse; the OPC UA server comes back with its namespaces
shuffled; the configuration is changed or spoiled; the control socket is used and abused. The ledger is kept as it
comes. Memory is sampled every 10 s; the slope is that of the least of each five minutes, as what an outage needs for
a while is not a leak.
"""

from __future__ import annotations

import csv
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from types import TracebackType
from typing import Any

from tests.daemon import ROOT, TELL_INSIDE, Daemon, eventually, modbus, opcua, site
from tests.ledger import numbered
from tests.servers.modbus import ModbusServer
from tests.servers.opcua import OpcuaServer
from tests.soak.beside import Beside
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Witness, megabytes, sleep_until, usage, waiting

CHEAP, FRAGILE, TAGS, FRAGILE_TAGS, NODES = 18, 2, 1000, 100, 200
"""PLCs of `tests.bench.plc`, which can only freeze; PLCs that have all troubles; tags of each; OPC UA nodes."""
FAULT_EVERY_S, SAMPLE_EVERY_S, BUCKET_S = 30.0, 10.0, 300.0
CALM_S = 60.0
MOST_MB_AN_HOUR = 1.0


@dataclass(frozen=True)
class Sample:
    """What the daemon held at one moment, seconds after its start."""

    at: float
    rss: int
    fds: int
    threads: int


def run(options: Options) -> list[Claim]:
    """Run it."""
    seconds = options.lasting(120, 1.5) * 60
    dice = random.Random(options.seed)
    with ExitStack() as stack:
        witness = stack.enter_context(Witness(options.disk, at_once=True))
        works = stack.enter_context(Works(options.disk, witness))
        daemon = stack.enter_context(
            Daemon(options.disk, works.config(), launcher=("-c", TELL_INSIDE), volatile=options.memory)
        )
        works.daemon = daemon
        sampler = stack.enter_context(Sampler(daemon, witness.ledger))
        gauge = stack.enter_context(Gauge(daemon.pid, options.disk / "samples.csv"))
        works.begin()
        time.sleep(min(CALM_S, seconds / 6))
        before = works.inside()
        faults = _trouble(works, dice, gauge, seconds)
        daemon.reload(works.config())
        eventually(lambda: _settled(sampler.look(), daemon), "all devices ok and an empty buffer", 150)
        time.sleep(min(CALM_S, seconds / 6))
        after = works.inside()
        used = usage(daemon.pid)
        works.cnc.still()
        code = daemon.stop(8)
        status = sampler.look()
        time.sleep(1)
        account = witness.settle(numbered(status))
        (options.disk / "inside.json").write_text(json.dumps([before, after]))
    print(f"{account}\n{dict(faults)}\nobjects that became more: {_more(before, after)}", flush=True)
    done = f"{seconds / 60:.0f} min, {sum(faults.values())} faults, {account.values / seconds:.0f} values/s"
    return [
        _slope(gauge.samples, seconds, done),
        Claim(
            "descriptors, threads, tasks as before",
            done,
            ", ".join(f"{key} {before[key]} -> {after[key]}" for key in ("fds", "threads", "tasks")),
            all(after[key] <= before[key] for key in ("fds", "threads", "tasks")),
        ),
        Claim("objects of Python", done, f"{before['objects']} -> {after['objects']}"),
        Claim("CPU of the daemon", done, f"{used.cpu_s / (gauge.samples[-1].at or 1) * 100:.1f} % of a core"),
        Claim(
            "every message arrived, or its loss was told",
            done,
            f"{account.missing} missing of {account.messages}, {account.duplicates} duplicates, "
            f"{len(account.faults)} faults; exit {code}",
            account.ok and code == 0 and account.messages == status["counters"]["produced"],
        ),
    ]


def _slope(samples: Sequence[Sample], seconds: float, done: str) -> Claim:
    warm = min(1800.0, seconds / 2)
    least: dict[int, int] = {}
    for sample in samples:
        if sample.at >= warm:
            bucket = int(sample.at // min(BUCKET_S, seconds / 12))
            least[bucket] = min(least.get(bucket, sample.rss), sample.rss)
    hours = [bucket * min(BUCKET_S, seconds / 12) / 3600 for bucket in least]
    slope = linear_regression(hours, [rss / 1e6 for rss in least.values()]).slope
    rough = [(sample.at / 3600, sample.rss / 1e6) for sample in samples if sample.at >= warm]
    every = linear_regression([at for at, _ in rough], [rss for _, rss in rough]).slope
    peak = max(sample.rss for sample in samples)
    return Claim(
        f"memory grows <= {MOST_MB_AN_HOUR:g} MB/h",
        f"{done}; after {warm / 60:.0f} min",
        f"{slope:+.2f} MB/h ({every:+.2f} through all samples), {megabytes(samples[-1].rss)}, peak {megabytes(peak)}",
        slope <= MOST_MB_AN_HOUR if seconds >= 3600 else None,  # less cannot tell noise from growth
    )


def _settled(status: dict[str, Any], daemon: Daemon) -> bool:
    if waiting(status) > CHEAP + FRAGILE + 2:
        return False
    return len(daemon.events("config_reloaded")) > 0 and all(
        device["state"] == "ok" for device in status["devices"].values()
    )


def _more(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    grown = Counter(after["kinds"])
    grown.subtract(before["kinds"])
    return {kind: count for kind, count in grown.most_common(12) if count > 0}


def _trouble(works: Works, dice: random.Random, gauge: Gauge, seconds: float) -> Counter[str]:
    """A fault every so often until `seconds` after the daemon's start."""
    faults: Counter[str] = Counter()
    every = min(FAULT_EVERY_S, seconds / 8)
    due = time.monotonic()
    while gauge.now() < seconds:
        fault = dice.choice(works.faults)
        faults[fault.__name__] += 1
        fault(dice, every * 0.8)
        due += every
        sleep_until(due)
    return faults


class Gauge(Beside):
    """Samples a process in a thread, and writes the samples down."""

    def __init__(self, pid: int, path: Path) -> None:
        super().__init__(self._run)
        self.samples: list[Sample] = []
        self._pid = pid
        self._path = path
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def _run(self, end: threading.Event) -> None:
        with self._path.open("w") as file, suppress(OSError):
            while not end.wait(SAMPLE_EVERY_S):
                used = usage(self._pid)
                sample = Sample(self.now(), used.rss, used.fds, used.threads)
                self.samples.append(sample)
                csv.writer(file).writerow([f"{sample.at:.1f}", sample.rss, sample.fds, sample.threads])
                file.flush()


class Works:
    """All servers, and what can happen to them; `faults` take randomness and how long they may last."""

    def __init__(self, directory: Path, witness: Witness) -> None:
        self.daemon: Daemon
        self.witness = witness
        self.plcs: list[ModbusServer] = []
        self.names = [f"n{at:03}" for at in range(NODES)]
        self.cnc = OpcuaServer(dict.fromkeys(self.names, 0.0))
        self.faults: list[Callable[[random.Random, float], None]] = [
            self.broker_restarts,
            self.broker_is_killed,
            self.broker_freezes,
            self.plcs_freeze,
            self.a_plc_stops,
            self.a_plc_falls_silent,
            self.a_plc_refuses,
            self.a_plc_hangs_up_again_and_again,
            self.cnc_restarts_shuffled,
            self.cnc_freezes,
            self.cnc_hangs_up_again_and_again,
            self.configuration_changes,
            self.configuration_is_spoiled,
            self.commands_come,
            self.strangers_come,
        ]
        self._directory = directory
        self._cheap: subprocess.Popen[bytes]
        self._ports: list[int] = []

    def __enter__(self) -> Works:
        command = [sys.executable, "-m", "tests.bench.plc", str(CHEAP), "uint16", str(TAGS)]
        self._stack = ExitStack()
        self._cheap = self._stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        )
        self._stack.callback(self._cheap.kill)
        assert self._cheap.stdout is not None
        self._ports = json.loads(self._cheap.stdout.readline())
        self.plcs = [self._stack.enter_context(ModbusServer()) for _ in range(FRAGILE)]
        self._stack.enter_context(self.cnc)
        lines = ["name,address,type", *(f"t{at},holding:{at},uint16" for at in range(TAGS))]
        (self._directory / "plc.csv").write_text("\n".join(lines))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Let values change."""
        for plc in self.plcs:
            plc.set("holding", 0, range(FRAGILE_TAGS))
        self.cnc.change(self.names, 1.0)

    def config(self, **changes: Any) -> dict[str, Any]:
        """The configuration; `mqtt` and `plc` (keys of the first PLC) and `more` (devices) change it."""
        devices = []
        for at, port in enumerate(self._ports):
            device = modbus(f"plc-{at:02}", f"tcp://127.0.0.1:{port}", 0, interval="1 s", tags_file="plc.csv")
            devices.append({**device, "tags": [], **(changes.get("plc", {}) if at == 0 else {})})
        fragile = [
            modbus(f"old-{at}", plc.url, FRAGILE_TAGS, interval="500 ms", timeout="1 s")
            for at, plc in enumerate(self.plcs)
        ]
        cnc = opcua("cnc", self.cnc.url, {name: self.cnc.node(name) for name in self.names}, interval="500 ms")
        host = {"name": "host", "type": "host", "interval": "10 s"}
        devices += [*fragile, cnc, host, *changes.get("more", ())]
        return site(self.witness.broker.url, devices, mqtt=changes.get("mqtt", {}))

    def inside(self) -> dict[str, Any]:
        """What the daemon holds now."""
        count = len(self.daemon.events("inside"))
        self.daemon.signal(signal.SIGUSR1)
        found = self.daemon.wait_for("inside", count=count + 1)
        used = usage(self.daemon.pid)
        return {**found, "threads": used.threads, "fds": used.fds}

    def broker_restarts(self, dice: random.Random, most_s: float) -> None:
        """With a pause."""
        self.witness.broker.stop()
        time.sleep(dice.uniform(0, most_s))
        self.witness.broker.start()

    def broker_is_killed(self, dice: random.Random, most_s: float) -> None:
        """SIGKILL."""
        self.witness.broker.stop(signal.SIGKILL)
        time.sleep(dice.uniform(0, most_s))
        self.witness.broker.start()

    def broker_freezes(self, dice: random.Random, most_s: float) -> None:
        """Connections stand, nothing answers."""
        self.witness.broker.freeze()
        time.sleep(dice.uniform(most_s / 4, most_s))
        self.witness.broker.thaw()

    def plcs_freeze(self, dice: random.Random, most_s: float) -> None:
        """Eighteen at once."""
        self._cheap.send_signal(signal.SIGSTOP)
        time.sleep(dice.uniform(0, most_s))
        self._cheap.send_signal(signal.SIGCONT)

    def a_plc_stops(self, dice: random.Random, most_s: float) -> None:
        """Connections are refused."""
        plc = dice.choice(self.plcs)
        plc.stop()
        time.sleep(dice.uniform(0, most_s))
        plc.start()

    def a_plc_falls_silent(self, dice: random.Random, most_s: float) -> None:
        """It takes requests and does not answer."""
        plc = dice.choice(self.plcs)
        plc.mute()
        time.sleep(dice.uniform(0, most_s))
        plc.mute(False)

    def a_plc_refuses(self, dice: random.Random, most_s: float) -> None:
        """Some of its addresses get exceptions."""
        plc, first = dice.choice(self.plcs), dice.randrange(FRAGILE_TAGS)
        last, code = first + dice.randrange(20), dice.choice((1, 2, 3, 4, 6, 11))
        plc.refuse("holding", first, last, code)
        time.sleep(dice.uniform(0, most_s))
        plc.refuse("holding", first, last, 0)

    def a_plc_hangs_up_again_and_again(self, dice: random.Random, most_s: float) -> None:
        """As a modem on its last legs."""
        plc, end = dice.choice(self.plcs), time.monotonic() + most_s
        while time.monotonic() < end:
            plc.stop()
            plc.start()
            time.sleep(0.5)

    def cnc_restarts_shuffled(self, _: random.Random, __: float) -> None:
        """Its namespaces change places."""
        self.cnc.restart(shuffle=True)
        self.cnc.change(self.names, 1.0)

    def cnc_freezes(self, dice: random.Random, most_s: float) -> None:
        """Half-open."""
        self.cnc.freeze()
        time.sleep(dice.uniform(0, most_s))
        self.cnc.thaw()

    def cnc_hangs_up_again_and_again(self, _: random.Random, most_s: float) -> None:
        """Five restarts."""
        for _time in range(5):
            self.cnc.restart()
            time.sleep(most_s / 10)
        self.cnc.change(self.names, 1.0)

    def configuration_changes(self, dice: random.Random, _: float) -> None:
        """A device more, another interval, another session, or as it was."""
        change = dice.choice(
            (
                {},
                {"more": [modbus("new", self.plcs[0].url, 10)]},
                {"plc": {"interval": "2 s"}},
                {"plc": {"label": f"Presse {dice.randrange(100)}"}},
                {"mqtt": {"keepalive": f"{dice.randrange(10, 30)} s"}},
            )
        )
        self.daemon.reload(self.config(**change))

    def configuration_is_spoiled(self, dice: random.Random, _: float) -> None:
        """Refused; the old one goes on."""
        whole = json.dumps(self.config())
        self.daemon.reload(whole[: dice.randrange(len(whole))])

    def commands_come(self, dice: random.Random, most_s: float) -> None:
        """A few of each."""
        self.daemon.command("status", "--values")
        name = dice.choice(("plc-03", "old-1", "cnc", "host"))
        for request in (
            {"command": "values", "device": None},
            {"command": "pause", "target": name, "for_s": most_s / 3},
            {"command": "values", "device": name},
        ):
            self._ask(json.dumps(request).encode() + b"\n")
        time.sleep(most_s / 4)
        self._ask(b'{"command": "resume", "target": null}\n')

    def strangers_come(self, dice: random.Random, _: float) -> None:
        """Twelve at once, who say nonsense, too much or nothing, and go in the middle."""
        path = str(self.daemon.run_dir / "control.sock")
        with ExitStack() as stack:
            for _ in range(12):
                link = stack.enter_context(socket.socket(socket.AF_UNIX))
                link.settimeout(2)
                with suppress(OSError):
                    link.connect(path)
                    link.sendall(dice.choice((b"", b"{", b"x" * 20_000, b"[]\n", b'{"command": 5}\n', b"\xff\n")))
            time.sleep(dice.uniform(0, 6))

    def _ask(self, line: bytes) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(self.daemon.run_dir / "control.sock"))
            link.sendall(line)
            while not link.recv(1 << 20).endswith(b"\n"):
                pass
