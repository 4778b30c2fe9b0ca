"""Databases damaged while the agent was off: it starts, publishes, sets aside what cannot be used, and tells of it.

Each file is what a killed run left, with 400 messages in it, some of them in the write-ahead log. Bits, pages, the
header or the end of database or log are lost, or all of it. Each gateway has a name of its own, so each has a ledger of
its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from collectors.api import Batch
from tests.daemon import SITE, Daemon, modbus, open_outbox, site
from tests.ledger import Ledger, numbered
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness

MESSAGES = 400
PAGE = 4096
START_S = 10.0
AT_A_TIME = 2
LOOKS = 5
"""Starts until all that was damaged has been told: a row that cannot be read is found while it is being replayed."""


def _flip(content: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 64)):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def _cut(content: bytearray, dice: random.Random) -> None:
    del content[dice.randrange(len(content)) :]


def _zero(content: bytearray, dice: random.Random) -> None:
    page = dice.randrange(len(content) // PAGE) * PAGE
    content[page : page + PAGE] = bytes(PAGE)


def _header(content: bytearray, dice: random.Random) -> None:
    content[dice.randrange(100)] ^= dice.randint(1, 255)


def _garbage(content: bytearray, dice: random.Random) -> None:
    content[:] = dice.randbytes(len(content))


def _empty(content: bytearray, _: random.Random) -> None:
    content.clear()


DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "bits flipped": _flip,
    "cut off": _cut,
    "a page zero": _zero,
    "header": _header,
    "garbage": _garbage,
    "0 bytes": _empty,
}


@dataclass
class Course:
    """What became of one damaged file.

    Attributes:
        started_s: exec to the first message of the new run at the subscriber.
        aside: whether the file was set aside, or told to be gone.
    """

    gateway: str
    run: str
    kind: str
    started_s: float
    aside: bool
    ended: dict[str, int]


def run(options: Options) -> list[Claim]:
    """Run it."""
    began = time.monotonic()
    numbers = range(options.times(500, 6))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        shares = [numbers[at::AT_A_TIME] for at in range(AT_A_TIME)]
        found = [share for share in pool.map(partial(_share, options), shares) if share is not None]
    courses = [course for share, _, _ in found for course in share]
    ledgers = {gateway: ledger for _, share, _ in found for gateway, ledger in share.items()}
    wrong = [payload for _, _, share in found for payload in share]
    starts = sum(len(course.ended) for course in courses)
    print(f"{len(courses)} files, {starts} starts in {time.monotonic() - began:.0f} s", flush=True)
    return _claims(courses, ledgers, wrong)


def _share(options: Options, numbers: range) -> tuple[list[Course], dict[str, Ledger], list[str]] | None:
    """These files one after the other, with a broker and a PLC of their own."""
    if not numbers:
        return None
    courses: list[Course] = []
    ledgers: dict[str, Ledger] = {}
    wrong: list[str] = []
    place = options.disk / f"witness-{numbers[0]}"
    place.mkdir()
    with Witness(place) as witness, ModbusServer() as plc:
        for number in numbers:
            gateway = f"gw-{number}"
            ledgers[gateway] = Ledger(SITE, gateway, crash_s=inf)  # of a damaged log more is lost than of a crash
            directory = options.disk / gateway
            run = asyncio.run(_leave(directory, gateway))
            kind = _damage(directory / "data", random.Random(f"{options.seed} {number}"), number)
            config = site(witness.broker.url, [modbus("press", plc.url)], buffer={"replay_rate": 0})
            courses.append(
                _start(witness, ledgers, wrong, directory, options.memory / gateway, config, gateway, run, kind)
            )
            shutil.rmtree(directory)
            shutil.rmtree(options.memory / gateway)
    return courses, ledgers, wrong


async def _leave(directory: Path, gateway: str) -> str:
    """What a run leaves that is killed in an outage; its name."""
    outbox = await open_outbox(directory / "work", gateway=gateway)
    now = int(time.time() * 1000)
    for seq in range(1, MESSAGES + 1):
        batch = Batch("press", "100ms", 0.0, {"t0": seq, "text": str(seq) * (1000 if seq % 50 == 0 else 20)})
        await outbox.append(batch, ts=now + seq, rev="0badcafe")
        if seq % 40 == 0:
            await outbox.commit_now()
    shutil.copytree(directory / "work", directory / "data", ignore=shutil.ignore_patterns("*.lock"))
    await outbox.close(clean=True)
    return outbox.run


def _damage(data: Path, dice: random.Random, number: int) -> str:
    kind = list(DAMAGES)[number % len(DAMAGES)]
    which = dice.choice(("outbox.db", "outbox.db", "outbox.db-wal"))
    path = data / which
    content = bytearray(path.read_bytes())
    DAMAGES[kind](content, dice)
    path.write_bytes(content)
    return f"{kind} ({'log' if which.endswith('wal') else 'database'})"


def _start(
    witness: Witness,
    ledgers: dict[str, Ledger],
    wrong: list[str],
    directory: Path,
    memory: Path,
    config: dict[str, Any],
    gateway: str,
    run: str,
    kind: str,
) -> Course:
    memory.mkdir()
    course = Course(gateway, run, kind, 0.0, False, {})
    for look in range(LOOKS):
        began = time.time()
        with Daemon(directory, {**config, "gateway": gateway}, volatile=memory) as daemon:
            name = daemon.wait_for("agent_started")["run"]
            witness.wait_for(f'"run":"{name}"', f"{gateway}/press/data", 20)
            if look == 0:
                course.started_s = time.time() - began
            time.sleep(0.3)
            daemon.stop()
            status = daemon.status()
            course.aside |= bool(daemon.events("store_set_aside") or daemon.events("store_gone"))
        course.ended |= numbered(status)
        witness.settle_into(ledgers, lambda topic, payload: _look(topic, payload, run, wrong))
        if not status["counters"]["buffered"] and ledgers[gateway].settle({run: MESSAGES, **course.ended}).ok:
            break
    return course


def _look(topic: str, payload: bytes, run: str, wrong: list[str]) -> None:
    """Whether a message of the damaged file says what was put into it."""
    if topic.endswith("/data") and (message := json.loads(payload))["run"] == run:
        seq = message["seq"]
        if message["values"] != {"t0": seq, "text": str(seq) * (1000 if seq % 50 == 0 else 20)}:
            wrong.append(payload.decode())


def _claims(courses: list[Course], ledgers: dict[str, Ledger], wrong: list[str]) -> list[Claim]:
    accounts = {c.gateway: ledgers[c.gateway].settle({c.run: MESSAGES, **c.ended}) for c in courses}
    for course in courses:
        if not accounts[course.gateway].ok:
            print(f"{course}: {accounts[course.gateway]}", flush=True)
    saved = sum(len(ledgers[c.gateway].runs[c.run].seen) for c in courses if c.run in ledgers[c.gateway].runs)
    starts = sorted(course.started_s for course in courses)
    kinds = Counter(course.kind for course in courses)
    told = sum(account.told for account in accounts.values())
    missing = sum(account.missing for account in accounts.values())
    aside = sum(course.aside for course in courses)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())), flush=True)
    return [
        Claim(
            "a damaged file never stops collection",
            "exec to the first reading at a subscriber",
            f"median {starts[len(starts) // 2]:.1f} s, at most {starts[-1]:.1f} s",
            starts[-1] <= START_S,
            timing=True,
        ),
        Claim(
            "what is lost with it is told, the rest arrives",
            f"{len(courses)} files with {MESSAGES} messages, damaged in six ways, one in three in its log",
            f"{aside} set aside or gone; {saved} messages saved, {told} told as lost, {missing} missing",
            all(account.ok for account in accounts.values()),
        ),
        Claim("never a wrong value", "every message of them against what was put in", f"{len(wrong)} wrong", not wrong),
    ]
