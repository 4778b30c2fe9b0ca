"""SIGTERM at random moments, before and after the agent is ready, with the broker up and away: it ends, and loses
nothing.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, eventually, modbus, site
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness

DEVICES = 5
MOST_S = 5.0
BLOCK = 4
"""So many stops with the broker away, then as many with it up."""
BY_THE_KERNEL = "ended by the kernel, no handler yet and nothing written (to systemd a clean exit)"


def run(options: Options) -> list[Claim]:
    """Run it."""
    dice = random.Random(options.seed)
    took: list[float] = []
    codes: dict[str, int] = {}
    ended: dict[str, int] = {}
    good = True
    with Witness(options.disk) as witness, ModbusServer() as plc:
        devices = [modbus(f"press-{at}", plc.url) for at in range(DEVICES)]
        config = site(witness.broker.url, devices, buffer={"replay_rate": 0})
        for cycle in range(options.times(200, 4)):
            if cycle % BLOCK == 0:
                (witness.broker.stop if cycle // BLOCK % 2 == 0 else witness.broker.start)()
            daemon = Daemon(options.disk, config, volatile=options.memory)
            daemon.launch()
            try:
                if dice.random() < 0.8:  # the others while it is being loaded, or before
                    daemon.wait_for("agent_started", within=20)
                time.sleep(dice.uniform(0.0, dice.choice((0.3, 2.0))))
                takes = _takes_sigterm(daemon)
                began = time.monotonic()
                code = _stop(daemon)
                took.append(time.monotonic() - began)
            finally:
                daemon.kill()
            begun = bool(daemon.events("agent_started"))
            if code == -signal.SIGTERM and not takes and not daemon.text():
                outcome = BY_THE_KERNEL
            else:
                outcome = f"exit {code}" + ("" if begun else " while it was being loaded")
                good = good and code == 0
            codes[outcome] = codes.get(outcome, 0) + 1
            if begun and code == 0:
                ended |= _end(daemon)
        if witness.broker.process is None or witness.broker.process.poll() is not None:
            witness.broker.start()
        with Daemon(options.disk, config, volatile=options.memory) as last:
            last.wait_for("broker_connected", within=30)
            eventually(lambda: last.status()["counters"]["buffered"] <= DEVICES, "an empty buffer", 90)
            last.stop()
            ended |= _end(last)
        time.sleep(1)
        account = witness.settle(ended)
    print(account, flush=True)
    return [
        Claim(
            "a stop ends in time, and well",
            f"{len(took)} x SIGTERM in the first 2 s, broker away and up",
            ", ".join(f"{count} x {outcome}" for outcome, count in sorted(codes.items()))
            + f"; at most {max(took):.1f} s",
            good and max(took) <= MOST_S,
        ),
        Claim(
            "a stop loses nothing",
            f"{len(ended)} runs",
            f"{account.missing} missing of {sum(ended.values())}, {account.crashes} told as crashed, "
            f"{account.duplicates} duplicates",
            account.ok and account.crashes == 0 and account.told == 0,
        ),
    ]


def _takes_sigterm(daemon: Daemon) -> bool:
    """Whether the process has a handler; before, the kernel ends it, and no program can do otherwise."""
    status = (Path("/proc") / str(daemon.pid) / "status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGTERM - 1)


def _stop(daemon: Daemon) -> int | str:
    try:
        return daemon.stop(20)
    except subprocess.TimeoutExpired:
        return "none in 20 s"


def _end(daemon: Daemon) -> dict[str, int]:
    """Run -> last seq."""
    status: dict[str, Any] = daemon.status()
    run = daemon.events("agent_started")[0]["run"]
    assert status["agent"]["run"] == run, "no status of this run was written"
    counters = status["counters"]
    return {run: counters["produced"] - counters["carried_over"]}
