"""The whole job for ten minutes: a PLC, an OPC UA server and the host, while broker and devices come and go.

1,000 Modbus tags at 1 s, 200 OPC UA nodes that change every second, this host. mosquitto is restarted twice and killed
for a minute once, each device server is stopped once for 20 s.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from tests.daemon import Daemon, data_topic, eventually, modbus, opcua, site
from tests.ledger import Account, numbered
from tests.servers.modbus import ModbusServer
from tests.servers.opcua import OpcuaServer
from tests.soak.beside import Beside
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Usage, Witness, megabytes, sleep_until, usage, waiting

TAGS, NODES = 1000, 200
DRAIN_S = 150.0
"""After the last trouble: the longest delay before a reconnect, and the backlog at its rate."""
AT_ONCE_S = 4.0
"""An interval, and a time-out of 3 s at worst."""
BACK_S = 15.0
"""The longest delay between attempts is 10 s."""
QUIET_BYTES_A_MINUTE = 50_000
BYTES_A_READING = 600


class Course:
    """What happens when, and what the daemon uses meanwhile.

    Attributes:
        seconds, killed_s, stopped_s: of the whole, of the long outage, of each device's absence.
        written: span (`quiet`, `down`, `troubled`) -> bytes written to disk.
        lasted: span -> seconds.
        stops: device -> when its server was stopped and when it was back, seconds since the epoch.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self.killed_s = min(60.0, self.seconds / 10)
        self.stopped_s = min(20.0, self.seconds / 30)
        self.written: Counter[str] = Counter()
        self.lasted: Counter[str] = Counter()
        self.stops: dict[str, tuple[float, float]] = {}
        self._mark = (0.0, 0)

    def span(self, name: str, daemon: Daemon) -> None:
        """What was since the last call was of this kind."""
        now, written = time.monotonic(), usage(daemon.pid).written
        self.lasted[name] += round(now - self._mark[0])
        self.written[name] += written - self._mark[1]
        self._mark = (now, written)

    def stop(self, device: str, stop: Callable[[], None], start: Callable[[], None]) -> None:
        """Stop a device server for a while."""
        with _TURN:
            stop()
        stopped = time.time()
        time.sleep(self.stopped_s)
        with _TURN:
            start()
        self.stops[device] = (stopped, time.time())


def run(options: Options) -> list[Claim]:
    """Run it."""
    nodes = [f"n{at:03}" for at in range(NODES)]
    course = Course(options.lasting(10, 0.5))
    with (
        Witness(options.disk) as witness,
        ModbusServer() as plc,
        OpcuaServer(dict.fromkeys(nodes, 0.0)) as cnc,
        _changing(plc),
    ):
        devices = [
            modbus("plc", plc.url, TAGS, interval="1 s"),
            opcua("cnc", cnc.url, {name: cnc.node(name) for name in nodes}, interval="500 ms"),
            {"name": "host", "type": "host", "interval": "10 s"},
        ]
        daemon = Daemon(options.disk, site(witness.broker.url, devices), volatile=options.memory)
        with daemon, Sampler(daemon, witness.ledger) as sampler:
            cnc.change(nodes, 1.0)
            for device in ("plc", "cnc", "host"):
                daemon.wait_for("device_ok", device=device, within=30)
            _trouble(course, witness, daemon, plc, cnc, nodes)
            eventually(lambda: waiting(sampler.look()) == 0, "an empty buffer", DRAIN_S)
            used = usage(daemon.pid)
            cnc.still()
            code = daemon.stop(8)
            status = sampler.look()
        counters = status["counters"]
        witness.catch_up(counters["delivered"])
        account = witness.settle(numbered(status))
        states = _states(witness)
    print(account, flush=True)
    return [
        *_account_claims(account, counters, course),
        *_device_claims(course, states, status),
        *_cost_claims(course, used, counters),
        Claim("live latency", "plc: arrival - ts of messages not replayed", _latency(witness)),
        Claim("stop", "SIGTERM", f"exit code {code}", code == 0),
    ]


def _changing(plc: ModbusServer) -> Beside:
    """Every register another value each second."""

    def change(end: threading.Event) -> None:
        number = 0
        while not end.wait(1.0):
            number += 1
            with _TURN:
                plc.set("holding", 0, [(number + at) % 65536 for at in range(TAGS)])

    return Beside(change)


_TURN = threading.Lock()
"""The server takes one command at a time."""


def _trouble(
    course: Course, witness: Witness, daemon: Daemon, plc: ModbusServer, cnc: OpcuaServer, nodes: list[str]
) -> None:
    began = time.monotonic()

    def until(share: float) -> None:
        sleep_until(began + share * course.seconds)

    def start_cnc() -> None:
        cnc.start_again()
        cnc.change(nodes, 1.0)

    until(0.02)  # what starts, starts
    course.span("starting", daemon)
    until(0.12)
    course.span("quiet", daemon)
    witness.broker.restart()
    until(0.22)
    course.span("troubled", daemon)
    witness.broker.stop(signal.SIGKILL)
    time.sleep(course.killed_s)
    course.span("down", daemon)
    witness.broker.start()
    until(0.45)
    course.stop("plc", plc.stop, plc.start)
    until(0.65)
    course.stop("cnc", cnc.stop, start_cnc)
    until(0.85)
    witness.broker.restart()
    until(1)
    course.span("troubled", daemon)


