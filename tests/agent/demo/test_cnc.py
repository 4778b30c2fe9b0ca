import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.demo.children import Server, environment, serving
from agent.demo.cnc import NAMESPACE, NODES, Cnc


def test_a_shift_of_the_machine_is_plausible() -> None:
    cnc = Cnc()
    programs, alarms, before = set(), set(), cnc.parts
    for _ in range(4 * 3_600):
        parts = cnc.parts
        cnc.advance(0.25)
        values = cnc.values()
        assert 0 <= cnc.parts - parts <= 1
        assert isinstance(values["spindle_speed"], float)
        assert 0 <= values["spindle_speed"] <= 3_300
        programs.add(values["program"])
        alarms.add(values["alarm"])
        assert set(values) == set(NODES)
    assert len(programs) == 3
    assert "" in alarms
    assert len(alarms) == 3
    assert 280 < cnc.parts - before < 330


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    server = serving("cnc", "agent.demo.cnc", tmp_path / "cnc.log", environment())
    try:
        server.wait_ready(30)
        yield server
    finally:
        server.child.stop(2)


async def test_it_shows_changing_values_and_refuses_writes(served: Server) -> None:
    from asyncua import Client, ua

    async with Client(f"opc.tcp://127.0.0.1:{served.port}/") as client:
        index = await client.get_namespace_index(NAMESPACE)
        nodes = {name: client.get_node(ua.NodeId(identifier, index)) for name, identifier in NODES.items()}
        values = {name: await node.read_value() for name, node in nodes.items()}
        assert values["parts"] >= 1_284
        assert isinstance(values["program"], str)
        assert values["running"] in {True, False}
        assert await nodes["parts"].read_data_type_as_variant_type() is ua.VariantType.UInt32
        deadline = time.monotonic() + 5
        while await nodes["spindle_speed"].read_value() == values["spindle_speed"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        with pytest.raises(ua.UaStatusCodeError):
            await nodes["parts"].write_value(ua.Variant(0, ua.VariantType.UInt32))
