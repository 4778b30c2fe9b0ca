"""Host names -> addresses, without ever blocking the event loop or piling up threads.

A dead name server blocks a look-up for ten seconds and more, and no look-up can be cancelled: each runs in a daemon
thread of its own, one per name and `MAX_THREADS` in all, and answers all who wait for it. The last good answer is kept
for the time when there is none. May import: the standard library.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import Future
from threading import Thread
from typing import TypeAlias, cast

MAX_THREADS = 4

Place: TypeAlias = tuple[socket.AddressFamily, tuple[str | int, ...]]
"""What a socket is made for, and what it connects to."""


class Resolver:
    """Looks names up. Used from one event loop at a time."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], Future[list[Place]]] = {}
        self._known: dict[tuple[str, int], list[Place]] = {}

    async def resolve(self, host: str, port: int, timeout: float) -> list[Place]:
        """Return where to connect to, the best first.

        Raises:
            socket.gaierror: the name is unknown, or too many look-ups hang.
            TimeoutError: no answer within `timeout` seconds, and none from earlier.
        """
        if _is_literal(host):
            return _look_up(host, port, socket.AI_NUMERICHOST)
        key = (host, port)
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(self._look_up(key)), timeout)
        except (socket.gaierror, TimeoutError):
            if key in self._known:
                return self._known[key]
            raise
        self._known[key] = found
        return found

    def _look_up(self, key: tuple[str, int]) -> Future[list[Place]]:
        running = {name: future for name, future in self._running.items() if not future.done()}
        self._running = running
        if key not in running:
            if len(running) >= MAX_THREADS:
                raise socket.gaierror(socket.EAI_AGAIN, "too many look-ups hang")
            future = running[key] = Future()
            # Running futures ignore the cancel() that a waiter's time-out brings.
            future.set_running_or_notify_cancel()
            Thread(target=_answer, args=(future, *key), name=f"resolve {key[0]}", daemon=True).start()
        return running[key]


def _answer(future: Future[list[Place]], host: str, port: int) -> None:
    try:
        future.set_result(_look_up(host, port))
    except (OSError, UnicodeError) as error:
        future.set_exception(
            error if isinstance(error, socket.gaierror) else socket.gaierror(socket.EAI_NONAME, str(error))
        )


def _look_up(host: str, port: int, flags: int = 0) -> list[Place]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, cast("tuple[str | int, ...]", place)) for family, _, _, _, place in found]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


RESOLVER = Resolver()
"""The process's: what hangs is counted once."""
