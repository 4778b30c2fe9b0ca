"""Retained topics: what is due, what is remembered, what is cleared."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
import structlog

from agent.retained import Retained


@asynccontextmanager
async def saving(retained: Retained) -> AsyncIterator[None]:
    task = asyncio.create_task(retained.save_loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def remembered(path: Path, *topics: str) -> None:
    wanted = orjson.dumps({"v": 1, "topics": sorted(topics)})
    async with asyncio.timeout(5):
        while not path.exists() or path.read_bytes() != wanted:  # noqa: ASYNC110 - a file brings no event
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


def due(retained: Retained, now: float) -> list[tuple[str, bytes]]:
    found = []
    while (item := retained.next(now)) is not None:
        found.append(item)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "retained.json"


class TestWhatIsDue:
    async def test_the_latest_of_each_topic_and_not_more_often_than_allowed(self, path: Path) -> None:
        retained = Retained(path)
        retained.set("a", b"1")
        retained.set("b", b"1")
        async with saving(retained):
            await remembered(path, "a", "b")
        assert due(retained, 100.0) == [("a", b"1"), ("b", b"1")]
        assert retained.wait_s(100.0) is None
        retained.set("a", b"1")  # nothing new
        assert retained.wait_s(100.0) is None
        retained.set("a", b"2")
        retained.set("a", b"3")
        assert due(retained, 100.5) == []
        assert retained.wait_s(100.5) == pytest.approx(0.5)
        assert due(retained, 101.0) == [("a", b"3")]

    async def test_everything_in_each_session_with_one_first(self, path: Path) -> None:
        retained = Retained(path)
        for topic in "abc":
            retained.set(topic, topic.encode())
        async with saving(retained):
            await remembered(path, "a", "b", "c")
        due(retained, 100.0)
        retained.begin_session("c")
        assert due(retained, 100.1) == [("c", b"c"), ("a", b"a"), ("b", b"b")]
        retained.begin_session("not wanted")
        assert len(due(retained, 100.2)) == 3

    async def test_a_document_made_when_it_is_sent(self, path: Path) -> None:
        retained = Retained(path)
        times = iter([b"1", b"2"])
        retained.set("a", lambda: next(times))
        async with saving(retained):
            await remembered(path, "a")
        assert due(retained, 100.0) == [("a", b"1")]
        retained.touch("a")
        assert due(retained, 102.0) == [("a", b"2")]

    async def test_whoever_sends_is_woken(self, path: Path) -> None:
        retained = Retained(path)
        woken: list[int] = []
        retained.on_due(lambda: woken.append(1))
        retained.set("a", b"1")
        assert woken
        count = len(woken)
        async with saving(retained):
            await remembered(path, "a")
        assert len(woken) > count  # it may be sent from now on, not before

    async def test_nothing_is_published_before_it_is_remembered(self, path: Path) -> None:
        retained = Retained(path)
        retained.set("a", b"1")
        assert due(retained, 100.0) == []
        async with saving(retained):
            await remembered(path, "a")
        assert due(retained, 100.0) == [("a", b"1")]


class TestClearing:
    async def test_what_is_gone_is_cleared_once_the_broker_has_it(self, path: Path) -> None:
        retained = Retained(path)
        retained.set("a", b"1")
        async with saving(retained):
            await remembered(path, "a")
            assert due(retained, 100.0) == [("a", b"1")]
            retained.clear("a")
            assert due(retained, 102.0) == [("a", b"")]
            retained.begin_session(None)  # not acknowledged: again
            assert due(retained, 104.0) == [("a", b"")]
            retained.answered("a", b"", accepted=True)
            await remembered(path)
        retained.begin_session(None)
        assert due(retained, 106.0) == []

    async def test_what_earlier_runs_left(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text('{"v":1,"topics":["old","kept"]}')
        retained = Retained(path)
        retained.set("new", b"1")
        retained.keep_only(["kept", "new"])
        async with saving(retained):
            await remembered(path, "kept", "new", "old")
            retained.begin_session("new")
            assert due(retained, 100.0) == [("new", b"1"), ("old", b"")]
            retained.answered("old", b"", accepted=True)
            retained.answered("new", b"1", accepted=True)
            await remembered(path, "kept", "new")

    async def test_a_refused_removal_waits_for_the_next_session(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text('{"v":1,"topics":["old"]}')
        retained = Retained(path)
        retained.keep_only([])
        assert due(retained, 100.0) == [("old", b"")]
        with structlog.testing.capture_logs() as logs:
            retained.answered("old", b"", accepted=False)
        assert [entry["event"] for entry in logs] == ["retained_not_cleared"]
        assert due(retained, 110.0) == []
        retained.begin_session(None)
        assert due(retained, 110.0) == [("old", b"")]

    async def test_what_comes_back_before_it_is_cleared_stays(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text('{"v":1,"topics":["a"]}')
        retained = Retained(path)
        retained.keep_only([])
        retained.set("a", b"again")
        assert due(retained, 100.0) == [("a", b"again")]
        retained.clear("a")
        assert due(retained, 102.0) == [("a", b"")]
        retained.set("a", b"and again")
        retained.answered("a", b"", accepted=True)  # of the removal: the topic is wanted again by now
        assert due(retained, 104.0) == [("a", b"and again")]


class TestTheFile:
    @pytest.mark.parametrize(
        "content", [b"", b"{", b"\xff\x00", b"[]", b"{}", b'{"topics":5}', b'{"topics":null}', b"null", b'"x"']
    )
    async def test_a_damaged_file_is_forgotten_and_replaced(self, path: Path, content: bytes) -> None:
        path.parent.mkdir()
        path.write_bytes(content)
        with structlog.testing.capture_logs() as logs:
            retained = Retained(path)
        assert [entry["event"] for entry in logs] == ["retained_forgotten"]
        retained.set("a", b"1")
        async with saving(retained):
            await remembered(path, "a")
        assert due(retained, 100.0) == [("a", b"1")]

    async def test_strange_entries_are_left_out(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text('{"v":1,"topics":["a", 5, null, "", "b"]}')
        retained = Retained(path)
        retained.keep_only([])
        assert {topic for topic, _ in due(retained, 100.0)} == {"a", "b"}

    async def test_a_directory_that_cannot_be_written_costs_the_memory_only(self, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("not a directory")
        with structlog.testing.capture_logs() as logs:
            retained = Retained(blocked / "retained.json")
            retained.set("a", b"1")
            woken = asyncio.Event()
            retained.on_due(woken.set)
            async with saving(retained), asyncio.timeout(5):
                await woken.wait()
            items = due(retained, 100.0)
        assert items == [("a", b"1")]
        assert [entry["event"] for entry in logs if entry["event"] == "retained_not_saved"] == ["retained_not_saved"]

    async def test_the_file_is_replaced_whole(self, path: Path) -> None:
        retained = Retained(path)
        retained.set("a", b"1")
        async with saving(retained):
            await remembered(path, "a")
            inode = path.stat().st_ino
            retained.set("b", b"1")
            await remembered(path, "a", "b")
        assert path.stat().st_ino != inode
        assert [entry.name for entry in os.scandir(path.parent)] == [path.name]
