"""Tells systemd how the service is doing (sd_notify): ready, reloading, stopping, a status line, signs of life.

Promises: nothing here raises or blocks; without `NOTIFY_SOCKET` every call does nothing. What could not be sent is
counted in `lost`. Source of the protocol: sd_notify(3), sd_watchdog_enabled(3).

May import: the standard library.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

_STATUS_MAX = 400


class Notifier:
    """Sends state to the service manager, if there is one.

    Attributes:
        watchdog_interval: seconds between two `watchdog()` calls (half of what systemd allows); None = no watchdog
            is wanted of this process.
        lost: messages that could not be sent.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._status = ""
        self.watchdog_interval = _watchdog_interval(environ) if self._address else None
        self.lost = 0

    def ready(self) -> None:
        """Start-up, or a reload, is finished."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready()` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service begins to stop."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent only when it differs from the last."""
        text = " ".join(text.split())[:_STATUS_MAX]
        if text != self._status and self._send(f"STATUS={text}"):
            self._status = text

    def watchdog(self) -> None:
        """Sign of life; nothing unless a watchdog is wanted."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def give_up(self) -> None:
        """Ask for what follows when signs of life stay away, now; nothing unless a watchdog is wanted."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=trigger")

    def _send(self, message: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagram:
                datagram.setblocking(False)
                datagram.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError:  # also BlockingIOError: a full queue at systemd is no reason to wait
            self.lost += 1
            return False
        return True


def _address(text: str) -> str | bytes | None:
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])  # the abstract namespace of Linux
    return text if text.startswith("/") else None


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    pid = environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isascii() and usec.isdigit() and int(usec) > 0 else None
