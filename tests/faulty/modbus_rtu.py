"""Modbus RTU peers that misbehave on purpose, in the test's own event loop: over TCP, or on one end of a cable.

    async with RtuPeer(wrong_checksum) as peer:          # hostile until told otherwise; peer.url
    async with RtuPeer(late, cable.far) as peer:         # at the end of a serial line
        await peer.behave()                              # honest from now on

An honest reply carries `honest(offset)` in each register. RTU has no transactions: a peer that lies in a frame that is
right in every way cannot be told from an honest one, so hostile replies are wrong in form, in time or in number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import struct
import termios
import tty
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.faulty.modbus import POISON, honest

__all__ = ["POISON", "RtuAsked", "RtuPeer", "checksum", "honest"]


def checksum(data: bytes) -> bytes:
    """CRC-16/MODBUS, bit by bit as the standard says: not the code under test."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


@dataclass(frozen=True)
class RtuAsked:
    """One request as it came."""

    raw: bytes
    unit: int
    function: int
    offset: int
    count: int

    def frame(self, pdu: bytes, unit: int | None = None) -> bytes:
        """A reply with this PDU."""
        body = bytes([self.unit if unit is None else unit]) + pdu
        return body + checksum(body)

    def registers(self, values: list[int]) -> bytes:
        """The PDU with these registers."""
        return bytes([self.function, 2 * len(values) & 0xFF]) + struct.pack(f">{len(values)}H", *values)

    def good(self) -> bytes:
        """The honest PDU."""
        return self.registers([honest(self.offset + index) for index in range(self.count)])

    def poisoned(self, count: int | None = None) -> bytes:
        """A PDU that looks right and carries poison."""
        return self.registers([POISON] * (self.count if count is None else count))


Write = Callable[[bytes], None]
Behaviour = Callable[["RtuPeer", RtuAsked, Write], Awaitable[None]]


class RtuPeer:
    """Answers by a behaviour.

    Attributes:
        timeout: what a client should allow a request; behaviours that are late are so by this measure.
        asked: requests that came, at most the last 1,000.
        units: who answers; None = everybody.
        random: for behaviours that change their mind.
    """

    def __init__(self, behaviour: Behaviour, place: str | None = None, *, timeout: float = 0.05) -> None:
        self.behaviour = behaviour
        self.timeout = timeout
        self.asked: list[RtuAsked] = []
        self.units: set[int] | None = None
        self.connections = 0
        self.port = 0
        self.random = random.Random(1)
        self._answered_at = 0.0
        self._place = place
        self._server: asyncio.Server | None = None
        self._descriptor: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"rtu+tcp://127.0.0.1:{self.port}"

    async def behave(self) -> None:
        """Be honest, as soon as what is under way has ended."""
        self.behaviour = mute
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=60 * self.timeout)  # one may wait for ever
        self.behaviour = well

    async def in_order(self, delay: float) -> None:
        """Wait so long, and until whatever was asked before was answered: no serial line overtakes itself."""
        loop = asyncio.get_running_loop()
        self._answered_at = max(self._answered_at, loop.time() + delay)
        await asyncio.sleep(self._answered_at - loop.time())

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def write(self, data: bytes) -> None:
        """Say something unasked, to everybody who listens."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, data)
        for writer in self._writers:
            writer.write(data)

    async def __aenter__(self) -> RtuPeer:
        if self._place is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            self._descriptor = os.open(self._place, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(self._descriptor, termios.TCSANOW)
            buffer = bytearray()
            asyncio.get_running_loop().add_reader(self._descriptor, self._readable, buffer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
        if self._server is not None:
            self._server.close()
            self.hang_up()
            await self._server.wait_closed()

    def _readable(self, buffer: bytearray) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            buffer += os.read(self._descriptor, 4096)
        self._requests(buffer, self.write)

    def _requests(self, buffer: bytearray, write: Write) -> None:
        while len(buffer) >= 8:
            raw = bytes(buffer[:8])
            del buffer[:8]
            assert checksum(raw[:6]) == raw[6:], f"no request: {raw.hex(' ')}"
            unit, function, offset, count = struct.unpack(">BBHH", raw[:6])
            asked = RtuAsked(raw, unit, function, offset, count)
            self.asked.append(asked)
            del self.asked[:-1000]
            if self.units is None or unit in self.units:
                task = asyncio.get_running_loop().create_task(self._reply(asked, write))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _reply(self, asked: RtuAsked, write: Write) -> None:
        await self.behaviour(self, asked, write)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        buffer = bytearray()
        try:
            while data := await reader.read(4096):
                buffer += data
                self._requests(buffer, writer.write)
        except (ConnectionError, asyncio.CancelledError):
            pass  # cancelled only when the loop ends
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def well(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Answer as one should."""
    write(asked.frame(asked.good()))


