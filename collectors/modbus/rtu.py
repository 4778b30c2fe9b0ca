"""One connection that carries Modbus RTU frames: a serial port, a serial server, a modem that dialled in.

RTU has no transactions: what answers which request is known by unit, function, size and time alone. Promises:

- A reply is handed out only if it came alone, whole, with the right checksum, from the unit and with the function and
  size that were asked for, and was followed by silence. Two replies to one request are none.
- After a time-out or a wrong reply the line is silent for as long as the request might have taken, and drained.
- A unit that owes a reply of some function and size is not asked for the same again before it has answered something
  that looks different: no reply is taken for that to a later request, however late it is (`owed`).
- The connection stays, whatever comes; it is given up after `SILENT_TIMES` time-outs in a row of every unit.
- Frames begin after 3.5 characters of silence. Only function codes 1 to 4 can be sent.

An adapter that echoes what is sent is put up with, and so is a modem that puts its heartbeat into a reply. May import:
the standard library, `collectors.modbus.link`, `collectors.modbus.owed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from collectors.modbus.link import BadReply, DeviceException, LinkLost, NoAnswer, Request, Took
from collectors.modbus.owed import Owed

SILENT_TIMES = 5
"""Time-outs in a row of every unit after which the connection is given up."""
LONGEST_FRAME = 256
FAST_GAP_S = 0.00175
"""The silence between frames above 19,200 baud. Source: MODBUS over serial line, specification V1.02, 2.5.1.1."""
FOREIGN_BURSTS = 4
"""So much unasked for within `FOREIGN_S` seconds is another master."""
FOREIGN_S = 10.0
_LEAST_FRAME = 4


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0xA001 if byte & 1 else byte >> 1  # noqa: PLW2901  # the remainder of this byte
        table.append(byte)
    return tuple(table)


_CRC = _crc_table()


def checksum(data: bytes) -> bytes:
    """CRC-16/MODBUS as it goes over the wire."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def silence_s(character_s: float) -> float:
    """Seconds of silence that end a frame."""
    return max(3.5 * character_s, FAST_GAP_S)


def _holds_frame(data: bytes) -> bool:
    """Whether this is a frame, or holds a request: those are eight bytes long."""
    windows = (data[at : at + 8] for at in range(min(len(data) - 7, LONGEST_FRAME)))
    return any(checksum(one[:-2]) == one[-2:] for one in (data, *windows))


class _Exchange:
    """The request that is on."""

    __slots__ = ("answer", "buffer", "echoed", "frame", "head", "late", "request", "strange", "unit", "want")

    def __init__(self, unit: int, request: Request, answer: asyncio.Future[bytes | DeviceException]) -> None:
        self.unit = unit
        self.request = request
        self.answer = answer
        body = bytes([unit]) + request.pdu
        self.frame = body + checksum(body)
        self.head = bytes([unit, request.function, request.size])
        self.want = len(self.head) + request.size + 2
        self.buffer = b""
        self.echoed = False
        self.late = False
        self.strange = ""


