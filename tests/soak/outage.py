"""Days without a broker: ten million readings wait, and then go out beside what is fresh; the same on a slow broker."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.buffer.records import Work
from agent.buffer.store import DATABASE, Store
from agent.message import Heading, encode
from collectors.api import Batch, Value
from tests.daemon import GATEWAY, SITE, Daemon, eventually, modbus, site
from tests.faulty.proxy import FaultProxy
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Witness, megabytes, usage

READINGS = 10_000_000
IN_A_MESSAGE = 10
DEVICES = 10
LIVE = DEVICES * 10.0
"""Live messages a second: every device at 100 ms."""
START_S, LATE_S, GROWTH = 5.0, 2.0, 10_000_000
SETTLE_S = 15.0
SLOW_BYTES, SLOW_PUBACK_S = 8_000, 5.0
DAY_MS = 86_400_000
RUN = "0123456789abcdef"
_COMMIT = 2_000


def run(options: Options) -> list[Claim]:
    """Run it."""
    if options.short:
        return _slow(options, "late", "PUBACKs 0.5 s late", latency_s=0.5)
    claims = _ten_million(options)
    for rate in (100, 1000):
        claims += _rate(options, rate)
    claims += _slow(options, "thin", f"{SLOW_BYTES // 1000} KB/s towards the broker", bandwidth=SLOW_BYTES)
    claims += _slow(options, "late", f"PUBACKs {SLOW_PUBACK_S:.0f} s late", latency_s=SLOW_PUBACK_S)
    return claims


def _fill(directory: Path, count: int, tags: int, max_size: int) -> None:
    """Leave so many messages of three days in this data directory, written by the store itself."""
    store = Store(directory, run=RUN, started_at=0, max_size=max_size, max_payload=60_000)
    base = store.open().base
    began = int(time.time() * 1000) - 3 * DAY_MS
    values: dict[str, Value] = {f"t{at}": 1000 + at for at in range(tags)}
    (body,) = encode(
        Heading(SITE, GATEWAY, RUN),
        Batch(device="press", group="1s", at=0.0, values=values),
        ts=1_700_000_000_000,
        rev="0badcafe",
        clock=None,
        first_seq=1,
        max_payload=60_000,
    )
    before, after = body.split(b'"ts":1700000000000')
    middle, end = after.split(b'"seq":1,')
    for first in range(1, count + 1, _COMMIT):
        rows = [
            (
                base + seq,
                "press",
                "1s",
                b'%b"ts":%d%b"seq":%d,%b' % (before, began + seq * 3 * DAY_MS // count, middle, seq, end),
            )
            for seq in range(first, min(first + _COMMIT, count + 1))
        ]
        store.commit(Work(rows=rows, now=began))
    store.commit(Work(now=began, end="stopped"))
    store.close()
    _forget(directory / DATABASE)


def _forget(file: Path) -> None:
    """Nothing of it in the page cache: a start after a power cut finds none either."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@dataclass
class Heard:
    """Messages of one witness.

    Attributes:
        lates: seconds from sample to arrival of what was live while the backlog went out, sorted.
        first, last: when the backlog began and ended to arrive. `replayed`: of how many messages.
    """

    lates: list[float]
    first: float
    last: float
    replayed: int

    @property
    def rate(self) -> float:
        """Messages of the backlog a second."""
        return self.replayed / max(self.last - self.first, 1e-9)

    def __str__(self) -> str:
        if not self.lates:
            return "nothing live"
        return f"live p99 {self.lates[int(len(self.lates) * 0.99)]:.2f} s, at most {self.lates[-1]:.2f} s"

    @property
    def fresh(self) -> bool:
        """Nothing live was late."""
        return bool(self.lates) and self.lates[-1] <= LATE_S


def _heard(witness: Witness) -> Heard:
    first, last, replayed = float("inf"), 0.0, 0
    live: list[tuple[float, float]] = []
    for at, topic, payload in witness.arrivals():
        if not topic.endswith("/data"):
            continue
        if payload.endswith(b'"replayed":true}'):
            if b'"run":"0123456789abcdef"' in payload:
                first, last, replayed = min(first, at), max(last, at), replayed + 1
            continue
        live.append((at, at - int(payload[payload.index(b'"ts":') + 5 :].split(b",", 1)[0]) / 1000))
    return Heard(sorted(late for at, late in live if first <= at <= last), first, last, replayed)


def _config(url: str, plc: ModbusServer, rate: int, devices: int = DEVICES, interval: str = "100 ms") -> dict[str, Any]:
    listed = [modbus(f"live-{at}", plc.url, interval=interval) for at in range(devices)]
    return site(url, listed, buffer={"replay_rate": rate, "max_size": "20 GB"})


