"""Servers with limits, without services, with bad manners: what can be read is read, and what is lost is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from collectors.api import Context, Unavailable
from collectors.opcua import services
from collectors.opcua.poller import OpcuaPoller
from tests.collectors.opcua.reading import SHORT, Reading, config
from tests.servers.opcua_odd import OddServer

N = OddServer.node
NODES = {f"v{number}": float(number) for number in range(10)}
ALL = {name: N(name) for name in NODES}


@pytest.fixture(scope="module")
def odd() -> Iterator[OddServer]:
    with OddServer(NODES) as running:
        yield running


@pytest.fixture
def server(odd: OddServer) -> Iterator[OddServer]:
    """Decent, and with its first values."""
    odd.odd()
    for name, value in NODES.items():
        odd.set(name, value)
    yield odd
    odd.odd()


async def test_batches_are_halved_until_the_server_takes_them_and_that_is_remembered(server: OddServer) -> None:
    context = Context()
    server.odd(limits={"monitor": 3})
    async with Reading(server.url, ALL, context) as reading:
        await reading.all()
    assert reading.quality == {}
    assert server.calls()["monitor"] == [10, 5, 2, 2, 2, 2, 2]
    server.odd(limits={"monitor": 3})
    async with Reading(server.url, ALL, context) as reading:
        await reading.all()
    assert server.calls()["monitor"] == [2, 2, 2, 2, 2]


async def test_the_limits_that_a_server_announces_are_kept(server: OddServer) -> None:
    """asyncua's announces 10,000; ours are lower: an S7-1200 announces 1000, and is slow from 200 items on."""
    async with Reading(server.url, ALL) as reading:
        assert reading.collector._services.limit("read") == services.LARGEST
        assert reading.collector._services.limit("monitor") == services.MOST_MONITORED
        assert reading.collector._services._told["read"] == 10_000


async def test_a_server_that_takes_long_to_monitor_keeps_the_subscription_meanwhile(server: OddServer) -> None:
    """It forgets a subscription whose client asks for no messages: that must not wait until all nodes are monitored."""
    timing = replace(SHORT, keepalive=0.1)
    server.odd(limits={"monitor": 1}, slow_monitor_s=0.4)
    async with Reading(server.url, ALL, timing=timing) as reading:
        await reading.all()
    assert reading.quality == {}


async def test_nodes_that_make_a_call_fail_as_a_whole_cost_no_other(server: OddServer) -> None:
    server.odd(poison=["v3", "v7"])
    async with Reading(server.url, ALL) as reading:
        await reading.all()
        assert reading.quality == dict.fromkeys(("v3", "v7"), "bad:status-0x80020000")
        server.odd()
        await reading.until(lambda: not reading.quality)


async def test_filters_are_left_to_the_agent_unless_wanted(server: OddServer) -> None:
    context = Context()
    nodes = {"v1": {"node": N("v1"), "deadband": 5, "scale": 0.1}, "v2": {"node": N("v2"), "deadband": 5}}
    async with Reading(server.url, nodes, context) as reading:
        await reading.all()
    assert server.filters() == []
    server.odd(no_filter=True)
    async with Reading(server.url, nodes, context, server_deadband=True) as reading:
        await reading.all()
    assert (sorted(server.filters()), reading.quality) == ([5.0, 50.0], {})
    server.odd(no_filter=True)
    async with Reading(server.url, nodes, context, server_deadband=True) as reading:
        await reading.all()
    assert server.filters() == []


async def test_a_node_that_is_accepted_and_never_sent_is_read_and_told_once(server: OddServer) -> None:
    server.odd(mute=["v4"])
    timing = replace(SHORT, first_value=0.3)
    with capture_logs() as logs:
        async with Reading(server.url, ALL, timing=timing) as reading:
            await reading.all()
            assert reading.values["v4"] == 4.0
            server.set("v4", 44.0)
            await reading.until(lambda: reading.values["v4"] == 44.0)
            server.odd()
            server.set("v4", 45.0)
            await reading.until(lambda: reading.values["v4"] == 45.0)
    assert [(line["event"], line["tag"]) for line in logs] == [("tag_silent", "v4")]


async def test_a_node_that_stops_sending_is_found_read_and_monitored_anew(server: OddServer) -> None:
    """Few nodes are looked at sooner than many."""
    with capture_logs() as logs:
        async with Reading(server.url, ALL, timing=replace(SHORT, verify=60.0, verify_soonest=0.3)) as reading:
            await reading.all()
            server.deafen("v8")
            server.set("v8", 88.0)
            await reading.until(lambda: reading.values["v8"] == 88.0)
            server.set("v8", 89.0)
            await reading.until(lambda: reading.values["v8"] == 89.0)
    assert [(line["event"], line["tag"]) for line in logs] == [("tag_silent", "v8")]


