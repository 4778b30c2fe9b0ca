"""A network of our own for what follows: packets can be dropped in it without harming anybody else.

    apart(work)     # runs `work` in a thread of a new network namespace, and returns what it returns

Whatever the thread starts - processes, sockets, further threads - lives in that network; it has a loopback and nothing
else. Needs root, `ip` and `nft`: `why_not()` says what is missing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def why_not() -> str | None:
    """Why packets cannot be dropped here, None if they can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed" if missing else None


def apart(work: Callable[[], T]) -> T:
    """Run this in a network of its own."""

    def inside() -> T:
        leave()
        _nft("add table inet soak", "add chain inet soak in { type filter hook input priority 0; }")
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(inside).result()


def leave() -> None:
    """Go on in a new network: this thread, and whatever it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    _do("ip", "link", "set", "lo", "up")


def drop(port: int) -> None:
    """From now on packets to and from this TCP port are dropped: nobody is told anything."""
    _nft(f"add rule inet soak in tcp dport {port} drop", f"add rule inet soak in tcp sport {port} drop")


def let_through() -> None:
    """Drop nothing any more."""
    _nft("flush chain inet soak in")


def _nft(*rules: str) -> None:
    for rule in rules:
        _do("nft", rule)


def _do(*command: str) -> None:
    subprocess.run(command, check=True)
