"""Devices that trouble nobody but themselves: one mute of fifty, 5,000 tags in error, and a thousand reconnects of
everything that is connected, after which descriptors, threads and tasks stand where they stood.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.daemon import ROOT, TELL_INSIDE, Daemon, eventually, modbus, opcua, site
from tests.faulty.proxy import FaultProxy
from tests.servers.modbus import ModbusServer
from tests.servers.opcua import OpcuaServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness, megabytes, usage

DEVICES, BAD_TAGS = 50, 5000
PLCS, CNCS = 10, 5
PACE_S = 0.2
ACKNOWLEDGED = 50
"""Bytes from the broker: CONNACK, and some PUBACKs."""
MOST_LATE_MS = 100.0
MOST_LINES_A_MINUTE = 60
MOST_BYTES_A_DAY = 1_000_000


def run(options: Options) -> list[Claim]:
    """Run it."""
    return [*_mute(options), *_errors(options), *_reconnects(options)]


def _mute(options: Options) -> list[Claim]:
    seconds = options.lasting(3, 0.2) * 60
    disk = _directory(options.disk / "mute")
    command = [sys.executable, "-m", "tests.bench.plc", str(DEVICES - 1), "uint16", "20"]
    with (
        Witness(disk) as witness,
        ModbusServer() as mute,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as plcs,
    ):
        try:
            assert plcs.stdout is not None
            urls = [f"tcp://127.0.0.1:{port}" for port in json.loads(plcs.stdout.readline())]
            devices = [modbus(f"plc-{at:02}", url, 20, interval="1 s") for at, url in enumerate(urls)]
            config = site(witness.broker.url, [*devices, modbus("mute", mute.url, 20, interval="1 s")])
            mute.mute()
            with Daemon(disk, config, volatile=_directory(options.memory / "mute")) as daemon:
                time.sleep(seconds)
                daemon.stop()
                status = daemon.status()["devices"]
        finally:
            plcs.kill()
    others = [device for name, device in status.items() if name != "mute"]
    late = max(device["late_p99_ms"] for device in others)
    missed = sum(device["missed"] for device in others)
    polls = sum(device["polls"] for device in others)
    return [
        Claim(
            f"one mute device of {DEVICES} makes no other late",
            f"{seconds:.0f} s at 1 s, the mute one `{status['mute']['state']}`",
            f"p99 of the latest of {len(others)}: {late:.1f} ms; {missed} missed of {polls + missed}",
            late <= MOST_LATE_MS and missed == 0 and status["mute"]["state"] == "bad",
        )
    ]


def _errors(options: Options) -> list[Claim]:
    minutes = options.lasting(10, 0.3)
    disk = _directory(options.disk / "errors")
    with Witness(disk) as witness, ModbusServer() as plc:
        devices = [modbus(f"plc-{at}", plc.url, BAD_TAGS // 5, interval="1 s") for at in range(5)]
        with Daemon(disk, site(witness.broker.url, devices), volatile=_directory(options.memory / "errors")) as daemon:
            for at in range(5):
                daemon.wait_for("device_ok", device=f"plc-{at}", within=30)
            time.sleep(3)
            lines, size, cpu = daemon.text().count("\n"), len(daemon.text()), usage(daemon.pid).cpu_s
            plc.refuse("holding", 0, 65535, 2)
            time.sleep(minutes * 60)
            lines, size = daemon.text().count("\n") - lines, len(daemon.text()) - size
            cpu = usage(daemon.pid).cpu_s - cpu
            bad = sum(device["bad_tags"] for device in daemon.status()["devices"].values())
            a_day = size / minutes * 1440
            daemon.stop()
    done = f"{bad} of {BAD_TAGS} tags in error for {minutes:g} min"
    return [
        Claim(
            "tags in error fill no log",
            done,
            f"{lines} lines, {size} bytes; at this rate {megabytes(a_day)} a day; "
            f"CPU {cpu / minutes / 0.6:.1f} % of a core",
            bad == BAD_TAGS
            and lines <= MOST_LINES_A_MINUTE * max(1.0, minutes)
            and (a_day <= MOST_BYTES_A_DAY or minutes < 5),
        )
    ]


def _reconnects(options: Options) -> list[Claim]:
    """Every connection is cut again and again, of several devices at a time: delays between attempts are by design."""
    times = options.times(1000, 8)
    disk, memory = _directory(options.disk / "reconnects"), _directory(options.memory / "reconnects")
    with ExitStack() as stack:
        witness = stack.enter_context(Witness(disk))
        proxy = stack.enter_context(FaultProxy(witness.broker.port))
        plcs = [stack.enter_context(ModbusServer()) for _ in range(PLCS)]
        cncs = [stack.enter_context(OpcuaServer({"a": 1.0, "b": 2.0})) for _ in range(CNCS)]
        devices = [modbus(f"plc-{at}", plc.url, 5) for at, plc in enumerate(plcs)] + [
            opcua(f"cnc-{at}", cnc.url, {name: cnc.node(name) for name in ("a", "b")}) for at, cnc in enumerate(cncs)
        ]
        names = [device["name"] for device in devices]
        daemon = stack.enter_context(
            Daemon(disk, site(proxy.url, devices), launcher=("-c", TELL_INSIDE), volatile=memory)
        )
        threads = stack.enter_context(ThreadPoolExecutor(CNCS))

        # Seen from the servers: of a line that comes more than sixty times a minute the log keeps no count.
        def cut_plcs(_: int) -> None:
            for plc in plcs:
                plc.reset()
            for plc in plcs:  # two answers: the good batch that lets the next delay be a short one again
                eventually(partial(_answered, plc), "another connection of a PLC", 40)

        def cut_cncs(_: int) -> None:
            list(threads.map(OpcuaServer.restart, cncs))
            for cnc in cncs:
                eventually(partial(_has_session, cnc), "another session of an OPC UA server", 40)
            time.sleep(PACE_S)

        def cut_broker(number: int) -> None:
            # Half of them hurt; a reload makes the next session come at once. By another keepalive: a broker that hangs
            # up thrice a minute is taken for one that has a twin of us.
            made = len(proxy.links)
            if number % 2:
                proxy.reset()
                eventually(lambda: proxy.links[made - 1].closed, "the end of the session")
            daemon.reload(site(proxy.url, devices, mqtt={"keepalive": f"{10 + number % 2} s"}))
            eventually(
                lambda: len(proxy.links) > made and proxy.links[-1].passed["down"] > ACKNOWLEDGED,
                "another session with the broker",
                40,
            )
            time.sleep(PACE_S)  # what is under way at the ends of two sessions is suspected to be why they ended

        for name in names:
            daemon.wait_for("device_ok", device=name, within=60)
        time.sleep(3)
        kinds: tuple[tuple[str, int, int, Callable[[int], None]], ...] = (
            ("Modbus", max(1, times // PLCS), PLCS, cut_plcs),
            ("OPC UA", max(1, times // 4 // CNCS), CNCS, cut_cncs),
            ("broker", times, 1, cut_broker),
        )
        claims = [_left(daemon, names, *kind) for kind in kinds]
        daemon.stop()
        status = daemon.status()
        time.sleep(0.5)
        account = witness.settle({status["agent"]["run"]: status["counters"]["produced"]})
    print(account, flush=True)
    done = f"{sum(rounds * each for _, rounds, each, _ in kinds)} reconnects"
    figure = f"{account.missing} missing of {account.messages}, {account.duplicates} duplicates"
    return [*claims, Claim("reconnects lose nothing", done, figure, account.ok)]


def _answered(plc: ModbusServer) -> bool:
    return plc.seen().functions.get(3, 0) >= 2


def _has_session(cnc: OpcuaServer) -> bool:
    return cnc.sessions() == 1


def _left(daemon: Daemon, names: list[str], kind: str, rounds: int, each: int, cut: Callable[[int], None]) -> Claim:
    """Cut so often; what is left of it."""
    before, rss, began = _inside(daemon), usage(daemon.pid).rss, time.monotonic()
    for number in range(1, rounds + 1):
        cut(number)
    took = time.monotonic() - began
    _quiet(daemon, names)
    after = _inside(daemon)
    figure = ", ".join(f"{key} {before[key]} -> {after[key]}" for key in ("fds", "threads", "tasks"))
    return Claim(
        f"{kind}: nothing is left of reconnects",
        f"{rounds * each} of them, {each} at a time, in {took:.0f} s",
        f"{figure}; RSS {megabytes(rss)} -> {megabytes(usage(daemon.pid).rss)}",
        all(after[key] <= before[key] for key in ("fds", "threads", "tasks")),
    )


def _quiet(daemon: Daemon, devices: list[str]) -> None:
    def fine() -> bool:
        status = daemon.status()
        return (
            all(status["devices"][name]["state"] == "ok" for name in devices)
            and status["broker"]["state"] == "connected"
        )

    eventually(fine, "all devices ok", 30)
    time.sleep(3)


def _inside(daemon: Daemon) -> dict[str, int]:
    count = len(daemon.events("inside"))
    daemon.signal(signal.SIGUSR1)
    found = daemon.wait_for("inside", count=count + 1)
    process = Path("/proc") / str(daemon.pid)
    threads = int((process / "status").read_text().partition("Threads:")[2].split()[0])
    return {"tasks": found["tasks"], "threads": threads, "fds": sum(1 for _ in (process / "fd").iterdir())}


def _directory(path: Path) -> Path:
    path.mkdir()
    return path
