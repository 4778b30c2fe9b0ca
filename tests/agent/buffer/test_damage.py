"""Damaged files: the outbox starts, never gives out a wrong byte, and tells what is missing.

`SHOPFLOOR_DAMAGES=500` for a long run.
"""

import os
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from agent.buffer.gaps import Gap
from agent.buffer.outbox import Outbox
from agent.buffer.store import Store
from collectors.api import Batch

DAMAGES = int(os.environ.get("SHOPFLOOR_DAMAGES", "24"))
MESSAGES = 400


def make(directory: Path) -> Outbox:
    return Outbox(
        directory,
        site="s",
        gateway="g",
        max_size=50_000_000,
        commit_interval=1.0,
        max_payload=60_000,
        replay="live-first",
        retry_s=0.05,
    )


async def fill(directory: Path) -> tuple[str, dict[int, bytes]]:
    outbox = make(directory)
    await outbox.open()
    rng = random.Random(1)
    for at in range(MESSAGES):
        size = 4000 if at % 50 == 0 else 100
        await outbox.append(Batch("press", "1s", 0.0, {"text": rng.randbytes(size).hex()}), ts=at, rev="r")
    assert await outbox.commit_now()
    outbox.begin_session(0.0)
    bodies: dict[int, bytes] = {}
    while taken := await outbox.take_backlog(100):
        bodies |= {message.seq: message.body for message in taken}
    assert len(bodies) == MESSAGES
    outbox.end_session()
    await outbox.close(clean=True)
    return outbox.run, bodies


