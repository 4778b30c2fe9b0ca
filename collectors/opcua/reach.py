"""Reaching a server: why there is no TCP connection, and whose turn it is to ask for a session.

May import: `collectors.api`.
"""

from __future__ import annotations

import asyncio
import errno
import re
from weakref import WeakValueDictionary

from collectors.api import Unavailable

_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


def turn_at(where: str) -> asyncio.Lock:
    """What is held while a session is asked for: small servers have few, and count those that are half made too."""
    turn = _turns.get(where)
    if turn is None:
        turn = _turns[where] = asyncio.Lock()
    return turn


def unreachable(error: OSError, where: str, timeout: float) -> Unavailable:
    """Of the TCP connection. Several addresses that fail differently come as one error without a number."""
    number = error.errno
    if number is None and (found := re.search(r"\[Errno (\d+)\]", str(error))):
        number = int(found[1])
    if number == errno.ECONNREFUSED:
        cause, text = "refused", "refuses the connection: nothing listens on this port"
    elif number in _UNREACHABLE:
        cause, text = "no_route", "cannot be reached: no route"
    elif isinstance(error, TimeoutError):
        cause, text = "connect_timeout", f"did not accept the connection within {timeout:g} s"
    else:
        cause, text = "no_route", f"cannot be reached: {error}"
    return Unavailable("not-connected", cause, f"{where} {text}", where=where)
