"""One Modbus TCP connection; the owner of pymodbus, whose framer and PDU classes build requests and split replies.

Promises, in this order: a reply is handed out only if transaction, unit, function and byte count are those of the
request. A reply to an earlier request of this connection is dropped, whenever it comes. Anything else that does not fit
closes the connection, and so do three time-outs in a row of every unit that was asked on it. A request ends within its
deadline however slowly bytes arrive. Only function codes 1 to 4 can be built.

pymodbus's own client is not used: it drops half-received bytes when it sends, skips replies of a wrong unit, accepts
transaction 0 and any byte count. May import: the standard library, pymodbus (when a connection is made),
`collectors.api`, the small modules of this package.
"""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from collectors.modbus.plan import Block

if TYPE_CHECKING:
    from pymodbus.framer import FramerSocket
    from pymodbus.pdu import DecodePDU, ModbusPDU

SILENT_TIMES = 3
"""Time-outs in a row of every unit after which the connection is given up."""
GOODBYE_S = 0.25
"""How long a device may take to close its side when we close ours."""

_HEADER = 8
"""Bytes of the MBAP header and the function code."""
_DATA = 9
"""Bytes before the data of a reply: header, function code, byte count."""
_REQUEST = struct.Struct(">HHHB")
_REPLY = struct.Struct(">HHHBBB")
_NONE = -1
_LENGTHS = range(3, 255)
"""What the header's length field may say: unit, function, at least one byte; at most 253 bytes of PDU and the unit."""


class NoAnswer(Exception):
    """The unit did not answer this request in time; the connection stays."""


class BadReply(Exception):
    """What came is no reply to this request; nothing of it was taken over, and the connection stays."""

    def __init__(self, text: str, detail: str) -> None:
        super().__init__(text)
        self.text = text
        self.detail = detail


class DeviceException(Exception):
    """The device answered with an exception.

    Args:
        code: 1 illegal function, 2 illegal address, 3 illegal value, 4 failure, 6 busy, 10 and 11 gateway, ...
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class LinkLost(Exception):
    """The connection is gone; `cause` and `text` as in `collectors.api.CollectorError`."""

    def __init__(self, reason: str, cause: str, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.cause = cause
        self.text = text
        self.detail = detail

    def again(self) -> LinkLost:
        """The same without the traceback of an earlier `raise`."""
        return LinkLost(self.reason, self.cause, self.text, self.detail)


@dataclass(frozen=True, slots=True)
class Request:
    """A read, built once and sent often.

    Attributes:
        function: 1 to 4.
        pdu: function code, offset and count as they go over the wire.
        size: bytes of data that the reply must carry.
    """

    function: int
    pdu: bytes
    size: int


def read_request(block: Block) -> Request:
    """Return the request that reads a block."""
    from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
    from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

    classes: dict[str, type[ModbusPDU]] = {
        "coil": ReadCoilsRequest,
        "discrete": ReadDiscreteInputsRequest,
        "holding": ReadHoldingRegistersRequest,
        "input": ReadInputRegistersRequest,
    }
    pdu = classes[block.area](address=block.offset, count=block.count)
    return Request(pdu.function_code, bytes([pdu.function_code]) + pdu.encode(), block.payload)


@cache
def _codec() -> tuple[FramerSocket, DecodePDU]:
    """pymodbus's framer and decoder, which keep no state; replies to reads keep their raw bytes."""
    from pymodbus.framer import FramerSocket
    from pymodbus.pdu import DecodePDU, ModbusPDU

    # Every reply that does not fit would be an error of its own in the log; we log changes of state.
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

    def decode(self: ModbusPDU, data: bytes) -> None:
        self.data = data  # type: ignore[attr-defined]  # the class below is made for it

    def text(self: ModbusPDU) -> str:
        return "raw reply"  # pymodbus formats every reply for its debug log, whether that is on or not

    decoder = DecodePDU(False)
    for function in (1, 2, 3, 4):
        decoder.register(
            type(f"RawReply{function}", (ModbusPDU,), {"function_code": function, "decode": decode, "__str__": text})
        )
    return FramerSocket(decoder), decoder


Took: TypeAlias = Callable[[bytes | DeviceException], bool]
"""Takes an answer; returns whether the next request is to be sent."""


