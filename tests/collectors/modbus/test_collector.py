"""Against pymodbus's server in another process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from collectors.api import Batch, Collector, Context, Unavailable
from collectors.modbus import TYPE
from collectors.modbus.collector import ModbusCollector
from tests.servers.modbus import ModbusServer


@pytest.fixture(scope="module")
def process() -> Iterator[ModbusServer]:
    with ModbusServer(units=(1, 4)) as server:
        yield server


@pytest.fixture
def server(process: ModbusServer) -> ModbusServer:
    process.reset()
    return process


def collector(server: ModbusServer, *tags: dict[str, Any], context: Context | None = None, **keys: Any) -> Collector:
    config = TYPE.config_model.model_validate(
        {"name": "press", "type": "modbus", "url": server.url, "timeout": 0.3, "tags": list(tags), **keys}
    )
    return TYPE.create(config, context or Context())


def tag(name: str, address: str, type_: str | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "address": address, "type": type_, **more}


def due(of: Collector) -> frozenset[str]:
    return frozenset(of.groups)


async def once(of: Collector) -> Batch:
    [batch] = await of.collect(due(of))
    return batch


async def read_once(of: Collector) -> Batch:
    await of.open()
    try:
        return await once(of)
    finally:
        await of.close()


def values(batches: Sequence[Batch]) -> dict[str, Any]:
    return {name: value for batch in batches for name, value in batch.values.items()}


async def test_every_area_and_type_from_a_real_server(server: ModbusServer) -> None:
    server.set("coil", 0, [1, 0, 1])
    server.set("discrete", 100, [0, 1])
    server.set("holding", 0, [0xFFFE, 0x0403, 0x1234])
    server.set_struct("holding", 100, ">i", -70000)
    server.set_struct("holding", 102, ">f", 23.4)
    server.set_struct("holding", 104, ">d", 3.25)
    server.set_struct("holding", 108, ">Q", 2**63)
    server.set("holding", 112, [0x4241, 0x4443])
    server.set("input", 65535, [7])
    batch = await read_once(
        collector(
            server,
            tag("c0", "00001"), tag("c1", "coil:1"), tag("d101", "discrete:101"),
            tag("int", "40001", "int16"), tag("bit", "40002.10"), tag("bcd", "40003", "bcd16"),
            tag("i32", "holding:100", "int32"), tag("f32", "holding:102", "float32"),
            tag("f64", "holding:104", "float64"), tag("u64", "holding:108", "uint64"),
            tag("text", "holding:112", "string", length=2, word_order="BADC"),
            tag("last", "input:0xFFFF", "uint16"),
        )
    )  # fmt: skip
    assert batch.values == {
        "c0": True, "c1": False, "d101": True, "int": -2, "bit": True, "bcd": 1234, "i32": -70000, "f32": 23.4,
        "f64": 3.25, "u64": 2**63, "text": "ABCD", "last": 7,
    }  # fmt: skip
    assert (batch.device, batch.group, batch.quality, batch.age_ms, batch.ts) == ("press", "1s", {}, {}, None)


async def test_only_reads_leave(server: ModbusServer) -> None:
    every = collector(
        server, tag("c", "00001"), tag("d", "10001"), tag("i", "30001", "int16"), tag("h", "40001", "int16")
    )
    await every.open()
    for _ in range(5):
        await once(every)
    await every.close()
    seen = server.seen()
    assert seen.functions == {1: 5, 2: 5, 3: 5, 4: 5}
    assert (seen.connections, seen.peak) == (1, 1)


async def test_groups_that_are_due_together_share_requests_and_have_batches_of_their_own(server: ModbusServer) -> None:
    device = collector(
        server, tag("fast", "40001", "int16"), tag("slow", "40002", "int16", interval="5 s"),
        tag("far", "holding:500", "int16", interval="5 s"),
    )  # fmt: skip
    assert dict(device.groups) == {"1s": 1.0, "5s": 5.0}
    await device.open()
    both = await device.collect(frozenset({"1s", "5s"}))
    assert [(batch.group, set(batch.values)) for batch in both] == [("1s", {"fast"}), ("5s", {"slow", "far"})]
    assert device.stats().requests == 2
    [alone] = await device.collect(frozenset({"1s"}))
    assert (alone.values, device.stats().requests) == ({"fast": 0}, 3)
    await device.close()
    assert [request[2:] for request in server.seen().requests] == [(0, 2), (500, 1), (0, 1)]


async def test_values_follow_the_device(server: ModbusServer) -> None:
    device = collector(server, tag("a", "40001", "int16"), tag("bit", "40002.0"), tag("f", "40003", "float32"))
    await device.open()
    for step in range(5):
        server.set("holding", 0, [step, step])
        server.set_struct("holding", 2, ">f", step + 0.1)
        assert (await once(device)).values == {"a": step, "bit": bool(step & 1), "f": step + 0.1}
    await device.close()


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 10, 11])
async def test_an_exception_spoils_its_own_request_only(server: ModbusServer, code: int) -> None:
    server.set("holding", 0, [5])
    server.refuse("holding", 100, 100, code)
    device = collector(server, tag("good", "40001", "int16"), tag("bad", "holding:100", "int16"),
                       tag("near", "holding:101", "int16"), tag("coil", "coil:0"))  # fmt: skip
    await device.open()
    batch = await once(device)
    assert (batch.values["good"], batch.values["coil"], batch.values["bad"]) == (5, False, None)
    if code in {2, 3}:  # the address is at fault: it alone is left out, at once
        assert (batch.values["near"], batch.quality) == (0, {"bad": "bad:quarantined"})
        server.refuse("holding", 100, 100, 0)
        await device.open()
    else:
        assert batch.quality == dict.fromkeys(("bad", "near"), f"bad:exception-{code}")
        server.refuse("holding", 100, 100, 0)
    assert (await once(device)).quality == {}
    await device.close()
    assert server.seen().connections == 1


async def test_a_device_that_refuses_everything_is_there_and_one_behind_a_dead_gateway_is_not(
    server: ModbusServer,
) -> None:
    server.refuse("holding", 0, 10, 2)
    assert (await read_once(collector(server, tag("a", "40001", "int16")))).quality == {"a": "bad:quarantined"}
    with pytest.raises(Unavailable) as caught:
        await read_once(collector(server, tag("a", "40001", "int16"), unit_id=9))
    assert (caught.value.reason, caught.value.cause) == ("exception-11", "no_answer")
    assert caught.value.facts["unit_id"] == 9


async def test_a_silent_device_is_unavailable_within_its_deadlines(server: ModbusServer) -> None:
    device = collector(server, *(tag(f"t{n}", f"holding:{n * 100}", "int16") for n in range(8)), timeout=0.05)
    await device.open()
    server.mute()
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await once(device)
    assert time.monotonic() - began < 0.05 * 3 * 2 + 0.2
    assert (caught.value.reason, caught.value.cause) == ("timeout", "no_answer")
    assert caught.value.facts == {"where": f"127.0.0.1:{server.port}", "unit_id": 1}
    assert device.stats().requests == 3
    await device.close()


async def test_a_connection_that_was_closed_meanwhile_is_opened_again(server: ModbusServer) -> None:
    device = collector(server, tag("a", "40001", "int16"))
    await device.open()
    assert (await once(device)).values == {"a": 0}
    server.stop()
    server.start()
    assert (await once(device)).values == {"a": 0}
    server.stop()
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await once(device)
        assert (caught.value.reason, caught.value.cause) == ("not-connected", "refused")
    await device.close()


async def test_a_device_that_is_off_is_refused_and_comes_back_with_a_fresh_object(server: ModbusServer) -> None:
    server.stop()
    context = Context()
    device = collector(server, tag("a", "40001", "int16"), context=context)
    with pytest.raises(Unavailable) as caught:
        await device.open()
    assert (caught.value.reason, caught.value.cause) == ("not-connected", "refused")
    await device.close()
    server.start()
    assert (await read_once(collector(server, tag("a", "40001", "int16"), context=context))).values == {"a": 0}
    assert context.users(("modbus", "127.0.0.1", server.port)) == 0


async def test_a_frozen_device_is_found_and_read_again_after_it_thaws(server: ModbusServer) -> None:
    device = collector(server, tag("a", "40001", "int16"), timeout=0.05)
    await device.open()
    await once(device)
    server.freeze()
    try:
        for _ in range(4):
            with pytest.raises(Unavailable):
                await once(device)
    finally:
        server.thaw()
    await device.close()
    again = collector(server, tag("a", "40001", "int16"), timeout=1)
    assert (await read_once(again)).values == {"a": 0}


async def test_devices_of_one_address_share_one_connection_and_requests_never_overlap(server: ModbusServer) -> None:
    server.set("holding", 0, [1] * 400, unit=1)
    server.set("holding", 0, [4] * 400, unit=4)
    context = Context()
    tags = [tag(f"t{n}", f"holding:{n}", "int16") for n in range(0, 400, 20)]
    devices = [collector(server, *tags, unit_id=unit, context=context) for unit in (1, 4, 1, 4)]
    await asyncio.gather(*(device.open() for device in devices))

    async def poll(device: Collector, expected: int) -> None:
        for _ in range(10):
            assert set((await once(device)).values.values()) == {expected}

    await asyncio.gather(*(poll(device, expected) for device, expected in zip(devices, (1, 4, 1, 4), strict=True)))
    for device in devices:
        await device.close()
    seen = server.seen()
    assert (seen.connections, seen.peak, sum(seen.functions.values())) == (1, 1, 4 * 10 * 20)


async def test_a_silent_unit_does_not_take_the_connection_from_the_others(server: ModbusServer) -> None:
    context = Context()
    good = collector(server, tag("a", "40001", "int16"), context=context)
    dead = collector(server, *(tag(f"t{n}", f"holding:{n * 50}", "int16") for n in range(6)), unit_id=4,
                     context=context, timeout=0.05)  # fmt: skip
    await good.open()
    await dead.open()
    server.mute(unit=4)
    polls = 0

    async def poll_dead() -> None:
        for _ in range(4):
            with pytest.raises(Unavailable):
                await once(dead)

    task = asyncio.create_task(poll_dead())
    while not task.done():
        assert (await once(good)).values == {"a": 0}
        polls += 1
        await asyncio.sleep(0.005)
    await task
    assert polls >= 4, "a poll of the good unit between any two requests to the silent one"
    asked = [request for request in server.seen().requests if request[0] == 4]
    assert len(asked) == 4, "where others wait, a unit that is silent is asked for no more"
    await good.close()
    await dead.close()
    assert server.seen().connections == 1


async def test_a_reload_in_mid_poll_keeps_the_one_connection(server: ModbusServer) -> None:
    context = Context()
    stays = collector(server, tag("a", "40001", "int16"), context=context)
    await stays.open()
    for _ in range(10):
        comes = collector(server, tag("b", "40002", "int16"), unit_id=4, context=context)
        await comes.open()
        await asyncio.gather(once(stays), once(comes))
        await asyncio.gather(once(stays), comes.close())
    await stays.close()
    assert server.seen().connections == 1


async def test_closing_and_opening_at_once_never_makes_two_connections(server: ModbusServer) -> None:
    context = Context()
    for _ in range(10):
        old = collector(server, tag("a", "40001", "int16"), context=context)
        await old.open()
        new = collector(server, tag("a", "40001", "int16"), context=context)
        _, batch = await asyncio.gather(old.close(), read_once(new))
        assert batch.values == {"a": 0}
    assert server.seen().peak == 1


async def test_old_samples_are_told_with_their_age(server: ModbusServer) -> None:
    server.delay(0.12)
    tags = tag("first", "coil:0"), tag("second", "holding:0", "int16")
    device = collector(server, *tags, timeout=1)
    batch = await read_once(device)
    assert list(batch.age_ms) == ["first"]
    assert 100 <= batch.age_ms["first"] <= 400
    patient = collector(
        server, tag("first", "coil:0"), tag("second", "holding:0", "int16"), timeout=1, interval="1 min"
    )
    assert (await read_once(patient)).age_ms == {}


async def test_closing_is_safe_without_open_and_twice(server: ModbusServer) -> None:
    device = collector(server, tag("a", "40001", "int16"))
    await device.close()
    with pytest.raises(Unavailable):
        await once(device)
    await device.open()
    await device.close()
    await device.close()
    assert device.stats().requests == 0


async def test_a_cancelled_poll_leaves_a_consistent_line(server: ModbusServer) -> None:
    context = Context()
    device = collector(server, tag("a", "40001", "int16"), context=context, timeout=1)
    other = collector(server, tag("b", "40002", "int16"), context=context, timeout=1)
    server.set("holding", 0, [1, 2])
    await device.open()
    await other.open()
    server.delay(0.2)
    task = asyncio.create_task(once(device))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.delay(0)
    assert (await once(other)).values == {"b": 2}
    await device.close()
    await other.close()
    assert server.seen().peak == 1


async def test_nothing_leaks_over_many_reconnects(server: ModbusServer) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # counted, not used as paths

    await read_once(collector(server, tag("a", "40001", "int16")))
    before, tasks = descriptors(), len(asyncio.all_tasks())
    for _ in range(100):
        await read_once(collector(server, tag("a", "40001", "int16")))
    assert abs(descriptors() - before) <= 1
    assert len(asyncio.all_tasks()) == tasks


async def test_odd_sets_of_due_groups_keep_a_bounded_number_of_plans(server: ModbusServer) -> None:
    device = collector(server, *(tag(f"t{n}", f"holding:{n}", "int16", interval=f"{n + 1} s") for n in range(6)))
    assert isinstance(device, ModbusCollector)
    await device.open()
    for mask in range(1, 64):
        names = frozenset(f"{n + 1}s" for n in range(6) if mask >> n & 1)
        assert set(values(await device.collect(names))) == {f"t{n}" for n in range(6) if mask >> n & 1}
    await device.close()
    assert len(device._mender._plans) <= 16
