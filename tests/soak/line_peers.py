"""Modbus peers for scenarios that are not coroutines: a loop in a thread of its own, and a modem that dials in."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar

from tests.faulty.modbus_rtu import RtuAsked, RtuPeer

T = TypeVar("T")


class InThread:
    """A loop in a thread; what was entered and not left is left with it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._entered: list[AbstractAsyncContextManager[Any]] = []

    def enter(self, peer: AbstractAsyncContextManager[T]) -> T:
        """Start it."""
        entered = self._call(peer.__aenter__())
        self._entered.append(peer)
        return entered

    def leave(self, peer: Any) -> None:
        """End it."""
        self._entered.remove(peer)
        self._call(peer.__aexit__(None, None, None))

    def talk(self, peer: RtuPeer, frame: bytes, every_s: float) -> Future[None]:
        """Let it speak unasked, until the future is cancelled."""

        async def talk() -> None:
            while True:
                peer.write(frame)
                await asyncio.sleep(every_s)

        return asyncio.run_coroutine_threadsafe(talk(), self._loop)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def __enter__(self) -> InThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for peer in reversed(self._entered[:]):
            self.leave(peer)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Modem:
    """A 4G modem: dials, names itself, and passes requests on to units whose registers hold their number.

    Its heartbeat comes before, in the middle of, or behind every other reply.
    """

    def __init__(self, port: int, registration: bytes, heartbeat: bytes, seed: int) -> None:
        self.answers = self.beats = 0
        self._port = port
        self._registration = registration
        self._heartbeat = heartbeat
        self._random = random.Random(seed)
        self._frozen = False
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def freeze(self) -> None:
        """Say nothing any more; the connection stands."""
        self._frozen = True

    async def __aenter__(self) -> Modem:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._heartbeat + self._registration)
        self._task = asyncio.get_running_loop().create_task(self._serve(reader, self._writer))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._writer is not None
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            raw = await reader.readexactly(8)
            if self._frozen:
                continue
            asked = RtuAsked(raw, raw[0], raw[1], int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[4:6], "big"))
            frame = asked.frame(asked.registers([asked.unit] * asked.count))
            if self._random.random() < 0.5:
                self.beats += 1
                at = self._random.choice((0, 3, len(frame) // 2, len(frame)))
                frame = frame[:at] + self._heartbeat + frame[at:]
            writer.write(frame)
            self.answers += 1
