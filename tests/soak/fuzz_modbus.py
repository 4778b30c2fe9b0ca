"""What the fuzzer does with Modbus: registers of any content, and what comes in from the wire while a request is on.

The inputs of the links are scripts: each byte is a step (some with an argument behind), see `_Wire`. What the device
has sent is kept here, and what a link hands out is held against it, without the code that is tested. A clock that jumps
makes time-outs and silences cost nothing.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Sequence
from math import isfinite
from typing import Any, Literal, Protocol, TypeAlias

from collectors.modbus.decode import Field, RegisterDecoder
from collectors.modbus.link import BadReply, DeviceException, Link, LinkLost, NoAnswer, Request, Took
from collectors.modbus.rtu import RtuLink
from tests.virtual_time import VirtualTimeLoop

Target: TypeAlias = Callable[[bytes], None]

TIMEOUT, GAP = 1.0, 0.004
KEPT_S = 50.0
"""Longer than this no device keeps a request: a link may forget it after 60 s."""
MOST_REQUESTS = 12
JUNK = b"ping"


def registers() -> tuple[list[bytes], Target]:
    """Registers of any content: each tag has a finite value of its type, or none and a quality."""
    kinds = {"bool": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "int64": 4, "uint64": 4}
    kinds |= {"float64": 4, "bcd16": 1, "bcd32": 2, "string": 3}
    orders: tuple[Literal["ABCD", "CDAB", "BADC", "DCBA"], ...] = ("ABCD", "CDAB", "BADC", "DCBA")
    fields, at = [], 0
    for order in orders:
        for kind, registers in kinds.items():
            length, encoding = (registers, "gbk") if kind == "string" else (None, "utf-8")
            name = f"{kind}-{order}"
            fields.append(Field(name, at, kind, order, length=length, encoding=encoding, shortest=kind == "float32"))
            at += registers
    decoder, size = RegisterDecoder(fields), 2 * at
    plain = [(index, field.at) for index, field in enumerate(fields) if (field.type, field.order) == ("uint16", "ABCD")]

    def one(data: bytes) -> None:
        whole = data[:size].ljust(size, b"\0")
        values, bad = decoder.decode(whole)
        fresh = RegisterDecoder(fields).decode(whole)
        assert (list(values), dict(bad)) == (list(fresh[0]), dict(fresh[1])), "what came before makes a difference"
        for name, value in zip(decoder.names, values, strict=True):
            assert (value is None) == (name in bad), f"{name} is {value!r}, {bad.get(name)}"
            assert not isinstance(value, float) or isfinite(value), name
        for index, first in plain:
            assert values[index] == int.from_bytes(whole[2 * first : 2 * first + 2])

    return [bytes(range(200)), b"\x7f\xc0\x00\x00" * 40], one


# -- links ---------------------------------------------------------------------------------------------------------


def reading(function: int, offset: int, count: int) -> Request:
    """A read, built without pymodbus."""
    size = (count + 7) // 8 if function <= 2 else 2 * count
    return Request(function, struct.pack(">BHH", function, offset, count), size)


REQUESTS = [reading(3, 0, 2), reading(3, 100, 2), reading(3, 200, 1), reading(1, 0, 9), reading(4, 7, 2)]
UNITS = (1, 2)


class _Link(Protocol):
    """What `Link` and `RtuLink` have in common here."""

    @property
    def alive(self) -> bool: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    async def read(self, unit: int, requests: Sequence[Request], timeout: float, took: Took) -> None: ...
    async def close(self) -> None: ...


class _Transport(asyncio.Transport):
    """The far end of a connection: keeps what is written, and tells of the end as a socket does."""

    def __init__(self, link: _Link, wrote: Callable[[bytes], None]) -> None:
        super().__init__()
        self._link = link
        self._wrote = wrote
        self._ended = False

    def write(self, data: Any) -> None:
        self._wrote(bytes(data))

    def write_eof(self) -> None:
        self.abort()

    def is_closing(self) -> bool:
        return self._ended

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            asyncio.get_running_loop().call_soon(self._link.connection_lost, None)


class _Asked:
    """A request as it went over the wire, taken apart here."""

    def __init__(self, unit: int, pdu: bytes, transaction: int, position: int, at: float) -> None:
        self.unit, self.transaction, self.position, self.at = unit, transaction, position, at
        self.function: int
        self.offset: int
        self.function, self.offset, count = struct.unpack(">BHH", pdu)
        self.size: int = (count + 7) // 8 if self.function <= 2 else 2 * count

    @property
    def data(self) -> bytes:
        """What an honest device answers: which place, which function, over and over."""
        return (bytes([self.offset % 256, self.function]) * self.size)[: self.size]


class _Wire:
    """A link, a device, and the script of what they do; one for each input.

    Steps: 0 to 7 a read of one or two requests, 8 to 19 a good reply to one of the requests that are not answered
    (whole, in two parts, or after something), 20 an exception, 21 a request is lost, 22 to 27 time passes, 28 the
    device hangs up, 29 a good reply with one byte changed, 30 a heartbeat, 31 raw bytes; the next byte is an argument.
    """

    at_once: bool
    """An answer is taken with its last byte, not after a silence."""

    def __init__(self, link: _Link, data: bytes) -> None:
        self.link = link
        self.loop = asyncio.get_running_loop()
        self.honest = not (data and data[0] & 1)
        """The device sends nothing but its replies, in the order of the requests, however late."""
        self.script = data[1:]
        self.sent = b""
        """All that the device has sent."""
        self.parts: list[tuple[float, int]] = []
        """When it came, and how much it was then."""
        self.asked: list[_Asked] = []
        self.waiting: list[_Asked] = []
        self.answers = 0
        self._task: asyncio.Task[None] | None = None
        self._until = 0.0
        link.connection_made(_Transport(link, self._written))

    async def run(self) -> None:
        """Do all steps, and see the last read to its end."""
        at = 0
        while at < len(self.script) and len(self.asked) < MOST_REQUESTS:
            step, argument = self.script[at] % 32, self.script[at + 1 : at + 2]
            at += 2
            number = argument[0] if argument else 0
            if step == 31:
                self._raw(self.script[at : at + number % 32])
                at += number % 32
            else:
                await self._step(step, number)
            if self._task is not None and self._task.done():
                self._finish(self._task)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=max(0.0, self._until - self.loop.time()) + GAP)
            assert self._task.done(), "a read goes on beyond its deadline"
            self._finish(self._task)
        await self.link.close()

    async def _step(self, step: int, number: int) -> None:
        if step < 8:
            await self._read(step, number)
        elif step < 20 and self.waiting:
            self._reply(self._chosen(number), step, number)
        elif step == 20 and self.waiting:
            asked = self._chosen(number)
            self.receive(self.frame(asked, bytes([asked.function | 0x80, 2 + number % 3])))
        elif step == 21 and self.waiting:
            self.waiting.pop(0)
        elif 22 <= step < 28:
            await asyncio.sleep((0.0, GAP / 2, 2 * GAP, TIMEOUT / 2, TIMEOUT, 20.0)[step - 22])
        elif step == 28:
            if number > 200:
                self.link.connection_lost(None)
        elif step == 29 and self.waiting and not self.honest:
            asked = self._chosen(number)
            frame = bytearray(self.frame(asked, self.answer(asked)))
            frame[number % len(frame)] ^= 1 << number // 32
            self.receive(bytes(frame))
        elif step == 30 and not self.honest:
            self.receive(JUNK)

    async def _read(self, step: int, number: int) -> None:
        if self._task is not None or not self.link.alive:
            return
        unit = UNITS[number % len(UNITS)]
        requests = [REQUESTS[step % len(REQUESTS)], REQUESTS[number // 2 % len(REQUESTS)]][: 1 + number // 128]
        # A unit that owes much is asked something else first, which takes time of its own.
        self._until = self.loop.time() + (TIMEOUT + 1) * (2 + MOST_REQUESTS)
        taken: list[Request] = []

        def took(answer: bytes | DeviceException) -> bool:
            request = requests[len(taken)]
            taken.append(request)
            asked = self.asked[-1]
            assert (asked.unit, asked.function, asked.size) == (unit, request.function, request.size)
            self.answers += 1
            self.check(asked, answer)
            if self.honest and isinstance(answer, bytes):
                assert answer == asked.data, f"{answer.hex(' ')} is the answer to another request"
            return True

        self._task = asyncio.create_task(self.link.read(unit, requests, TIMEOUT, took))
        await asyncio.sleep(0)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._task = None
        failure = task.exception()
        if failure is not None and not isinstance(failure, NoAnswer | BadReply | LinkLost):
            raise failure

    def _chosen(self, number: int) -> _Asked:
        """Which request is answered now: an honest device takes one after the other."""
        self.waiting = [asked for asked in self.waiting if self.loop.time() - asked.at < KEPT_S] or self.waiting[-1:]
        return self.waiting.pop(0 if self.honest else number % len(self.waiting))

    def _reply(self, asked: _Asked, step: int, number: int) -> None:
        frame = self.frame(asked, self.answer(asked))
        cut = number % len(frame) if step % 2 else 0
        is_on = asked is self.asked[-1] and self.link.alive and self.loop.time() - asked.at < 0.99 * TIMEOUT
        before = self.answers
        for part in (frame[:cut], frame[cut:]):
            self.receive(part)
        if self.honest and self.at_once and is_on:
            assert self.answers == before + 1, "a good answer was not taken"

    def answer(self, asked: _Asked) -> bytes:
        """A good reply's PDU."""
        return bytes([asked.function, asked.size]) + asked.data

    def _raw(self, data: bytes) -> None:
        if not self.honest:
            self.receive(data)

    def receive(self, data: bytes) -> None:
        """The device has sent this."""
        if data and self.link.alive:
            self.sent += data
            self.parts.append((self.loop.time(), len(self.sent)))
            self.link.data_received(data)

    def _written(self, data: bytes) -> None:
        asked = self.parsed(data)
        assert asked.function in range(1, 5), "only reads go out"
        self.asked.append(asked)
        self.waiting.append(asked)

    def parsed(self, data: bytes) -> _Asked:
        """The request in what was written."""
        raise NotImplementedError

    def frame(self, asked: _Asked, pdu: bytes) -> bytes:
        """A reply as it goes over the wire."""
        raise NotImplementedError

    def check(self, asked: _Asked, answer: bytes | DeviceException) -> None:
        """That this was handed out as the answer to the request is right."""
        raise NotImplementedError


