"""Servers and networks that fail: each failure has its cause, is noticed in time, and close always ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from collectors.api import CollectorError, Unavailable
from tests.collectors.opcua.reading import SHORT, Reading
from tests.faulty.opcua import Relay, refusing_port, rude_port
from tests.servers.opcua import OpcuaServer, free_port

N = OpcuaServer.node


async def failure(reading: Reading) -> Unavailable:
    """What ends a reading."""
    with pytest.raises(Unavailable) as raised:
        await reading.until(lambda: False)
    return raised.value


async def refusal(url: str, timeout: float = 0.3) -> CollectorError:
    """What `open` raises."""
    with pytest.raises(CollectorError) as raised:
        async with Reading(url, {"speed": N("speed")}, timeout=timeout):
            pass
    return raised.value


async def test_nothing_listens() -> None:
    port = free_port()
    error = await refusal(f"opc.tcp://127.0.0.1:{port}")
    assert (error.cause, error.facts) == ("refused", {"where": f"127.0.0.1:{port}"})


async def test_a_name_with_several_addresses_where_nothing_listens() -> None:
    assert (await refusal(f"opc.tcp://localhost:{free_port()}")).cause == "refused"


async def test_a_name_that_is_not_known() -> None:
    error = await refusal("opc.tcp://nowhere.invalid:4840", timeout=5.0)
    assert (error.cause, error.facts) == ("name_unknown", {"host": "nowhere.invalid"})


async def test_a_port_that_says_nothing() -> None:
    async with rude_port(None) as port:
        error = await refusal(f"opc.tcp://127.0.0.1:{port}")
    assert isinstance(error, Unavailable)
    assert (error.cause, error.reason) == ("no_answer", "timeout")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 20])
async def test_a_port_that_hangs_up_or_speaks_another_protocol(answer: bytes) -> None:
    async with rude_port(answer) as port:
        error = await refusal(f"opc.tcp://127.0.0.1:{port}")
    assert error.cause in ("closed_by_peer", "no_answer")


async def test_a_server_that_refuses_the_secure_channel_with_a_fault() -> None:
    """BadSecurityChecksFailed, as node-opcua says it to whom it does not trust: no bug of ours."""
    async with refusing_port(0x80130000) as port:
        error = await refusal(f"opc.tcp://127.0.0.1:{port}")
    assert isinstance(error, Unavailable)
    assert error.cause == "closed_by_peer"
    assert "refused" in error.text


async def test_a_server_that_is_full() -> None:
    """BadTcpServerTooBusy as an error message."""
    async with rude_port(
        b"ERRF" + (16).to_bytes(4, "little") + (0x807D0000).to_bytes(4, "little") + b"\xff" * 4
    ) as port:
        error = await refusal(f"opc.tcp://127.0.0.1:{port}")
    assert error.cause == "session_refused"
    assert "BadTcpServerTooBusy" in str(error.facts["detail"])


async def test_a_cut_connection_is_noticed_at_once(server: OpcuaServer) -> None:
    async with Relay(server.port) as relay, Reading(relay.url, {"speed": N("speed")}) as reading:
        await reading.all()
        before = time.monotonic()
        relay.cut()
        error = await failure(reading)
        assert (error.cause, error.reason) == ("closed_by_peer", "not-connected")
        assert time.monotonic() - before < 1


async def test_a_frozen_connection_is_noticed_and_close_ends_in_time(server: OpcuaServer) -> None:
    """Half-open TCP: three keep-alives of silence, then a goodbye of at most 1.5 s."""
    async with Relay(server.port) as relay:
        async with Reading(relay.url, {"speed": N("speed")}, timing=replace(SHORT, verify=60.0)) as reading:
            await reading.all()
            relay.freeze()
            before = time.monotonic()
            error = await failure(reading)
            assert (error.cause, error.reason) == ("silent_subscription", "stale")
            assert 0.5 < time.monotonic() - before < 2
            before = time.monotonic()
        assert time.monotonic() - before < 1.9
        assert not [task for task in asyncio.all_tasks() if "collectors" in repr(task.get_coro())]
        relay.thaw()


async def test_a_server_that_answers_but_no_longer_publishes(server: OpcuaServer) -> None:
    """Connected but no data: the field's top complaint."""
    async with Reading(server.url, {"speed": N("speed")}) as reading:
        await reading.all()
        server.publishing(False)
        error = await failure(reading)
        assert (error.cause, error.reason) == ("silent_subscription", "stale")
        assert float(error.facts["seconds"]) < 2


async def test_keep_alives_are_no_silence(server: OpcuaServer) -> None:
    async with Reading(server.url, {"other": N("other")}) as reading:
        await reading.all()
        with pytest.raises(TimeoutError):
            await reading.until(lambda: False, 1.5)


async def test_news_before_the_end_are_delivered_first(server: OpcuaServer) -> None:
    async with Relay(server.port) as relay, Reading(relay.url, {"speed": N("speed")}) as reading:
        await reading.all()
        server.set("speed", 64.0)
        await asyncio.sleep(0.3)
        relay.cut()
        await asyncio.sleep(0.1)
        await reading.more()
        assert reading.values["speed"] == 64.0
        await failure(reading)


async def test_a_slow_subscription_notices_a_frozen_server_long_before_its_interval(server: OpcuaServer) -> None:
    """Its keep-alive is a minute away: the server is asked for a sign of life instead."""
    async with (
        Relay(server.port) as relay,
        Reading(
            relay.url, {"other": N("other")}, interval=60, timeout=0.5, timing=replace(SHORT, probe=0.3)
        ) as reading,
    ):
        await reading.all()
        await asyncio.sleep(0.7)
        relay.freeze()
        before = time.monotonic()
        error = await failure(reading)
        assert (error.cause, error.reason) == ("no_answer", "timeout")
        assert time.monotonic() - before < 1.5


async def test_the_channel_is_renewed_and_nothing_is_lost(server: OpcuaServer) -> None:
    """Several renewals while a value changes twenty times."""
    timing = replace(SHORT, channel=0.3)
    async with Reading(server.url, {"count": N("count")}, interval=0.05, timing=timing) as reading:
        await reading.all()
        renew_at = reading.collector._session._renew_at
        for number in range(100, 120):
            server.set("count", number)
            await reading.until(lambda number=number: reading.values["count"] == number)  # type: ignore[misc]
            await asyncio.sleep(0.03)
        assert reading.collector._session._renew_at > renew_at + 0.6
    assert [batch.values["count"] for batch in reading.batches][-20:] == list(range(100, 120))
