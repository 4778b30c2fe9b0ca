"""A scripted MQTT 3.1.1 and 5 broker that misbehaves on command and writes down what it got.

    async with FaultyBroker(receive_maximum=1) as broker:
        broker.puback = lambda publish: None      # drop every PUBACK
        ...
        assert broker.max_unacked == 1

It takes QoS 1 publishers only; nothing is delivered to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

CONNECT, CONNACK, PUBLISH, PUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 12, 14
V311, V5 = 4, 5


@dataclass
class Connect:
    """A CONNECT packet."""

    protocol: int
    client_id: str
    clean: bool
    keepalive: int
    will_topic: str | None = None
    will_payload: bytes | None = None
    username: str | None = None
    password: str | None = None


@dataclass
class Publish:
    """A PUBLISH packet; `connection` counts from 0."""

    connection: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int


@dataclass
class Connection:
    """One client's connection, from accept to end."""

    number: int
    writer: asyncio.StreamWriter
    protocol: int = 0
    received: int = 0
    unacked: set[int] = field(default_factory=set)
    goodbye: bool = False
    ended: bool = False


class FaultyBroker:
    """Listens on a free loopback port.

    Args:
        receive_maximum, maximum_packet_size, maximum_qos, retain_available: told in CONNACK (MQTT 5 only).

    Attributes:
        answer_connect: False = CONNECT is never answered.
        connack: protocol level -> code of CONNACK (0 accepts); a level that is missing is accepted.
        connack_bytes: sent instead of any CONNACK.
        puback: reason code for a PUBLISH, None = no PUBACK.
        puback_delay_s: PUBACKs come so much later, in order.
        cut_at: the connection is reset when it has received so many bytes; used once for each value, in turn.
        take_over_after: a DISCONNECT 0x8E (MQTT 5) and the end after so many publishes of each connection.
        say_before_end: DISCONNECT with this code when `take_over_after` is reached.
    """

    def __init__(
        self,
        *,
        receive_maximum: int | None = None,
        maximum_packet_size: int | None = None,
        maximum_qos: int | None = None,
        retain_available: int | None = None,
    ) -> None:
        self.properties = b""
        for identifier, form, value in (
            (0x21, "!BH", receive_maximum),
            (0x27, "!BI", maximum_packet_size),
            (0x24, "!BB", maximum_qos),
            (0x25, "!BB", retain_available),
        ):
            if value is not None:
                self.properties += struct.pack(form, identifier, value)
        self.answer_connect = True
        self.connack: dict[int, int] = {}
        self.connack_bytes: bytes | None = None
        self.puback: Callable[[Publish], int | None] = lambda _publish: 0
        self.puback_delay_s = 0.0
        self.cut_at: list[int] = []
        self.take_over_after: int | None = None
        self.say_before_end = 0x8E
        self.connects: list[Connect] = []
        self.publishes: list[Publish] = []
        self.acknowledged: list[Publish] = []
        self.connections: list[Connection] = []
        self.max_unacked = 0
        self._server: asyncio.Server | None = None
        self._news = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.port = 0

    async def __aenter__(self) -> FaultyBroker:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._thawed.set()
        for _ in range(10):  # a connection that was accepted a moment ago is on its way into `connections`
            await asyncio.sleep(0)
        self._server.close()
        for connection in self.connections:
            connection.writer.close()
        await self.until(lambda: all(connection.ended for connection in self.connections))

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"mqtt://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        """Read nothing and answer nothing more, while every connection stands."""
        self._thawed.clear()

    def kick(self) -> None:
        """Close every connection without a word."""
        for connection in self.connections:
            connection.writer.close()

    def payloads(self, topic: str) -> list[bytes]:
        """What was published on this topic."""
        return [publish.payload for publish in self.publishes if publish.topic == topic]

    async def until(self, condition: Callable[[], bool], within: float = 10.0) -> None:
        """Wait for a condition, looked at whenever something came in.

        Raises:
            TimeoutError: it did not become true.
        """
        async with asyncio.timeout(within):
            while not condition():
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self._news.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(len(self.connections), writer)
        self.connections.append(connection)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                kind, flags, body = await self._packet(reader, connection)
                await self._thawed.wait()
                await self._handle(connection, kind, flags, body)
                self._news.set()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        connection.ended = True
        self._news.set()

    async def _packet(self, reader: asyncio.StreamReader, connection: Connection) -> tuple[int, int, bytes]:
        head = (await self._exactly(reader, connection, 1))[0]
        length = shift = 0
        while True:
            byte = (await self._exactly(reader, connection, 1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        return head >> 4, head & 0x0F, await self._exactly(reader, connection, length)

    async def _exactly(self, reader: asyncio.StreamReader, connection: Connection, count: int) -> bytes:
        if self.cut_at and connection.received + count >= self.cut_at[0]:
            await reader.readexactly(max(0, self.cut_at.pop(0) - connection.received))
            connection.writer.transport.abort()
            raise ConnectionAbortedError
        data = await reader.readexactly(count)
        connection.received += count
        return data

    async def _handle(self, connection: Connection, kind: int, flags: int, body: bytes) -> None:
        writer = connection.writer
        if kind == CONNECT:
            connect = _connect(body)
            self.connects.append(connect)
            connection.protocol = connect.protocol
            if not self.answer_connect:
                return
            code = self.connack.get(connect.protocol, 0)
            if self.connack_bytes is not None:
                writer.write(self.connack_bytes)
            elif connect.protocol == V5:
                properties = self.properties if code == 0 else b""
                writer.write(_packet(CONNACK, bytes([0, code, len(properties)]) + properties))
            else:
                writer.write(_packet(CONNACK, bytes([0, code])))
            if code:
                writer.close()
        elif kind == PUBLISH:
            self._publish(connection, _publish(connection, flags, body))
        elif kind == PINGREQ:
            writer.write(b"\xd0\x00")
        elif kind == DISCONNECT:
            connection.goodbye = True
            writer.close()

    def _publish(self, connection: Connection, publish: Publish) -> None:
        self.publishes.append(publish)
        assert publish.qos == 1
        assert publish.mid not in connection.unacked, "packet id used twice"
        connection.unacked.add(publish.mid)
        self.max_unacked = max(self.max_unacked, len(connection.unacked))
        code = self.puback(publish)
        if code is not None:
            if self.puback_delay_s:
                asyncio.get_running_loop().call_later(self.puback_delay_s, self._acknowledge, connection, publish, code)
            else:
                self._acknowledge(connection, publish, code)
        if self.take_over_after is None:
            return
        if sum(other.connection == connection.number for other in self.publishes) >= self.take_over_after:
            if connection.protocol == V5:
                connection.writer.write(_packet(DISCONNECT, bytes([self.say_before_end, 0])))
            connection.writer.close()

    def _acknowledge(self, connection: Connection, publish: Publish, code: int) -> None:
        connection.unacked.discard(publish.mid)
        if connection.writer.is_closing() or not self._thawed.is_set():
            return
        self.acknowledged.append(publish)
        body = struct.pack("!H", publish.mid) + (bytes([code]) if code and connection.protocol == V5 else b"")
        connection.writer.write(_packet(PUBACK, body))


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        byte, rest = rest & 0x7F, rest >> 7
        length.append(byte | (0x80 if rest else 0))
        if not rest:
            return bytes([kind << 4]) + bytes(length) + body


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if not byte & 0x80:
            return value, at


def _text(body: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("!H", body, at)
    return body[at + 2 : at + 2 + length], at + 2 + length


def _connect(body: bytes) -> Connect:
    name, at = _text(body, 0)
    assert name == b"MQTT"
    protocol, flags, keepalive = struct.unpack_from("!BBH", body, at)
    at += 4
    if protocol == V5:
        length, at = _varint(body, at)
        at += length
    client_id, at = _text(body, at)
    connect = Connect(protocol, client_id.decode(), bool(flags & 0x02), keepalive)
    if flags & 0x04:
        assert flags & 0x38 == 0x28, "the will is retained, with QoS 1"
        if protocol == V5:
            length, at = _varint(body, at)
            at += length
        topic, at = _text(body, at)
        connect.will_payload, at = _text(body, at)
        connect.will_topic = topic.decode()
    if flags & 0x80:
        name, at = _text(body, at)
        connect.username = name.decode()
    if flags & 0x40:
        name, at = _text(body, at)
        connect.password = name.decode()
    assert at == len(body)
    return connect


def _publish(connection: Connection, flags: int, body: bytes) -> Publish:
    topic, at = _text(body, 0)
    (mid,) = struct.unpack_from("!H", body, at)
    at += 2
    if connection.protocol == V5:
        length, at = _varint(body, at)
        at += length
    return Publish(
        connection.number,
        topic.decode(),
        body[at:],
        qos=flags >> 1 & 3,
        retain=bool(flags & 1),
        dup=bool(flags & 8),
        mid=mid,
    )
