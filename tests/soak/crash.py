"""kill -9 at random moments, in an outage and with the broker up: what was committed arrives, and how much is missing.

Ten devices at 100 ms. What is committed is read from the database that the killed process leaves.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.daemon import Daemon, eventually, modbus, site
from tests.ledger import Ledger
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness

DEVICES = 10
MOST_MISSING_MS = 1100
"""A commit interval and a poll."""
WINDOW = 100


def run(options: Options) -> list[Claim]:
    """Run it."""
    dice = random.Random(options.seed)
    killed: dict[str, tuple[bool, float, set[int]]] = {}
    with Witness(options.disk) as witness, ModbusServer() as plc:
        devices = [modbus(f"press-{at}", plc.url) for at in range(DEVICES)]
        config = site(witness.broker.url, devices, buffer={"replay_rate": 0})
        for cycle in range(options.times(500, 4)):
            down = cycle % 2 == 0
            daemon = Daemon(options.disk, config, volatile=options.memory)
            with daemon:
                daemon.wait_for("broker_connected", within=10)
                if down:
                    witness.broker.stop()
                    daemon.wait_for("broker_lost")
                time.sleep(dice.uniform(0.05, 3.0))
                daemon.kill()
                at = time.time()
            name = daemon.events("agent_started")[0]["run"]
            killed[name] = (down, at, _committed(options.disk / "data", options.memory, name))
            if down:
                witness.broker.start()
        with Daemon(options.disk, config, volatile=options.memory) as last:
            last.wait_for("broker_connected")
            eventually(lambda: last.status()["counters"]["buffered"] <= DEVICES, "an empty buffer", 60)
            last.stop()
            ended = last.status()
        time.sleep(1)
        account = witness.settle({ended["agent"]["run"]: _own(ended["counters"])})
    print(account, flush=True)
    lost = sum(len(committed - set(witness.ledger.runs[name].seen)) for name, (_, _, committed) in killed.items())
    committed = sum(len(committed) for _, _, committed in killed.values())
    return [
        Claim(
            "what was committed arrives",
            f"{len(killed)} x kill -9, every other in an outage",
            f"{lost} of {committed} committed messages missing; {account.messages} arrived",
            lost == 0 and account.ok and account.crashes == len(killed),
        ),
        _missing(witness.ledger, killed, down=True),
        _missing(witness.ledger, killed, down=False),
        Claim(
            "few duplicates",
            "window of 100",
            f"{account.duplicates / len(killed):.0f} a kill",
            account.duplicates <= 2 * WINDOW * len(killed),
        ),
    ]


def _own(counters: dict[str, int]) -> int:
    return counters["produced"] - counters["carried_over"]


def _missing(ledger: Ledger, killed: dict[str, tuple[bool, float, set[int]]], *, down: bool) -> Claim:
    times = sorted(at * 1000 - ledger.runs[name].last_ts for name, (was, at, _) in killed.items() if was is down)
    return Claim(
        "at most the commit interval is missing",
        f"kill -9 with the broker {'down' if down else 'up'}: kill - newest reading that arrived",
        f"median {times[len(times) // 2]:.0f} ms, at most {times[-1]:.0f} ms",
        times[-1] <= MOST_MISSING_MS,
    )


def _committed(data: Path, memory: Path, run: str) -> set[int]:
    """The seqs of a run in the database that a killed process left, without touching it."""
    for name in ("outbox.db", "outbox.db-wal"):
        if (data / name).exists():
            shutil.copy(data / name, memory / name)
    with closing(sqlite3.connect(memory / "outbox.db")) as copy:
        (base,) = copy.execute("SELECT base FROM runs WHERE run = ?", (run,)).fetchone()
        found = {seq for (seq,) in copy.execute("SELECT id - ? FROM rows WHERE id > ?", (base, base))}
    for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
        (memory / name).unlink(missing_ok=True)
    return found
