"""How a line gets its connection: by TCP, to a serial server, through a serial port, or by being called.

Promises: one attempt a call, within its time (a serial port is listened to for a second more); a line that cannot carry
two masters is locked against other processes while it is open, and left alone for a minute where another master was
heard. May import: the standard library, `collectors.api`, `collectors.line`, `collectors.line_config`,
`collectors.line_lock`, the other modules of this package but `collector`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from collectors.api import Context, Lease, Unavailable
from collectors.line import Line, LineStats
from collectors.line_config import LineConfig, parse_bytes
from collectors.line_lock import LineHeld, LineLock
from collectors.modbus.dial import connect
from collectors.modbus.link import Link, ModbusLink
from collectors.modbus.listener import Awaited, Listener
from collectors.modbus.owed import Owed
from collectors.modbus.rtu import RtuLink, silence_s
from collectors.modbus.serial_port import SerialTransport, open_port

LISTEN_S = 1.0
"""How long a serial port that was just opened is listened to."""
OTHER_MASTER_S = 60.0
"""How long a line on which another master speaks is left alone."""
TRUST_S = 600.0
"""For how long a line that only seemed to have another master is not suspected again."""
TCP_GAP_S = 0.004
"""Networks do not keep the silences of a serial line: less than this tells nothing behind a serial server."""


def line_key(settings: LineConfig) -> tuple[str, str]:
    """Devices of equal keys share a line."""
    # The name of a line is not part of it: a url may lead to a named line's place.
    return "modbus line", f"{settings.endpoint} {settings.model_dump_json(exclude={'url'})}"


def make_line(settings: LineConfig, context: Context, label: str) -> Line[ModbusLink]:
    """Make the line of these settings; nothing is connected yet."""
    connector = Connector(settings, context)
    return Line(
        settings.endpoint.where,
        connector.connect,
        stats=line_stats(context, label),
        pause=settings.pause,
        max_load=settings.max_load,
        leave=connector.leave,
    )


def line_stats(context: Context, label: str) -> LineStats:
    """What the line of this name did since the start."""
    return context.kept(("line", label), LineStats)


class Connector:
    """Makes the connections of one line."""

    def __init__(self, settings: LineConfig, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._where = settings.endpoint.where
        # What waits in a serial server outlives our connection to it, and a line that is closed for a moment.
        self._owed = context.kept(("modbus owed", str(settings.endpoint), settings.registration), Owed)
        self._other_master_until = self._trusted_until = float("-inf")
        self._link: RtuLink | None = None
        self._listener: Lease[Listener] | None = None
        self._awaited: Awaited | None = None

    async def connect(self, timeout: float) -> ModbusLink:
        """One attempt of at most `timeout` seconds. Raises Unavailable, Misconfigured."""
        endpoint = self._settings.endpoint
        if endpoint.kind == "tcp":
            return await connect(endpoint.host, endpoint.port, self._where, timeout, Link)
        if endpoint.kind == "listen":
            return await self._wait_for_call(timeout)
        lock = self._lock()
        try:
            if endpoint.kind == "serial":
                return await self._open_port(lock)
            gap = max(silence_s(self._settings.character_s), TCP_GAP_S)
            return await connect(
                endpoint.host,
                endpoint.port,
                self._where,
                timeout,
                lambda where: RtuLink(where, gap, owed=self._owed, ended=lock.release),
            )
        except BaseException:
            lock.release()
            raise

    async def leave(self) -> None:
        """The line is closed: do not listen for its caller any more."""
        lease, self._listener = self._listener, None
        if lease is not None:
            if self._awaited is not None:
                lease.resource.lines.remove(self._awaited)
                await self._awaited.close()
            await lease.release()

    def _lock(self) -> LineLock:
        try:
            return self._context.locks.take(self._settings.endpoint.path or str(self._settings.endpoint))
        except LineHeld as held:
            facts: dict[str, str | int | float] = {"where": self._where}
            if held.pid is not None:
                facts["pid"] = held.pid
            if held.by_agent:
                cause, text = (
                    "line_held_by_agent",
                    "in use by the running agent: `shopfloor pause`, or `status --values`",
                )
            else:
                cause, text = "line_in_use", f"{self._where} is held by another process ({held.pid})"
            raise Unavailable("not-connected", cause, text, **facts) from held

    async def _open_port(self, lock: LineLock) -> RtuLink:
        left = self._other_master_until - time.monotonic()
        if left > 0:
            raise self._other_master()
        gap = silence_s(self._settings.character_s)
        wary = time.monotonic() >= self._trusted_until
        link = RtuLink(self._where, gap, owed=self._owed, serial=True, wary=wary, ended=self._noticing(lock))
        self._link = link
        port = open_port(self._settings)
        SerialTransport(port, link)
        try:
            foreign = await link.hears_another(LISTEN_S)
        except BaseException:
            await link.close()
            raise
        if foreign:
            await link.close()
            self._other_master_until = time.monotonic() + OTHER_MASTER_S
            raise self._other_master()
        return link

    def _noticing(self, lock: LineLock) -> Callable[[], None]:
        def ended() -> None:
            lock.release()
            if self._link is not None and self._link.lost_cause == "other_master":
                # Is it true, the next attempt hears it; if not, something on this line just talks a lot.
                self._trusted_until = time.monotonic() + TRUST_S

        return ended

    def _other_master(self) -> Unavailable:
        text = (
            f"another master speaks on {self._where}: two on one wire spoil each other's data; unplug one of them."
            f" Tried again every {OTHER_MASTER_S:.0f} s"
        )
        return Unavailable("not-connected", "other_master", text, where=self._where)

    async def _wait_for_call(self, timeout: float) -> RtuLink:
        endpoint = self._settings.endpoint
        if self._listener is None:
            self._listener = self._context.shared(
                ("listen", endpoint.host, endpoint.port), lambda: Listener(endpoint.host, endpoint.port)
            )
            self._awaited = self._await()
            self._listener.resource.lines.append(self._awaited)
        await self._listener.resource.listen(self._where)
        assert self._awaited is not None
        if self._awaited.contested:
            text = f"two devices call on {self._where} by one name: give each a registration of its own"
            raise Unavailable("not-connected", "two_callers", text, where=self._where)
        link = await self._awaited.wait(timeout)
        if link is None:
            text = f"nobody has called on {self._where} yet: check the modem's centre address, port and registration"
            raise Unavailable("not-connected", "not_called", text, where=self._where)
        return link

    def _await(self) -> Awaited:
        settings = self._settings
        registration = parse_bytes(settings.registration) if settings.registration is not None else b""
        heartbeat = parse_bytes(settings.heartbeat_bytes) if settings.heartbeat_bytes is not None else b""
        gap = max(silence_s(settings.character_s), TCP_GAP_S)

        def make() -> RtuLink:
            return RtuLink(self._where, gap, owed=self._owed, junk=(registration, heartbeat))

        return Awaited(registration, heartbeat, make)
