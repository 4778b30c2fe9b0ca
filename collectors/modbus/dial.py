"""Makes TCP connections to devices and gateways, and says why there is none.

Promises: one attempt to each address of a name, all within the time given; what fails names the place and what to try.
May import: the standard library, `collectors.api`, `collectors.modbus.resolve`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TypeVar

from collectors.api import Unavailable
from collectors.modbus.resolve import RESOLVER, Place

USER_TIMEOUT_MS = 10_000
"""Sent data that the other side's kernel does not confirm for so long ends the connection (TCP_USER_TIMEOUT)."""
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))

_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL}

P = TypeVar("P", bound=asyncio.Protocol)


async def connect(host: str, port: int, where: str, timeout: float, make: Callable[[str], P]) -> P:
    """Connect within `timeout` seconds, look-up of the name included; each address of the name is tried once.

    Args:
        make: makes the protocol for a connection to `where`: `Link`, or what speaks otherwise.

    Raises:
        Unavailable: with the cause.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        places = await RESOLVER.resolve(host, port, timeout)
    except (socket.gaierror, TimeoutError) as error:
        why = "no answer from the name server" if isinstance(error, TimeoutError) else error.strerror
        text = f"the name {host} cannot be resolved ({why}): check it, or write the address in numbers"
        raise Unavailable("not-connected", "name_unknown", text, host=host) from error
    failure: OSError = TimeoutError()
    for index, place in enumerate(places):
        share = (deadline - loop.time()) / (len(places) - index)
        try:
            async with asyncio.timeout(max(share, 0.001)):
                return await _connect_to(place, where, make)
        except OSError as error:  # TimeoutError is one: the deadline's, or the kernel's ETIMEDOUT
            failure = error
    raise _unreachable(failure, where, timeout) from failure


async def _connect_to(place: Place, where: str, make: Callable[[str], P]) -> P:
    loop = asyncio.get_running_loop()
    family, address = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        watch_over(sock)
        await loop.sock_connect(sock, address)
        _, link = await loop.create_connection(lambda: make(where), sock=sock)
    except BaseException:
        sock.close()
        raise
    return link


def watch_over(sock: socket.socket) -> None:
    """Let the kernel notice a peer that is gone without a word, and send small requests at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _unreachable(error: OSError, where: str, timeout: float) -> Unavailable:
    if isinstance(error, TimeoutError):
        cause, text = "connect_timeout", f"no answer from {where} within {timeout:g} s: is it on, is the network up?"
    elif isinstance(error, ConnectionRefusedError):
        cause, text = "refused", f"{where} refused the connection: does it serve Modbus on this port?"
    elif error.errno in _NO_ROUTE:
        cause, text = "no_route", f"no way to {where} ({error.strerror}): check cable, address and network mask"
    else:
        cause, text = "no_route", f"{where} cannot be reached: {error.strerror or error}"
    return Unavailable("not-connected", cause, text, where=where)
