"""Never a wrong value, whatever the other side of an RTU connection does. `SHOPFLOOR_POLLS=1000` for the long run."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from typing import Any

import pytest

from collectors.api import Batch, Collector, Context, Unavailable
from collectors.modbus import TYPE
from tests.faulty import modbus_rtu as faulty
from tests.faulty.modbus_rtu import NEVER_GOOD, OF_CONNECTIONS, SOMETIMES_GOOD, STILL_GOOD, Behaviour, RtuPeer, honest
from tests.servers.modbus_rtu import Cable, needs_socat

POLLS = int(os.environ.get("SHOPFLOOR_POLLS", "12"))
PLACES = {f"{name}{n}": start + n for name, start in (("a", 0), ("b", 100), ("c", 200)) for n in range(4)} | {"d": 300}
"""Three requests whose replies look the same, and one of a single register."""
SOMETIMES = {behaviour.__name__ for behaviour in SOMETIMES_GOOD}


def configured(url: str, timeout: float, **more: Any) -> Any:
    tags = [{"name": name, "address": f"holding:{offset}", "type": "uint16"} for name, offset in PLACES.items()]
    fields = {"name": "dev", "type": "modbus", "url": url, "timeout": timeout, "tags": tags, **more}
    return TYPE.config_model.model_validate(fields)


class Client:
    """What a runner is to a collector, without its delays."""

    def __init__(self, url: str, timeout: float) -> None:
        self.config = configured(url, timeout)
        self.context = Context()
        self.collector: Collector | None = None
        self.good = self.bad = 0

    async def poll(self) -> bool:
        """Poll once, with a connection of its own if need be; whether every value came. A wrong one fails the test."""
        try:
            if self.collector is None:
                self.collector = TYPE.create(self.config, self.context)
                await self.collector.open()
            batches = await self.collector.collect(frozenset(self.collector.groups))
        except Unavailable:
            await self.close()
            self.bad += 1
            return False
        return self._check(batches)

    def _check(self, batches: Any) -> bool:
        (batch,) = batches
        assert isinstance(batch, Batch)
        for name, value in batch.values.items():
            assert value in {None, honest(PLACES[name])}, f"{name} = {value}, and it is {honest(PLACES[name])}"
            assert (value is None) == (name in batch.quality)
        whole = not batch.quality
        self.good += whole
        self.bad += not whole
        return whole

    async def close(self) -> None:
        if self.collector is not None:
            await self.collector.close()
            self.collector = None

    async def end(self) -> None:
        await self.close()
        await self.context.unpark([self.config.name])


async def _torment(behaviour: Behaviour, polls: int) -> tuple[str, int, int, int]:
    async with RtuPeer(behaviour) as peer:
        client = Client(peer.url, peer.timeout)
        for _ in range(polls):
            try:
                await client.poll()
            except AssertionError as error:
                raise AssertionError(f"{behaviour.__name__}: {error}") from None
        good = client.good
        await peer.behave()
        needed = 1
        while not await client.poll():
            needed += 1
            assert needed < 20, f"{behaviour.__name__}: not good again"
        await client.end()
        return behaviour.__name__, good, needed, len(peer.asked)


async def test_no_hostile_peer_makes_a_wrong_value_and_good_ones_are_read_again_at_once() -> None:
    hostile = (*NEVER_GOOD, *OF_CONNECTIONS, *SOMETIMES_GOOD)
    results = await asyncio.gather(*(_torment(behaviour, POLLS) for behaviour in hostile))
    for name, good, needed, _ in results:
        assert name in SOMETIMES or good == 0, f"{name}: {good} polls were good"
        assert needed <= 2, f"{name}: {needed} polls until good again"


@pytest.mark.parametrize("behaviour", STILL_GOOD, ids=faulty.describe)
async def test_what_can_be_understood_is_taken(behaviour: Behaviour) -> None:
    async with RtuPeer(behaviour, timeout=0.5) as peer:
        client = Client(peer.url, 1.0)
        for _ in range(5):
            assert await client.poll()
        await client.end()
        assert peer.connections == 1


@needs_socat
async def test_nor_on_a_serial_line() -> None:
    with Cable() as cable:
        async with RtuPeer(faulty.well, cable.far, timeout=0.03) as peer:
            client = Client(cable.url, peer.timeout)
            assert await client.poll()
            for behaviour in (*NEVER_GOOD, *SOMETIMES_GOOD):
                peer.behaviour = behaviour
                for _ in range(max(1, POLLS // 12)):
                    await client.poll()
            await peer.behave()
            for _ in range(10):
                if await client.poll():
                    break
            assert await client.poll()
            await client.end()


async def test_a_request_ends_in_time_however_slowly_bytes_come() -> None:
    async with RtuPeer(faulty.slow_loris, timeout=0.5) as peer:
        client = Client(peer.url, 0.5)
        client.config = configured(peer.url, 0.5, tags=[{"name": "d", "address": "holding:300", "type": "uint16"}])
        began = time.monotonic()
        assert not await client.poll()
        assert time.monotonic() - began < 0.5 * 1.1 + 0.1
        await client.end()


async def test_the_line_is_silent_for_a_time_out_after_one() -> None:
    times: list[float] = []

    async def note(peer: RtuPeer, asked: Any, write: Any) -> None:
        times.append(time.monotonic())

    async with RtuPeer(note, timeout=0.1) as peer:
        client = Client(peer.url, 0.1)
        await client.poll()
        await client.end()
    assert len(times) == 3
    assert all(0.19 < after - before < 0.4 for before, after in itertools.pairwise(times))


async def test_the_connection_stays_through_time_outs_and_is_opened_anew_after_five() -> None:
    async with RtuPeer(faulty.mute) as peer:
        client = Client(peer.url, peer.timeout)
        client.config = configured(peer.url, 0.05, tags=[{"name": "d", "address": "holding:300", "type": "uint16"}])
        for _ in range(5):
            await client.poll()
            assert peer.connections == 1
        await client.poll()
        assert peer.connections == 2
        await client.end()
