"""What hangs is started again: the whole process (SIGSTOP), and the thread of the store in a disk that does not answer.

Under a stand-in for systemd with the times of systemd/shopfloor-agent.service.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.daemon import ROOT, Daemon, eventually, modbus, site
from tests.faulty.disk import FaultyDisk
from tests.servers.modbus import ModbusServer
from tests.service_manager import ServiceManager
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness

BACK_S = 45.0
UNIT = ROOT / "systemd" / "shopfloor-agent.service"


def run(options: Options) -> list[Claim]:
    """Run it."""
    claims = [_hang(options, "process", "SIGSTOP", None)]
    if FaultyDisk.possible():
        options.memory.joinpath("disk").mkdir()
        disk = FaultyDisk(options.memory / "disk", options.disk / "store" / "data")
        claims.append(_hang(options, "store", "a sync that does not return, broker up", disk))
    return claims


def _hang(options: Options, name: str, what: str, disk: FaultyDisk | None) -> Claim:
    directory, memory = options.disk / name, options.memory / name
    directory.mkdir()
    memory.mkdir()
    times: list[float] = []
    whys: list[str] = []
    with Witness(directory) as witness, ModbusServer() as plc:
        config = site(witness.broker.url, [modbus("press", plc.url)])

        def make(environment: dict[str, str]) -> Daemon:
            more = disk.environment if disk is not None else {}
            return Daemon(directory, config, environment={**environment, **more}, volatile=memory)

        heal: Callable[[], None] = disk.heal if disk is not None else lambda: None
        with ServiceManager(
            memory / "notify",
            make,  # type: ignore[arg-type]  # a mapping that is a dict
            watchdog_s=_unit("WatchdogSec"),
            restart_s=_unit("RestartSec"),
            abort_s=_unit("TimeoutStopSec"),
            before_restart=heal,
        ) as manager:
            for number in range(options.times(3, 1)):
                run = manager.daemon.wait_for("agent_started", count=number + 1, within=30)["run"]
                witness.wait_for(f'"run":"{run}"', "/data", 30)
                time.sleep(3)
                _begin(manager.daemon, disk, witness)
                began = time.monotonic()
                eventually(lambda n=number: len(manager.lives) > n + 1, "another start", 90)  # type: ignore[misc]
                run = manager.daemon.wait_for("agent_started", count=number + 2, within=30)["run"]
                witness.wait_for(f'"run":"{run}"', "/data", 30)
                times.append(time.monotonic() - began)
                whys.append(manager.lives[number].why)
            code = manager.stop()
        time.sleep(0.5)
        account = witness.settle()
    print(account, flush=True)
    return Claim(
        f"what hangs is started again: {name}",
        f"{len(times)} x {what}; WatchdogSec={_unit('WatchdogSec'):.0f}s, until readings come again",
        f"at most {max(times):.1f} s ({', '.join(sorted(set(whys)))}); "
        f"{account.missing} missing of {account.messages}, exit {code}",
        max(times) <= BACK_S and account.ok and account.crashes == len(times) and code == 0,
    )


def _begin(daemon: Daemon, disk: FaultyDisk | None, witness: Witness) -> None:
    if disk is None:
        daemon.signal(signal.SIGSTOP)
        return
    disk.hang()
    witness.broker.stop()
    time.sleep(2)  # what is read now is committed, and that hangs
    witness.broker.start()


def _unit(key: str) -> float:
    """Seconds, as the unit says."""
    found = re.search(rf"^{key}=(\d+)s$", Path(UNIT).read_text(), re.MULTILINE)
    assert found is not None, key
    return float(found[1])
