"""5,000 values a second for long: no value lost on the way to the subscriber, memory flat, plain and encrypted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collectors.opcua.certificate import describe
from collectors.opcua.trust import TrustStore
from tests.bench.opcua_server import URI
from tests.daemon import ROOT, Daemon, data_topic, eventually, opcua, site
from tests.servers.opcua_secure import Pair, pair
from tests.soak.claims import Claim, Options, table
from tests.soak.hearing import Hearing
from tests.soak.plant import Witness, megabytes, usage

NODES, NODES_SHORT = 5000, 500
QUEUE = 20
INTERVAL_S = 1.0
SETTLE_S, SETTLE_SHORT_S = 60.0, 1.0
"""Caches, allocator and buffers find their size in this time."""
MOST_GROWTH = 0.05


def run(options: Options) -> list[Claim]:
    """Run it in both ways."""
    own = pair(options.disk, "plc")
    encrypted = {"policy": "Basic256Sha256", "mode": "SignAndEncrypt"}
    claims = _run(options, options.lasting(10, 0.05), encrypted, own)
    print(table(claims), flush=True)
    if not options.short:
        claims += _run(options, options.lasting(10, 0.05), {"policy": "None"}, None)
    return claims


def _run(options: Options, minutes: float, security: dict[str, str], own: Pair | None) -> list[Claim]:
    nodes = NODES_SHORT if options.short else NODES
    place = options.disk / security["policy"]
    memory = options.memory / security["policy"]
    for directory in (place, memory):
        directory.mkdir()
    if own is not None:
        TrustStore(place / "data").trust("server", describe(own.der))
    with Witness(place) as witness, server(nodes, INTERVAL_S, own) as url:
        device = opcua(
            "server", url, {f"n{at}": f"nsu={URI};s=n{at}" for at in range(nodes)}, interval="1 s", security=security
        )
        # asyncua's server has its hands full with that many: on a busy machine it answers late.
        device["timeout"] = "10 s"
        for tag in device["tags"]:  # and when it publishes late, it drops unseen what a short queue does not hold
            tag["queue"] = QUEUE
        with Daemon(place, site(witness.broker.url, [device]), volatile=memory) as daemon:
            daemon.wait_for("broker_connected")
            ledger = _Values()
            hearing = Hearing(witness.heard)
            eventually(lambda: ledger.take(hearing) == nodes, "a value of every node", 120)
            end = time.monotonic() + minutes * 60
            settled = min(time.monotonic() + (SETTLE_SHORT_S if options.short else SETTLE_S), end)
            before, began, sizes = usage(daemon.pid), time.monotonic(), []
            count = ledger.count
            while (now := time.monotonic()) < end:
                time.sleep(min(1.0, end - now))
                ledger.take(hearing)
                if time.monotonic() >= settled:
                    sizes.append(usage(daemon.pid).rss)
            took, count = time.monotonic() - began, ledger.count - count
            cpu = usage(daemon.pid).cpu_s - before.cpu_s
            lost = daemon.status()["counters"]["samples_lost"]
            troubles = [event["event"] for event in daemon.events(level="warning") if event.get("device")]
            daemon.stop()
    growth = _growth(sizes)
    how = f"{security['policy']} {security.get('mode', '')}".strip()
    done = f"{nodes} nodes that change every second, {how}, {took / 60:.1f} min"
    return [
        Claim(
            "no value is lost",
            done,
            f"{count / took:.0f} values/s, {count} in all: {ledger.holes} missing, {ledger.wrong} wrong, counted as"
            f" lost {lost}, troubles: {', '.join(troubles) or 'none'}",
            not ledger.holes and not ledger.wrong and not troubles,
        ),
        Claim("what it costs", done, f"{cpu / count * 1e6:.1f} s CPU per million values, to the broker"),
        Claim(
            "memory is flat",
            f"{done}; medians of the first and last quarter after {SETTLE_S:.0f} s",
            f"RSS {megabytes(sizes[-1])}, growth {growth:+.1%}",
            growth <= MOST_GROWTH,
        ),
    ]


class _Values:
    """Every node counts up by one each time, and adds a thousandth of its number: who lies or is missing shows."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.count = self.holes = self.wrong = 0

    def take(self, hearing: Hearing) -> int:
        """How many nodes were heard of."""
        topic = data_topic("server")
        for _, where, payload in hearing.news():
            if where == topic:
                self._message(json.loads(payload)["values"])
        return len(self.last)

    def _message(self, values: dict[str, Any]) -> None:
        last = self.last
        for name, value in values.items():
            if value is None:
                self.holes += 1
                continue
            rest = value - int(name[1:]) / 1000
            number = round(rest)
            self.wrong += math.fabs(rest - number) > 1e-6
            before = last.get(name)
            if before is not None and number > before + 1:
                self.holes += number - before - 1
            last[name] = number
        self.count += len(values)


@contextmanager
def server(nodes: int, interval_s: float, own: Pair | None) -> Iterator[str]:
    """The server of the benchmarks, in a process of its own; its url."""
    command = [sys.executable, "-m", "tests.bench.opcua_server", str(nodes), str(interval_s)]
    if own is not None:
        command += [str(own.certificate), str(own.key)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(ROOT))
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        (port,) = json.loads(process.stdout.readline())
        yield f"opc.tcp://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _growth(sizes: list[int]) -> float:
    quarter = max(1, len(sizes) // 4)
    first, last = sorted(sizes[:quarter]), sorted(sizes[-quarter:])
    return last[len(last) // 2] / first[len(first) // 2] - 1
