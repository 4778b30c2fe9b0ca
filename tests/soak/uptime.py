"""A machine that has been up for very long: 400 days, and the moments at which counters of milliseconds, nanoseconds
and seconds overflow, each with an outage, a kill and a restart; at the end a reboot: monotonic time is small again.

Needs the right to make a time namespace, and a kernel that enters it by exec (6.2).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, eventually, modbus, site
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Witness

DEVICES = 5
LATE_MS = 50.0
DAY = 86_400.0
IN_UPTIME = """
import ctypes, os, sys
if ctypes.CDLL(None).unshare(0x80):
    sys.exit("no time namespace")
with open("/proc/self/timens_offsets", "w") as offsets:
    offsets.write(f"monotonic {sys.argv[1]} 0\\nboottime {sys.argv[1]} 0\\n")
os.execv(sys.executable, [sys.executable, "-m", "agent", *sys.argv[2:]])
"""
"""A launcher (`-c`): the daemon sees a monotonic clock that is so many seconds ahead."""


def run(options: Options) -> list[Claim]:
    """Run it."""
    up = time.monotonic()
    moments = {
        "400 days": 400 * DAY,
        "2^31 ms": 2**31 / 1000,
        "2^32 ms": 2**32 / 1000,
        "2^53 ns": 2**53 / 1e9,
        "2^31 s": float(2**31),
    }
    ended: dict[str, int] = {}
    figures: list[dict[str, Any]] = []
    with Witness(options.disk) as witness, ModbusServer() as plc:
        devices = [modbus(f"press-{at}", plc.url, interval="250 ms") for at in range(DEVICES)]
        config = site(witness.broker.url, devices, buffer={"replay_rate": 0})
        for at in list(moments.values())[: options.times(len(moments), 1)]:
            offset = str(int(at - up - 4))
            daemon = Daemon(options.disk, config, launcher=("-c", IN_UPTIME, offset), volatile=options.memory)
            with daemon, Sampler(daemon, witness.ledger):
                if not _elsewhere(daemon):
                    return [Claim("works after very long", "skipped: no time namespace of its own here", "")]
                daemon.wait_for("broker_connected")
                time.sleep(3)
                witness.broker.stop()
                daemon.wait_for("broker_lost")
                time.sleep(5)  # the moment lies in here
                witness.broker.start()
                daemon.wait_for("broker_connected", count=2, within=30)
                time.sleep(6)
                figures.append(daemon.status())
                daemon.kill()
            up = time.monotonic()
        with Daemon(options.disk, config, volatile=options.memory) as last:
            last.wait_for("broker_connected")
            eventually(lambda: last.status()["counters"]["buffered"] <= DEVICES, "an empty buffer", 60)
            last.stop()
            status = last.status()
            ended[status["agent"]["run"]] = status["counters"]["produced"] - status["counters"]["carried_over"]
        time.sleep(1)
        account = witness.settle(ended)
    print(account, flush=True)
    devices_seen = [device for status in figures for device in status["devices"].values()]
    missed = sum(device["missed"] for device in devices_seen)
    late = max(device["late_p99_ms"] for device in devices_seen)
    ages = [status["agent"]["since_s"] for status in figures]
    ages += [device["since_s"] for device in devices_seen] + [status["buffer"]["oldest_s"] for status in figures]
    done = f"monotonic clock at {', '.join(list(moments)[: len(figures)])}"
    return [
        Claim(
            "polls on time after very long",
            done,
            f"{missed} missed of {sum(device['polls'] for device in devices_seen)}, late p99 {late} ms; "
            f"ages from {min(ages):.1f} to {max(ages):.1f} s",
            missed == 0 and late <= LATE_MS and 0 <= min(ages) <= max(ages) < 120,
        ),
        Claim(
            "nothing lost, and after a reboot neither",
            f"{done}: an outage and a kill -9 in each, then a small clock again",
            f"{account.missing} missing of {account.messages}, {account.crashes} crashes told",
            account.ok and account.crashes == len(figures),
        ),
    ]


def _elsewhere(daemon: Daemon) -> bool:
    own = Path("/proc/self/ns/time")
    return own.exists() and own.readlink() != Path(f"/proc/{daemon.pid}/ns/time").readlink()