class _TcpWire(_Wire):
    at_once = True

    def parsed(self, data: bytes) -> _Asked:
        transaction, protocol, length, unit = struct.unpack_from(">HHHB", data)
        assert (protocol, length, len(data)) == (0, 6, 12), data.hex(" ")
        return _Asked(unit, data[7:], transaction, len(self.sent), self.loop.time())

    def frame(self, asked: _Asked, pdu: bytes) -> bytes:
        return struct.pack(">HHHB", asked.transaction, 0, len(pdu) + 1, asked.unit) + pdu

    def check(self, asked: _Asked, answer: bytes | DeviceException) -> None:
        pdu = _pdu(asked, answer)
        frame, at = self.frame(asked, pdu), 0
        while at < len(self.sent):  # frame by frame, from the beginning
            if self.sent[at : at + len(frame)] == frame and at + len(frame) > asked.position:
                return
            at += 6 + int.from_bytes(self.sent[at + 4 : at + 6], "big")
        raise AssertionError(f"nobody sent {frame.hex(' ')}")


class _RtuWire(_Wire):
    at_once = False

    def parsed(self, data: bytes) -> _Asked:
        assert _crc(data[:-2]) == data[-2:], data.hex(" ")
        assert not self.parts or self.loop.time() - self.parts[-1][0] > GAP - 1e-6, (
            "a request began before silence had ended a frame"
        )
        return _Asked(data[0], data[1:-2], 0, len(self.sent), self.loop.time())

    def frame(self, asked: _Asked, pdu: bytes) -> bytes:
        body = bytes([asked.unit]) + pdu
        return body + _crc(body)

    def check(self, asked: _Asked, answer: bytes | DeviceException) -> None:
        frame = self.frame(asked, _pdu(asked, answer))
        # What came in this very moment came when it had been taken already.
        now = self.loop.time()
        came = [(at, end) for at, end in self.parts if at < now]
        heard = self.sent[asked.position : came[-1][1]]
        assert now - came[-1][0] > GAP - 1e-6, "taken before silence had ended the frame"
        while heard.endswith(JUNK):
            heard = heard[: -len(JUNK)]
        at = {heard.rfind(JUNK, 0, end) for end in range(len(heard) - len(frame), len(heard) + 1)} - {-1}
        whole = {heard, *(heard[:one] + heard[one + len(JUNK) :] for one in at)}
        assert any(one.endswith(frame) for one in whole), f"nobody sent {frame.hex(' ')} but {heard.hex(' ')}"


