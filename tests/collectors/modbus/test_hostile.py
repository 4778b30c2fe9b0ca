"""Peers that misbehave: never a wrong value, and good again as soon as the device is."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from collectors.api import Batch, Collector, Context, Unavailable
from collectors.modbus import TYPE
from collectors.modbus.dial import connect
from collectors.modbus.link import DeviceException, Link, LinkLost, NoAnswer, Request, read_request
from collectors.modbus.plan import Block
from collectors.modbus.resolve import MAX_THREADS, Resolver
from tests.faulty import modbus as faulty
from tests.faulty.modbus import NEVER_GOOD, POISON, STILL_GOOD, Asked, Behaviour, Peer, Send, honest

OFFSETS = (0, 1, 2, 50, 51, 200)
POLLS = 6


def collector(peer: Peer, context: Context, **keys: Any) -> Collector:
    tags = [{"name": f"t{offset}", "address": f"holding:{offset}", "type": "uint16"} for offset in OFFSETS]
    config = TYPE.config_model.model_validate(
        {"name": "d", "type": "modbus", "url": peer.url, "timeout": peer.timeout, "tags": tags, **keys}
    )
    return TYPE.create(config, context)


class Reader:
    """Polls as the agent's runner does: a fresh collector after each failure, without its pauses."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.context = Context()
        self.collector: Collector | None = None
        self.failures: list[Unavailable] = []

    async def poll(self) -> Batch | None:
        try:
            if self.collector is None:
                self.collector = collector(self.peer, self.context)
                await self.collector.open()
            [batch] = await self.collector.collect(frozenset({"1s"}))
        except Unavailable as error:
            self.failures.append(error)
            await self.close()
            return None
        return batch

    async def close(self) -> None:
        device, self.collector = self.collector, None
        if device is not None:
            await device.close()


async def read(link: Link, unit: int, request: Request, timeout: float) -> bytes:
    answers: list[bytes | DeviceException] = []

    def took(answer: bytes | DeviceException) -> bool:
        answers.append(answer)
        return True

    await link.read(unit, [request], timeout, took)
    [answer] = answers
    assert isinstance(answer, bytes)
    return answer


def check(batch: Batch | None, *, whole: bool = False) -> None:
    """Every value is the honest one, or None with a quality."""
    if batch is None:
        assert not whole
        return
    for offset in OFFSETS:
        value = batch.values[f"t{offset}"]
        assert value != POISON
        assert value == honest(offset) or (value is None and batch.quality[f"t{offset}"].startswith("bad:"))
    if whole:
        assert batch.quality == {}


@pytest.mark.parametrize("behaviour", NEVER_GOOD, ids=lambda behaviour: behaviour.__name__)
async def test_never_a_wrong_value_and_good_again_when_the_device_is(behaviour: Behaviour) -> None:
    async with Peer(behaviour, timeout=0.03) as peer:
        reader = Reader(peer)
        for _ in range(POLLS):
            batch = await reader.poll()
            check(batch)
            assert batch is None or set(batch.values.values()) == {None}
        peer.behave()
        await reader.close()
        check(await reader.poll(), whole=True)
        await reader.close()
        assert peer.peak == 1


async def test_a_device_that_refused_everything_is_read_when_it_is_connected_anew() -> None:
    async def refuse(peer: Peer, asked: Asked, send: Send) -> None:
        await send(asked.frame(bytes([asked.function | 0x80, 2])))

    async with Peer(refuse, timeout=0.3) as peer:
        reader = Reader(peer)
        for _ in range(40):
            check(await reader.poll())
        peer.behave()
        await reader.close()
        for _ in range(3):
            batch = await reader.poll()
        check(batch, whole=True)
        await reader.close()


# What trickles in for one block stands in the way of whatever follows it on the same connection.
SEPARATE = [behaviour for behaviour in NEVER_GOOD if behaviour not in {faulty.slow_loris, faulty.late_in_two_parts}]