async def test_a_look_that_is_not_answered_in_time_ends_no_connection_that_delivers(server: OddServer) -> None:
    """A server with much to publish is slow to answer questions: that it lives is told by what it publishes."""
    timing = replace(SHORT, keepalive=1.0, verify=0.3)
    async with Reading(server.url, ALL, timing=timing, timeout=0.4) as reading:
        await reading.all()
        server.odd(slow_reads_s=0.6)
        for number in range(4):
            await asyncio.sleep(0.5)
            server.set("v9", 900.0 + number)
            await reading.until(lambda number=number: reading.values["v9"] == 900.0 + number)  # type: ignore[misc]
        assert server.calls()["read"]


async def test_a_message_that_got_lost_is_fetched_before_the_next(server: OddServer) -> None:
    with capture_logs() as logs:
        async with Reading(server.url, {"v5": N("v5")}) as reading:
            await reading.all()
            server.set("v5", 50.0)
            await reading.until(lambda: reading.values["v5"] == 50.0)
            server.lose("v5", 51.0, kept=True)
            server.set("v5", 52.0)
            await reading.until(lambda: reading.values["v5"] == 52.0)
            assert [batch.values["v5"] for batch in reading.batches][-3:] == [50.0, 51.0, 52.0]
            assert reading.collector.stats().samples_lost == 0
    assert [(line["missing"], line["recovered"]) for line in logs] == [(1, 1)]


async def test_a_message_that_is_lost_for_good_is_counted_and_no_tag_stays_in_the_past(server: OddServer) -> None:
    """The lost value is the last one: nothing but monitoring anew can tell it. A keep-alive shows the hole."""
    async with Reading(server.url, {"v5": N("v5"), "v6": N("v6")}) as reading:
        await reading.all()
        server.set("v6", 61.0)
        await reading.until(lambda: reading.values["v6"] == 61.0)
        server.lose("v5", 53.0, kept=False)
        await reading.until(lambda: reading.values["v5"] == 53.0)
        assert reading.collector.stats().samples_lost == 1


async def test_a_server_that_counts_its_keep_alives_is_soon_understood(server: OddServer) -> None:
    server.odd(counts_keepalives=True)
    timing = replace(SHORT, verify=60.0)
    with capture_logs() as logs:
        async with Reading(server.url, {"v5": N("v5")}, timing=timing) as reading:
            await reading.all()
            for number in range(4):
                await asyncio.sleep(0.35)
                server.set("v5", 500.0 + number)
                await reading.until(lambda number=number: reading.values["v5"] == 500.0 + number)  # type: ignore[misc]
            assert reading.collector.stats().samples_lost <= 3
    assert len(logs) <= 3


async def test_a_server_that_drops_its_subscriptions_is_noticed(server: OddServer) -> None:
    async with Reading(server.url, {"v5": N("v5")}) as reading:
        await reading.all()
        before = time.monotonic()
        server.drop_subscriptions()
        with pytest.raises(Unavailable) as raised:
            await reading.until(lambda: False)
        assert raised.value.cause in ("closed_by_peer", "silent_subscription")
        assert time.monotonic() - before < 2
    async with Reading(server.url, {"v5": N("v5")}) as reading:
        await reading.all()


async def test_a_server_with_all_its_sessions_taken_has_a_cause_of_its_own(server: OddServer) -> None:
    server.odd(sessions=server.sessions())
    with pytest.raises(Unavailable) as raised:
        async with Reading(server.url, {"v5": N("v5")}):
            pass
    assert raised.value.cause == "too_many_sessions"
    server.odd()
    async with Reading(server.url, {"v5": N("v5")}) as reading:
        await reading.all()


async def poll(poller: OpcuaPoller) -> Any:
    """One round of one group."""
    (batch,) = await poller.collect(frozenset(poller.groups))
    return batch


async def test_polling_reads_in_as_few_calls_as_the_limits_allow(server: OddServer) -> None:
    """Also from a server that has no subscriptions; a value is told again although it did not change."""
    server.odd(no_subscriptions=True, limits={"read": 6})
    context = Context()
    nodes = {**ALL, "gone": N("gone"), "nowhere": "nsu=urn:nowhere;s=x"}
    poller = OpcuaPoller(config(server.url, nodes, collect="poll"), context, SHORT)
    try:
        await poller.open()
        first = await poll(poller)
        server.odd(no_subscriptions=True, limits={"read": 6})
        second = await poll(poller)
        assert server.calls()["read"][-3:] == [5, 5, 1]
    finally:
        await poller.close()
    for batch in (first, second):
        assert {name: value for name, value in batch.values.items() if value is not None} == NODES
        assert batch.quality == dict.fromkeys(("gone", "nowhere"), "bad:status-0x80340000")
    assert first.ts is not None


async def test_polling_finds_a_node_that_appears_and_ends_with_its_server(server: OddServer) -> None:
    poller = OpcuaPoller(config(server.url, {"p": {"path": "/Objects/late"}}, collect="poll"), Context(), SHORT)
    try:
        await poller.open()
        assert (await poll(poller)).quality == {"p": "bad:status-0x806F0000"}
        server.add("late", 9.0)
        await asyncio.sleep(SHORT.verify)
        assert (await poll(poller)).values == {"p": 9.0}
        server.call("stop")
        with pytest.raises(Unavailable):
            await poll(poller)
    finally:
        await poller.close()
        server.start_again()
