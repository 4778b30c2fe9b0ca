"""A TCP proxy on a free loopback port that does to a connection what bad networks do.

    with FaultProxy(broker.port) as proxy:
        proxy.down.latency_s = 5.0                 # what comes from the server is late
        proxy.up.bandwidth = 8_000                 # bytes a second towards it
        proxy.up.slice = 1                         # byte by byte
        proxy.cut_next("up", 17, reset=True)       # the next connection ends after 17 bytes that way
        proxy.freeze()                             # nothing is read or written any more, nothing is closed
        proxy.reset()                              # every connection that stands

Seven faults: latency, bandwidth, slicing, cut at a byte, reset, freeze, slow close. Runs in a thread of its own; may be
told from any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

_CHUNK = 4096
_CHUNKS = 4096


@dataclass
class Way:
    """One direction of all connections.

    Attributes:
        latency_s: everything comes so much later.
        bandwidth: bytes a second, None = no limit.
        slice: bytes that are written at once, None = as they came.
        slow_close_s: the end of the connection comes so much later.
    """

    latency_s: float = 0.0
    bandwidth: float | None = None
    slice: int | None = None
    slow_close_s: float = 0.0


@dataclass(frozen=True)
class Cut:
    """When a connection ends: after `at` bytes in one direction, with FIN or with RST."""

    way: Literal["up", "down"]
    at: int
    reset: bool


@dataclass(eq=False)
class Link:
    """One connection; `passed`: bytes in either direction; `closed`: it has ended."""

    cut: Cut | None
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    heard: bytearray = field(default_factory=bytearray)
    closed: bool = False
    writers: list[asyncio.StreamWriter] = field(default_factory=list)


class FaultProxy:
    """Forwards connections to a port of the loopback.

    Args:
        port: of the server.

    Attributes:
        up, down: the ways to the server and back.
        links: every connection so far, the newest last.
        record: keep the first bytes that clients send, in `Link.heard`.
    """

    def __init__(self, port: int, *, record: bool = False) -> None:
        self.up, self.down = Way(), Way()
        self.links: list[Link] = []
        self.port = 0
        self.record = record
        self._target = port
        self._cut: Cut | None = None
        self._loop = asyncio.new_event_loop()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._end = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"mqtt://127.0.0.1:{self.port}"

    def cut_next(self, way: Literal["up", "down"], at: int, *, reset: bool) -> None:
        """The next connection, and only that, ends after so many bytes in this direction."""
        self._cut = Cut(way, at, reset)

    def freeze(self) -> None:
        """Read and write nothing any more, while every connection stands and new ones are accepted."""
        self._loop.call_soon_threadsafe(self._thawed.clear)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        self._loop.call_soon_threadsafe(self._thawed.set)

    def reset(self) -> None:
        """RST to both ends of every connection."""
        self._loop.call_soon_threadsafe(self._reset, list(self.links))

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._listening.wait(5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(5)

    # In the thread.

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._end.wait()
        server.close()
        self._reset(self.links)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(self._cut)
        self._cut = None
        link.writers.append(writer)
        self.links.append(link)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._reset([link])
            return
        link.writers.append(far_writer)
        ways = {
            asyncio.ensure_future(self._carry(link, "up", reader, far_writer)),
            asyncio.ensure_future(self._carry(link, "down", far_reader, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            link.closed = True
            for each in link.writers:
                each.close()

    async def _carry(
        self, link: Link, name: Literal["up", "down"], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        way = self.up if name == "up" else self.down
        coming: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS)
        feeder = asyncio.ensure_future(self._feed(way, reader, coming))
        try:
            while True:
                due, data = await coming.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._thawed.wait()
                if not data:
                    await asyncio.sleep(way.slow_close_s)
                    return
                if await self._write(link, name, way, writer, data):
                    return
        finally:
            feeder.cancel()

    async def _feed(self, way: Way, reader: asyncio.StreamReader, coming: asyncio.Queue[tuple[float, bytes]]) -> None:
        data = b"?"
        while data:
            await self._thawed.wait()
            try:
                data = await reader.read(_CHUNK)
            except ConnectionError:
                data = b""
            await coming.put((self._loop.time() + way.latency_s, data))

    async def _write(
        self, link: Link, name: Literal["up", "down"], way: Way, writer: asyncio.StreamWriter, data: bytes
    ) -> bool:
        """Pass data on, up to a cut; whether it came to that, or to the end of the other side."""
        cut = link.cut if link.cut is not None and link.cut.way == name else None
        if cut is not None:
            data = data[: cut.at - link.passed[name]]
        size = way.slice or len(data)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            if self.record and name == "up" and len(link.heard) < _CHUNK:
                link.heard += piece
            with contextlib.suppress(ConnectionError):
                writer.write(piece)
                await writer.drain()
            link.passed[name] += len(piece)
            if way.bandwidth is not None:
                await asyncio.sleep(len(piece) / way.bandwidth)
        if cut is None or link.passed[name] < cut.at:
            return writer.is_closing()
        if cut.reset:
            self._reset([link])
        return True

    def _reset(self, links: Iterable[Link]) -> None:
        for link in links:
            for writer in link.writers:
                sock = writer.get_extra_info("socket")
                if sock is not None and not writer.transport.is_closing():
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            link.closed = True
