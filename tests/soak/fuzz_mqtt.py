"""What the fuzzer does with MQTT: a broker that says anything, at our session, over a socket of the loopback.

The session must end, in time and with a reason, whatever it is; what it hands out as acknowledged must have been
acknowledged on the wire: a PUBACK of that packet id, after the message was sent, and once. All that a network thread
would do is done in turn with the broker, so that an input does the same each time, and hundreds of them in a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from agent.aside import Aside
from agent.mqtt import Limits, Protocol, Session, Will
from agent.mqtt_endpoint import Endpoint
from agent.mqtt_errors import SessionError

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import MQTTErrorCode

Target: TypeAlias = Callable[[bytes], None]
T = TypeVar("T")

MESSAGES = 6
WITHIN_S = 0.9
PUBACK = 4
GOOD: dict[Protocol, bytes] = {"5": b"\x20\x03\x00\x00\x00", "3.1.1": b"\x20\x02\x00\x00"}
"""CONNACKs that accept."""


class _AtOnce(Aside[T]):
    """Without a thread of its own: what it would wait for is there already."""

    async def run(self, call: Callable[[], T], timeout: float) -> T:
        return call()


class _Broker:
    """Listens for one session after the other."""

    def __init__(self) -> None:
        from paho.mqtt.client import Client

        Client.loop_start = Client.loop_misc  # type: ignore[method-assign]  # no thread, see above
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.loop = asyncio.new_event_loop()

    async def meet(self, data: bytes) -> None:
        """Let a session connect, and say this to it: bit 1 of the first byte chooses the protocol, bit 2 who answers
        CONNECT, the rest in how many parts it comes."""
        how, said = data[0] if data else 0, _without_zero(data[1:])
        protocol: Protocol = "3.1.1" if how & 1 else "5"
        news = asyncio.Event()
        session = Session(
            Endpoint(host="127.0.0.1", port=self.port, tls=False, client_id="gw"),
            protocol,
            will=Will("w", b"lost"),
            aside=_AtOnce("fuzz"),
            on_news=news.set,
            connect_s=WITHIN_S,
        )
        connecting = asyncio.create_task(session.connect())
        await asyncio.sleep(0)  # it has dialled
        theirs, _ = self._listening.accept()
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = session._client
        assert client is not None
        try:
            published: list[int] = []
            if not how & 2:
                theirs.sendall(GOOD[protocol])
                client._loop(WITHIN_S)
                await connecting
                published = [session.publish("a/b", b"%d" % number) for number in range(MESSAGES)]
            _in_turn(client, theirs, said, how >> 2)
            await self._end(session, connecting, news)
            self._check(session.take_acks(), published, said, protocol)
        finally:
            await session.close(goodbye=False)
            theirs.close()

    async def _end(self, session: Session, connecting: asyncio.Task[Limits], news: asyncio.Event) -> None:
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(SessionError):
                limits = await connecting
                assert 0 < limits.window <= 65_535
                while session.lost is None:
                    await news.wait()
                    news.clear()
        assert session.lost is not None
        assert str(session.lost)

    def _check(self, acks: list[tuple[int, int]], published: list[int], said: bytes, protocol: Protocol) -> None:
        """Each is one of the packets, in their order."""
        packets = (_acknowledged(body, protocol) for _, head, body in _packets(said) if head >> 4 == PUBACK and body)
        for mid, code in acks:
            assert mid in published, f"{mid} was never sent"
            published.remove(mid)
            assert (mid, code) in packets, f"nobody acknowledged {mid} with {code}"


def _in_turn(client: Client, theirs: socket.socket, said: bytes, parts: int) -> None:
    """Run the network loop; before each of its rounds the broker says the next part, in the end it hangs up."""
    size = max(1, len(said) // (1 + parts % 4))
    left = [said[at : at + size] for at in range(0, len(said), size)]
    work = client._loop

    def one_round(timeout: float = 1.0) -> MQTTErrorCode:
        with contextlib.suppress(OSError):  # hung up on
            if left:
                theirs.sendall(left.pop(0))
            else:
                theirs.shutdown(socket.SHUT_WR)
        return work(timeout)

    client._loop = one_round  # type: ignore[method-assign]  # of this one object
    client.loop_forever(WITHIN_S)


def _packets(said: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """Of each packet where it begins, its first byte and its body, None = the end is missing; taken apart here."""
    at = 0
    while at < len(said):
        began, length, shift = at, 0, 0
        while (at := at + 1) < len(said):
            length |= (said[at] & 0x7F) << shift
            shift += 7
            if said[at] < 0x80:
                break
        at += 1 + length
        yield began, said[began], said[at - length : at] if at <= len(said) else None


def _without_zero(said: bytes) -> bytes:
    """What is said up to a packet whose first byte is 0: paho waits for its rest, and forgets that it does."""
    return said[: next((began for began, head, _ in _packets(said) if head == 0), len(said))]


def _acknowledged(body: bytes, protocol: Protocol) -> tuple[int, int]:
    """Packet id and reason code."""
    return int.from_bytes(body[:2]), body[2] if len(body) > 2 and protocol == "5" else 0


def session() -> tuple[list[bytes], Target]:
    """The input is what the broker says."""
    broker = _Broker()
    acks = b"".join(struct.pack(">BBH", 0x40, 2, mid) for mid in range(1, MESSAGES + 1))
    packets = [
        acks,
        b"\x40\x04\x00\x01\x10\x00\x40\x03\x00\x02\x87",
        b"\xd0\x00" + acks[:8] + b"\xe0\x02\x8e\x00",
        b"\x32\x07\x00\x01a\x00\x01\x00x" + acks,
        b"\x50\x02\x00\x01" + acks,
        b"\x50\x02\x00\x02\x70\x02\x00\x02" + acks,
        b"\x90\x04\x00\x01\x00\x00",
    ]
    connacks = [
        b"\x20\x06\x00\x00\x03\x21\x00\x14",
        b"\x20\x08\x00\x00\x05\x27\x00\x00\x01\x00",
        b"\x20\x03\x00\x87\x00",
        b"\x20\x05\x00\x00\x02\x24\x00",
        b"\x20\x02\x00\x05",
    ]
    seeds = [bytes([how]) + one for one in packets for how in (0, 1, 8)]
    seeds += [bytes([how]) + one for one in (*GOOD.values(), *connacks) for how in (2, 3)]
    return seeds, lambda data: broker.loop.run_until_complete(broker.meet(data))


TARGETS = {"MQTT": session}