async def mute(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Never answer."""


async def late(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Answer when the time is up, before the line has been silent for as long."""
    await asyncio.sleep(peer.timeout * 1.5)
    write(asked.frame(asked.good()))


async def very_late(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Answer when the line has been silent for long enough, and the next request is on its way."""
    await peer.in_order(peer.timeout * (2.1 + 0.37 * (len(peer.asked) % 5)))
    write(asked.frame(asked.good()))


async def sometimes_late(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Answer every third request late, in the order of the requests as a queue does."""
    await peer.in_order(peer.timeout * 2.3 if len(peer.asked) % 3 == 0 else 0)
    write(asked.frame(asked.good()))


async def slow_queue(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Answer in order, now at once and now far too late, now with values and now with an exception."""
    await peer.in_order(peer.timeout * peer.random.choice((0, 0, 1.2, 2.3, 3.1, 5.7)))
    exception = bytes([asked.function | 0x80, peer.random.choice((4, 6))])
    write(asked.frame(exception if peer.random.random() < 0.4 else asked.good()))


async def late_in_two_parts(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Send half of a reply in time and the rest later."""
    frame = asked.frame(asked.good())
    write(frame[:4])
    await asyncio.sleep(peer.timeout * 1.2)
    write(frame[4:])


async def two_replies(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """A good reply, and another with other values behind it."""
    write(asked.frame(asked.good()))
    write(asked.frame(asked.poisoned()))


async def poison_first(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """The reply to an earlier request that looks the same, and the good one right behind it."""
    write(asked.frame(asked.poisoned()))
    write(asked.frame(asked.good()))


async def wrong_checksum(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """A bit fell over."""
    frame = bytearray(asked.frame(asked.good()))
    frame[4] ^= 1 << len(peer.asked) % 8
    write(bytes(frame))


async def truncated(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """The end is missing."""
    write(asked.frame(asked.poisoned())[: -1 - len(peer.asked) % 5])


async def trailing_byte(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """One byte too many, as a line driver that is switched off late makes it."""
    write(asked.frame(asked.poisoned()) + b"\xff")


async def leading_byte(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """One byte too many in front."""
    write(b"\xff" + asked.frame(asked.poisoned()))


async def wrong_unit(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Another unit answers."""
    write(asked.frame(asked.poisoned(), unit=asked.unit ^ 0x10))


async def wrong_function(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Input registers instead of holding registers."""
    write(asked.frame(bytes([asked.function ^ 7]) + asked.poisoned()[1:]))


async def write_function(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """The reply to a write."""
    write(asked.frame(struct.pack(">BHH", 6, asked.offset, POISON)))


async def fewer_registers(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """A consistent reply with too few registers."""
    write(asked.frame(asked.poisoned(max(asked.count - 1, 0))))


async def more_registers(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """A consistent reply with one register too many."""
    write(asked.frame(asked.poisoned(asked.count + 1)))


async def byte_count_lies(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """The frame is as long as it should be, the byte count says otherwise."""
    pdu = bytearray(asked.poisoned())
    pdu[1] = (pdu[1] + 2) & 0xFF
    write(asked.frame(bytes(pdu)))


async def native_frame(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """A gateway that speaks Modbus TCP."""
    pdu = asked.poisoned()
    write(struct.pack(">HHHB", 1, 0, len(pdu) + 1, asked.unit) + pdu)


async def garbage(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Noise, as of a wrong baud rate."""
    write(b"\xde\xad" * 9)


async def endless_garbage(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Noise that does not end before the time is up."""
    for _ in range(20):
        write(b"\xde\xad" * 30)
        await asyncio.sleep(peer.timeout / 15)


async def exception_storm(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Exceptions of all kinds in turn."""
    codes = (1, 4, 5, 6, 8, 10, 11, 255)
    write(asked.frame(bytes([asked.function | 0x80, codes[len(peer.asked) % len(codes)]])))


async def long_exception(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """An exception that goes on."""
    write(asked.frame(bytes([asked.function | 0x80, 2, 0xDE, 0xAD])))


async def slow_loris(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Byte by byte, each within the time-out, all together far beyond it."""
    for byte in asked.frame(asked.good()):
        write(bytes([byte]))
        await asyncio.sleep(peer.timeout * 0.4)


async def echo_alone(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Nobody answers; the adapter hears what it sends."""
    write(asked.raw)


async def close_mid_reply(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Hang up in the middle of a reply."""
    write(asked.frame(asked.poisoned())[:6])
    await asyncio.sleep(0)
    peer.hang_up()


async def close_at_once(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Accept, and hang up at the first request."""
    peer.hang_up()


async def after_reconnect(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Hang up, and hand the reply to whoever connects next: serial servers buffer what comes from the line."""
    peer.hang_up()
    before = peer.connections
    while peer.connections == before:  # noqa: ASYNC110  # ends with the peer
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.002 + 0.004 * (len(peer.asked) % 4))
    peer.write(asked.frame(asked.good()))


async def echo(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """An adapter that hears what it sends, and the reply."""
    write(asked.raw)
    await asyncio.sleep(0.001)
    write(asked.frame(asked.good()))


async def other_unit_first(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """Another unit's late reply, some silence, and the reply."""
    write(asked.frame(asked.poisoned(), unit=asked.unit ^ 0x10))
    await asyncio.sleep(0.03)
    write(asked.frame(asked.good()))


async def byte_by_byte(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """A good reply in single bytes."""
    for byte in asked.frame(asked.good()):
        write(bytes([byte]))
        await asyncio.sleep(0)


async def twice_the_same(peer: RtuPeer, asked: RtuAsked, write: Write) -> None:
    """The same reply twice."""
    write(2 * asked.frame(asked.good()))


NEVER_GOOD: tuple[Behaviour, ...] = (
    mute, late, very_late, late_in_two_parts, two_replies, poison_first, wrong_checksum, truncated, trailing_byte,
    leading_byte, wrong_unit, wrong_function, write_function, fewer_registers, more_registers, byte_count_lies,
    native_frame, garbage, endless_garbage, exception_storm, long_exception, slow_loris, echo_alone,
)  # fmt: skip
"""No request is answered usably."""
OF_CONNECTIONS: tuple[Behaviour, ...] = (close_mid_reply, close_at_once, after_reconnect)
"""As those, but only where there are connections."""
SOMETIMES_GOOD: tuple[Behaviour, ...] = (sometimes_late, slow_queue)
STILL_GOOD: tuple[Behaviour, ...] = (well, echo, other_unit_first, byte_by_byte, twice_the_same)
"""The good reply is among what comes."""


def describe(behaviour: Any) -> str:
    """Its name, for the ids of tests."""
    return str(behaviour.__name__)
