"""Lines under a real daemon: a dead unit of ten, a mute PLC of fifty, reloads in mid-poll, unplugging, another master,
modems that dial in, hostile peers.

The long form takes about 40 minutes; the short one, a few seconds, is some of the hostile peers.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, data_topic, eventually, site
from tests.faulty import modbus as faulty
from tests.faulty.modbus import honest
from tests.faulty.modbus_rtu import RtuPeer, checksum
from tests.faulty.modbus_rtu import well as well_rtu
from tests.servers.modbus import ModbusServer
from tests.servers.modbus_rtu import Cable, RtuServer
from tests.servers.mosquitto import free_port
from tests.soak.claims import Claim, Options
from tests.soak.line_hostile import QUICK_POLLS, hostile
from tests.soak.line_peers import InThread, Modem
from tests.soak.plant import Witness, usage

UNITS, DEAD = range(1, 11), 7
KEPT = 0.95
PLCS, MUTE = 50, 13
LATE_MS = 100.0
RELOADS = 40
UNPLUGS = 50
AWAY_S = (1.0, 6.0)
BACK_S = 10.0
IDLE_CPU = 0.02
RETRY_S = 75.0
"""A minute, the longest delay between attempts, and the second of listening."""
REDIALS, REDIAL_S = 20, 3.0
POLLS = 1000


def run(options: Options) -> list[Claim]:
    """Run it."""
    if options.short:
        return hostile(QUICK_POLLS, short=True)
    return [
        *_dead_units(options, 60 * options.lasting(5, 0)),
        *_reloads(options),
        *_unplugged(options),
        *_another_master(options),
        *_dialling_in(options),
        *hostile(options.times(POLLS, QUICK_POLLS), short=False),
    ]


def _device(name: str, unit: int = 1, *, interval: str = "1 s", **keys: Any) -> dict[str, Any]:
    tags = [{"name": "t0", "address": "holding:0", "type": "uint16"}]
    return {"name": name, "type": "modbus", "unit_id": unit, "interval": interval, "tags": tags, **keys}


@contextmanager
def _daemon(options: Options, name: str, devices: Sequence[Any], **sections: Any) -> Iterator[tuple[Daemon, Witness]]:
    disk, memory = options.disk / name, options.memory / name
    disk.mkdir()
    memory.mkdir()
    with Witness(disk) as witness:
        witness_url = witness.broker.url
        with Daemon(disk, site(witness_url, devices, **sections), volatile=memory) as daemon:
            yield daemon, witness


def _values(witness: Witness, device: str) -> list[Any]:
    """Every value of `t0` that was published of a device."""
    topic = data_topic(device)
    return [json.loads(payload)["values"].get("t0") for _, at, payload in witness.arrivals() if at == topic]


def _wrong(witness: Witness, expected: dict[str, int]) -> int:
    return sum(value not in {None, right} for name, right in expected.items() for value in _values(witness, name))


# -- a dead unit of ten on each transport, a mute PLC of fifty -------------------------------------------------------


def _dead_units(options: Options, seconds: float) -> list[Claim]:
    with ExitStack() as stack:
        cable = stack.enter_context(Cable())
        servers = {
            "tcp": stack.enter_context(ModbusServer(UNITS)),
            "rtu-tcp": stack.enter_context(RtuServer(units=UNITS)),
            "serial": stack.enter_context(RtuServer(cable.far, UNITS)),
        }
        urls = {name: cable.url if name == "serial" else server.url for name, server in servers.items()}
        lines = {name: {"url": url} for name, url in urls.items()}
        devices = [_device(f"{name}-{unit}", unit, line=name) for name in servers for unit in UNITS]
        for server in servers.values():
            server.mute(unit=DEAD)
            for unit in UNITS:
                server.set("holding", 0, [unit], unit=unit)
        thread = stack.enter_context(InThread())
        for at in range(PLCS):
            peer = faulty.Peer(faulty.mute if at == MUTE else faulty.well)
            thread.enter(peer)
            devices.append(_device(f"plc-{at}", url=peer.url))
        daemon, witness = stack.enter_context(_daemon(options, "dead", devices, lines=lines))
        time.sleep(seconds)
        text = daemon.command("status").stdout
        found = daemon.status()
        daemon.stop()
        time.sleep(0.5)
        wrong = _wrong(witness, {f"{name}-{unit}": unit for name in servers for unit in UNITS})
        wrong += _wrong(witness, {f"plc-{at}": honest(0) for at in range(PLCS)})
        connections = {name: server.seen().connections for name, server in servers.items() if name != "serial"}
    claims = [_kept(name, found, seconds, connections.get(name, 1)) for name in servers]
    late = [found["devices"][f"plc-{at}"]["late_p99_ms"] for at in range(PLCS) if at != MUTE]
    lost = sum(found["devices"][f"plc-{at}"]["missed"] for at in range(PLCS) if at != MUTE)
    claims.append(
        Claim(
            "one device never harms another",
            f"1 of {PLCS} PLCs mute, {seconds:.0f} s",
            f"lateness p99 of the others at most {max(late):.1f} ms, {lost} polls missed, state {_state(found, MUTE)}",
            max(late) <= LATE_MS and lost == 0 and _state(found, MUTE) == "bad",
        )
    )
    told = all(name in text for name in servers)
    claims.append(Claim("busy lines are told", "shopfloor status, status.json", _busy(found), told))
    claims.append(Claim("never a wrong value", "all messages of these", f"{wrong} wrong values", wrong == 0))
    return claims


def _state(found: dict[str, Any], at: int) -> str:
    return str(found["devices"][f"plc-{at}"]["state"])


def _busy(found: dict[str, Any]) -> str:
    return "; ".join(
        f"{name} {line['busy']:.0%} busy, {line['late']} late"
        for name, line in found["lines"].items()
        if "://" not in name
    )


def _kept(line: str, found: dict[str, Any], seconds: float, connections: int) -> Claim:
    shares = []
    for unit in UNITS:
        device = found["devices"][f"{line}-{unit}"]
        if unit != DEAD:
            shares.append(device["polls"] / max(1, device["polls"] + device["missed"]))
    dead = found["devices"][f"{line}-{DEAD}"]["state"]
    return Claim(
        "a dead unit starves no line",
        f"{line}: 1 dead unit of 10, time-out 3 s, polls each second, {seconds:.0f} s from the start",
        f"the nine keep {min(shares):.1%} to {max(shares):.1%} of their polls; "
        f"dead unit {dead}; {connections} connection",
        min(shares) >= KEPT and dead == "bad" and connections == 1,
    )


# -- reloads ---------------------------------------------------------------------------------------------------------


def _reloads(options: Options) -> list[Claim]:
    count = options.times(RELOADS, RELOADS)
    with RtuServer(units=(1, 2, 3)) as server:
        for unit in (1, 2, 3):
            server.set("holding", 0, [unit], unit=unit)
        lines = {"hall": {"url": server.url}}

        def devices(timeout: int) -> list[dict[str, Any]]:
            changing = _device("d1", 1, interval="100 ms", line="hall", timeout=f"{timeout} ms")
            return [changing, *(_device(f"d{unit}", unit, interval="500 ms", line="hall") for unit in (2, 3))]

        with _daemon(options, "reload", devices(1000), lines=lines) as (daemon, witness):
            for name in ("d1", "d2", "d3"):
                daemon.wait_for("device_ok", device=name)
            server.delay(0.08, unit=1)  # so much of each 100 ms that a reload comes in mid-poll
            for at in range(count):
                daemon.reload(site(witness.broker.url, devices(1001 + at), lines=lines))
                time.sleep(0.7 + 0.013 * (at % 10))
            time.sleep(6)
            found = daemon.status()
            reloads = len(daemon.events("config_reloaded"))
            daemon.stop()
            time.sleep(0.5)
            wrong = _wrong(witness, {f"d{unit}": unit for unit in (1, 2, 3)})
            bad = sum(value is None for name in ("d2", "d3") for value in _values(witness, name))
        connections = server.seen().connections
    missed = sum(found["devices"][name]["missed"] for name in ("d2", "d3"))
    return [
        Claim(
            "a reload of one device harms no other",
            f"{count} reloads in mid-poll ({reloads} told), two others on the line",
            f"{missed} polls of the others missed, {bad} bad; {connections} connection; {wrong} wrong values",
            (missed, bad, connections, wrong) == (0, 0, 1, 0),
        )
    ]


# -- serial ports ----------------------------------------------------------------------------------------------------


def _descriptors(daemon: Daemon) -> int:
    return sum(1 for _ in Path(f"/proc/{daemon.pid}/fd").iterdir())


def _unplugged(options: Options) -> list[Claim]:
    count, chance = options.times(UNPLUGS, 2), random.Random(options.seed)
    back: list[float] = []
    cpu = away = 0.0
    with Cable() as cable, InThread() as thread:
        peer = thread.enter(RtuPeer(well_rtu, cable.far))
        devices = [_device("meter", interval="500 ms", line="meters")]
        lines = {"meters": {"url": cable.url, "baudrate": 115_200}}
        with _daemon(options, "unplug", devices, lines=lines) as (daemon, witness):
            daemon.wait_for("device_ok", device="meter")
            before = _descriptors(daemon)
            absent: set[int] = set()
            for at in range(count):
                thread.leave(peer)
                cable.unplug()
                daemon.wait_for("device_lost", count=at + 1, device="meter")
                began, used = time.monotonic(), usage(daemon.pid).cpu_s
                time.sleep(chance.uniform(*AWAY_S))
                absent.add(_descriptors(daemon))
                cpu += usage(daemon.pid).cpu_s - used
                away += time.monotonic() - began
                cable.plug_in()
                began = time.monotonic()
                peer = thread.enter(RtuPeer(well_rtu, cable.far))
                daemon.wait_for("device_back", count=at + 1, device="meter", within=3 * BACK_S)
                back.append(time.monotonic() - began)
            time.sleep(1)
            after = _descriptors(daemon)
            daemon.stop()
            wrong = _wrong(witness, {"meter": honest(0)})
        thread.leave(peer)
    in_time = sum(one <= BACK_S for one in back)
    return [
        Claim(
            "plugged in again, read again",
            f"serial pair away {count} times for {AWAY_S[0]:.0f} to {AWAY_S[1]:.0f} s",
            f"{in_time}/{count} back in {BACK_S:.0f} s, median {sorted(back)[count // 2]:.1f} s,"
            f" at most {max(back):.1f} s; {wrong} wrong values",
            in_time == count and wrong == 0,
        ),
        Claim(
            "costs nothing while away",
            f"{away:.0f} s without the port",
            f"CPU {cpu / away:.1%}; descriptors: {before} before, {min(absent)} to {max(absent)} while away,"
            f" {after} after",
            cpu / away <= IDLE_CPU and after == before and max(absent) <= before,
        ),
    ]


def _another_master(options: Options) -> list[Claim]:
    body = bytes.fromhex("05 03 00 00 00 0a")
    with Cable() as cable, InThread() as thread:
        peer = thread.enter(RtuPeer(well_rtu, cable.far))
        talking = thread.talk(peer, body + checksum(body), 0.2)
        devices = [_device("meter", line="meters"), _device("other", 2, line="meters")]
        with _daemon(options, "master", devices, lines={"meters": {"url": cable.url}}) as (daemon, _):
            lost = [daemon.wait_for("device_lost", device=name) for name in ("meter", "other")]
            time.sleep(5)
            asked = len(peer.asked)
            talking.cancel()
            began = time.monotonic()
            for name in ("meter", "other"):
                daemon.wait_for("device_back", device=name, within=RETRY_S + 15)
            took = time.monotonic() - began
            daemon.stop()
        thread.leave(peer)
    causes = {line.get("cause") for line in lost}
    return [
        Claim(
            "another master is heard",
            "one that speaks every 200 ms when the port is opened",
            f"cause {', '.join(map(str, causes))}; {asked} requests sent; read {took:.0f} s after it fell silent",
            causes == {"other_master"} and asked == 0 and took <= RETRY_S,
        )
    ]


# -- modems ----------------------------------------------------------------------------------------------------------


def _dialling_in(options: Options) -> list[Claim]:
    count, port, names = options.times(REDIALS, 2), free_port(), (b"DTU-0001", b"DTU-0002")
    lines = {
        f"modem-{at}": {
            "url": f"listen://127.0.0.1:{port}",
            "registration": name.decode(),
            "heartbeat_bytes": "0x00FE",
        }
        for at, name in enumerate(names, start=1)
    }
    devices = [_device(f"m{at}", at, interval="200 ms", line=f"modem-{at}") for at in (1, 2)]
    back = []
    with InThread() as thread, _daemon(options, "modems", devices, lines=lines) as (daemon, witness):
        eventually(lambda: len(daemon.events("device_lost", cause="not_called")) == 2, "a port")
        modems = [thread.enter(Modem(port, name, b"\x00\xfe", options.seed)) for name in names]
        for device in ("m1", "m2"):
            daemon.wait_for("device_back", device=device, within=15)
        time.sleep(10)
        for _ in range(count):
            modems[0].freeze()  # its old connection stands, half-open, and nothing comes from it any more
            time.sleep(REDIAL_S)
            modems.insert(0, thread.enter(Modem(port, names[0], b"\x00\xfe", options.seed)))
            began = time.monotonic()
            eventually(lambda: modems[0].answers >= 2, "requests to the new call", 15)
            back.append(time.monotonic() - began)
        time.sleep(1)
        found = daemon.status()
        daemon.stop()
        wrong = _wrong(witness, {"m1": 1, "m2": 2})
        values = [value for name in ("m1", "m2") for value in _values(witness, name)]
        for modem in modems:
            thread.leave(modem)
    bad, beats = sum(value is None for value in values), sum(modem.beats for modem in modems)
    return [
        Claim(
            "devices that dial in",
            f"two modems on a port, {beats} heartbeats before, in and behind replies, {count} calls over a half-open"
            " one",
            f"{wrong} wrong values, {bad} bad of {len(values)}; asked again after {max(back):.1f} s at most; m2 missed"
            f" {found['devices']['m2']['missed']} polls",
            wrong == 0 and max(back) <= BACK_S and found["devices"]["m2"]["missed"] == 0,
        )
    ]
