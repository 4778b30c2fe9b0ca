"""The disk is filled by a neighbour during an outage, then freed: alive, polling, every loss counted, recovered.

On a tmpfs of 8 MB and on ext4 of 32 MB; needs the right to mount.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, eventually, modbus, site
from tests.ledger import Account
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness

DEVICES, TAGS = 8, 120
ALONE_S, FULL_S = 10.0, 40.0
RECOVER_S = 30.0


def run(options: Options) -> list[Claim]:
    """Run it."""
    if os.geteuid() != 0:
        return [Claim("a full disk is survived", "skipped: needs the right to mount", "")]
    claims = []
    for name in ("tmpfs", "ext4"):
        directory, memory = options.disk / name, options.memory / name
        directory.mkdir()
        memory.mkdir()
        with _volume(name, directory) as volume:
            claims += _fill(name, volume, directory, memory)
    return claims


@contextmanager
def _volume(name: str, directory: Path) -> Iterator[Path]:
    """A small volume of its own."""
    where = directory / "volume"
    where.mkdir()
    if name == "tmpfs":
        _do("mount", "-t", "tmpfs", "-o", "size=8m", "none", str(where))
    else:
        image = directory / "image"
        with image.open("wb") as file:
            file.truncate(32 << 20)
        _do("mkfs.ext4", "-q", "-F", str(image))
        _do("mount", "-o", "loop", str(image), str(where))
    try:
        yield where
    finally:
        _do("umount", str(where))


def _do(*command: str) -> None:
    subprocess.run(command, check=True)


def _occupy(path: Path) -> None:
    """Write until there is no byte left, in ever smaller pieces."""
    with path.open("ab", buffering=0) as neighbour:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    neighbour.write(b"x" * size)


def _fill(name: str, volume: Path, directory: Path, memory: Path) -> list[Claim]:
    states: list[str] = []
    with Witness(directory) as witness, ModbusServer() as plc:
        for unit_offset in range(0, TAGS * 100, 997):  # not all zero: compression shall have some work
            plc.set("holding", unit_offset % 60_000, [(unit_offset * at) % 65536 for at in range(50)])
        devices = [modbus(f"press-{at}", plc.url, TAGS) for at in range(DEVICES)]
        config = site(witness.broker.url, devices, buffer={"directory": str(volume / "data"), "replay_rate": 0})
        with Daemon(directory, config, volatile=memory) as daemon:
            daemon.wait_for("broker_connected")
            witness.broker.stop()
            daemon.wait_for("broker_lost")
            time.sleep(ALONE_S)
            neighbour = volume / "neighbour"
            filled = time.monotonic()
            while time.monotonic() - filled < FULL_S:
                _occupy(neighbour)  # again and again: what the agent gives up is taken too
                time.sleep(1)
                states.append(_look(daemon, witness)["buffer"]["state"])
            during = _look(daemon, witness)
            neighbour.unlink()
            freed = time.monotonic()
            eventually(lambda: _look(daemon, witness)["buffer"]["state"] == "ok", "a sound store", 60)
            recovered = time.monotonic() - freed
            witness.broker.start()
            eventually(lambda: _look(daemon, witness)["counters"]["buffered"] <= DEVICES, "an empty buffer", 120)
            daemon.stop()
            status = _look(daemon, witness)
        time.sleep(1)
        counters = status["counters"]
        account = witness.settle({status["agent"]["run"]: counters["produced"]})
    print(account, flush=True)
    return _claims(name, states, during, status, account, recovered)


def _look(daemon: Daemon, witness: Witness) -> dict[str, Any]:
    status = daemon.status()
    witness.ledger.sample(status)
    return status


def _claims(
    name: str,
    states: list[str],
    during: dict[str, Any],
    status: dict[str, Any],
    account: Account,
    recovered: float,
) -> list[Claim]:
    done = f"{name} without a free byte for {FULL_S:.0f} s of an outage"
    missed = sum(device["missed"] for device in status["devices"].values())
    polls = sum(device["polls"] for device in status["devices"].values())
    dropped = {reason: count for reason, count in status["counters"]["dropped"].items() if count}
    seen = {state: states.count(state) for state in dict.fromkeys(states)}
    return [
        Claim(
            "alive and polling on a full disk", done, f"store {seen} s, {missed} missed of {polls} polls", missed == 0
        ),
        Claim(
            "every loss is counted and told",
            done,
            f"dropped {dropped or 0}, told {account.told}, missing {account.missing}; {account.messages} arrived",
            account.ok and account.told == sum(dropped.values()),
        ),
        Claim(
            "recovers by itself",
            "neighbour gone",
            f"store ok after {recovered:.1f} s; {during['counters']['buffered']} waited, all arrived",
            recovered <= RECOVER_S and account.ok,
        ),
    ]
