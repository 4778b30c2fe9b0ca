"""A serial port as an asyncio transport; the owner of pyserial.

Promises: the port is locked against whoever locks too, and opened with a new descriptor each time; a port that goes
away ends the connection at once; nothing here blocks. May import: the standard library, pyserial (when a port is
opened), `collectors.api`, `collectors.line_config`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collectors.api import Misconfigured, Unavailable
from collectors.line_config import LineConfig

if TYPE_CHECKING:
    from serial import Serial

PSEUDO_MAJORS = range(136, 144)
"""Unix98 pseudo terminals. Source: Linux, Documentation/admin-guide/devices.txt."""
_CHUNK = 4096


class SerialTransport(asyncio.Transport):
    """Reads and writes an open port for a protocol."""

    def __init__(self, port: Serial, protocol: asyncio.Protocol) -> None:
        super().__init__({"serial": port})
        self._port = port
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._loop.add_reader(port.fileno(), self._readable)
        protocol.connection_made(self)

    def is_closing(self) -> bool:
        """Whether it is given up."""
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; a frame always fits into the driver's buffer, or the port is stuck."""
        if self._closing:
            return
        try:
            sent = os.write(self._port.fileno(), data)
        except OSError as error:
            self._end(error)
            return
        if sent != len(data):
            self._end(OSError(errno.EIO, "the port takes no more"))

    def abort(self) -> None:
        """Close at once; the protocol is told soon."""
        self._end(None)

    close = abort

    def _readable(self) -> None:
        try:
            data = os.read(self._port.fileno(), _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(OSError(errno.EIO, "unplugged"))

    def _end(self, error: OSError | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._port.fileno())
        _close(self._port)
        self._loop.call_soon(self._protocol.connection_lost, error)


def open_port(settings: LineConfig) -> Serial:
    """Open a port for this process alone.

    Raises:
        Unavailable: it is not there, may not be opened, or is held by another program.
        Misconfigured: pyserial is not installed, or the port cannot do what is configured.
    """
    path = settings.endpoint.path
    try:
        import serial
    except ImportError:
        text = "serial ports need pyserial: pip install pyserial"
        raise Misconfigured("missing_package", text, package="pyserial", extra="serial") from None
    try:
        port = serial.Serial(
            path,
            baudrate=settings.baudrate,
            bytesize=settings.bytesize,
            parity="N" if _is_pseudo(path) else settings.parity,
            stopbits=settings.stopbits,
            timeout=0,
            write_timeout=0,
            exclusive=True,
        )
    except serial.SerialException as error:
        raise _unusable(path, error.errno or _errno_behind(error), str(error)) from error
    except OSError as error:
        raise _unusable(path, error.errno or 0, str(error)) from error
    except termios.error as error:
        code = error.args[0] if error.args else 0
        raise _unusable(path, code, f"it does not take these settings ({error})") from error
    except ValueError as error:
        text = f"the serial port {path} cannot be set up as configured: {error}"
        raise Misconfigured("misconfigured", text, where=path) from error
    with contextlib.suppress(OSError):  # for programs that do not ask for the lock
        fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(port.fileno(), termios.TCIOFLUSH)
    return port


def _close(port: Any) -> None:
    # What is still to be sent would make the kernel wait for a device that may be gone.
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(port.fileno(), termios.TCIOFLUSH)
    with contextlib.suppress(OSError):
        fcntl.ioctl(port.fileno(), termios.TIOCNXCL)
    with contextlib.suppress(OSError, termios.error):
        port.close()


def _is_pseudo(path: str) -> bool:
    """Whether this is a pseudo terminal (socat, ser2net): those have no parity, and refuse to be set to one."""
    try:
        return os.major(Path(path).stat().st_rdev) in PSEUDO_MAJORS
    except OSError:
        return False


def _errno_behind(error: BaseException) -> int:
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, OSError) and error.errno:
            return error.errno
    return 0


def _unusable(path: str, code: int, text: str) -> Unavailable:
    if code in {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR}:
        text = f"there is no serial port {path}: is the adapter plugged in? ls -l /dev/serial/by-id shows what is there"
        return Unavailable("not-connected", "port_missing", text, where=path)
    if code in {errno.EACCES, errno.EPERM}:
        text = f"the serial port {path} may not be opened: the user of the agent must be in the group dialout"
        return Unavailable("not-connected", "port_forbidden", text, where=path)
    if code in {errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK}:
        text = f"the serial port {path} is held by another program: close that one"
        return Unavailable("not-connected", "line_in_use", text, where=path)
    return Unavailable("not-connected", "port_failed", f"the serial port {path} cannot be used: {text}", where=path)
