"""Does the system clock follow a time server? Standard library only; usable by anyone.

Three witnesses, the first that knows is believed: the kernel (adjtimex; a hardened unit with ProtectClock= is not
let near it), the marker of systemd-timesyncd, and timedated on the system bus. Nothing is changed and no program is
started but timedated, which D-Bus starts when asked.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from functools import cache
from pathlib import Path

RUN = Path("/run")
_MAX_ERROR_US = 16_000_000
"""From this estimated error on the kernel (and systemd) call the clock unsynchronised."""
_BUS_TIMEOUT_S = 1.0
_BUS_EVERY_S = 60.0


class _Timex(ctypes.Structure):
    # the beginning of the kernel's struct timex; the padding is larger than the rest on any architecture
    _fields_ = [  # type: ignore[mutable-override]  # what ctypes asks for
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    ]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def from_kernel() -> bool | None:
    """What the kernel says; None where reading it is not allowed."""
    timex = _Timex()  # modes = 0: read only
    try:
        answer = _libc().adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):  # a C library without it
        return None
    return None if answer < 0 else bool(timex.maxerror < _MAX_ERROR_US)


def from_timesyncd(run: Path = RUN) -> bool | None:
    """What systemd-timesyncd left in its run directory; None where it does not run."""
    directory = run / "systemd" / "timesync"
    try:
        if (directory / "synchronized").exists():
            return True
        return False if directory.is_dir() else None
    except OSError:
        return None


def from_timedated(bus: Path = RUN / "dbus" / "system_bus_socket") -> bool | None:
    """What timedated says on the system bus, within two seconds; None if it cannot be asked. Blocks."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_BUS_TIMEOUT_S)
            link.connect(str(bus))
            return _ask_timedated(link, time.monotonic() + 2 * _BUS_TIMEOUT_S)
    except (OSError, struct.error, ValueError):
        return None


def _ask_timedated(link: socket.socket, deadline: float) -> bool | None:
    link.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    answer = b""
    while not answer.endswith(b"\r\n"):
        more = link.recv(256)
        if not more or len(answer) > 1024:
            raise OSError("the bus hung up")
        answer += more
    if not answer.startswith(b"OK "):
        return None
    bus, properties = "org.freedesktop.DBus", "org.freedesktop.DBus.Properties"
    wanted = _string("NTPSynchronized", _string("org.freedesktop.timedate1"))
    link.sendall(
        b"BEGIN\r\n"
        + _method_call(1, bus, "/org/freedesktop/DBus", bus, "Hello", b"")
        + _method_call(2, "org.freedesktop.timedate1", "/org/freedesktop/timedate1", properties, "Get", wanted)
    )
    while time.monotonic() < deadline:
        kind, reply_to, body = _read_message(link)
        if reply_to == 2:
            # a method return that holds a variant of type boolean: signature "b", padding to 4, the value
            return bool(struct.unpack_from("<I", body, 4)[0]) if kind == 2 and body[:3] == b"\x01b\0" else None
    return None


def _string(text: str, before: bytes = b"") -> bytes:
    """The bytes `before`, then this string where the next multiple of four begins."""
    head = before + b"\0" * (-len(before) % 4)
    return head + struct.pack("<I", len(text)) + text.encode() + b"\0"


def _method_call(serial: int, destination: str, path: str, interface: str, member: str, body: bytes) -> bytes:
    fields = b""
    for code, kind, value in (
        (1, b"o", path),
        (2, b"s", interface),
        (3, b"s", member),
        (6, b"s", destination),
        (8, b"g", "ss" if body else ""),
    ):
        if not value:
            continue
        fields += b"\0" * (-len(fields) % 8) + bytes((code, 1)) + kind + b"\0"
        if kind == b"g":
            fields += bytes((len(value),)) + value.encode() + b"\0"
        else:
            fields = _string(value, fields)
    head = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), serial, len(fields)) + fields
    return head + b"\0" * (-len(head) % 8) + body


def _read_message(link: socket.socket) -> tuple[int, int | None, bytes]:
    """Kind (2 = return, 3 = error), the serial it answers, and the body of the next message."""
    head = _receive(link, 16)
    if head[:1] != b"l":
        raise ValueError("a machine of another byte order")
    body_size, _, fields_size = struct.unpack_from("<III", head, 4)
    if fields_size > 4096 or body_size > 4096:
        raise ValueError("larger than any answer to these questions")
    fields = _receive(link, fields_size + (-fields_size % 8))
    body = _receive(link, body_size)
    at = fields.find(b"\x05\x01u\0")  # REPLY_SERIAL, an unsigned number
    while at > 0 and at % 8:
        at = fields.find(b"\x05\x01u\0", at + 1)
    reply_to = struct.unpack_from("<I", fields, at + 4)[0] if at >= 0 else None
    return head[1], reply_to, body


def _receive(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise OSError("the bus hung up")
        data += more
    return data


class _Timedated:
    """Asked at most once a minute: each question may start a service."""

    def __init__(self) -> None:
        self._next = 0.0
        self._answer: bool | None = None

    def __call__(self) -> bool | None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _BUS_EVERY_S
            self._answer = from_timedated()
        return self._answer


_timedated = _Timedated()


def clock_synchronised() -> bool | None:
    """Whether the system clock follows a time server; None = nobody here knows.

    Takes microseconds where the kernel answers; else up to two seconds once a minute: call it from a thread.
    """
    for witness in (from_kernel, from_timesyncd, _timedated):
        answer = witness()
        if answer is not None:
            return answer
    return None
