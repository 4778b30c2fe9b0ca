"""Against a real server in a child process."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from structlog.testing import capture_logs

from collectors.api import Context, Unavailable
from tests.collectors.opcua.reading import EMPTY, Reading
from tests.servers.opcua import DECOY, OpcuaServer

N = OpcuaServer.node
UNKNOWN = "bad:status-0x80340000"


async def test_every_scalar_type_becomes_json(server: OpcuaServer) -> None:
    """Numbers, booleans and texts as they are; arrays and bytes are null and say so once."""
    names = [name for name in server.nodes if name not in ("speed", "count", "removed", "other")]
    context = Context()
    with capture_logs() as logs:
        async with Reading(server.url, {name: N(name) for name in names}, context) as reading:
            await reading.all()
            infos = {tag.name: tag for tag in reading.collector.tags()}
            assert reading.collector.tags_version > 0
    assert reading.values == {
        "temperature": 23.4,
        "boolean": True,
        "sbyte": -8,
        "byte": 200,
        "int16": -30000,
        "uint16": 60000,
        "uint32": 4_000_000_000,
        "int64": -(2**60),
        "uint64": 2**60,
        "nan": None,
        "text": "三号冲床",
        "localized": "läuft",
        "qualified": "Speed",
        "when": "2026-11-23T18:00:00.123Z",
        "guid": "72962b91-fa75-4ae6-8d28-b404dc7daf63",
        "nodeid": "ns=2;s=a",
        "bytes": None,
        "array": None,
        "none": None,
    }
    assert reading.values["boolean"] is True
    assert reading.quality == {
        "nan": "bad:invalid",
        "none": "bad:invalid",
        "bytes": "bad:decode",
        "array": "bad:decode",
    }
    assert (infos["int64"].type, infos["int64"].wide, infos["byte"].wide) == ("number", True, False)
    assert (infos["boolean"].type, infos["when"].type, infos["array"].type) == ("boolean", "string", None)
    assert sorted((line["event"], line["tag"]) for line in logs) == [
        ("tag_unreadable", "array"),
        ("tag_unreadable", "bytes"),
    ]
    with capture_logs() as again:
        async with Reading(server.url, {"array": N("array")}, context) as reading:
            await reading.all()
    assert not again


async def test_the_nth_batch_carries_each_nodes_nth_value(server: OpcuaServer) -> None:
    """Two values of one node in one notification are two batches, in order; the other node is in the first."""
    server.set("count", 0)
    async with Reading(server.url, {"speed": N("speed"), "count": N("count")}, interval=0.4) as reading:
        await reading.all()
        server.set_many("count", [41, 42])
        server.set("speed", 9.5)
        await reading.until(lambda: reading.values["count"] == 42)
    first, second = reading.batches[-2:]
    assert (first.values, second.values) == ({"count": 41, "speed": 9.5}, {"count": 42})
    assert first.group == second.group == "400ms"
    assert first.at == second.at


async def test_times_are_the_sources_and_ages_say_who_was_earlier(server: OpcuaServer) -> None:
    """`ts` is the newest time in the batch; an old value is old, not skewed."""
    now = round(time.time() * 1000)
    server.set("speed", 3.0, source_ms=now - 500, server_ms=now - 100)
    server.set("other", 4.0, source_ms=now - 3_600_000, server_ms=now - 50)
    async with Reading(server.url, {"speed": N("speed"), "other": N("other")}) as reading:
        await reading.all()
    assert [(b.ts, b.age_ms) for b in reading.batches] == [(now - 500, {"other": 3_600_000 - 500})]
    async with Reading(server.url, {"speed": N("speed"), "other": N("other")}, time="server") as reading:
        await reading.all()
    assert [(b.ts, b.age_ms) for b in reading.batches] == [(now - 50, {"speed": 50})]
    async with Reading(server.url, {"speed": N("speed"), "other": N("other")}, time="gateway") as reading:
        await reading.all()
    assert [(b.ts, b.age_ms) for b in reading.batches] == [(None, {})]


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0])
async def test_a_server_whose_clock_is_off_is_stamped_by_the_gateway_and_told_once(
    server: OpcuaServer, offset_s: float
) -> None:
    context = Context()
    server.clock(offset_s)
    try:
        with capture_logs() as logs:
            for _ in range(2):
                async with Reading(server.url, {"speed": N("speed")}, context) as reading:
                    await reading.all()
                    assert [(b.ts, b.age_ms) for b in reading.batches] == [(None, {})]
    finally:
        server.clock(0.0)
    assert [(line["event"], round(line["offset_s"], -1)) for line in logs] == [("device_clock_skew", offset_s)]


async def test_a_status_is_a_quality(server: OpcuaServer) -> None:
    """Uncertain keeps its value, bad has none, and the way back is told."""
    server.set("speed", 5.0)
    async with Reading(server.url, {"speed": N("speed")}) as reading:
        await reading.all()
        server.set("speed", 6.0, status=0x40900000)
        await reading.until(lambda: bool(reading.quality))
        assert (reading.values, reading.quality) == ({"speed": 6.0}, {"speed": "uncertain:status-0x40900000"})
        server.set("speed", 7.0, status=0x808B0000)
        await reading.until(lambda: reading.values["speed"] is None)
        assert reading.quality == {"speed": "bad:status-0x808B0000"}
        server.set("speed", 8.0)
        await reading.until(lambda: reading.values["speed"] == 8.0)
        assert reading.quality == {}


async def test_an_overflow_of_the_servers_queue_is_counted(server: OpcuaServer) -> None:
    async with Reading(server.url, {"speed": N("speed")}) as reading:
        await reading.all()
        server.set("speed", 77.0, status=0x00000480)
        await reading.until(lambda: reading.values["speed"] == 77.0)
        assert (reading.quality, reading.collector.stats().samples_lost) == ({}, 1)


async def test_a_bad_node_spoils_no_other_and_is_tried_again(server: OpcuaServer) -> None:
    """Unknown nodes and namespaces are told at once; one that appears is read."""
    nodes = {"speed": N("speed"), "late": N("late"), "nowhere": "nsu=urn:nowhere;s=speed", "index": "ns=900;i=5"}
    async with Reading(server.url, nodes) as reading:
        await reading.all()
        assert isinstance(reading.values["speed"], float)
        assert reading.quality == {"late": UNKNOWN, "nowhere": UNKNOWN, "index": UNKNOWN}
        assert all(batch.ts is None for batch in reading.batches if batch.quality)
        server.add("late", 12.5)
        try:
            await reading.until(lambda: reading.values["late"] == 12.5)
            assert reading.quality == {"nowhere": UNKNOWN, "index": UNKNOWN}
        finally:
            server.remove("late")


async def test_a_node_that_is_deleted_is_told_and_comes_back(server: OpcuaServer) -> None:
    server.set("removed", 1.0)
    async with Reading(server.url, {"removed": N("removed"), "speed": N("speed")}) as reading:
        await reading.all()
        server.remove("removed")
        try:
            await reading.until(lambda: reading.values["removed"] is None)
            assert reading.quality == {"removed": UNKNOWN}
            server.set("speed", 31.0)
            await reading.until(lambda: reading.values["speed"] == 31.0)
        finally:
            server.add("removed", 55.0)
        await reading.until(lambda: reading.values["removed"] == 55.0)
        assert reading.quality == {}


async def test_a_tag_with_an_interval_of_its_own_has_its_own_group(server: OpcuaServer) -> None:
    slow = {"node": N("other"), "interval": "2 s"}
    async with Reading(server.url, {"speed": N("speed"), "other": slow}) as reading:
        assert reading.collector.groups == {"100ms": 0.1, "2s": 2.0}
        await reading.all()
        assert {batch.group: set(batch.values) for batch in reading.batches} == {"100ms": {"speed"}, "2s": {"other"}}


async def test_a_tag_keeps_its_type_across_connections(server: OpcuaServer) -> None:
    """Another type is null, not another type."""
    context = Context()
    async with Reading(server.url, {"other": N("other")}, context) as reading:
        await reading.all()
    server.remove("other")
    server.add("other", "twelve")
    try:
        async with Reading(server.url, {"other": N("other")}, context) as reading:
            await reading.all()
            assert (reading.values, reading.quality) == ({"other": None}, {"other": "bad:decode"})
            assert [tag.type for tag in reading.collector.tags()] == ["number"]
    finally:
        server.remove("other")
        server.add("other", 2.0)


async def test_a_cancelled_collect_loses_nothing(server: OpcuaServer) -> None:
    """Every value written arrives, although waiting for it is cancelled all the time."""
    server.set("count", 0)
    async with Reading(server.url, {"count": N("count")}, interval=0.05) as reading:
        await reading.all()
        for number in range(1, 21):
            server.set("count", number)
            async with asyncio.timeout(3):
                while reading.values["count"] != number:
                    try:
                        async with asyncio.timeout(0.004):
                            await reading.more()
                    except TimeoutError:
                        continue
    assert [b.values["count"] for b in reading.batches] == list(range(21))


async def test_close_leaves_no_session_task_or_thread(server: OpcuaServer) -> None:
    # Other tests cut connections, whose sessions the server keeps for a while.
    sessions = server.sessions()
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    async with Reading(server.url, {"speed": N("speed"), "gone": "ns=7;i=1"}) as reading:
        await reading.all()
        assert server.sessions() == sessions + 1
        assert reading.collector.stats().requests > 5
    await reading.collector.close()
    assert server.sessions() == sessions
    assert asyncio.all_tasks() == tasks
    # The default executor keeps its thread for the next import.
    assert threading.active_count() <= threads + 1


async def test_restarts_with_shuffled_namespaces_never_put_a_value_under_the_wrong_tag(server: OpcuaServer) -> None:
    """The session's end is told; the next one resolves the namespaces anew."""
    context = Context()
    nodes = {"text": N("text"), "byte": N("byte")}
    try:
        for _ in range(5):
            async with Reading(server.url, nodes, context) as reading:
                await reading.all()
                assert reading.values == {"text": "三号冲床", "byte": 200}
                await asyncio.to_thread(server.restart, shuffle=True)
                with pytest.raises(Unavailable) as raised:
                    await reading.until(lambda: False)
                assert raised.value.cause == "closed_by_peer"
                assert DECOY not in [value for batch in reading.batches for value in batch.values.values()]
        async with Reading(server.url, {"wrong": "ns=2;s=text"}) as reading:
            await reading.all()
            assert reading.values == {"wrong": DECOY}, "the test would see a kept index"
    finally:
        await asyncio.to_thread(server.restart)


async def test_collect_before_open_and_close_without_open(server: OpcuaServer) -> None:
    reading = Reading(server.url, {"speed": N("speed")})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reading.collector.collect(EMPTY)
    assert [tag.type for tag in reading.collector.tags()] == [None]
    await reading.collector.close()
    await reading.collector.close()
