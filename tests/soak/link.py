"""The link to the broker: cut or reset at each of the first 200 bytes, sliced, half-open.

A half-open link is a real one: packets are dropped in a network of our own, and neither side is told. A peer that stays
connected and does nothing is the proxy's, which stops reading and writing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from tests.daemon import Daemon, eventually, modbus, site
from tests.faulty.proxy import FaultProxy
from tests.ledger import Account
from tests.servers.modbus import ModbusServer
from tests.servers.mosquitto import free_port
from tests.soak import network
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Witness, settle

BYTES = 200
DEVICES, INTERVAL = 10, "250 ms"
BUSY_S, IDLE_S = 20.0, 35.0
CYCLES = 5
LINK_BACK_S = 75.0
"""The longest delay between attempts is 60 s, and one attempt may be under way."""


def run(options: Options) -> list[Claim]:
    """Run it."""
    dice = random.Random(options.seed)
    claims = _cuts(options, dice) + _slices(options)
    if options.short:
        return claims
    claims += _frozen(options, dice)
    reason = network.why_not()
    if reason is not None:
        return [*claims, Claim("a half-open link is found", f"skipped: {reason}", "")]
    return claims + network.apart(lambda: _half_open(options, dice))


@dataclass
class Site:
    """A daemon, its broker and a proxy between them."""

    daemon: Daemon
    witness: Witness
    sampler: Sampler
    proxy: FaultProxy
    config: dict[str, Any]

    def renew(self) -> None:
        """Another setting of the session: it ends, and the next one begins without a delay."""
        mqtt = self.config["mqtt"]
        mqtt["window"] = 199 - mqtt.get("window", 100)
        self.daemon.reload(self.config)

    def works(self) -> bool:
        """The newest connection stands, and acknowledgements came through it."""
        link = self.proxy.links[-1] if self.proxy.links else None
        return link is not None and not link.closed and link.cut is None and link.passed["down"] > 60

    def settle(self) -> tuple[Account, dict[str, Any]]:
        """After the end of all trouble: stop, and take the account of everything."""
        return settle(self.daemon, self.witness, self.sampler)


@contextmanager
def _site(options: Options, name: str) -> Iterator[Site]:
    directory, memory = options.disk / name, options.memory / name
    directory.mkdir()
    memory.mkdir()
    with Witness(directory) as witness, ModbusServer() as plc, FaultProxy(witness.broker.port) as proxy:
        devices = [modbus(f"press-{at}", plc.url, interval=INTERVAL) for at in range(DEVICES)]
        config = site(proxy.url, devices, buffer={"replay_rate": 0})
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            yield Site(daemon, witness, sampler, proxy, config)


def _cuts(options: Options, dice: random.Random) -> list[Claim]:
    """End a connection at each byte, in either direction, with FIN and with RST."""
    kinds: list[tuple[Literal["up", "down"], bool]] = [(w, r) for w in ("up", "down") for r in (False, True)]
    count = min(options.times(BYTES, 2), BYTES)
    offsets = range(1, BYTES + 1) if count == BYTES else sorted(dice.sample(range(1, BYTES + 1), count))
    recovered, longest = 0, 0.0
    with _site(options, "cuts") as here:
        eventually(here.works, "a session")
        for at in offsets:
            for way, reset in kinds:
                before = len(here.proxy.links)
                here.proxy.cut_next(way, at, reset=reset)
                here.renew()
                began = time.monotonic()
                what = f"recovery from a {'reset' if reset else 'cut'} after byte {at} {way}"
                eventually(lambda before=before: len(here.proxy.links) > before + 1 and here.works(), what, 15)  # type: ignore[misc]
                longest = max(longest, time.monotonic() - began)
                recovered += 1
        account, status = here.settle()
    missed = sum(device["missed"] for device in status["devices"].values())
    return [
        Claim(
            "a link cut anywhere recovers, and loses nothing",
            f"{len(offsets)} of the first {BYTES} bytes, each cut and reset, towards the broker and back",
            f"{recovered} of {4 * len(offsets)} recovered, the slowest after {longest:.1f} s; "
            f"{account.missing} missing of {account.messages}, {account.duplicates} duplicates, {missed} missed polls",
            recovered == 4 * len(offsets) and account.ok,
        )
    ]


def _slices(options: Options) -> list[Claim]:
    """Everything byte by byte, in both directions."""
    seconds = options.lasting(1, 0.03) * 60
    with _site(options, "slices") as here:
        here.proxy.up.slice = here.proxy.down.slice = 1
        here.renew()
        eventually(lambda: len(here.proxy.links) > 1 and here.works(), "a session byte by byte", 15)
        time.sleep(seconds)
        lost = len(here.daemon.events("broker_lost"))
        account, _ = here.settle()
    return [
        Claim(
            "fragments are put together",
            f"one byte at a time in both directions for {seconds:.0f} s",
            f"{lost} sessions lost, {account.missing} missing of {account.messages}, {account.duplicates} duplicates",
            lost == 0 and account.ok,
        )
    ]


def _frozen(options: Options, dice: random.Random) -> list[Claim]:
    """The peer's kernel answers and the peer does not."""
    found = []
    with _site(options, "frozen") as here:
        for _ in range(options.times(CYCLES, 1)):
            found.append(_found(here.daemon, here.proxy.freeze, dice))
            here.proxy.thaw()
            eventually(here.works, "a session", LINK_BACK_S)
        account, _ = here.settle()
    return [_claim("with traffic, peer frozen", "the proxy stops reading and writing", found, BUSY_S, account)]


def _half_open(options: Options, dice: random.Random) -> list[Claim]:
    """Packets are dropped, and nobody is told."""
    claims = []
    for name, interval, most in (("with traffic", "100 ms", BUSY_S), ("idle", "10 min", IDLE_S)):
        directory, memory = options.disk / interval, options.memory / interval
        directory.mkdir()
        memory.mkdir()
        port, found = free_port(), []
        lines = (f"listener {port} 127.0.0.1", "allow_anonymous true")
        with Witness(directory, *lines) as witness, ModbusServer() as plc:
            config = site(f"mqtt://127.0.0.1:{port}", [modbus("press", plc.url, interval=interval)])
            with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
                here = Site(daemon, witness, sampler, FaultProxy(port), config)
                daemon.wait_for("broker_connected")
                for _ in range(options.times(CYCLES, 1)):
                    connected = len(daemon.events("broker_connected"))
                    found.append(_found(daemon, lambda port=port: network.drop(port), dice))  # type: ignore[misc]
                    network.let_through()
                    daemon.wait_for("broker_connected", count=connected + 1, within=LINK_BACK_S)
                account, _ = here.settle()
        claims.append(_claim(name, "packets dropped in both directions, no FIN", found, most, account))
    return claims


def _found(daemon: Daemon, begin: Callable[[], None], dice: random.Random) -> float:
    """Seconds from the beginning of a fault to the daemon's notice of it."""
    time.sleep(dice.uniform(3, 12))
    lost = len(daemon.events("broker_lost"))
    begin()
    began = time.monotonic()
    daemon.wait_for("broker_lost", count=lost + 1, within=60)
    return time.monotonic() - began


def _claim(name: str, done: str, found: list[float], most: float, account: Account) -> Claim:
    return Claim(
        f"a half-open link is found: {name}",
        f"{done}, {len(found)} times",
        f"median {sorted(found)[len(found) // 2]:.1f} s, at most {max(found):.1f} s; {account.missing} missing of "
        f"{account.messages}",
        max(found) <= most and account.ok,
    )
