"""The short way through what real servers publish, secured or not, against the library's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.api import Context, Value
from collectors.opcua import delivery
from collectors.opcua.certificate import describe
from collectors.opcua.fast import read
from collectors.opcua.sample import Message
from collectors.opcua.trust import TrustStore
from tests.collectors.opcua.reading import SHORT, Reading
from tests.collectors.opcua.test_fast import assert_same
from tests.servers.opcua import OpcuaServer
from tests.servers.opcua_secure import SecureServer, pair

N = OpcuaServer.node
OTHERS = {"removed", "other"}
"""Left to other tests."""


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every response to a publish request."""
    responses: list[bytes] = []

    def reading(data: bytes) -> Message | None:
        responses.append(data)
        return read(data)

    monkeypatch.setattr(delivery, "FAST", True)
    monkeypatch.setattr(delivery, "read", reading)
    return responses


def known(responses: list[bytes]) -> int:
    """How many values came the short way, each as the library decodes it."""
    from asyncua import ua

    return sum(len(assert_same(ua, data).samples) for data in responses if read(data) is not None)


@pytest.mark.parametrize("time", ["source", "server", "gateway"])
async def test_every_scalar_type_of_a_real_server(server: OpcuaServer, recorded: list[bytes], time: str) -> None:
    names = [name for name in server.nodes if name not in ("array", *OTHERS)]
    async with Reading(server.url, {name: N(name) for name in names}, time=time) as reading:
        await reading.all()
        server.set_many("speed", [1.0, 2.0, 3.0])
        server.set("count", 8, status=0x40000000)
        await reading.until(lambda: (reading.values["speed"], reading.values["count"]) == (3.0, 8))
    assert known(recorded) == sum(len(batch.values) for batch in reading.batches)
    assert reading.quality["count"] == "uncertain:status-0x40000000"


async def test_it_makes_no_difference_which_way_is_taken(server: OpcuaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array among them sends the whole response the long way; everything, times too, is the same."""
    for left_out in ((), ("array",)):
        nodes = {name: N(name) for name in server.nodes if name not in (*left_out, *OTHERS)}
        seen: list[list[tuple[dict[str, Value], dict[str, str], dict[str, int], int | None]]] = []
        for way in (False, True):
            monkeypatch.setattr(delivery, "FAST", way)
            async with Reading(server.url, nodes) as reading:
                await reading.all()
            seen.append([(batch.values, batch.quality, batch.age_ms, batch.ts) for batch in reading.batches])
        assert seen[0] == seen[1]


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureServer]:
    with SecureServer({"speed": 1.5, "text": "läuft"}) as running:
        yield running


@pytest.mark.parametrize(
    "policy", ["Basic256Sha256_Sign", "Basic256Sha256_SignAndEncrypt", "Aes256Sha256RsaPss_SignAndEncrypt"]
)
async def test_secured_connections(secure: SecureServer, recorded: list[bytes], tmp_path: Path, policy: str) -> None:
    own = pair(tmp_path, "plc")
    secure.secure(own, policies=[policy])
    state = tmp_path / "state"
    TrustStore(state).trust("d", describe(own.der))
    name, _, mode = policy.partition("_")
    names = {"Basic256Sha256": "Basic256Sha256", "Aes256Sha256RsaPss": "Aes256_Sha256_RsaPss"}
    keys: dict[str, Any] = {"security": {"policy": names[name], "mode": mode}, "timeout": 2.0}
    async with Reading(secure.url, {"speed": N("speed"), "text": N("text")}, Context(state), SHORT, **keys) as reading:
        await reading.all()
        speed = 6.0 - float(str(reading.values["speed"]))
        secure.set("speed", speed)
        await reading.until(lambda: reading.values == {"speed": speed, "text": "läuft"})
    assert known(recorded) == sum(len(batch.values) for batch in reading.batches) == 3
