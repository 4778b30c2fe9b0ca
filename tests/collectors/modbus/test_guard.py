"""A program download moves addresses: no plausible nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from collectors.api import Context, Unavailable
from collectors.modbus import TYPE
from collectors.modbus.guard import AGAIN_S, Guard
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


async def test_it_is_looked_at_every_hour_and_after_each_connect() -> None:
    config = TYPE.config_model.model_validate(
        {"name": "d", "type": "modbus", "url": "tcp://127.0.0.1", "tags": [tag("t", "40001", "uint16")],
         "expect": VERSION}
    )  # fmt: skip
    guard = Guard(config, config.expect)

    async def found(reading: Any) -> None:
        reading.came((1201).to_bytes(2, "big"), 0.0)

    async def silent(reading: Any) -> None:
        reading.failed("bad:timeout", 0.0)

    assert guard.is_due(0.0, 1)
    with pytest.raises(Unavailable) as caught:
        await guard.check(silent, 0.0, 1)
    assert caught.value.reason == "timeout"
    await guard.check(found, 0.0, 1)
    assert not guard.is_due(AGAIN_S - 1, 1)
    assert guard.is_due(AGAIN_S, 1)
    await guard.check(silent, AGAIN_S, 1)
    assert guard.is_due(AGAIN_S + 1, 1)
    assert guard.is_due(1.0, 2)
    assert not Guard(config, []).is_due(0.0, 1)


def test_mistakes_are_told_at_their_place() -> None:
    with pytest.raises(ValidationError) as caught:
        TYPE.config_model.model_validate(
            {"name": "d", "type": "modbus", "url": "tcp://h", "tags": [tag("t", "40001", "uint16")],
             "expect": [{"address": "40002", "value": 1}]}
        )  # fmt: skip
    assert caught.value.errors()[0]["loc"][:2] == ("expect", 0)
    assert "registers need a type" in caught.value.errors()[0]["msg"]
