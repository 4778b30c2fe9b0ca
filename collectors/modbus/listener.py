"""Devices that dial in: 4G modems and serial servers that connect to us and name themselves by their first bytes.

Promises: one listening socket a port, only while a line wants it; a caller is handed out once it has named itself, and
to one line alone; one that says nothing, or the wrong thing, is hung up on; at most `MOST_STRANGERS` are listened to at
once; a new call replaces the one before it. May import: the standard library, `collectors.api`,
`collectors.modbus.dial`, `collectors.modbus.link`, `collectors.modbus.rtu`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

from collectors.api import Unavailable
from collectors.modbus.dial import watch_over
from collectors.modbus.link import LinkLost
from collectors.modbus.rtu import RtuLink

MOST_STRANGERS = 16
HEARD_S = 2.0
MOST_CONTESTS, CONTESTS_S, LEFT_S = 4, 600.0, 60.0
"""So often in so many seconds a call replaced another that had just been heard from: two devices have one name, and
values of one would pass for those of the other. Then the line is left alone for a while."""
NAME_WITHIN_S = 30.0
"""A caller that has not named itself after so long is hung up on."""


class Awaited:
    """A line that waits for its caller.

    Args:
        registration: its caller's first bytes; b"" = whoever calls.
        heartbeat: what its caller may send before, too.
        make: makes the link of a call.
    """

    def __init__(self, registration: bytes, heartbeat: bytes, make: Callable[[], RtuLink]) -> None:
        self.registration = registration
        self.heartbeat = heartbeat
        self.make = make
        self.link: RtuLink | None = None
        """Of the last call."""
        self._called = asyncio.Event()
        self._handed_out: RtuLink | None = None
        self._contests: list[float] = []
        self._left_until = float("-inf")

    def called(self, transport: asyncio.Transport, rest: bytes) -> None:
        """The caller is here."""
        if self._is_contested():
            transport.abort()
            return
        if self.link is not None:
            text = f"{self.link.where}: the device called again, its old connection is given up"
            self.link.lose(LinkLost("not-connected", "closed_by_peer", text))
        self.link = link = self.make()
        transport.set_protocol(link)
        link.connection_made(transport)
        if rest:
            link.data_received(rest)
        self._called.set()

    @property
    def contested(self) -> bool:
        """Whether two devices call by one name, as far as is known."""
        return asyncio.get_running_loop().time() < self._left_until

    def _is_contested(self) -> bool:
        """Take note of a call; whether it comes from one of two devices of one name. Neither is believed then."""
        now = asyncio.get_running_loop().time()
        if self.contested:
            return True
        if self.link is not None and self.link.alive and now - self.link.heard_at < HEARD_S:
            recent = [at for at in self._contests if now - at < CONTESTS_S]
            self._contests = [*recent[1 - MOST_CONTESTS :], now]
            if len(self._contests) == MOST_CONTESTS:
                self._left_until = now + LEFT_S
                self.link.lose(LinkLost("not-connected", "two_callers", f"{self.link.where}: two devices call"))
        return self.contested

    async def close(self) -> None:
        """Hang up on a caller who was not handed out: nobody wants the line any more."""
        if self.link is not None and self.link is not self._handed_out:
            await self.link.close()

    async def wait(self, seconds: float) -> RtuLink | None:
        """The link of a call that stands and was not handed out yet; None after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.link is None or self.link is self._handed_out or not self.link.alive:
                    self._called.clear()
                    await self._called.wait()
        if self.link is None or self.link is self._handed_out or not self.link.alive:
            return None
        self._handed_out = self.link
        return self.link


class _Caller(asyncio.Protocol):
    """A connection that has not named itself yet."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._said = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        watch_over(transport.get_extra_info("socket"))
        self._timer = asyncio.get_running_loop().call_later(NAME_WITHIN_S, self.hang_up)
        self._listener.strangers.append(self)
        if len(self._listener.strangers) > MOST_STRANGERS:
            self._listener.strangers[0].hang_up()
        self._look()

    def data_received(self, data: bytes) -> None:
        self._said += data
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def hang_up(self) -> None:
        """Whoever this is: not one of ours."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def _look(self) -> None:
        lines = self._listener.lines
        while (line := next((one for one in lines if self._said.startswith(one.registration)), None)) is None:
            if any(one.registration.startswith(self._said) for one in lines):
                return  # a name, or the beginning of one
            beat = next(
                (one.heartbeat for one in lines if one.heartbeat and self._said.startswith(one.heartbeat)), None
            )
            if beat is None:
                if not any(one.heartbeat.startswith(self._said) for one in lines):
                    self.hang_up()
                return
            self._said = self._said[len(beat) :]
        if self._transport is not None:
            self._forget()
            line.called(self._transport, self._said[len(line.registration) :])

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(ValueError):
            self._listener.strangers.remove(self)


class Listener:
    """One port that lines are called on; a `collectors.api.SharedResource`."""

    def __init__(self, host: str, port: int) -> None:
        self.lines: list[Awaited] = []
        self.strangers: list[_Caller] = []
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._changing = asyncio.Lock()

    async def listen(self, where: str) -> None:
        """Listen, if this is not done yet. Raises Unavailable."""
        async with self._changing:  # lines come at the same time, and go while others come
            if self._server is not None:
                return
            loop = asyncio.get_running_loop()
            try:
                self._server = await loop.create_server(lambda: _Caller(self), self._host, self._port)
            except OSError as error:
                text = f"cannot listen on {where}: {error.strerror or error}"
                raise Unavailable("not-connected", "listen_failed", text, where=where) from error

    async def close(self) -> None:
        """Close the port; calls that were handed out stay."""
        async with self._changing:
            server, self._server = self._server, None
            if server is not None:
                server.close()
            for caller in list(self.strangers):
                caller.hang_up()
