"""Random work on an outbox beside a model that is only lists; what they disagree about is a bug.

The model knows each message by (run, seq) and what the publisher's side saw of it. After each step the counters must
hold; at the end everything accepted must have been delivered, or be told as a gap.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from agent.buffer.outbox import Outbox
from agent.message import Message, decode
from collectors.api import Batch
from tests.faulty.medium import Medium

Key = tuple[str, int]


class Clock:
    """Monotonic seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Seen:
    """What the model knows."""

    produced: set[Key] = field(default_factory=set)
    committed: set[Key] = field(default_factory=set)
    delivered: set[Key] = field(default_factory=set)
    refused: dict[Key, int] = field(default_factory=dict)
    lost: set[Key] = field(default_factory=set)  # by a crash: told without numbers
    bodies: dict[Key, bytes] = field(default_factory=dict)
    crashed: set[str] = field(default_factory=set)
    damaged: bool = False


class Driver:
    """One outbox after another over the same data, and the model beside them."""

    def __init__(self, seed: int, directory: Path, *, max_size: int = 10**9) -> None:
        self.rng = random.Random(seed)
        self.root = directory
        self.clock = Clock()
        self.medium = Medium()
        self.max_size = max_size
        self.replay: Literal["live-first", "in-order"] = self.rng.choice(["live-first", "in-order"])
        self.interval = self.rng.choice([0.0, 1.0, 1.0])
        self.seen = Seen()
        self.flight: list[Message] = []
        self.session = False
        self.sent_live: list[Key] = []
        self.sent_late: list[Key] = []
        self.run_age: dict[str, int] = {}
        self.starts = 0
        self.told: list[dict[str, Any]] = []
        self.delivered_before = 0
        self.outbox = self.make(directory / "0")

    def make(self, directory: Path) -> Outbox:
        return Outbox(
            directory,
            site="s",
            gateway="g",
            max_size=self.max_size,
            commit_interval=self.interval,
            max_payload=6000,
            replay=self.replay,
            clock=self.clock,
            connect=self.medium.connect,
        )

    async def start(self) -> None:
        await self.outbox.open()
        self.run_age[self.outbox.run] = self.starts
        self.starts += 1
        self.flight = []
        self.session = False
        self.delivered_now = 0

    # -- steps -----------------------------------------------------------------------------------------------

    async def append(self) -> None:
        count = self.rng.choice([1, 1, 1, 3, 60])
        size = self.rng.choice([5, 200, 1500])
        values = {f"tag{at}": self.rng.randbytes(size // 2).hex() for at in range(min(count, 9000 // size + 1))}
        before = self.outbox.counters()["produced"] - self.outbox.counters()["carried_over"]
        batch = Batch("press", "1s", self.clock.now, dict(values))
        await self.outbox.append(batch, ts=1_700_000_000_000, rev="r")
        after = self.outbox.counters()["produced"] - self.outbox.counters()["carried_over"]
        keys = {(self.outbox.run, seq) for seq in range(before + 1, after + 1)}
        assert keys
        self.seen.produced |= keys
        if self.interval == 0 and self.outbox.state != "degraded":
            self.seen.committed |= keys

    async def commit(self) -> None:
        before = {key for key in self.seen.produced if key[0] == self.outbox.run}
        if await self.outbox.commit_now():
            self.seen.committed |= before

    async def tick(self) -> None:
        self.clock.now += self.rng.choice([0.1, 1.0, 3.0])
        await self.outbox.tick()

    async def begin(self) -> None:
        if not self.session:
            self.session = True
            self.sent_live, self.sent_late = [], []
            self.outbox.begin_session()

    async def lose(self) -> None:
        if self.session:
            self.session = False
            self.outbox.end_session()
            self.flight = []

    async def take_live(self) -> None:
        if self.session:
            backlog = self.outbox.backlog
            taken = self.outbox.take_live(self.rng.choice([1, 5, 50]))
            assert not (taken and backlog and self.replay == "in-order")
            for message in taken:
                assert not message.replayed
                assert (message.run, message.seq) not in self.seen.bodies, "a first sending is the first"
                self.look(message)
                self.sent_live.append((message.run, message.seq))
            assert self.in_order(self.sent_live)

    async def take_backlog(self) -> None:
        if self.session:
            for message in await self.outbox.take_backlog(self.rng.choice([1, 5, 50])):
                assert message.replayed
                self.look(message)
                if not message.tries:
                    self.sent_late.append((message.run, message.seq))
            assert self.in_order(self.sent_late)

    def in_order(self, keys: list[Key]) -> bool:
        ages = [(self.run_age[run], seq) for run, seq in keys]
        return all(earlier < later for earlier, later in pairwise(ages))

    def look(self, message: Message) -> None:
        key = (message.run, message.seq)
        assert key in self.seen.produced
        body = decode(message.body)
        assert (body["run"], body["seq"]) == key
        assert self.seen.bodies.setdefault(key, message.body) == message.body, "sent again byte by byte"
        assert key not in {(other.run, other.seq) for other in self.flight}, "lent once at a time"
        self.flight.append(message)

    async def ack(self) -> None:
        count = self.rng.randint(0, len(self.flight))
        if self.rng.random() < 0.2:
            self.rng.shuffle(self.flight)
        done, self.flight = self.flight[:count], self.flight[count:]
        self.outbox.ack(done)
        self.outbox.ack(done[:1])  # said twice is not counted twice
        self.delivered_now += len(done)
        self.seen.delivered |= {(message.run, message.seq) for message in done}

    async def refuse(self) -> None:
        if self.flight:
            message = self.flight.pop(self.rng.randrange(len(self.flight)))
            tries = message.tries
            dropped = self.outbox.refuse(message, "refused")
            assert dropped == (tries == 2)

    async def reopen(self) -> None:
        """Stop and start."""
        clean = self.rng.random() < 0.7
        self.medium.heal()
        self.note_gaps()
        await self.outbox.close(clean)
        directory = self.outbox_directory()
        run, produced = self.outbox.run, {key for key in self.seen.produced if key[0] == self.outbox.run}
        self.seen.committed |= produced
        self.outbox = self.make(directory)
        await self.start()
        assert self.outbox.previous is not None
        assert (self.outbox.previous.run, self.outbox.previous.ended) == (run, "stopped" if clean else "lost")

    async def kill(self) -> None:
        """What another process finds after this one was killed is what it had written."""
        self.note_gaps()
        self.medium.heal()
        source = self.outbox_directory()
        target = self.root / str(self.starts)
        target.mkdir()
        for file in source.glob("outbox.*"):
            if not file.name.endswith(".lock"):
                shutil.copy(file, target / file.name)
        was_open = (source / "outbox.db").exists()
        run = self.outbox.run
        await self.outbox.close(clean=False)
        shutil.rmtree(source)
        self.seen.lost |= {
            key
            for key in self.seen.produced
            if key[0] == run and key not in self.seen.committed and key not in self.seen.delivered
        }
        self.outbox = self.make(target)
        await self.start()
        if was_open:
            assert {"run": run, "from": None, "to": None, "reason": "crash"} in self.outbox.gaps()
            assert self.outbox.previous is not None
            assert self.outbox.previous.ended == "lost"

    async def trouble(self) -> None:
        code = self.rng.choice(
            [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY]
        )
        self.medium.fail(self.rng.choice(["before", "after", "begin"]), code)

    async def heal(self) -> None:
        self.medium.heal()
        for _ in range(2):  # a page that was being read may still report the trouble
            self.clock.now += 11.0
            await self.outbox.tick()
        assert self.outbox.state != "degraded"

    def outbox_directory(self) -> Path:
        return self.outbox._directory

    # -- checks ----------------------------------------------------------------------------------------------

    def note_gaps(self) -> None:
        gaps = self.outbox.gaps()
        self.told += gaps
        if self.rng.random() < 0.5:
            self.outbox.gaps_told(gaps)

    def gone(self, key: Key) -> bool:
        return any(
            gap["run"] == key[0] and gap["from"] is not None and gap["from"] <= key[1] <= gap["to"] for gap in self.told
        )

    def check(self) -> None:
        counters = self.outbox.counters()
        dropped = sum(counters["dropped"].values())
        assert counters["produced"] == counters["delivered"] + counters["buffered"] + counters["in_flight"] + dropped
        assert counters["in_flight"] == len(self.flight)
        assert counters["delivered"] == self.delivered_now
        assert counters["buffered"] >= self.outbox.backlog >= 0
        self.told += [gap for gap in self.outbox.gaps() if gap not in self.told]
        for run, complete in self.outbox.complete_to().items():
            for key in [key for key in self.seen.produced if key[0] == run and key[1] <= complete]:
                assert key in self.seen.delivered or key in self.seen.lost or self.gone(key), (key, complete)

    async def run(self, steps: int) -> None:
        await self.start()
        actions = [
            (self.append, 30),
            (self.commit, 6),
            (self.tick, 12),
            (self.begin, 6),
            (self.lose, 3),
            (self.take_live, 15),
            (self.take_backlog, 15),
            (self.ack, 15),
            (self.refuse, 3),
            (self.reopen, 1),
            (self.kill, 1),
            (self.trouble, 2),
            (self.heal, 4),
        ]
        for _ in range(steps):
            (action,) = self.rng.choices([act for act, _ in actions], [weight for _, weight in actions])
            await action()
            self.check()
        await self.drain()

    async def drain(self) -> None:
        """Deliver everything; then nothing accepted may be missing untold."""
        await self.heal()
        await self.begin()
        for _ in range(10_000):
            await self.take_live()
            await self.take_backlog()
            self.outbox.ack(self.flight)
            self.delivered_now += len(self.flight)
            self.seen.delivered |= {(message.run, message.seq) for message in self.flight}
            self.flight = []
            self.clock.now += 1.0
            await self.outbox.tick()
            self.check()
            if not self.outbox.counters()["buffered"]:
                break
        counters = self.outbox.counters()
        assert counters["buffered"] == counters["in_flight"] == self.outbox.backlog == 0
        missing = self.seen.produced - self.seen.delivered - self.seen.lost
        assert not {key for key in missing if not self.gone(key)}
        last = max((seq for run, seq in self.seen.produced if run == self.outbox.run), default=0)
        assert self.outbox.complete_to()[self.outbox.run] == last
        await self.outbox.commit_now()
        await self.outbox.close(clean=True)