def damage(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "truncate", "zero", "header", "empty", "garbage"])
    if kind == "flip":
        for _ in range(rng.randint(1, 64)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[rng.randrange(len(content)) :]
    elif kind == "zero":
        page = rng.randrange(len(content) // 4096)
        content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    elif kind == "header":
        content[rng.randrange(100)] ^= 0xFF
    elif kind == "empty":
        content.clear()
    else:
        content[:] = rng.randbytes(len(content))
    path.write_bytes(content)


async def drain(outbox: Outbox) -> list[tuple[str, int, bytes]]:
    got = []
    outbox.begin_session(0.0)
    for _ in range(200):
        taken = await outbox.take_backlog(100) or outbox.take_live(100)
        got += [(message.run, message.seq, message.body) for message in taken]
        outbox.ack(taken)
        if outbox.state == "degraded" or not taken:
            await outbox.tick()
        counters = outbox.counters()
        dropped = sum(counters["dropped"].values())
        assert counters["produced"] == counters["delivered"] + counters["buffered"] + counters["in_flight"] + dropped
        if not counters["buffered"] and outbox.state != "degraded":
            break
    return got


async def test_a_damaged_file_is_set_aside_or_read_around(tmp_path: Path) -> None:
    run, bodies = await fill(tmp_path / "good")
    for seed in range(DAMAGES):
        rng = random.Random(seed)
        directory = tmp_path / str(seed)
        shutil.copytree(tmp_path / "good", directory)
        damage(directory / "outbox.db", rng)
        outbox = make(directory)
        await outbox.open()
        await outbox.append(Batch("press", "1s", 0.0, {"fresh": 1}), ts=1, rev="r")
        got = await drain(outbox)
        assert outbox.state == "ok", (seed, outbox.text)
        assert (outbox.run, 1) in {(run, seq) for run, seq, _ in got}, seed
        arrived = {seq for of, seq, body in got if of == run}
        assert all(body == bodies[seq] for of, seq, body in got if of == run), seed
        gaps = outbox.gaps()
        everything = any(gap["from"] is None and gap["run"] in (run, None) for gap in gaps)
        for seq in bodies.keys() - arrived:
            assert everything or any(
                gap["run"] == run and gap["from"] is not None and gap["from"] <= seq <= gap["to"] for gap in gaps
            ), (seed, seq, gaps)
        await outbox.close(clean=True)
        shutil.rmtree(directory)


UNKNOWN = {"run": None, "from": None, "to": None, "reason": "store-damaged"}


@pytest.mark.parametrize("gone", [False, True])
async def test_a_file_that_is_empty_or_gone_is_a_loss_and_not_a_first_start(tmp_path: Path, gone: bool) -> None:
    await fill(tmp_path)
    (tmp_path / "outbox.db").write_bytes(b"")
    if gone:
        (tmp_path / "outbox.db").unlink()
    outbox = make(tmp_path)
    await outbox.open()
    assert (outbox.state, outbox.gaps()) == ("ok", [UNKNOWN])
    await outbox.close(clean=True)
    assert not list(tmp_path.glob("*.damaged*")), "nothing was in it"


@pytest.mark.parametrize("at", [0, 4, 8, 16, 24])
async def test_a_log_whose_header_is_damaged_is_a_loss_and_not_a_first_start(tmp_path: Path, at: int) -> None:
    # SQLite takes such a log for an empty one, without a word: who wrote it must stand in the database by then.
    outbox = make(tmp_path / "run")
    await outbox.open()
    await outbox.append(Batch("press", "1s", 0.0, {"t": 1}), ts=1, rev="r")
    assert await outbox.commit_now()
    shutil.copytree(tmp_path / "run", tmp_path / "killed", ignore=shutil.ignore_patterns("*.lock"))
    await outbox.close(clean=True)
    log = tmp_path / "killed/outbox.db-wal"
    content = bytearray(log.read_bytes())
    content[at] ^= 0xFF
    log.write_bytes(content)
    later = make(tmp_path / "killed")
    await later.open()
    assert later.gaps() == [{"run": outbox.run, "from": None, "to": None, "reason": "crash"}]
    await later.close(clean=True)


async def test_a_first_start_that_did_not_come_to_its_end_is_no_loss(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"")  # made, and the power went
    (tmp_path / "outbox.lock").write_bytes(b"17")
    outbox = make(tmp_path)
    await outbox.open()
    assert (outbox.state, outbox.gaps()) == ("ok", [])
    await outbox.close(clean=True)


def test_a_crash_right_after_a_file_was_set_aside_hides_nothing(tmp_path: Path) -> None:
    """The loss is in the new file as soon as it is one: nobody has committed anything since."""

    def store(run: str) -> Store:
        return Store(tmp_path, run=run, started_at=0, max_size=50_000_000, max_payload=60_000)

    (tmp_path / "outbox.db").write_bytes(b"not a database " * 1000)
    with closing(store("1" * 16)) as first:
        assert first.open().damaged
    with closing(store("2" * 16)) as second:
        assert Gap(None, None, None, "store-damaged") in second.open().gaps
    (tmp_path / "outbox.db").unlink()  # damaged once more, moved aside, and the power went
    with closing(store("3" * 16)) as third:
        assert third.open().gaps == (Gap(None, None, None, "store-damaged"),)


async def test_the_damaged_file_is_kept_once(tmp_path: Path) -> None:
    for _ in range(2):
        directory = tmp_path / "data"
        directory.mkdir(exist_ok=True)
        (directory / "outbox.db").write_bytes(b"not a database " * 1000)
        outbox = make(directory)
        await outbox.open()
        assert outbox.state == "ok"
        assert UNKNOWN in outbox.gaps()
        await outbox.close(clean=True)
    assert [path.name for path in sorted(directory.glob("*.damaged*"))] == ["outbox.db.damaged"]


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "outbox.db") as connection:
        connection.execute(f"PRAGMA user_version={2 << 16 | 2}")
    connection.close()
    before = (tmp_path / "outbox.db").read_bytes()
    outbox = make(tmp_path)
    await outbox.open()
    assert (outbox.state, outbox.reason) == ("degraded", "newer")
    assert "newer version" in outbox.text
    await outbox.append(Batch("press", "1s", 0.0, {"a": 1}), ts=1, rev="r")
    outbox.begin_session()
    (message,) = outbox.take_live(10)
    outbox.ack([message])
    await outbox.close(clean=True)
    assert (tmp_path / "outbox.db").read_bytes() == before


async def test_a_file_that_is_damaged_while_it_is_used(tmp_path: Path) -> None:
    """What memory has goes into the new file; what only the old one had is counted and told."""
    outbox = make(tmp_path)
    await outbox.open()
    for at in range(300):
        await outbox.append(Batch("press", "1s", 0.0, {"text": "x" * 200}), ts=at, rev="r")
    await outbox.commit_now()
    outbox.begin_session(0.0)
    lent = await outbox.take_backlog(50)
    with (tmp_path / "outbox.db-wal").open("r+b") as file:
        file.write(bytes(2_000_000))
    with (tmp_path / "outbox.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 2_000_000)
    outbox.end_session()
    outbox.begin_session(0.0)
    got = await drain(outbox)
    assert outbox.state == "ok"
    counters = outbox.counters()
    assert counters["produced"] == 300 == counters["delivered"] + sum(counters["dropped"].values())
    assert len(got) + counters["dropped"]["store-failing"] == 300
    if counters["dropped"]["store-failing"]:
        assert any(gap["reason"] == "store-damaged" and gap["run"] == outbox.run for gap in outbox.gaps())
    assert lent
    await outbox.close(clean=True)


@pytest.mark.parametrize("name", ["outbox.db", "outbox.db-wal", "outbox.lock", "outbox.reserve"])
async def test_a_directory_where_a_file_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    outbox = make(tmp_path)
    await outbox.open()
    await outbox.append(Batch("press", "1s", 0.0, {"a": 1}), ts=1, rev="r")
    outbox.begin_session()
    outbox.ack(outbox.take_live(10))
    assert outbox.counters()["delivered"] == 1
    await outbox.close(clean=True)