class RtuLink(asyncio.Protocol):
    """A connection, used by one request at a time.

    Args:
        where: for people.
        gap: seconds of silence that end a frame.
        owed: what units still owe from an earlier connection to the same place; kept up to date.
        junk: bytes that are no frames: heartbeats and registrations of a modem.
        serial: whether this is a serial port.
        wary: whether to give the connection up when others speak on the wire that should be ours alone.
        ended: called once when the connection has ended.
    """

    def __init__(
        self,
        where: str,
        gap: float,
        *,
        owed: Owed | None = None,
        junk: Sequence[bytes] = (),
        serial: bool = False,
        wary: bool = False,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.where = where
        self.dropped = 0
        """Bytes that nobody had asked for, or no longer."""
        self.idle_s = 0.0
        """Seconds that the last `read` waited for silence."""
        self._gap = gap
        self._owed = owed if owed is not None else Owed()
        self._junk = tuple(item for item in junk if item)
        self._serial = serial
        self._wary = wary
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._lost: LinkLost | None = None
        self._exchange: _Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._quiet_until = float("-inf")
        self._silent: dict[int, int] = {}
        self._asked = False
        self._others: list[float] = []
        # What came unasked since the last silence, and when its last part came.
        self._stray = b""
        self._stray_at = 0.0

    @property
    def alive(self) -> bool:
        """Whether requests may be sent."""
        return self._lost is None and self._transport is not None and not self._transport.is_closing()

    @property
    def heard_at(self) -> float:
        """When anything came last, in the loop's seconds."""
        return self._heard_at

    @property
    def lost_cause(self) -> str | None:
        """Why the connection was given up; None while it stands."""
        return self._lost.cause if self._lost is not None else None

    async def read(self, unit: int, requests: Sequence[Request], timeout: float, took: Took) -> None:
        """Send requests to a unit, one after the other.

        A cancelled call takes the connection with it: the device may still answer, and nobody may be sent in between.

        Args:
            timeout: seconds for each of them, the silence before it not counted.
            took: called with each answer, returns whether to go on. Must not raise.

        Raises:
            NoAnswer: to the request after those that `took` was called for, nothing complete came in time.
            BadReply: what came is no reply to it; the connection stays.
            LinkLost: the connection ended at that request.
        """
        self.idle_s = 0.0
        for request in requests:
            while self._owed.owes(unit, request, self._loop.time()):
                await self._ask(unit, self._owed.unlike(unit, request, self._loop.time()), timeout)
            answer = await self._ask(unit, request, timeout)
            if not took(answer):
                return

    async def hears_another(self, seconds: float) -> bool:
        """Listen for so long; whether another master speaks. What units still owe us from before does not count."""
        enough = 2 if self._owed.any(self._loop.time()) else 1
        until = self._loop.time() + seconds
        while self._lost is None and self._loop.time() < until and len(self._others) < enough:
            await asyncio.sleep(min(0.05, seconds))
            if self._loop.time() - self._heard_at >= self._gap:
                self._judge_strays()
        self._judge_strays()  # on a line that is never silent, too
        return len(self._others) >= enough

    async def close(self) -> None:
        """Close the connection; returns when it is closed. Safe twice."""
        self.lose(_closed_by_us())
        if self._transport is not None:
            await asyncio.shield(self._closed)

    def lose(self, lost: LinkLost) -> None:
        """Give the connection up; the first reason stays."""
        if self._lost is None:
            self._lost = lost
        self._set_timer(None)
        if self._exchange is not None:
            self._fail(self._exchange, self._lost.again())
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Gather what came; it is looked at when silence follows."""
        exchange = self._exchange
        now = self._loop.time()
        before, self._heard_at = self._heard_at, now
        if exchange is None or exchange.answer.done():
            self._unasked(data, before, now)
            return
        exchange.buffer += data
        if len(exchange.buffer) > 2 * LONGEST_FRAME:
            self._wrong(exchange, f"{len(exchange.buffer)} bytes without a pause")
            return
        self._set_timer(now + self._gap)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended, for whatever reason."""
        if isinstance(exc, TimeoutError):
            lost = LinkLost("timeout", "no_answer", f"{self.where} no longer answers: the connection broke off")
        elif self._serial:
            why = f" ({exc.strerror or exc})" if isinstance(exc, OSError) else ""
            lost = LinkLost("not-connected", "port_missing", f"the serial port {self.where} is gone{why}")
        else:
            lost = LinkLost("not-connected", "closed_by_peer", f"{self.where} closed the connection")
        self.lose(lost)
        if not self._closed.done():
            self._closed.set_result(None)
            if self._ended is not None:
                self._ended()

    # -- one request ---------------------------------------------------------------------------------------------

    async def _ask(self, unit: int, request: Request, timeout: float) -> bytes | DeviceException:
        await self._wait_for_silence(timeout)
        if self._exchange is not None:
            raise RuntimeError("requests on one connection overlap")
        self._judge_strays()
        if self._lost is not None:
            raise self._lost.again()
        exchange = self._exchange = _Exchange(unit, request, self._loop.create_future())
        assert self._transport is not None
        self._asked = True
        deadline = self._loop.call_later(timeout, self._expire, exchange)
        self._transport.write(exchange.frame)
        try:
            answer = await exchange.answer
        except asyncio.CancelledError:
            self.lose(_closed_by_us())
            raise
        except (NoAnswer, BadReply, LinkLost) as failure:
            self._note_failure(exchange, timeout, failure)
            raise
        finally:
            deadline.cancel()
            self._set_timer(None)
            self._exchange = None
        self._silent[unit] = 0
        if isinstance(answer, bytes):
            self._owed.answered(unit)
        else:
            self._owed.refused(unit, request, self._loop.time())
        return answer

    async def _wait_for_silence(self, timeout: float) -> None:
        """Wait until nothing was heard for long enough; on a line that is never silent for at most `timeout`."""
        began = self._loop.time()
        give_up = max(began, self._quiet_until) + timeout
        while True:
            if self._lost is not None or self._transport is None:
                raise (self._lost or _closed_by_us()).again()
            now = self._loop.time()
            free_at = max(self._quiet_until, self._heard_at + self._gap)
            if now >= free_at:
                self.idle_s += now - began
                return
            if now >= give_up:
                self.lose(self._other_master())
                continue
            await asyncio.sleep(free_at - now)

    def _look(self) -> None:
        """Silence followed: what came is a reply, the beginning of one, or neither."""
        self._timer = None
        exchange = self._exchange
        if exchange is None or exchange.answer.done():
            return
        data = self._without_heartbeat(exchange, self._without_noise(exchange))
        unit, function = exchange.unit, exchange.request.function
        if data.startswith(exchange.head):
            if len(data) == exchange.want or data == 2 * data[: exchange.want]:
                self._check(exchange, data[: exchange.want])
            elif len(data) > exchange.want:
                self._wrong(exchange, f"{len(data)} bytes came instead of {exchange.want}")
        elif data.startswith(bytes([unit, function | 0x80])):
            if len(data) == 5:
                self._check(exchange, data)
            elif len(data) > 5:
                self._wrong(exchange, f"an exception goes on: {data[:12].hex(' ')}")
        elif not self._may_become_something(exchange, data):
            self._refuse(exchange, data)
        if exchange.late and not exchange.answer.done():
            self._give_up(exchange)

    def _without_noise(self, exchange: _Exchange) -> bytes:
        """What came without our own echo and without what a modem puts in."""
        data = exchange.buffer
        if not exchange.echoed and data.startswith(exchange.frame):
            exchange.echoed = True
            data = data[len(exchange.frame) :]
        for junk in self._junk:
            while data.startswith(junk) and not data.startswith(exchange.head):
                data = data[len(junk) :]
            while len(data) >= exchange.want + len(junk) and data.endswith(junk):
                data = data[: -len(junk)]
        exchange.buffer = data
        return data

    def _without_heartbeat(self, exchange: _Exchange, data: bytes) -> bytes:
        """The reply without what a modem put into the middle of it; as it is if that does not make it whole."""
        for junk in self._junk:
            at = data.find(junk, 1) if data.startswith(exchange.head[:1]) else -1
            while at > 0:
                rest = data[:at] + data[at + len(junk) :]
                if len(rest) == exchange.want and rest.startswith(exchange.head) and checksum(rest[:-2]) == rest[-2:]:
                    return rest
                at = data.find(junk, at + 1)
        return data

    def _may_become_something(self, exchange: _Exchange, data: bytes) -> bool:
        exception = bytes([exchange.unit, exchange.request.function | 0x80])
        known = (exchange.head, exception, *self._junk, *(() if exchange.echoed else (exchange.frame,)))
        return any(one.startswith(data) for one in known)

    def _check(self, exchange: _Exchange, frame: bytes) -> None:
        if checksum(frame[:-2]) != frame[-2:]:
            self._wrong(exchange, f"wrong checksum: {frame[:12].hex(' ')}")
        elif frame[1] == exchange.request.function:
            exchange.answer.set_result(frame[3:-2])
        else:
            exchange.answer.set_result(DeviceException(frame[2]))

    def _refuse(self, exchange: _Exchange, data: bytes) -> None:
        """What came is no reply to the request: one to an earlier request, or of another unit, is dropped; all else
        spoils the exchange."""
        whole = len(data) > _LEAST_FRAME and checksum(data[:-2]) == data[-2:]
        what = f"no reply to the request: {data[:12].hex(' ')}"
        late = whole and data[1] < 0x80 and self._is_late(data)
        if late or (whole and data[0] != exchange.unit):
            if not late:
                exchange.strange = exchange.strange or f"unit {data[0]} spoke instead of {exchange.unit}"
            exchange.buffer = b""
            self.dropped += len(data)
        else:
            self._wrong(
                exchange, f"function {data[1]} instead of {exchange.head[1]}, or a wrong size" if whole else what
            )

    def _wrong(self, exchange: _Exchange, detail: str) -> None:
        self._fail(exchange, BadReply(f"{self.where} sent what is no reply to the request ({detail})", detail))

    def _expire(self, exchange: _Exchange) -> None:
        """The time is up; what has just come whole still counts, if silence follows."""
        exchange.late = True
        if self._timer is None:
            self._give_up(exchange)

    def _give_up(self, exchange: _Exchange) -> None:
        if exchange.strange:
            self._wrong(exchange, exchange.strange)
        else:
            self._fail(exchange, NoAnswer())

    def _fail(self, exchange: _Exchange, failure: Exception) -> None:
        if not exchange.answer.done():
            exchange.answer.set_exception(failure)

    def _note_failure(self, exchange: _Exchange, timeout: float, failure: Exception) -> None:
        unit, now = exchange.unit, self._loop.time()
        self._owed.given_up(unit, exchange.request, now)
        self._quiet_until = now + timeout
        if isinstance(failure, NoAnswer):
            self._silent[unit] = self._silent.get(unit, 0) + 1
            if min(self._silent.values()) >= SILENT_TIMES:
                text = f"{self.where}: no unit answered {SILENT_TIMES} times in a row: opened anew"
                self.lose(LinkLost("timeout", "no_answer", text))

    def _unasked(self, data: bytes, before: float, now: float) -> None:
        """Drop what nobody waits for, and gather it: on a wire that should be ours alone it tells of another master."""
        if now - before >= self._gap or len(self._stray) > LONGEST_FRAME:
            self._judge_strays()
        self._stray += data
        self._stray_at = now
        self.dropped += len(data)

    def _judge_strays(self) -> None:
        """Silence followed what nobody had asked for."""
        data, self._stray = self._stray, b""
        for junk in self._junk:
            data = data.replace(junk, b"")
        if len(data) < _LEAST_FRAME or self._is_late(data):
            return
        now = self._stray_at
        if self._owed.any(now) and not _holds_frame(data):
            return  # what is left of a reply to us
        self._others = [at for at in self._others if now - at < FOREIGN_S] + [now]
        if self._wary and self._asked and now > self._quiet_until and len(self._others) >= FOREIGN_BURSTS:
            self.lose(self._other_master())

    def _is_late(self, data: bytes) -> bool:
        """Whether this is a reply to an earlier request that was not answered in time."""
        if len(data) < _LEAST_FRAME + 1 or checksum(data[:-2]) != data[-2:]:
            return False
        function, size = data[1] & 0x7F, None if data[1] & 0x80 else data[2]
        whole = size is None or len(data) == size + 5
        return whole and self._owed.may_have_sent(data[0], function, size, self._loop.time())

    def _other_master(self) -> LinkLost:
        return LinkLost("not-connected", "other_master", f"another master speaks on {self.where}")

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look) if at is not None else None


def _closed_by_us() -> LinkLost:
    return LinkLost("not-connected", "closed", "the connection was closed here")
