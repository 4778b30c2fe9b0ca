"""Paths, patterns, elements, enumerations and ranges against a server with a tree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from collectors.api import Context
from tests.collectors.opcua.reading import Reading
from tests.servers.opcua_odd import OddServer

URI = "nsu=urn:test:plant;s="


@pytest.fixture(scope="module")
def server() -> Iterator[OddServer]:
    with OddServer({"alone": 1.0}) as running:
        yield running


async def test_paths_by_names_and_by_indexes_lead_to_the_node(server: OddServer) -> None:
    index = server.call("index")
    nodes = {
        "names": {"path": "/Objects/Line/Press1/Speed"},
        "indexes": {"path": f"/Objects/{index}:Line/{index}:Press1/{index}:Speed"},
        "mixed": {"path": f"/Root/Objects/Line/{index}:Press2/标签"},
        "nowhere": {"path": "/Objects/Line/Press9/Speed"},
        "nor": {"path": f"/Objects/{index}:Line/{index}:Press9/{index}:Speed"},
        "object": {"path": "/Objects/Line/Press1"},
    }
    for no_translate in (False, True):
        server.odd(no_translate=no_translate)
        async with Reading(server.url, nodes) as reading:
            await reading.all()
        assert {name: value for name, value in reading.values.items() if value is not None} == {
            "names": 100.0,
            "indexes": 100.0,
            "mixed": "冲床",
        }
        assert reading.quality == {
            "nowhere": "bad:status-0x806F0000",
            "nor": "bad:status-0x806F0000",
            "object": "bad:status-0x80350000",
        }
    server.odd()


async def test_a_pattern_is_expanded_at_connect_and_told_in_the_tags(server: OddServer) -> None:
    nodes = {
        "line": {"browse": "/Objects/Line/Press*/S*", "unit": None},
        "deep": {"browse": "/Objects/Line/Press*/**/标签"},
        "all": {"browse": "/Objects/Line/Press1/*"},
    }
    context = Context()
    async with Reading(server.url, nodes, context) as reading:
        await reading.all()
        tags = {tag.name: tag for tag in reading.collector.tags()}
    assert {name for name in tags if name.startswith("line.")} == {
        "line.Press1.Speed",
        "line.Press1.State",
        "line.Press2.Speed",
        "line.Press2.State",
    }
    speed = tags["line.Press1.Speed"]
    index = server.call("index")
    assert (speed.unit, speed.type, speed.source) == (
        "mm/s",
        "number",
        f"/Objects/{index}:Line/{index}:Press1/{index}:Speed",
    )
    chinese = sorted(name for name in tags if name.startswith("deep."))
    assert len(chinese) == 2
    assert all(len(name) <= 64 and name.isascii() for name in chinese)
    assert len([name for name in tags if name.startswith("all.")]) == 4
    # Before the next connection stands, what was found last is still known.
    assert {tag.name for tag in Reading(server.url, nodes, context).collector.tags()} == tags.keys()


async def test_a_pattern_that_finds_nothing_is_told_once_and_looked_for_again(server: OddServer) -> None:
    with capture_logs() as logs:
        async with Reading(server.url, {"late": {"browse": "/Objects/Line/Late*/Speed"}}) as reading:
            with pytest.raises(TimeoutError):
                await reading.until(lambda: False, 0.5)
            assert reading.collector.tags() == []
            await asyncio.to_thread(server.grow, "Late1")
            await reading.until(lambda: reading.values.get("late.Late1.Speed") == 100.0)
            assert [tag.name for tag in reading.collector.tags()] == ["late.Late1.Speed"]
    assert [line["event"] for line in logs] == ["browse_empty"]


async def test_elements_of_an_array_share_one_monitored_item(server: OddServer) -> None:
    nodes = {
        "second": {"path": "/Objects/Line/Profile", "index": 1},
        "part": {"path": "/Objects/Line/Profile", "index": "0:1"},
        "beyond": {"path": "/Objects/Line/Profile", "index": 7},
    }
    server.odd()
    async with Reading(server.url, nodes) as reading:
        await reading.all()
    assert reading.values == {"second": 2.5, "part.0": 1.5, "part.1": 2.5, "beyond": None}
    assert reading.quality == {"beyond": "bad:status-0x80370000"}
    assert server.calls()["monitor"] == [1]


async def test_enumerations_by_their_text(server: OddServer) -> None:
    nodes = {
        "state": {"node": f"{URI}Press1.State", "enum_text": True},
        "number": f"{URI}Press1.State",
        "none": {"node": f"{URI}Press1.Mode", "enum_text": True},
    }
    with capture_logs() as logs:
        async with Reading(server.url, nodes) as reading:
            assert [tag.type for tag in reading.collector.tags()] == ["string", None, "string"]
            await reading.all()
    assert (reading.values, reading.quality) == (
        {"state": "running", "number": 1, "none": None},
        {"none": "bad:decode"},
    )
    assert [(line["event"], line["tag"]) for line in logs] == [("tag_unreadable", "none")]


async def test_a_deadband_in_percent_is_one_of_the_range(server: OddServer) -> None:
    nodes = {
        "speed": {"node": f"{URI}Press1.Speed", "deadband": "2 %", "scale": 10},
        "mode": {"node": f"{URI}Press1.Mode", "deadband": "2 %"},
    }
    with capture_logs() as logs:
        async with Reading(server.url, nodes) as reading:
            await reading.all()
            deadbands = {tag.name: tag.rules.deadband for tag in reading.collector.tags()}
    assert deadbands == {"speed": 40.0, "mode": None}
    assert [(line["event"], line["tag"]) for line in logs] == [("deadband_without_range", "mode")]
