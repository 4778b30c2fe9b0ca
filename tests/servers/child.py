"""A server of a test in a child process, driven line by line: JSON orders on its standard input, answers on its output.

    class PlcServer(ServerProcess):
        def start(self) -> None:
            self.spawn([sys.executable, "-m", "tests.servers.plc"])
            self.call("start", port=self.port)

The parent's side is `ServerProcess`; a child in Python hands its orders to `obey`. It ends when its parent does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 60.0
"""The longest an order may take: starting a server on a machine that is busy with others."""


class ServerProcess:
    """The parent's side; a context manager that starts the server and kills it in the end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None

    def start(self) -> None:
        """Start the server and wait until it listens."""
        raise NotImplementedError

    def spawn(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        """Start the process; `environment` is added to that of this process, its standard error goes to `log`."""
        self._log = log
        with log.open("ab") if log is not None else contextlib.nullcontext() as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
            )

    def freeze(self) -> None:
        """Stop the process as it is: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process without a word; nothing if there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # an order that it did not read any more
                pipe.close()

    def call(self, do: str, **arguments: Any) -> Any:
        """Let the child do something, and wait until it is done.

        Raises:
            RuntimeError: the child could not, has ended, or does not answer.
        """
        process = self._process
        assert process is not None, "start first"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], ANSWER_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            what = "ended during" if ready else "does not answer"
            raise RuntimeError(f"{type(self).__name__} {what} {do}; its errors: {self._log or 'above'}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{do}: {answer['error']}")
        return answer["result"]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


async def obey(find: Callable[[str], Callable[..., Awaitable[Any]]]) -> None:
    """The child's side: do what the parent says until it is gone.

    Args:
        find: the method for an order of this name.
    """
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():  # the end of stdin is the end of the parent
        order = json.loads(line)
        try:
            answer = {"result": await find(order.pop("do"))(**order)}
        except Exception as error:  # noqa: BLE001  # the parent raises it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
