"""kill -9 at random moments, in an outage and with the broker up: what was committed arrives, how much is missing, how
soon the next process publishes again, and how much it sends twice.

Ten devices at 100 ms. What is committed is read from the database that the killed process leaves.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from bisect import bisect
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
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
AGAIN_S = 5.0


@dataclass(frozen=True)
class Kill:
    """One killed run.

    Attributes:
        down: whether the broker was away.
        unlimited: whether the backlog was sent as fast as it goes, else at the default rate.
        started, at: when its process was started and killed, seconds since the epoch.
        committed: the seqs that its database held then.
    """

    down: bool
    unlimited: bool
    started: float
    at: float
    committed: set[int]


def run(options: Options) -> list[Claim]:
    """Run it."""
    dice = random.Random(options.seed)
    killed: dict[str, Kill] = {}
    with Witness(options.disk) as witness, ModbusServer() as plc:
        devices = [modbus(f"press-{at}", plc.url) for at in range(DEVICES)]
        usual = site(witness.broker.url, devices)
        config = site(witness.broker.url, devices, buffer={"replay_rate": 0})
        for cycle in range(options.times(500, 4)):
            down, unlimited = cycle % 2 == 0, cycle % 5 != 3
            daemon = Daemon(options.disk, config if unlimited else usual, volatile=options.memory)
            started = time.time()
            with daemon:
                name = daemon.wait_for("agent_started")["run"]
                witness.wait_for(f'"run":"{name}"', "/data")
                if down:
                    witness.broker.stop()
                    daemon.wait_for("broker_lost")
                time.sleep(dice.uniform(0.0, dice.choice((0.3, 3.0))))  # in mid-replay too
                daemon.kill()
                at = time.time()
            killed[name] = Kill(down, unlimited, started, at, _committed(options.disk / "data", options.memory, name))
            if down:
                witness.broker.start()
        with Daemon(options.disk, config, volatile=options.memory) as last:
            last.wait_for("broker_connected")
            eventually(lambda: last.status()["counters"]["buffered"] <= DEVICES, "an empty buffer", 60)
            last.stop()
            ended = last.status()
        time.sleep(1)
        account = witness.settle({ended["agent"]["run"]: _own(ended["counters"])})
        again = _again(witness, killed)
        twice = _duplicates(witness, killed)
    print(account, flush=True)
    lost = sum(len(kill.committed - set(witness.ledger.runs[name].seen)) for name, kill in killed.items())
    committed = sum(len(kill.committed) for kill in killed.values())
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
            "publishes again",
            "start of the next process to the first of its own messages at a subscriber",
            f"median {again[len(again) // 2]:.1f} s, at most {again[-1]:.1f} s",
            again[-1] <= AGAIN_S,
            timing=True,
        ),
        _few(killed, twice, unlimited=True),
        _few(killed, twice, unlimited=False),
    ]


def _own(counters: dict[str, int]) -> int:
    return counters["produced"] - counters["carried_over"]


def _missing(ledger: Ledger, killed: dict[str, Kill], *, down: bool) -> Claim:
    times = sorted(kill.at * 1000 - ledger.runs[name].last_ts for name, kill in killed.items() if kill.down is down)
    return Claim(
        "at most the commit interval is missing",
        f"kill -9 with the broker {'down' if down else 'up'}: kill - newest reading that arrived",
        f"median {times[len(times) // 2]:.0f} ms, at most {times[-1]:.0f} ms",
        times[-1] <= MOST_MISSING_MS,
        timing=True,
    )


def _again(witness: Witness, killed: dict[str, Kill]) -> list[float]:
    """Seconds from each start to the first message of that run."""
    first: dict[str, float] = {}
    for at, topic, payload in witness.arrivals():
        if topic.endswith("/data"):
            first.setdefault(json.loads(payload)["run"], at)
    return sorted(first[name] - kill.started for name, kill in killed.items())


def _duplicates(witness: Witness, killed: dict[str, Kill]) -> Counter[int]:
    """After which of the kills, in their order from 1 on, how many arrived a second time."""
    kills = sorted(kill.at for kill in killed.values())
    seen: set[tuple[str, int]] = set()
    found: Counter[int] = Counter()
    for at, topic, payload in witness.arrivals():
        if topic.endswith("/data"):
            message = json.loads(payload)
            key = (message["run"], message["seq"])
            found[bisect(kills, at)] += key in seen
            seen.add(key)
    return found


def _few(killed: dict[str, Kill], twice: Counter[int], *, unlimited: bool) -> Claim:
    """Without a limit as many again may have been acknowledged, and their deletion not be committed."""
    counts = [twice[number] for number, kill in enumerate(killed.values(), 1) if kill.unlimited is unlimited]
    return Claim(
        "few duplicates",
        f"window of {WINDOW}, between one kill and the next, backlog " + ("unlimited" if unlimited else "at 100/s"),
        f"{sum(counts) / len(counts):.0f} on average, at most {max(counts)}",
        max(counts) <= (2 * WINDOW if unlimited else WINDOW),
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