def _pdu(asked: _Asked, answer: bytes | DeviceException) -> bytes:
    if isinstance(answer, DeviceException):
        return bytes([asked.function | 0x80, answer.code])
    assert len(answer) == asked.size
    return bytes([asked.function, asked.size]) + answer


def _crc(data: bytes) -> bytes:
    """As the specification has it, bit by bit."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


SCRIPTS = [
    b"\x00" + bytes(steps)
    for steps in (
        [0, 0, 8, 0, 24, 0] * 3,
        [0, 128, 9, 3, 24, 0, 8, 0, 24, 0],
        [0, 0, 26, 0, 26, 0, 8, 0, 24, 0, 1, 0, 8, 0, 24, 0, 8, 0],
        [3, 1, 20, 0, 24, 0, 4, 1, 8, 0, 8, 0, 24, 0],
        [0, 0, 26, 0, 26, 0, 1, 0, 8, 0, 8, 0, 24, 0, 26, 0, 2, 0, 8, 0, 24, 0],
    )
]
RAW = b"\x01\x00\x00\x1f\x0d\x00\x01\x00\x00\x00\x07\x01\x03\x04\x00\x01\x00\x02\x18\x00"
RAW_RTU = (
    b"\x01\x00\x00\x1f\x09" + b"\x01\x03\x04\x00\x01\x00\x02" + _crc(b"\x01\x03\x04\x00\x01\x00\x02") + b"\x18\x00"
)
SEEDS = [*SCRIPTS, *(b"\x01" + script[1:] + bytes([0, 0, 29, 40, 24, 0, 30, 0, 8, 0, 24, 0]) for script in SCRIPTS)]


async def over_tcp(script: bytes) -> None:
    """Replies over Modbus TCP, split anywhere."""
    link = Link("d")
    link._transaction = 0  # else the same input would be another one
    await _TcpWire(link, script).run()


async def over_rtu(script: bytes) -> None:
    """Replies of a serial line, split anywhere, with silences."""
    await _RtuWire(RtuLink("d", GAP, junk=[JUNK], wary=True), script).run()


def _links(over: Callable[[bytes], Coroutine[Any, Any, None]], *raw: bytes) -> tuple[list[bytes], Target]:
    loop = VirtualTimeLoop()
    return [*SEEDS, *raw], lambda data: loop.run_until_complete(over(data))


TARGETS: dict[str, Callable[[], tuple[list[bytes], Target]]] = {
    "Modbus registers": registers,
    "Modbus TCP": lambda: _links(over_tcp, RAW),
    "Modbus RTU": lambda: _links(over_rtu, RAW_RTU),
}