class ModbusLink(Protocol):
    """A connection that carries reads, however they are framed.

    Attributes:
        idle_s: seconds of the last `read` in which the line was kept silent on purpose.
    """

    idle_s: float

    @property
    def alive(self) -> bool:
        """Whether requests may be sent."""

    async def read(self, unit: int, requests: Sequence[Request], timeout: float, took: Took) -> None:
        """Send requests to a unit, one after the other. Raises NoAnswer, BadReply, LinkLost."""

    async def close(self) -> None:
        """Close the connection. Safe twice."""


class _Run:
    """Requests to one unit, sent one after the other; `at` is the one that is on."""

    __slots__ = ("at", "finished", "requests", "timeout", "took", "unit")

    def __init__(
        self, unit: int, requests: Sequence[Request], timeout: float, took: Took, finished: asyncio.Future[None]
    ) -> None:
        self.unit = unit
        self.requests = requests
        self.timeout = timeout
        self.took = took
        self.finished = finished
        self.at = 0


class Link(asyncio.Protocol):
    """A connection to one address, used by one request at a time. Made by `dial.connect`."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.idle_s = 0.0
        self.dropped = 0
        """Replies that came after their request had ended."""
        self._framer, self._decoder = _codec()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._lost: LinkLost | None = None
        self._rest = b""
        self._run: _Run | None = None
        # The reply that is waited for: its length, and the bytes before its data. No length: none is.
        self._wanted_size = _NONE
        self._wanted_head = b""
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transaction = random.randrange(1, 0x10000)
        self._sent = 0
        self._silent: dict[int, int] = {}

    @property
    def alive(self) -> bool:
        """Whether requests may be sent."""
        return self._lost is None and self._transport is not None and not self._transport.is_closing()

    async def read(self, unit: int, requests: Sequence[Request], timeout: float, took: Took) -> None:
        """Send requests to a unit, each when the one before it was answered, without a detour through the loop.

        A cancelled call takes the connection with it: the device may still answer, and nobody may be sent in between.

        Args:
            timeout: seconds for each of them.
            took: called with each answer: data of exactly `request.size` bytes, or what the device says instead;
                returns whether to go on with the next. Must not raise.

        Raises:
            NoAnswer: to the request after those that `took` was called for, nothing complete came in time.
            LinkLost: the connection ended at that request, or was closed because of what came.
        """
        if self._lost is not None or self._transport is None:
            raise (self._lost or _closed_by_us()).again()
        if self._run is not None:
            raise RuntimeError("requests on one connection overlap")
        self._run = run = _Run(unit, requests, timeout, took, self._loop.create_future())
        self._send(run)
        try:
            await run.finished
        except NoAnswer:
            self._note_silence(unit)
            raise
        except asyncio.CancelledError:
            self._lose(_closed_by_us())
            raise
        finally:
            self._run = None
            self._wanted_size = _NONE

    async def close(self) -> None:
        """Close the connection; returns when the socket is closed. Safe twice.

        The device is given a moment to close its side first: one that takes a single connection must have let go of
        this one before the next comes.
        """
        if self.alive and self._run is None and self._transport is not None:
            self._lost = _closed_by_us()
            self._transport.write_eof()
            try:
                await asyncio.wait((self._closed,), timeout=GOODBYE_S)
            finally:
                self._transport.abort()
        self._lose(_closed_by_us())
        if self._transport is not None:
            await asyncio.shield(self._closed)

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take what came. Byte for byte the reply that is waited for is the rule; all else goes the long way."""
        if len(data) == self._wanted_size and data.startswith(self._wanted_head) and not self._rest:
            self._answered(data[_DATA:])
        elif self._lost is None:
            self._split(data)
        run = self._run
        if run is not None and self._wanted_size == _NONE and self._lost is None and not run.finished.done():
            self._send(run)  # only now: what had come before cannot be its answer

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended, for whatever reason."""
        if isinstance(exc, TimeoutError):
            lost = LinkLost("timeout", "no_answer", f"{self.where} no longer answers: the connection broke off")
        else:
            lost = LinkLost("not-connected", "closed_by_peer", f"{self.where} closed the connection")
        self._lose(lost)
        if not self._closed.done():
            self._closed.set_result(None)

    # -- requests and replies ------------------------------------------------------------------------------------

    def _send(self, run: _Run) -> None:
        request, unit = run.requests[run.at], run.unit
        self._transaction = transaction = self._transaction % 0xFFFF + 1
        self._sent += 1
        self._wanted_head = _REPLY.pack(transaction, 0, request.size + 3, unit, request.function, request.size)
        self._wanted_size = request.size + _DATA
        # One timer for all requests: it is set anew only when it rings, or would ring too late.
        self._deadline = self._loop.time() + run.timeout
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()
        assert self._transport is not None
        self._transport.write(_REQUEST.pack(transaction, 0, len(request.pdu) + 1, unit) + request.pdu)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._run is None or self._wanted_size == _NONE:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            self._end_run(self._run, NoAnswer())

    def _answered(self, answer: bytes | DeviceException) -> None:
        run = self._run
        assert run is not None
        self._wanted_size = _NONE
        self._silent[run.unit] = 0
        run.at += 1
        if not run.took(answer) or run.at == len(run.requests):
            self._end_run(run, None)

    def _end_run(self, run: _Run, failure: Exception | None) -> None:
        self._wanted_size = _NONE
        if run.finished.done():
            return
        if failure is None:
            run.finished.set_result(None)
        else:
            run.finished.set_exception(failure)

    def _split(self, data: bytes) -> None:
        """Split what came into replies; what is incomplete stays until the rest comes, across requests."""
        data = self._rest + data if self._rest else bytes(data)
        while len(data) >= _HEADER:
            if data[2:4] != b"\0\0" or int.from_bytes(data[4:6], "big") not in _LENGTHS:
                self._violation(f"no Modbus TCP: {data[:12].hex(' ')}")
                return
            used, unit, transaction, pdu = self._framer.decode(data)
            if not used:
                break
            data = data[used:]
            self._take(transaction, unit, pdu)
            if self._lost is not None:
                return
        self._rest = data

    def _take(self, transaction: int, unit: int, pdu: bytes) -> None:
        run = self._run
        if run is None or transaction != self._transaction or self._wanted_size == _NONE:
            # A reply to an earlier request: too late or twice. Never one of a transaction that was not begun.
            if transaction and (self._transaction - transaction) % 0xFFFF < min(self._sent, 0x8000):
                self.dropped += 1
            else:
                self._violation(f"transaction {transaction} was never asked for")
            return
        request = run.requests[run.at]
        if unit != run.unit:
            self._violation(f"unit {unit} answered instead of {run.unit}")
            return
        reply = self._decoder.decode(pdu)
        if reply is None:
            self._violation(f"not a reply to a read: {pdu[:12].hex(' ')}")
        elif reply.function_code == request.function | 0x80 and len(pdu) == 2:
            self._answered(DeviceException(reply.exception_code))
        elif reply.function_code != request.function:
            self._violation(f"function {reply.function_code} answered instead of {request.function}")
        elif pdu[1] != request.size or len(pdu) != request.size + 2:
            self._violation(f"{pdu[1]} bytes announced and {len(pdu) - 2} came instead of {request.size}")
        else:
            self._answered(cast("bytes", reply.data)[1:])  # type: ignore[attr-defined]  # see _codec

    def _violation(self, detail: str) -> None:
        text = f"{self.where} sent what is no reply to the request ({detail}): connection closed, nothing taken over"
        self._lose(LinkLost("decode", "bad_reply", text, detail))

    def _note_silence(self, unit: int) -> None:
        self._silent[unit] = self._silent.get(unit, 0) + 1
        if min(self._silent.values()) >= SILENT_TIMES:
            text = f"{self.where}: no unit answered {SILENT_TIMES} times in a row: connection closed"
            self._lose(LinkLost("timeout", "no_answer", text))

    def _lose(self, lost: LinkLost) -> None:
        """Give the connection up; the first reason stays."""
        if self._lost is None:
            self._lost = lost
            self._rest = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._run is not None:
            self._end_run(self._run, self._lost.again())
        if self._transport is not None:
            self._transport.abort()


def _closed_by_us() -> LinkLost:
    return LinkLost("not-connected", "closed", "the connection was closed here")
