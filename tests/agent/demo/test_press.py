import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo.children import Server, environment, serving
from agent.demo.press import FAULT, FAULT_BIT, FAULT_WORD, IDLE, LOT, PARTS, PRESSURE, RUNNING, STATE, Press, registers


def test_a_shift_of_the_press_is_plausible() -> None:
    press = Press()
    seen, trips, before = set(), 0, press.parts
    for _ in range(36_000):
        state, parts, warmth = press.state, press.parts, press.temperature
        press.advance(0.1)
        seen.add(press.state)
        trips += press.state == FAULT != state
        assert 0 <= press.parts - parts <= 1
        assert abs(press.temperature - warmth) < 1.0
        assert 15 < press.temperature < 75
        assert 30 < press.pressure < 160
    assert seen == {IDLE, RUNNING, FAULT}
    assert 20 < trips < 120
    assert 1_200 < press.parts - before < 2_800


def test_a_fresh_press_runs_and_makes_parts() -> None:
    press = Press()
    before = press.parts
    for _ in range(100):
        press.advance(0.1)
        assert press.running
    assert 6 <= press.parts - before <= 9


def test_the_registers_tell_the_state_in_the_ways_of_the_field() -> None:
    press = Press(state=FAULT, parts=0x0001_0002, temperature=23.4)
    running, holding, inputs = registers(press)
    assert not running
    assert holding[FAULT_WORD] == [1 << FAULT_BIT]
    assert holding[STATE][0] == FAULT
    assert holding[PARTS] == [0x0002, 0x0001]
    assert round(struct.unpack(">f", struct.pack(">HH", *holding[0]))[0], 4) == 23.4
    assert struct.pack(">8H", *holding[LOT]).rstrip(b"\0").decode("gbk") == f"批次{0x0001_0002 // 500:06d}"
    assert inputs[PRESSURE] == [1180]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    server = serving("press", "agent.demo.press", tmp_path / "press.log", environment())
    try:
        server.wait_ready(20)
        yield server
    finally:
        server.child.stop(2)


async def test_it_answers_reads_and_refuses_writes(served: Server) -> None:
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=served.port, retries=0)
    assert await client.connect()
    try:
        assert (await client.read_coils(0, count=1)).bits[0] is True
        assert (await client.read_holding_registers(STATE, count=1)).registers == [RUNNING]
        high_low = (await client.read_holding_registers(PARTS, count=2)).registers
        assert high_low[1] << 16 | high_low[0] >= 48_211
        assert 300 < (await client.read_input_registers(PRESSURE, count=1)).registers[0] < 1_600
        for refused in (
            await client.write_register(STATE, 0),
            await client.write_coil(0, False),
            await client.write_registers(0, [1, 2]),
        ):
            assert refused.isError()
        assert (await client.read_holding_registers(STATE, count=1)).registers == [RUNNING]
    finally:
        client.close()
