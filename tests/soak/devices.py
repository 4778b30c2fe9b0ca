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
from pathlib import Path

from tests.daemon import ROOT, TELL_INSIDE, Daemon, eventually, modbus, opcua, site
from tests.servers.modbus import ModbusServer
from tests.servers.opcua import OpcuaServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness, megabytes, usage

DEVICES, BAD_TAGS = 50, 5000
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
    """Every connection is cut again and again; the servers' own delays apart."""
    times = options.times(1000, 4)
    disk = _directory(options.disk / "reconnects")
    with Witness(disk) as witness, ModbusServer() as plc, OpcuaServer({"a": 1.0, "b": 2.0}) as cnc:
        devices = [
            modbus("plc", plc.url, 5),
            opcua("cnc", cnc.url, {name: cnc.node(name) for name in ("a", "b")}),
        ]
        config = site(witness.broker.url, devices)
        memory = _directory(options.memory / "reconnects")
        with Daemon(disk, config, launcher=("-c", TELL_INSIDE), volatile=memory) as daemon:

            def cut_plc() -> None:
                made = plc.seen().connections
                plc.stop()
                plc.start()
                eventually(lambda: plc.seen().connections > made, "another connection of the PLC", 40)

            def cut_cnc() -> None:
                cnc.restart()
                eventually(lambda: cnc.sessions() == 1, "another session of the OPC UA server", 40)

            def cut_broker() -> None:
                # By another keepalive: a broker that hangs up thrice a minute is taken for one that has a twin of us.
                made = len(daemon.events("broker_connected"))
                daemon.reload(site(witness.broker.url, devices, mqtt={"keepalive": f"{10 + made % 2} s"}))
                daemon.wait_for("broker_connected", count=made + 1, within=40)

            rounds: dict[str, tuple[int, Callable[[], None]]] = {
                "Modbus": (times, cut_plc),
                "OPC UA": (max(2, times // 4), cut_cnc),
                "broker": (times, cut_broker),
            }
            for device in ("plc", "cnc"):
                daemon.wait_for("device_ok", device=device, within=30)
            time.sleep(3)
            claims = []
            for kind, (count, cut) in rounds.items():
                before, began = _inside(daemon), usage(daemon.pid).rss
                for _ in range(count):
                    cut()
                _quiet(daemon, ("plc", "cnc"))
                after = _inside(daemon)
                same = all(after[key] <= before[key] for key in ("fds", "threads", "tasks"))
                figure = ", ".join(f"{key} {before[key]} -> {after[key]}" for key in ("fds", "threads", "tasks"))
                rss = f"RSS {megabytes(began)} -> {megabytes(usage(daemon.pid).rss)}"
                claims.append(
                    Claim(f"{kind}: nothing is left of reconnects", f"{count} of them", f"{figure}; {rss}", same)
                )
            daemon.stop()
            status = daemon.status()
        time.sleep(0.5)
        account = witness.settle({status["agent"]["run"]: status["counters"]["produced"]})
    print(account, flush=True)
    done = f"{sum(count for count, _ in rounds.values())} reconnects"
    figure = f"{account.missing} missing of {account.messages}, {account.duplicates} duplicates"
    return [*claims, Claim("reconnects lose nothing", done, figure, account.ok)]


def _quiet(daemon: Daemon, devices: tuple[str, ...]) -> None:
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
