"""Modbus TCP peers that misbehave on purpose, in the test's own event loop.

    async with Peer(wrong_unit) as peer:      # hostile until told otherwise
        ...                                   # peer.url, peer.timeout
        peer.behave()                         # honest from now on

An honest reply to a read carries `honest(offset)` for each register; whatever a hostile one carries is `POISON` (or no
register at all), so that a test needs one check: no poison among the values.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

POISON = 0xDEAD


def honest(offset: int) -> int:
    """The value of a register of an honest peer."""
    return (offset * 31 + 7) % 50_000


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    transaction: int
    unit: int
    function: int
    offset: int
    count: int

    def frame(
        self,
        pdu: bytes,
        *,
        transaction: int | None = None,
        unit: int | None = None,
        protocol: int = 0,
        length: int | None = None,
    ) -> bytes:
        """A reply with this PDU; each part of the header can be made wrong."""
        return (
            struct.pack(
                ">HHHB",
                self.transaction if transaction is None else transaction,
                protocol,
                len(pdu) + 1 if length is None else length,
                self.unit if unit is None else unit,
            )
            + pdu
        )

    def good(self) -> bytes:
        """The honest PDU."""
        return self.registers(honest(self.offset + index) for index in range(self.count))

    def poisoned(self, count: int | None = None) -> bytes:
        """A PDU that looks right and carries poison."""
        return self.registers(POISON for _ in range(self.count if count is None else count))

    def registers(self, values: object) -> bytes:
        """A reply with these registers."""
        words = list(values)  # type: ignore[call-overload]  # any iterable of numbers
        return bytes([self.function, 2 * len(words) & 0xFF]) + struct.pack(f">{len(words)}H", *words)


class Send:
    """Sends on the connection that the request came on. `pieces` never mix with another reply: no TCP peer does that,
    and no client could tell."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._lock = asyncio.Lock()

    async def __call__(self, data: bytes) -> None:
        await self.pieces([data], 0)

    async def pieces(self, pieces: Iterable[bytes], pause: float) -> None:
        """Send these with so many seconds after each but the last."""
        async with self._lock:
            for index, piece in enumerate(pieces):
                if index:
                    await asyncio.sleep(pause)
                with contextlib.suppress(ConnectionError):
                    self._writer.write(piece)
                    await self._writer.drain()


Behaviour = Callable[["Peer", Asked, Send], Awaitable[None]]


class Peer:
    """A server that answers by a behaviour.

    Attributes:
        timeout: what a client should allow a request; behaviours that are late are so by this measure.
        asked: requests that came, at most the last 1,000.
        connections, open, peak: made; standing now; standing at once at most.
    """

    def __init__(self, behaviour: Behaviour, *, timeout: float = 0.1) -> None:
        self.behaviour: Behaviour = behaviour
        self.timeout = timeout
        self.asked: list[Asked] = []
        self.connections = self.open = self.peak = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"tcp://127.0.0.1:{self.port}"

    def behave(self) -> None:
        """Be honest from now on, and allow for a busy machine."""
        self.behaviour = well
        self.timeout = 1.0

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.peak = max(self.peak, self.open)
        self._writers.add(writer)
        send = Send(writer)
        try:
            while True:
                transaction, _, _, unit = struct.unpack(">HHHB", await reader.readexactly(7))
                function, offset, count = struct.unpack(">BHH", await reader.readexactly(5))
                asked = Asked(transaction, unit, function, offset, count)
                self.asked.append(asked)
                del self.asked[:-1000]
                task = asyncio.get_running_loop().create_task(self._reply(asked, send))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled only when the loop ends, where asyncio.streams would log it as an error
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.transport.abort()

    async def _reply(self, asked: Asked, send: Send) -> None:
        await self.behaviour(self, asked, send)


async def well(peer: Peer, asked: Asked, send: Send) -> None:
    """Answer as one should."""
    await send(asked.frame(asked.good()))


async def mute(peer: Peer, asked: Asked, send: Send) -> None:
    """Never answer."""


async def late(peer: Peer, asked: Asked, send: Send) -> None:
    """Answer rightly framed poison when the time is up."""
    await asyncio.sleep(peer.timeout * 1.5)
    await send(asked.frame(asked.poisoned()))


async def late_in_two_parts(peer: Peer, asked: Asked, send: Send) -> None:
    """Send half of a reply in time and the rest when the next request is on its way."""
    frame = asked.frame(asked.poisoned())
    await send.pieces([frame[:10], frame[10:]], peer.timeout * 1.2)


async def twice(peer: Peer, asked: Asked, send: Send) -> None:
    """Send the good reply, and poison with the same transaction behind it."""
    await send(asked.frame(asked.good()))
    await send(asked.frame(asked.poisoned()))


async def previous_first(peer: Peer, asked: Asked, send: Send) -> None:
    """Send poison for the transaction before, then the good reply."""
    if len(peer.asked) > 1:
        await send(asked.frame(asked.poisoned(), transaction=peer.asked[-2].transaction))
    await send(asked.frame(asked.good()))


async def wrong_transaction(peer: Peer, asked: Asked, send: Send) -> None:
    """Answer a request that was never made."""
    await send(asked.frame(asked.poisoned(), transaction=(asked.transaction + 1000) & 0xFFFF))