@pytest.mark.parametrize("behaviour", SEPARATE, ids=lambda behaviour: behaviour.__name__)
async def test_one_bad_block_never_spoils_the_others(behaviour: Behaviour) -> None:
    async def bad_at_fifty(peer: Peer, asked: Asked, send: Send) -> None:
        await (behaviour if asked.offset == 50 else faulty.well)(peer, asked, send)

    async with Peer(bad_at_fifty, timeout=0.15) as peer:
        reader = Reader(peer)
        for _ in range(3):
            batch = await reader.poll()
            assert batch is not None
            check(batch)
            bad = {offset for offset in OFFSETS if batch.values[f"t{offset}"] is None}
            # The tag beside it goes with it until the block was cut between them.
            assert {50} <= bad <= {50, 51}
        await reader.close()


@pytest.mark.parametrize("behaviour", STILL_GOOD, ids=lambda behaviour: behaviour.__name__)
async def test_what_is_only_odd_is_read(behaviour: Behaviour) -> None:
    async with Peer(behaviour, timeout=1) as peer:
        reader = Reader(peer)
        for _ in range(POLLS):
            check(await reader.poll(), whole=True)
        await reader.close()
        assert peer.connections == 1


async def test_a_device_that_changes_its_mind_all_the_time_never_gives_a_wrong_value() -> None:
    order = [*NEVER_GOOD, *STILL_GOOD * 6]

    async def moody(peer: Peer, asked: Asked, send: Send) -> None:
        await order[(asked.transaction * 7 + asked.offset) % len(order)](peer, asked, send)

    async with Peer(moody, timeout=0.02) as peer:
        reader = Reader(peer)
        for _ in range(60):
            check(await reader.poll())
        peer.behave()
        await reader.close()
        check(await reader.poll(), whole=True)
        await reader.close()
        assert peer.peak == 1


@pytest.mark.parametrize(
    ("behaviour", "reason", "cause"),
    [
        (faulty.mute, "timeout", "no_answer"),
        (faulty.wrong_unit, "decode", "bad_reply"),
        (faulty.garbage, "decode", "bad_reply"),
        (faulty.close_at_once, "not-connected", "closed_by_peer"),
    ],
)
async def test_what_was_the_matter_is_told(behaviour: Behaviour, reason: str, cause: str) -> None:
    async with Peer(behaviour, timeout=0.03) as peer:
        reader = Reader(peer)
        await reader.poll()
        [failure] = reader.failures
        assert (failure.reason, failure.cause) == (reason, cause)
        assert failure.facts["where"] == f"127.0.0.1:{peer.port}"


# -- the link alone ------------------------------------------------------------------------------------------------

REQUEST = read_request(Block("holding", 10, 2, ()))


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer(faulty.well) as peer:
        yield peer


async def link_to(peer: Peer) -> Link:
    return await connect("127.0.0.1", peer.port, "here", 1.0, Link)


async def test_a_late_reply_is_dropped_and_the_connection_stays(peer: Peer) -> None:
    link = await link_to(peer)
    peer.behaviour = faulty.late
    with pytest.raises(NoAnswer):
        await read(link, 1, REQUEST, 0.05)
    peer.behave()
    await asyncio.sleep(0.15)
    assert link.dropped == 1
    assert await read(link, 1, REQUEST, 1.0) == b"".join(honest(n).to_bytes(2, "big") for n in (10, 11))
    await link.close()
    assert peer.connections == 1


async def test_an_answer_that_came_before_its_request_is_none(peer: Peer) -> None:
    async def ahead(peer: Peer, asked: Asked, send: Send) -> None:
        await send(asked.frame(asked.good()) + asked.frame(asked.poisoned(), transaction=asked.transaction + 1))

    link = await link_to(peer)
    peer.behaviour = ahead
    answers: list[bytes | DeviceException] = []

    def took(answer: bytes | DeviceException) -> bool:
        answers.append(answer)
        return True

    with pytest.raises(LinkLost, match="was never asked for"):
        await link.read(1, [REQUEST, REQUEST], 1.0, took)
    assert answers == [b"".join(honest(n).to_bytes(2, "big") for n in (10, 11))]
    assert len(peer.asked) == 1
    await link.close()


async def test_a_row_of_requests_ends_when_the_caller_says_so(peer: Peer) -> None:
    link = await link_to(peer)
    taken: list[bytes | DeviceException] = []

    def took(answer: bytes | DeviceException) -> bool:
        taken.append(answer)
        return len(taken) < 2

    await link.read(1, [REQUEST] * 5, 1.0, took)
    assert len(taken) == len(peer.asked) == 2
    await link.close()


