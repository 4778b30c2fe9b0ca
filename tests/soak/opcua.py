"""OPC UA that keeps delivering: what ends a connection, or leaves it standing without data, is over within 15 s.

Every fault is made at a real server (asyncua), behind a relay, read by the real daemon; what counts is when a value
written after the fault reaches a subscriber, and that no value ever comes under another tag. The rest is in
`opcua_secure` (certificates, channels), `opcua_rate` (5,000 values a second) and `opcua_other` (another make).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.daemon import Daemon, data_topic, eventually, opcua, site
from tests.faulty.opcua import Relay
from tests.servers.opcua import DECOY, OpcuaServer
from tests.servers.opcua_odd import OddServer
from tests.soak import opcua_other, opcua_rate, opcua_secure
from tests.soak.claims import Claim, Options
from tests.soak.hearing import Hearing
from tests.soak.plant import Witness

MOST_S = 15.0
TAGS = 20
FULL_S = 20.0
"""How long a server has no session left."""
MOST_ATTEMPTS = 20
SKEW_S = 7200.0
DEVICE = "plc"


def run(options: Options) -> list[Claim]:
    """Run it."""
    claims = _delivery(options)
    if not options.short:
        claims += opcua_secure.run(options)
        claims += opcua_rate.run(options)
        claims += opcua_other.run(options)
    return claims


@dataclass
class Truth:
    """What a subscriber may hear: tag `tN` has only values N * 1000 + k, or null with a quality."""

    hearing: Hearing
    values: dict[str, float] = field(default_factory=dict)
    stamps: list[int] = field(default_factory=list)
    count: int = 0
    wrong: list[str] = field(default_factory=list)

    def listen(self) -> None:
        for _, topic, payload in self.hearing.news():
            if topic != data_topic(DEVICE):
                continue
            message = json.loads(payload)
            self.stamps.append(message["ts"])
            for name, value in message["values"].items():
                if value is None:
                    continue
                self.count += 1
                self.values[name] = value
                if value == DECOY or int(value) // 1000 != int(name[1:]):
                    self.wrong.append(f"{name}: {value}")

    def has(self, wanted: dict[str, float]) -> bool:
        self.listen()
        return all(self.values.get(name) == value for name, value in wanted.items())


def values(turn: int) -> dict[str, float]:
    """The values of all tags at this turn."""
    return {f"t{tag}": float(tag * 1000 + turn % 1000) for tag in range(TAGS)}


def write(server: OpcuaServer, turn: int, offset_s: float = 0.0) -> dict[str, float]:
    """Write the values of a turn."""
    wanted = values(turn)
    for name, value in wanted.items():
        at = round((time.time() + offset_s) * 1000) if offset_s else None
        server.set(name, value, source_ms=at, server_ms=at)
    return wanted


def _delivery(options: Options) -> list[Claim]:
    directory = options.disk / "delivery"
    directory.mkdir()
    with Witness(directory) as witness, OddServer(values(0)) as server, relay_to(server.port) as relay:
        device = opcua(DEVICE, relay.url, {name: server.node(name) for name in values(0)})
        with Daemon(directory, site(witness.broker.url, [device]), volatile=options.memory) as daemon:
            truth = Truth(Hearing(witness.heard))
            eventually(lambda: truth.has(values(0)), "the first values", 30)
            claims = [_restarts(server, truth, options.times(50, 1))]
            claims.append(_full(server, relay, truth, 1.0 if options.short else FULL_S))
            if not options.short:
                repeats = options.times(5, 1)
                for name, done, fault in (
                    ("half-open TCP", "a router forgets the connection: bytes go nowhere", relay.strand),
                    ("server drops its subscriptions", "deleted without a word", server.drop_subscriptions),
                    ("server publishes no more", "answers all else", lambda: server.publishing(False)),
                    ("connection cut", "TCP reset", relay.cut),
                ):
                    claims.append(_recovers(server, truth, name, done, fault, repeats))
                claims.append(_skew(server, truth, daemon))
            daemon.stop()
        truth.listen()
    claims.append(
        Claim(
            "no value under another tag",
            "all of the above; every node has three namesakes in namespaces that change places",
            f"{len(truth.wrong)} of {truth.count} values wrong {truth.wrong[:3] or ''}".strip(),
            not truth.wrong,
        )
    )
    return claims


def _restarts(server: OddServer, truth: Truth, count: int) -> Claim:
    took = []
    for turn in range(1, count + 1):
        server.restart(shuffle=True, nodes=values(turn))
        took.append(_until(truth, values(turn), f"the values after restart {turn}"))
    return Claim(
        "back after a restart",
        f"{count} restarts, namespaces shuffled each time",
        f"{sum(one <= MOST_S for one in took)} of {count} within {MOST_S:.0f} s; median"
        f" {sorted(took)[len(took) // 2]:.1f} s, longest {max(took):.1f} s",
        max(took) <= MOST_S,
    )


def _recovers(
    server: OddServer, truth: Truth, name: str, done: str, fault: Callable[[], object], repeats: int
) -> Claim:
    took = []
    for turn in range(repeats):
        fault()
        wanted = write(server, 200 + turn)
        took.append(_until(truth, wanted, name))
    return Claim(
        f"recovers: {name}",
        f"{repeats} x {done}; a value written then reaches a subscriber",
        f"longest {max(took):.1f} s",
        max(took) <= MOST_S,
    )


def _full(server: OddServer, relay: RelayThread, truth: Truth, seconds: float) -> Claim:
    server.odd(sessions=0)
    before, relay.relay.most = relay.relay.accepted, 0
    relay.cut()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        truth.listen()
        time.sleep(0.1)
    attempts, most = relay.relay.accepted - before, relay.relay.most
    server.odd()
    wanted = write(server, 300)
    took = _until(truth, wanted, "a session after BadTooManySessions")
    return Claim(
        "BadTooManySessions is no storm",
        f"no session free for {seconds:.0f} s",
        f"{attempts} attempts, {most} at once; back {took:.1f} s after one was free",
        attempts <= MOST_ATTEMPTS and most <= 1 and took <= MOST_S,
    )


def _skew(server: OddServer, truth: Truth, daemon: Daemon) -> Claim:
    server.clock(SKEW_S)
    truth.listen()
    truth.stamps.clear()
    for turn in range(400, 410):
        wanted = write(server, turn, SKEW_S)
        _until(truth, wanted, "values of a server whose clock is wrong")
    off = max(abs(stamp / 1000 - time.time()) for stamp in truth.stamps)
    told = [event["offset_s"] for event in daemon.events("device_clock_skew")]
    server.clock(0)
    return Claim(
        "a wrong clock does no harm",
        f"server {SKEW_S / 3600:.0f} h ahead (local time told as UTC)",
        f"stamped by the gateway, at most {off:.1f} s off; told {len(told)} time: {told} s",
        off < 60 and len(told) == 1 and abs(told[0] - SKEW_S) < 5,
    )


def _until(truth: Truth, wanted: dict[str, float], what: str) -> float:
    began = time.monotonic()
    eventually(lambda: truth.has(wanted), what, 4 * MOST_S)
    return time.monotonic() - began


class RelayThread:
    """A relay in a loop of its own."""

    def __init__(self, target: int) -> None:
        self.relay = Relay(target)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self.relay.__aenter__())

    @property
    def url(self) -> str:
        return self.relay.url

    def strand(self) -> None:
        """See `Relay.strand`."""
        self._soon(self.relay.strand)

    def cut(self) -> None:
        """See `Relay.cut`."""
        self._soon(self.relay.cut)

    def close(self) -> None:
        self._do(self.relay.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _soon(self, call: Callable[[], None]) -> None:
        async def run() -> None:
            call()

        self._do(run())


@contextmanager
def relay_to(port: int) -> Iterator[RelayThread]:
    """A relay to a server of this machine."""
    relay = RelayThread(port)
    try:
        yield relay
    finally:
        relay.close()
