"""The control socket of the running agent: last values, pause and resume for the commands of the same machine.

Newline-delimited JSON over a unix socket (0660), one reply per request:

    {"command": "values", "device": "press-3" | null}                 -> {"ok": true, "devices": {...}}
    {"command": "pause", "target": "press-3", "for_s": 1800}           -> {"ok": true, "paused": [...], "for_s": 1800}
    {"command": "resume", "target": "press-3" | null}                  -> {"ok": true, "resumed": [...]}
    anything that cannot be done                                       -> {"ok": false, "error": "...", "text": "..."}

Promises: nothing here writes to a device; a request is at most 16 KB; at most 8 connections, each closed after 5 s
without a request; a slow or silent client holds up nobody else.

May import: the standard library, orjson.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

SOCKET_NAME = "control.sock"
MAX_REQUEST = 16 * 1024
MAX_REPLY = 32 * 1024 * 1024
MAX_CONNECTIONS = 8
IDLE_S = 5.0
_MAX_PATH = 107  # sun_path of Linux is 108 bytes with its terminating zero

Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class TagValue(TypedDict):
    """One tag in the reply to `values`; `age_s` is None before the first reading, `quality` None when good."""

    name: str
    label: str | None
    value: bool | int | float | str | None
    unit: str | None
    quality: str | None
    age_s: float | None


class DeviceValues(TypedDict):
    """One device in the reply to `values`."""

    label: str | None
    state: str
    tags: list[TagValue]


class ControlError(Exception):
    """A request cannot be done, or the agent cannot be asked.

    Args:
        cause: stable word: of the server `unknown_command`, `unknown_target`, `bad_request`, `busy` or what the
            handler chose; of the client `not_running`, `permission`, `timeout`, `path_too_long`, `bad_reply`; of the
            server's start `in_use`, `not_a_socket`, `path_too_long`.
        text: one English sentence.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause
        self.text = text


class ControlServer:
    """Serves the socket at `path`; `handler` answers one request and may raise ControlError."""

    def __init__(self, path: Path, handler: Handler, *, idle_s: float = IDLE_S) -> None:
        self._path = path
        self._handler = handler
        self._idle_s = idle_s
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the socket; one that a dead process left behind is replaced.

        Raises:
            ControlError: a living process serves it (`in_use`), something else has that name (`not_a_socket`), or
                the path is too long (`path_too_long`).
            OSError: the directory cannot be written.
        """
        _check_length(self._path)
        _remove_stale(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setblocking(False)
            listener.bind(str(self._path))
            # Between bind and listen nobody can connect, so there is no moment with wider rights.
            self._path.chmod(0o660)
            self._inode = self._path.stat().st_ino
            self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=MAX_REQUEST)
        except OSError:
            listener.close()
            raise

    async def close(self) -> None:
        """Close the socket and every connection. Safe without `start`, safe twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a closed transport closes its socket in the loop's next round
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass  # removed by somebody else: what we wanted

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:  # cannot be: the stream server runs this as a task
            return
        try:
            if len(self._tasks) >= MAX_CONNECTIONS:
                await self._send(writer, _refusal("busy", f"{MAX_CONNECTIONS} connections are open: try again"))
                return
            self._tasks.add(task)
            await self._serve(reader, writer)
        except (OSError, TimeoutError):
            pass  # the client went away or fell silent: its own affair
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    line = await reader.readline()
            except ValueError:  # StreamReader's word for a line above its limit
                await self._send(writer, _refusal("bad_request", f"a request is at most {MAX_REQUEST} bytes"))
                return
            if not line.endswith(b"\n"):
                return
            await self._send(writer, await self._answer(line))

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _refusal("bad_request", "a request is one JSON object on one line")
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            return _refusal("bad_request", 'a request is a JSON object with a "command"')
        try:
            return {"ok": True, **await self._handler(request)}
        except ControlError as error:
            return _refusal(error.cause, error.text)

    async def _send(self, writer: asyncio.StreamWriter, reply: dict[str, Any]) -> None:
        import orjson  # here, so that the commands, which only ask, do not load it

        writer.write(orjson.dumps(reply) + b"\n")
        async with asyncio.timeout(self._idle_s):
            await writer.drain()


def request(path: Path, body: dict[str, Any], *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Ask the agent at this socket and return its reply; blocks, for commands only.

    Raises:
        ControlError: it cannot be asked, or it refused; `cause` says which.
    """
    _check_length(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
            link.settimeout(timeout_s)
            link.connect(str(path))
            link.sendall(json.dumps(body).encode() + b"\n")
            line = _read_line(link)
    except PermissionError as error:
        raise ControlError(
            "permission", f"no permission to use {path}: add yourself to the group shopfloor or use sudo"
        ) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ControlError("not_running", f"no agent answers at {path}: is it running?") from error
    except TimeoutError as error:
        raise ControlError("timeout", f"the agent did not answer within {timeout_s:g} s") from error
    except OSError as error:
        raise ControlError("bad_reply", f"the agent could not be asked: {error.strerror or error}") from error
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise ControlError("bad_reply", "the agent closed the connection without a proper reply: see its log")
    if reply.get("ok") is not True:
        raise ControlError(str(reply.get("error", "bad_reply")), str(reply.get("text", "refused")))
    return reply


def _read_line(link: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < MAX_REPLY:
        chunk = link.recv(65536)
        if not chunk:
            break
        received += chunk
    return bytes(received)


def _refusal(error: str, text: str) -> dict[str, Any]:
    return {"ok": False, "error": error, "text": text}


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ControlError(
            "path_too_long", f"{path}: a socket's path is at most {_MAX_PATH} bytes; choose a shorter directory"
        )


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlError("not_a_socket", f"{path} is in the way: it is not a socket of the agent; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        result = probe.connect_ex(str(path))
    if result == errno.ENOENT:
        return
    if result != errno.ECONNREFUSED:  # also EAGAIN: alive, and its queue is full
        raise ControlError("in_use", f"another agent is serving {path}: one agent per run directory")
    path.unlink(missing_ok=True)