async def test_each_request_of_a_row_has_the_whole_time(peer: Peer) -> None:
    async def slow(peer: Peer, asked: Asked, send: Send) -> None:
        await asyncio.sleep(0.06)
        if len(peer.asked) < 4:
            await faulty.well(peer, asked, send)

    link = await link_to(peer)
    peer.behaviour = slow
    taken: list[bytes | DeviceException] = []

    def took(answer: bytes | DeviceException) -> bool:
        taken.append(answer)
        return True

    began = time.monotonic()
    with pytest.raises(NoAnswer):
        await link.read(1, [REQUEST] * 5, 0.1, took)
    assert len(taken) == 3
    assert 0.27 < time.monotonic() - began < 1.0
    await link.close()


async def test_three_time_outs_in_a_row_of_every_unit_end_the_connection(peer: Peer) -> None:
    link = await link_to(peer)

    async def only_unit_one(peer: Peer, asked: Asked, send: Send) -> None:
        if asked.unit == 1:
            await faulty.well(peer, asked, send)

    peer.behaviour = only_unit_one
    for _ in range(5):
        await read(link, 1, REQUEST, 1.0)
        with pytest.raises(NoAnswer):
            await read(link, 2, REQUEST, 0.01)
    assert link.alive
    peer.behaviour = faulty.mute
    for _ in range(3):
        assert link.alive
        with pytest.raises(NoAnswer):
            await read(link, 1, REQUEST, 0.01)
    assert not link.alive
    await link.close()


async def test_a_slow_loris_is_cut_off_at_the_deadline(peer: Peer) -> None:
    peer.behaviour, peer.timeout = faulty.slow_loris, 0.2
    link = await link_to(peer)
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        await read(link, 1, REQUEST, 0.2)
    assert time.monotonic() - began < 0.2 * 1.1 + 0.05
    await link.close()


async def test_requests_on_one_connection_cannot_overlap(peer: Peer) -> None:
    peer.behaviour = faulty.mute
    link = await link_to(peer)
    first = asyncio.create_task(read(link, 1, REQUEST, 0.1))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="overlap"):
        await read(link, 1, REQUEST, 0.1)
    with pytest.raises(NoAnswer):
        await first
    await link.close()


async def test_the_transaction_runs_round_without_being_zero(peer: Peer) -> None:
    link = await link_to(peer)
    link._transaction = 0xFFFD
    for _ in range(6):
        await read(link, 1, REQUEST, 1.0)
    assert [asked.transaction for asked in peer.asked] == [0xFFFE, 0xFFFF, 1, 2, 3, 4]
    await link.close()


async def test_the_socket_notices_dead_ends(peer: Peer) -> None:
    link = await link_to(peer)
    assert link._transport is not None
    sock = link._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    await link.close()
    await link.close()


# -- names ---------------------------------------------------------------------------------------------------------


async def test_an_unknown_name_is_told_as_one() -> None:
    with pytest.raises(Unavailable) as caught:
        await connect("no-such-host.invalid", 502, "no-such-host.invalid:502", 5.0, Link)
    assert (caught.value.cause, caught.value.facts) == ("name_unknown", {"host": "no-such-host.invalid"})


async def test_a_host_that_is_not_there_times_out() -> None:
    # 192.0.2.0/24 is reserved for documentation: depending on the network nothing answers, or there is no way.
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await connect("192.0.2.1", 502, "192.0.2.1:502", 0.1, Link)
    assert caught.value.cause in {"connect_timeout", "no_route", "refused"}
    assert time.monotonic() - began < 1


async def test_hanging_name_servers_block_nothing_and_pile_up_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    release = threading.Event()
    resolver = Resolver()

    def hang(host: str, port: int, **_: object) -> list[object]:
        release.wait(10)
        return []

    assert [place[1][:2] for place in await resolver.resolve("localhost", 7, 5.0)][-1][1] == 7
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        before = threading.active_count()
        answers = await asyncio.gather(
            *(resolver.resolve(f"plc-{n % 10}", 502, 0.05) for n in range(50)), return_exceptions=True
        )
        assert all(isinstance(answer, TimeoutError | socket.gaierror) for answer in answers)
        assert threading.active_count() - before <= MAX_THREADS
        assert await resolver.resolve("localhost", 7, 0.05), "the last good answer serves when there is none"
    finally:
        release.set()
