"""A disk in trouble during an outage: syncs fail, syncs take 200 ms, the file system turns read-only.

Alive, polling on time, everything counted, and well again without a restart when the disk is. Then a real ext4 that
turns read-only because of an error in it, which no process can undo: what was accepted is there after the repair.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from tests.daemon import GATEWAY, SITE, Daemon, eventually, modbus, site
from tests.faulty.disk import FaultyDisk
from tests.ledger import Account, Ledger
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Witness

DEVICES, TAGS, INTERVAL = 10, 20, "250 ms"
LATE_MS = 50.0
TOLD_S = 4.0
"""Until the trouble is in the log: up to three commits."""
BACK_S = 30.0


@dataclass(frozen=True)
class Trouble:
    """One kind of it: what it is, how it begins, and whether the store has to say so."""

    name: str
    begin: Callable[[FaultyDisk], None]
    degrades: bool


TROUBLES = (
    Trouble("every third sync fails with EIO", lambda disk: disk.fail_syncs(errno.EIO, 3), True),
    Trouble("every sync fails with EIO", lambda disk: disk.fail_syncs(errno.EIO, 1), True),
    Trouble("every sync takes 200 ms", lambda disk: disk.slow_syncs(200), False),
    Trouble("the file system is read-only", lambda disk: disk.read_only(), True),
)


def run(options: Options) -> list[Claim]:
    """Run it."""
    claims: list[Claim] = []
    if not FaultyDisk.possible():
        claims.append(Claim("a disk in trouble is survived", "skipped: needs gcc", ""))
    else:
        for number, trouble in enumerate(TROUBLES[:1] if options.short else TROUBLES):
            directory, memory = options.disk / str(number), options.memory / str(number)
            directory.mkdir()
            memory.mkdir()
            claims += _survive(trouble, directory, memory, options.lasting(0.5, 0.05) * 60)
    if not options.short:
        claims += _broken(options)
    return claims


def _site(url: str, plc: ModbusServer, data: Path) -> dict[str, Any]:
    devices = [modbus(f"press-{at}", plc.url, TAGS, interval=INTERVAL) for at in range(DEVICES)]
    return site(url, devices, buffer={"directory": str(data), "replay_rate": 0})


def _survive(trouble: Trouble, directory: Path, memory: Path, seconds: float) -> list[Claim]:
    data = directory / "data"
    disk = FaultyDisk(memory, data)
    with Witness(directory) as witness, ModbusServer() as plc:
        config = _site(witness.broker.url, plc, data)
        daemon = Daemon(directory, config, environment=disk.environment, volatile=memory)
        with daemon, Sampler(daemon, witness.ledger) as sampler:
            daemon.wait_for("broker_connected")
            time.sleep(min(2.0, seconds / 2))
            witness.broker.stop()
            daemon.wait_for("broker_lost")
            time.sleep(min(3.0, seconds / 2))
            trouble.begin(disk)
            began, syncs = time.monotonic(), disk.syncs
            if trouble.degrades:
                daemon.wait_for("store_degraded", within=20)
            told = time.monotonic() - began
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            syncs = disk.syncs - syncs
            disk.heal()
            healed = time.monotonic()
            eventually(lambda: _sound(daemon), "a sound store", 60)
            back = time.monotonic() - healed
            witness.broker.start()
            eventually(lambda: sampler.look()["counters"]["buffered"] <= DEVICES, "an empty buffer", 120)
            code = daemon.stop()
            status = sampler.look()
        time.sleep(0.5)
        account = witness.settle({status["agent"]["run"]: status["counters"]["produced"]})
    print(account, flush=True)
    done = f"{trouble.name}, for {seconds:.0f} s of an outage"
    claims = [_on_time(done, status), _counted(done, status["counters"], account, code)]
    if trouble.degrades:
        figure = f"told after {told:.1f} s; well {back:.1f} s after the disk; {syncs} syncs tried"
        claims.append(Claim("tells of it and recovers by itself", done, figure, told <= TOLD_S and back <= BACK_S))
    return claims


def _sound(daemon: Daemon) -> bool:
    """As many recoveries as troubles."""
    return len(daemon.events("store_ok")) == len(daemon.events("store_degraded"))


def _on_time(done: str, status: dict[str, Any]) -> Claim:
    devices = status["devices"].values()
    late, missed = max(device["late_p99_ms"] for device in devices), sum(device["missed"] for device in devices)
    polls = sum(device["polls"] for device in devices)
    figure = f"late p99 {late} ms, {missed} missed of {polls} polls"
    return Claim("alive and polling on time", done, figure, late <= LATE_MS and missed == 0)


def _counted(done: str, counters: dict[str, Any], account: Account, code: int) -> Claim:
    dropped = sum(counters["dropped"].values())
    return Claim(
        "nothing lost that is not counted and told",
        done,
        f"{account.missing} missing of {counters['produced']}, {dropped} dropped, {account.told} told, exit {code}",
        account.ok and account.told == dropped and code == 0,
    )


def _broken(options: Options) -> list[Claim]:
    if os.geteuid() != 0:
        return [Claim("a broken file system is survived", "skipped: needs the right to mount", "")]
    directory, memory = options.disk / "broken", options.memory / "broken"
    image, volume = directory / "image", directory / "volume"
    volume.mkdir(parents=True)
    memory.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    _do("mkfs.ext4", "-q", "-F", str(image))
    _do("mount", "-o", "loop,errors=remount-ro", str(image), str(volume))
    try:
        return _broken_on(directory, memory, image, volume)
    finally:
        subprocess.run(["umount", str(volume)], check=False)


def _broken_on(directory: Path, memory: Path, image: Path, volume: Path) -> list[Claim]:
    found = subprocess.run(["findmnt", "-no", "SOURCE", volume], check=True, capture_output=True, text=True)
    trigger = Path("/sys/fs/ext4", Path(found.stdout.strip()).name, "trigger_fs_error")
    if not trigger.exists():
        return [Claim("a broken file system is survived", "skipped: this kernel breaks none on demand", "")]
    with Witness(directory) as witness, ModbusServer() as plc:
        witness.ledger = Ledger(SITE, GATEWAY, crash_s=inf)  # nothing can be committed for longer than the interval
        config = _site(witness.broker.url, plc, volume / "data")
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            daemon.wait_for("broker_connected")
            time.sleep(2)
            witness.broker.stop()
            daemon.wait_for("broker_lost")
            time.sleep(5)
            trigger.write_text("1")
            began = time.monotonic()
            reason = daemon.wait_for("store_degraded", within=10)["reason"]
            told = time.monotonic() - began
            time.sleep(10)
            witness.broker.start()  # what is fresh goes out; what memory has waits behind the disk
            daemon.wait_for("broker_connected", count=2, within=30)
            time.sleep(3)
            code = daemon.stop()
            status = sampler.look()
        _do("umount", str(volume))
        repaired = subprocess.run(["e2fsck", "-fy", str(image)], check=False, capture_output=True).returncode
        _do("mount", "-o", "loop", str(image), str(volume))
        with Daemon(directory, config, volatile=memory) as again:
            again.wait_for("backlog_done", within=60)
            again.stop()
            last = again.status()
        time.sleep(0.5)
        own = last["counters"]["produced"] - last["counters"]["carried_over"]
        account = witness.settle({status["agent"]["run"]: status["counters"]["produced"], last["agent"]["run"]: own})
    print(account, flush=True)
    done = "ext4 with an error in it: read-only until it is unmounted and repaired, 10 s of it in an outage"
    carried = last["counters"]["carried_over"]
    return [
        _on_time(done, status),
        Claim(
            "what was accepted is there after the repair, the rest told",
            done,
            f"told after {told:.1f} s ({reason}), exit {code}, e2fsck {repaired}; {carried} carried over, "
            f"{account.missing} missing, {account.told} only in memory and told, {account.messages} arrived",
            account.ok and code == 0 and carried > 0,
        ),
    ]


def _do(*command: str) -> None:
    subprocess.run(command, check=True)
