"""A program download moves addresses: no plausible nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from collectors.api import Context, Unavailable
from collectors.modbus import TYPE
from collectors.modbus.guard import AGAIN_S, SOON_S, Guard
from collectors.modbus.link import read_request
from collectors.modbus.plan import Block
from collectors.modbus.reading import Reading
from tests.collectors.modbus.test_collector import collector, once, read_once, tag
from tests.servers.modbus import ModbusServer

VERSION = {"address": "holding:900", "type": "uint16", "value": 1201}


@pytest.fixture(scope="module")
def process() -> Iterator[ModbusServer]:
    with ModbusServer(units=(1,)) as server:
        yield server


@pytest.fixture
def server(process: ModbusServer) -> ModbusServer:
    process.reset()
    process.set("holding", 900, [1201])
    return process


async def test_what_is_expected_lets_values_pass_and_is_read_once_a_connection(server: ModbusServer) -> None:
    device = collector(server, tag("t", "40001", "uint16"), expect=VERSION)
    await device.open()
    for _ in range(3):
        assert (await once(device)).quality == {}
    await device.close()
    assert [request[2] for request in server.seen().requests].count(900) == 1


@pytest.mark.parametrize(
    "expect",
    [
        {**VERSION, "value": 1202},
        [VERSION, {"address": "40901.0", "value": False}],
        {"address": "holding:900", "type": "string", "length": 2, "value": "V1.2"},
        {"address": "coil:3", "value": True},
    ],
)
async def test_anything_else_is_told_as_another_layout(server: ModbusServer, expect: Any) -> None:
    with pytest.raises(Unavailable) as caught:
        await read_once(collector(server, tag("t", "40001", "uint16"), expect=expect))
    assert (caught.value.reason, caught.value.cause) == ("layout", "bad_layout")
    assert "most likely a new program moved the addresses" in caught.value.text
    assert caught.value.facts["where"] == f"127.0.0.1:{server.port}"


async def test_it_recovers_when_it_fits_again_and_an_address_that_is_gone_does_not_fit(server: ModbusServer) -> None:
    context = Context()
    server.refuse("holding", 900, 900, 2)
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await read_once(collector(server, tag("t", "40001", "uint16"), expect=VERSION, context=context))
        assert (caught.value.reason, caught.value.facts["found"]) == ("layout", "exception 2")
    server.refuse("holding", 900, 900, 0)
    fits = await read_once(collector(server, tag("t", "40001", "uint16"), expect=VERSION, context=context))
    assert fits.quality == {}


@pytest.mark.parametrize("tags", [[tag("v", "holding:899", "uint16"), tag("t", "holding:901", "uint16")]])
async def test_a_new_program_is_seen_at_the_next_poll_where_the_address_is_read_anyway(
    server: ModbusServer, tags: list[dict[str, Any]]
) -> None:
    device = collector(server, *tags, expect=VERSION)
    await device.open()
    assert (await once(device)).quality == {}
    server.set("holding", 900, [1300])
    with pytest.raises(Unavailable) as caught:
        await once(device)
    assert (caught.value.reason, caught.value.facts["found"]) == ("layout", "1300")
    await device.close()
    assert [request[2:] for request in server.seen().requests] == [(899, 3)] * 2


async def test_a_bit_is_compared_within_what_is_read_anyway(server: ModbusServer) -> None:
    tags = [tag("a", "coil:3"), tag("b", "coil:14")]
    device = collector(server, *tags, expect={"address": "coil:13", "value": False}, max_gap=20)
    await device.open()
    server.set("coil", 12, [True, False, True])
    assert (await once(device)).quality == {}
    server.set("coil", 13, [True])
    with pytest.raises(Unavailable) as caught:
        await once(device)
    assert (caught.value.reason, caught.value.facts["found"]) == ("layout", "True")
    await device.close()
    assert {request[1:] for request in server.seen().requests} == {(1, 3, 12)}


async def test_a_new_program_is_looked_for_when_an_address_is_refused(server: ModbusServer) -> None:
    device = collector(
        server, tag("t", "40001", "uint16"), tag("u", "coil:7"), expect=[VERSION, {"address": "coil:8", "value": False}]
    )
    await device.open()
    assert (await once(device)).quality == {}
    server.set("holding", 900, [1300])
    assert (await once(device)).quality == {}
    server.refuse("coil", 7, 7, 2)
    with pytest.raises(Unavailable) as caught:
        await once(device)
    assert caught.value.reason == "layout"
    await device.close()


async def test_when_it_is_looked_at() -> None:
    config = TYPE.config_model.model_validate(
        {"name": "d", "type": "modbus", "url": "tcp://127.0.0.1", "tags": [tag("t", "40001", "uint16")],
         "expect": VERSION}
    )  # fmt: skip
    guard = Guard(config, config.expect)
    block = Block("holding", 0, 1, ())
    fine, failed = Reading(block, read_request(block), {}), Reading(block, read_request(block), {})
    fine.came(b"\0\0", 0.0)
    failed.failed("bad:exception-2", 0.0, code=2)
    asked = 0

    async def found(reading: Reading) -> None:
        nonlocal asked
        asked += 1
        reading.came((1201).to_bytes(2, "big"), 0.0)

    async def silent(reading: Reading) -> None:
        nonlocal asked
        asked += 1
        reading.failed("bad:timeout", 0.0)

    with pytest.raises(Unavailable) as caught:
        await guard.look([fine], silent, 0.0, 1)
    assert caught.value.reason == "timeout"
    looks = [
        (fine, found, 0.0, 1), (fine, found, AGAIN_S - 1, 1), (fine, found, AGAIN_S, 1), (fine, silent, 2 * AGAIN_S, 1),
        (fine, found, 2 * AGAIN_S + 1, 1), (failed, found, 2 * AGAIN_S + 2, 1),
        (failed, found, 2 * AGAIN_S + 3, 1), (failed, found, 2 * AGAIN_S + SOON_S + 2, 1),
        (fine, found, 2 * AGAIN_S + SOON_S + 3, 2),
    ]  # fmt: skip
    counts = []
    for reading, ask, now, connects in looks:
        before = asked
        await guard.look([reading], ask, now, connects)
        counts.append(asked - before)
    assert counts == [1, 0, 1, 1, 1, 1, 0, 1, 1]
    await Guard(config, []).look([failed], silent, 0.0, 5)


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ({"address": "coil:0", "value": 1}, "coil:0 is true or false: it never is 1"),
        ({"address": "40001.3", "value": 1}, "40001.3 is true or false"),
        ({"address": "40001", "type": "uint16", "value": True}, "40001 is a number: it never is True"),
        ({"address": "40001", "type": "uint16", "value": 70000}, "uint16 never is 70000"),
        ({"address": "40001", "type": "uint16", "value": 1.5}, "uint16 never is 1.5"),
        ({"address": "40001", "type": "string", "length": 2, "value": 1201}, 'a text (in quotes: "1201")'),
    ],
)
def test_what_never_can_be_there_is_a_mistake(expect: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TYPE.config_model.model_validate(
            {"name": "d", "type": "modbus", "url": "tcp://h", "tags": [tag("t", "40001", "uint16")], "expect": expect}
        )
    [error] = caught.value.errors()
    assert says in error["msg"]


def test_explain_tells_how_soon_a_new_program_is_noticed() -> None:
    def notes(address: str) -> str:
        config = TYPE.config_model.model_validate(
            {"name": "d", "type": "modbus", "url": "tcp://h", "tags": [tag("t", address, "uint16")], "expect": VERSION}
        )
        [note] = TYPE.explain(config).notes
        return note

    assert notes("holding:900") == "holding:900 must be 1201: compared every 1s, with what is read anyway"
    assert "make it a tag too" in notes("holding:7")


def test_mistakes_are_told_at_their_place() -> None:
    with pytest.raises(ValidationError) as caught:
        TYPE.config_model.model_validate(
            {"name": "d", "type": "modbus", "url": "tcp://h", "tags": [tag("t", "40001", "uint16")],
             "expect": [{"address": "40002", "value": 1}]}
        )  # fmt: skip
    assert caught.value.errors()[0]["loc"][:2] == ("expect", 0)
    assert "registers need a type" in caught.value.errors()[0]["msg"]