def _states(witness: Witness) -> dict[str, list[tuple[float, bool]]]:
    """Device -> when each of its messages was sampled, and whether it was all bad."""
    found: dict[str, list[tuple[float, bool]]] = {}
    for _, topic, payload in witness.arrivals():
        if topic.endswith("/data"):
            message = json.loads(payload)
            bad = message.get("quality", {}).get("*", "").startswith("bad:")
            found.setdefault(message["device"], []).append((message["ts"] / 1000, bad))
    return found


def _account_claims(account: Account, counters: dict[str, Any], course: Course) -> list[Claim]:
    done = (
        f"{course.seconds / 60:g} min; broker restarted twice, killed for {course.killed_s:.0f} s; "
        f"each device stopped for {course.stopped_s:.0f} s"
    )
    dropped = sum(counters["dropped"].values())
    return [
        Claim(
            "every (run, seq) arrived",
            done,
            f"{account.missing} missing of {counters['produced']}; {account.duplicates} duplicates, identical",
            account.ok and account.messages == counters["produced"],
        ),
        Claim(
            "gaps agree",
            "the agent's `gaps` against the holes of the subscriber",
            f"{account.told} told, {account.needless} needless, {dropped} counted as dropped",
            account.ok and account.told == dropped and account.needless == 0,
        ),
        Claim(
            "counters add up",
            f"{account.agent_messages} agent messages, {account.samples} status samples",
            f"{len(account.faults)} faults",
            account.ok and account.agent_messages > 0 and account.samples > 0,
        ),
    ]


def _device_claims(course: Course, states: dict[str, list[tuple[float, bool]]], status: dict[str, Any]) -> list[Claim]:
    claims = []
    for device, (stopped, started) in course.stops.items():
        bad = [max(0.0, at - stopped) for at, is_bad in states[device] if is_bad and stopped - 1 <= at <= started]
        good = [max(0.0, at - started) for at, is_bad in states[device] if not is_bad and at >= started - 0.1]
        figure = (
            f"bad after {min(bad, default=inf):.1f} s; good {min(good, default=inf):.1f} s after it was there again"
        )
        claims.append(
            Claim(
                f"{device}: bad at once, back by itself",
                f"its server stopped for {course.stopped_s:.0f} s",
                figure,
                min(bad, default=inf) < AT_ONCE_S and min(good, default=inf) < BACK_S,
            )
        )
    plc = status["devices"]["plc"]
    figure = f"late p99 {plc['late_p99_ms']} ms, {plc['missed']} missed of {plc['polls'] + plc['missed']}"
    done = "1,000 tags in 8 requests a second"
    return [*claims, Claim("polls on time", done, figure, plc["late_p99_ms"] < 100 and plc["missed"] == 0)]


def _cost_claims(course: Course, used: Usage, counters: dict[str, Any]) -> list[Claim]:
    written, lasted = course.written, course.lasted
    a_reading = written["down"] / (lasted["down"] * (TAGS + NODES))
    return [
        Claim("CPU", f"1,200 changing tags a second, {course.seconds:.0f} s and the drain", f"{used.cpu_s:.1f} s"),
        Claim("memory", "with pymodbus, asyncua and psutil loaded", f"peak RSS {megabytes(used.peak_rss)}"),
        Claim(
            "no flash wear while the broker is up",
            f"write_bytes in {lasted['quiet']} s without trouble",
            megabytes(written["quiet"]),
            written["quiet"] < QUIET_BYTES_A_MINUTE * lasted["quiet"] / 60,
        ),
        Claim(
            "bytes written with the broker down",
            f"write_bytes in {lasted['down']} s",
            f"{megabytes(written['down'])}, {a_reading:.0f} B a reading",
            a_reading < BYTES_A_READING,
        ),
        Claim(
            "bytes written in trouble and after it",
            f"write_bytes in the other {lasted['troubled']} s: two restarts, the replay, its deletion",
            megabytes(written["troubled"]),
        ),
        Claim("bytes the store counts", "counter bytes_written, whole run", megabytes(counters["bytes_written"])),
    ]


def _latency(witness: Witness) -> str:
    times = sorted(
        at - json.loads(payload)["ts"] / 1000
        for at, topic, payload in witness.arrivals()
        if topic == data_topic("plc") and not payload.endswith(b'"replayed":true}')
    )
    return f"p50 {times[len(times) // 2] * 1000:.0f} ms, p99 {times[int(len(times) * 0.99)] * 1000:.0f} ms"
