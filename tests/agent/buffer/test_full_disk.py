"""A real file system that is full: alive, counted, recovering by itself; and one that turns read-only."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.buffer import room
from agent.buffer.outbox import Outbox
from collectors.api import Batch
from tests.agent.buffer.model import Clock

MEGABYTE = 1024 * 1024


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """An 8 MB tmpfs of its own."""
    path = tmp_path / "volume"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["mount", "-o", "remount,rw", path], check=False, capture_output=True)
    subprocess.run(["umount", path], check=True)


def make(directory: Path, clock: Clock, *, max_size: int = 10**9) -> Outbox:
    return Outbox(
        directory,
        site="s",
        gateway="g",
        max_size=max_size,
        commit_interval=1.0,
        max_payload=10_000,
        replay="live-first",
        clock=clock,
    )


def state_of(outbox: Outbox) -> str:
    """The state, of which the type checker shall not conclude that it never changes."""
    return outbox.state


def fill_volume(volume: Path) -> Path:
    neighbour = volume / "neighbour"
    with neighbour.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    status = os.statvfs(volume)
    assert status.f_bavail == 0
    return neighbour


async def put(outbox: Outbox, count: int) -> None:
    for _ in range(count):
        await outbox.append(Batch("press", "1s", 0.0, {"text": os.urandom(1500).hex()}), ts=1, rev="r")


def check(outbox: Outbox) -> dict[str, int]:
    counters = outbox.counters()
    dropped: dict[str, int] = counters["dropped"]
    assert counters["produced"] == counters["delivered"] + counters["buffered"] + counters["in_flight"] + sum(
        dropped.values()
    )
    return dropped


async def drain(outbox: Outbox) -> list[tuple[str, int]]:
    outbox.begin_session(0.0)
    got: list[tuple[str, int]] = []
    while taken := await outbox.take_backlog(100) or outbox.take_live(100):
        got += [(message.run, message.seq) for message in taken]
        outbox.ack(taken)
    return got


async def from_before(
    directory: Path, clock: Clock, page: int, monkeypatch: pytest.MonkeyPatch, *, max_size: int = 10**9
) -> Outbox:
    """An open outbox, whose file an agent made that had pages of this size."""
    with monkeypatch.context() as earlier:
        earlier.setattr(room, "PAGE", page)
        outbox = make(directory, clock, max_size=max_size)
        await outbox.open()
        await outbox.close(clean=True)
    with closing(sqlite3.connect(directory / "outbox.db")) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (page,)
    outbox = make(directory, clock, max_size=max_size)
    await outbox.open()
    return outbox


PAGES = pytest.mark.parametrize("page", [room.PAGE, 4096])
"""Of the file: as we make it, and as it was made before."""


@PAGES
async def test_a_neighbour_fills_the_volume(volume: Path, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    outbox = await from_before(volume / "data", clock, page, monkeypatch)
    await put(outbox, 300)
    assert await outbox.commit_now()
    neighbour = fill_volume(volume)
    for _ in range(40):  # far more than what room there was
        await put(outbox, 20)
        assert await outbox.commit_now(), outbox.text
        dropped = check(outbox)
    assert state_of(outbox) == "full"
    assert dropped["cap"] > 500
    assert dropped["store-failing"] == 0
    told = [gap for gap in outbox.gaps() if gap["reason"] == "cap"]
    assert sum(gap["to"] - gap["from"] + 1 for gap in told) == dropped["cap"]
    neighbour.unlink()
    await put(outbox, 300)
    assert await outbox.commit_now()
    assert check(outbox) == dropped
    assert state_of(outbox) == "ok"
    got = await drain(outbox)
    assert len(got) == 1400 - dropped["cap"]
    assert got == sorted(got)
    await outbox.close(clean=True)


@PAGES
@pytest.mark.parametrize("clean", [True, False])
async def test_it_opens_on_a_full_volume(volume: Path, clean: bool, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a clean end the log file is gone and must be made again; after a crash it must be read."""
    clock = Clock()
    outbox = await from_before(volume / "data", clock, page, monkeypatch)
    await put(outbox, 100)
    assert await outbox.commit_now()
    if clean:
        await outbox.close(clean=True)
        fill_volume(volume)
    else:
        shutil.copytree(volume / "data", volume / "crashed", ignore=shutil.ignore_patterns("*.lock"))
        await outbox.close(clean=True)
        shutil.rmtree(volume / "data")
        fill_volume(volume)
    again = make(volume / ("data" if clean else "crashed"), clock)
    await again.open()
    assert again.state == "ok", again.text
    assert again.counters()["carried_over"] == 100
    await put(again, 50)
    assert await again.commit_now(), again.text
    dropped = check(again)
    assert dropped["store-failing"] == 0
    got = await drain(again)
    assert len(got) == 150 - dropped["cap"]
    assert await again.commit_now()
    await again.close(clean=True)


async def test_a_volume_without_any_room_is_degraded_until_there_is_some(volume: Path) -> None:
    neighbour = fill_volume(volume)
    clock = Clock()
    outbox = make(volume / "data", clock)
    await outbox.open()
    assert state_of(outbox) == "degraded"
    await put(outbox, 20)
    outbox.begin_session()
    outbox.ack(outbox.take_live(5))
    outbox.end_session()
    neighbour.unlink()
    clock.now += 11.0
    await outbox.tick()
    assert state_of(outbox) == "ok"
    assert await outbox.commit_now()
    assert len(await drain(outbox)) == 15
    assert sum(check(outbox).values()) == 0
    await outbox.close(clean=True)


async def test_a_volume_turns_read_only_and_back(volume: Path) -> None:
    clock = Clock()
    outbox = make(volume / "data", clock)
    await outbox.open()
    await put(outbox, 50)
    assert await outbox.commit_now()
    await outbox.close(clean=True)
    subprocess.run(["mount", "-o", "remount,ro", volume], check=True)
    outbox = make(volume / "data", clock)
    await outbox.open()
    assert state_of(outbox) == "degraded"
    await put(outbox, 10)
    check(outbox)
    subprocess.run(["mount", "-o", "remount,rw", volume], check=True)
    clock.now += 11.0
    await outbox.tick()
    assert state_of(outbox) == "ok"
    assert outbox.counters()["carried_over"] == 50
    assert len(await drain(outbox)) == 60
    check(outbox)
    await outbox.close(clean=True)


@PAGES
async def test_the_cap_is_hard_and_what_goes_is_told(
    tmp_path: Path, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = await from_before(tmp_path, Clock(), page, monkeypatch, max_size=6_000_000)
    for _ in range(60):
        await put(outbox, 50)
        assert await outbox.commit_now()
        assert sum(file.stat().st_size for file in tmp_path.glob("outbox.*")) <= 6_000_000
    dropped = check(outbox)
    assert dropped["cap"] > 1000
    assert state_of(outbox) == "full"
    assert outbox.gaps() == [{"run": outbox.run, "from": 1, "to": dropped["cap"], "reason": "cap"}]
    got = await drain(outbox)
    assert got == [(outbox.run, seq) for seq in range(dropped["cap"] + 1, 3001)]
    assert await outbox.commit_now()
    assert state_of(outbox) == "ok"
    await outbox.close(clean=True)