async def transaction_zero(peer: Peer, asked: Asked, send: Send) -> None:
    """Answer with transaction 0, as pymodbus's own client would accept."""
    await send(asked.frame(asked.poisoned(), transaction=0))


async def wrong_unit(peer: Peer, asked: Asked, send: Send) -> None:
    """Another unit answers."""
    await send(asked.frame(asked.poisoned(), unit=asked.unit ^ 0x10))


async def wrong_function(peer: Peer, asked: Asked, send: Send) -> None:
    """Input registers instead of holding registers, and the other way round."""
    await send(asked.frame(bytes([asked.function ^ 7]) + asked.poisoned()[1:]))


async def write_function(peer: Peer, asked: Asked, send: Send) -> None:
    """The reply to a write."""
    await send(asked.frame(struct.pack(">BHH", 6, asked.offset, POISON)))


async def fewer_registers(peer: Peer, asked: Asked, send: Send) -> None:
    """A consistent reply with too few registers."""
    await send(asked.frame(asked.poisoned(max(asked.count - 1, 0))))


async def more_registers(peer: Peer, asked: Asked, send: Send) -> None:
    """A consistent reply with one register too many."""
    await send(asked.frame(asked.poisoned(asked.count + 1 if asked.count < 125 else 124)))


async def byte_count_lies(peer: Peer, asked: Asked, send: Send) -> None:
    """The frame is as long as it should be, the byte count says otherwise."""
    pdu = bytearray(asked.poisoned())
    pdu[1] = (pdu[1] + 2) & 0xFF
    await send(asked.frame(bytes(pdu)))


async def trailing_bytes(peer: Peer, asked: Asked, send: Send) -> None:
    """Two bytes too many within the frame."""
    await send(asked.frame(asked.poisoned() + b"\xde\xad"))


async def length_lies(peer: Peer, asked: Asked, send: Send) -> None:
    """The header announces less than comes: the rest looks like the next header."""
    pdu = asked.poisoned()
    await send(asked.frame(pdu, length=len(pdu) - 1))


async def giant_length(peer: Peer, asked: Asked, send: Send) -> None:
    """The header announces 65,535 bytes."""
    await send(asked.frame(asked.poisoned(), length=0xFFFF))


async def wrong_protocol(peer: Peer, asked: Asked, send: Send) -> None:
    """Not Modbus, says the header."""
    await send(asked.frame(asked.poisoned(), protocol=0x0100))


async def rtu_frame(peer: Peer, asked: Asked, send: Send) -> None:
    """A serial server that passes RTU frames through."""
    await send(bytes([asked.unit]) + asked.poisoned() + b"\x12\x34")


async def garbage(peer: Peer, asked: Asked, send: Send) -> None:
    """Noise."""
    await send(b"\xde\xad" * 20)


async def exception_storm(peer: Peer, asked: Asked, send: Send) -> None:
    """Exceptions of all kinds in turn."""
    codes = (1, 2, 3, 4, 5, 6, 8, 10, 11, 255)
    await send(asked.frame(bytes([asked.function | 0x80, codes[len(peer.asked) % len(codes)]])))


async def exception_of_another(peer: Peer, asked: Asked, send: Send) -> None:
    """An exception to a function that was not asked for."""
    await send(asked.frame(bytes([0x86, 2])))


async def long_exception(peer: Peer, asked: Asked, send: Send) -> None:
    """An exception that goes on."""
    await send(asked.frame(bytes([asked.function | 0x80, 2, 0xDE, 0xAD])))


async def bare_function(peer: Peer, asked: Asked, send: Send) -> None:
    """A reply without data."""
    await send(asked.frame(bytes([asked.function])))


async def slow_loris(peer: Peer, asked: Asked, send: Send) -> None:
    """Byte by byte, each within the time-out, all together far beyond it."""
    await send.pieces([bytes([byte]) for byte in asked.frame(asked.poisoned())], peer.timeout * 0.4)


async def byte_by_byte(peer: Peer, asked: Asked, send: Send) -> None:
    """A good reply in single bytes, fast enough."""
    await send.pieces([bytes([byte]) for byte in asked.frame(asked.good())], 0)


async def close_mid_reply(peer: Peer, asked: Asked, send: Send) -> None:
    """Hang up in the middle of a reply."""
    frame = asked.frame(asked.poisoned())
    await send(frame[: len(frame) // 2])
    peer.hang_up()


async def close_at_once(peer: Peer, asked: Asked, send: Send) -> None:
    """Accept, and hang up at the first request."""
    peer.hang_up()


NEVER_GOOD: tuple[Behaviour, ...] = (
    mute, late, late_in_two_parts, wrong_transaction, transaction_zero, wrong_unit, wrong_function, write_function,
    fewer_registers, more_registers, byte_count_lies, trailing_bytes, length_lies, giant_length, wrong_protocol,
    rtu_frame, garbage, exception_storm, exception_of_another, long_exception, bare_function, slow_loris,
    close_mid_reply, close_at_once,
)  # fmt: skip
"""No request is answered usably."""
STILL_GOOD: tuple[Behaviour, ...] = (well, twice, previous_first, byte_by_byte)
"""The good reply is among what comes."""
