"""Hostile ways to an OPC UA server: a TCP relay that freezes, cuts or refuses, and ports that answer nonsense.

async with Relay(server.port) as relay: ... relay.freeze() ... relay.cut()
async with rude_port(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n") as port: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from types import TracebackType


class Relay:
    """Passes bytes between clients and a port of the loopback."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flow = asyncio.Event()
        self._flow.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0
        self.most = 0
        """Most connections that clients had open at once."""

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"opc.tcp://127.0.0.1:{self.port}"

    @property
    def connected(self) -> int:
        """Open connections of clients."""
        return len(self._tasks)

    def freeze(self) -> None:
        """Pass nothing on, in either direction; connections stay open (half-open TCP)."""
        self._flow.clear()

    def thaw(self) -> None:
        """End `freeze`: what was held back goes on."""
        self._flow.set()

    def strand(self) -> None:
        """Pass nothing more on for the connections there are, as a router that forgot them; new ones work."""
        self._flow.clear()
        self._flow = asyncio.Event()
        self._flow.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.most = max(self.most, len(self._tasks))
        flow = self._flow
        writers = {writer}
        pumps: list[asyncio.Task[None]] = []
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
            writers.add(there_writer)
            self._writers |= writers
            pumps.append(asyncio.create_task(self._pump(reader, there_writer, flow)))
            pumps.append(asyncio.create_task(self._pump(there_reader, writer, flow)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            self._tasks.discard(task)
            self._writers -= writers
            for one in writers:
                one.transport.abort()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await flow.wait()
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def refusing_port(status: int) -> AsyncIterator[int]:
    """A server that says hello, and answers the request for a secure channel with a fault, as node-opcua does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readexactly(8)
            await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
            writer.write(b"ACKF" + struct.pack("<6I", 28, 0, 65536, 65536, 0, 0))
            head = await reader.readexactly(8)
            await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
            uri = b"http://opcfoundation.org/UA/SecurityPolicy#None"
            fault = struct.pack("<BBHqIIBiBBB", 1, 0, 397, 0, 1, status, 0, -1, 0, 0, 0)
            rest = struct.pack("<I", 7) + struct.pack("<I", len(uri)) + uri + struct.pack("<iiII", -1, -1, 1, 1) + fault
            writer.write(b"OPNF" + struct.pack("<I", 8 + len(rest)) + rest)
            await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def rude_port(answer: bytes | None) -> AsyncIterator[int]:
    """A port that accepts and answers the first bytes with `answer`; None = says nothing, b"" = hangs up."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer:
            writer.write(answer)
        if answer is None or answer:
            await done.wait()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        done.set()
        server.close()
        await server.wait_closed()
        # One turn for the handlers to end.
        await asyncio.sleep(0)
