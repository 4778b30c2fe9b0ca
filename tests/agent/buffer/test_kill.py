"""kill -9 of a real process: what had been accepted is there, and the crash is told. Also: who owns the directory.

`SHOPFLOOR_KILLS=500` for a long run.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.buffer.lock import DataDirectoryInUse
from agent.buffer.outbox import Outbox

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "3"))
ROOT = Path(__file__).parents[3]


def make(directory: Path) -> Outbox:
    return Outbox(
        directory,
        site="s",
        gateway="g",
        max_size=50_000_000,
        commit_interval=1.0,
        max_payload=60_000,
        replay="live-first",
    )


class Appender:
    """The process, and what it said it had accepted."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.agent.buffer.appender", str(directory)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline().split()

    def kill(self) -> tuple[str, int]:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.stdout is not None
        last = self.first
        for line in self.process.stdout:
            if line.endswith("\n"):
                last = line.split()
        self.process.wait()
        self.process.stdout.close()
        return last[0], int(last[1])


@pytest.fixture
def appender(tmp_path: Path) -> Iterator[Appender]:
    appender = Appender(tmp_path)
    yield appender
    appender.process.kill()
    appender.process.wait()
    assert appender.process.stdout is not None
    appender.process.stdout.close()


async def test_what_was_accepted_before_the_kill_is_there(tmp_path: Path) -> None:
    rng = random.Random(5)
    accepted: dict[str, int] = {}
    for _ in range(KILLS):
        appender = Appender(tmp_path)
        time.sleep(rng.uniform(0.0, 0.3))  # the moment is the point
        run, seq = appender.kill()
        accepted[run] = seq
    outbox = make(tmp_path)
    await outbox.open()
    assert outbox.previous is not None
    assert (outbox.previous.run, outbox.previous.ended) == (run, "lost")
    for run in accepted:
        assert {"run": run, "from": None, "to": None, "reason": "crash"} in outbox.gaps()
    outbox.begin_session()
    found: dict[str, list[int]] = {}
    while taken := await outbox.take_backlog(500):
        for message in taken:
            found.setdefault(message.run, []).append(message.seq)
        outbox.ack(taken)
    for run, last in accepted.items():
        assert found[run] == list(range(1, len(found[run]) + 1))
        assert last <= len(found[run]) <= last + 1
    await outbox.close(clean=True)


async def test_one_process_owns_a_directory_until_it_dies(tmp_path: Path, appender: Appender) -> None:
    outbox = make(tmp_path)
    with pytest.raises(DataDirectoryInUse, match=str(appender.process.pid)) as refused:
        await outbox.open()
    assert refused.value.pid == appender.process.pid
    await outbox.close(clean=False)
    appender.kill()
    outbox = make(tmp_path)
    await outbox.open()
    assert outbox.state == "ok"
    with pytest.raises(DataDirectoryInUse):
        await make(tmp_path).open()
    await outbox.close(clean=True)
    outbox = make(tmp_path)
    await outbox.open()
    await outbox.close(clean=True)