def _memory(pid: int, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield usage(pid).rss
        time.sleep(1)


def _ten_million(options: Options) -> list[Claim]:
    """Start with ten million rows; drain ten million readings to the last."""
    claims = [_start(options)]
    count = options.times(READINGS // IN_A_MESSAGE, 0)
    directory, memory = options.disk / "days", options.memory / "days"
    directory.mkdir()
    memory.mkdir()
    _fill(directory / "data", count, IN_A_MESSAGE, 20_000_000_000)
    with Witness(directory) as witness, ModbusServer() as plc:
        witness.broker.stop()
        config = _config(witness.broker.url, plc, 0)
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            base = max(_memory(daemon.pid, SETTLE_S))
            witness.broker.start()
            daemon.wait_for("backlog_replay", within=120)
            peak = base
            while not daemon.events("backlog_done"):
                peak = max(peak, *_memory(daemon.pid, 5))
                assert daemon.alive()
            lost = len(daemon.events("broker_lost"))
            daemon.stop()
            counters = sampler.look()["counters"]
            name = sampler.look()["agent"]["run"]
        witness.catch_up(0)
        eventually(lambda: _size(witness) == _size(witness, 2.0), "the end of what the listener hears", 600)
        heard = _heard(witness)
        account = witness.settle({name: counters["produced"] - counters["carried_over"], RUN: count})
    print(account, flush=True)
    done = f"{count} messages of {IN_A_MESSAGE} readings beside {LIVE:.0f} live messages a second, `replay_rate: 0`"
    return [
        *claims,
        Claim(
            "a backlog of days drains at ten times the live rate, and is all there",
            done,
            f"{heard.rate:.0f} messages a second, {heard.last - heard.first:.0f} s; {account.missing} missing of "
            f"{account.messages}, {account.duplicates} duplicates, {lost} sessions lost",
            heard.rate >= 10 * LIVE and account.ok and heard.replayed >= count,
        ),
        Claim("fresh data first", done, str(heard), heard.fresh),
        Claim(
            "memory does not grow with a backlog",
            done,
            f"RSS at most {megabytes(base)} before the broker came, {megabytes(peak)} while it drained",
            peak - base <= GROWTH,
        ),
    ]


def _size(witness: Witness, after: float = 0.0) -> int:
    time.sleep(after)
    return witness.heard.stat().st_size


def _start(options: Options) -> Claim:
    """As many rows as readings: the most that a start can find."""
    directory, memory = options.disk / "start", options.memory / "start"
    directory.mkdir()
    memory.mkdir()
    count = options.times(READINGS, 0)
    began = time.monotonic()
    _fill(directory / "data", count, 1, 20_000_000_000)
    size = (directory / "data" / DATABASE).stat().st_size
    print(f"{count} rows, {megabytes(size)}, filled in {time.monotonic() - began:.0f} s", flush=True)
    took = []
    with ModbusServer() as plc:
        for _ in range(3):
            _forget(directory / "data" / DATABASE)
            began = time.monotonic()
            with Daemon(directory, _config("mqtt://127.0.0.1:1", plc, 0), volatile=memory) as daemon:
                took.append(time.monotonic() - began)
                time.sleep(2)
                rss = usage(daemon.pid).rss
                status = daemon.status()
                daemon.stop()
    return Claim(
        "a start does not wait for a backlog",
        f"{count} rows, {megabytes(size)}, none of it in the page cache, 3 starts",
        f"ready after {max(took):.1f} s at most, RSS {megabytes(rss)}, buffered {status['counters']['buffered']}",
        max(took) <= START_S and status["counters"]["buffered"] >= count,
    )


def _rate(options: Options, rate: int) -> list[Claim]:
    """The rate that was asked for."""
    directory, memory = options.disk / f"rate-{rate}", options.memory / f"rate-{rate}"
    directory.mkdir()
    memory.mkdir()
    seconds = options.lasting(1, 0.1) * 60
    _fill(directory / "data", round(rate * seconds), 1, 1_000_000_000)
    with Witness(directory) as witness, ModbusServer() as plc:
        with Daemon(directory, _config(witness.broker.url, plc, rate), volatile=memory) as daemon:
            daemon.wait_for("backlog_done", within=seconds * 2 + 60)
            daemon.stop()
        time.sleep(1)
        heard = _heard(witness)
    return [
        Claim(
            "a backlog keeps to its rate",
            f"`replay_rate: {rate}` for {seconds:.0f} s",
            f"{heard.rate:.1f} messages a second; {heard}",
            abs(heard.rate - rate) <= rate / 10 and heard.fresh,
        )
    ]


def _slow(
    options: Options, name: str, what: str, *, latency_s: float = 0.0, bandwidth: float | None = None
) -> list[Claim]:
    """A broker behind a thin line, or one that takes its time, with a backlog that it cannot take in time."""
    directory, memory = options.disk / name, options.memory / name
    directory.mkdir()
    memory.mkdir()
    seconds = options.lasting(3, 0.1) * 60
    count = 200 if options.short else 1_000_000
    _fill(directory / "data", count, 1, 1_000_000_000)
    with Witness(directory) as witness, ModbusServer() as plc, FaultProxy(witness.broker.port) as proxy:
        proxy.up.bandwidth, proxy.down.latency_s = bandwidth, latency_s
        config = _config(proxy.url, plc, 0, devices=5, interval="500 ms")
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            daemon.wait_for("backlog_replay", within=60)
            base = max(_memory(daemon.pid, min(SETTLE_S, seconds / 3)))
            peak = max(_memory(daemon.pid, seconds))
            lost, missed = len(daemon.events("broker_lost")), 0
            daemon.kill()
            missed = sum(device["missed"] for device in sampler.look()["devices"].values())
        time.sleep(1)
        heard = _heard(witness)
        account = witness.settle()
    print(account, flush=True)
    # What was sampled before the session waits at the end of the backlog, and is still there when this ends.
    sound = not [fault for fault in account.faults if "missing" not in fault]
    return [
        Claim(
            f"a slow broker is borne: {what}",
            f"10 live messages a second and {count} of backlog for {seconds:.0f} s",
            f"{heard}; {heard.rate:.1f} of the backlog a second; {lost} sessions lost, "
            f"{account.duplicates} duplicates, {missed} missed polls; RSS grew {megabytes(max(0, peak - base))}",
            heard.fresh and lost == account.duplicates == missed == 0 and peak - base <= GROWTH / 2 and sound,
        )
    ]
