"""The log's ways out: a rotating file that a full disk cannot stop, and the thread that keeps writing off the loop.

Promises: `Writer.put` never waits and never raises; lines that could not be written are counted and told in one line
when writing works again. May import: the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

QUEUE_LINES = 2000
RETRY_S = 10.0


class Sink(Protocol):
    """Where lines go."""

    def write(self, line: str) -> bool:
        """Write one line (without its end); False when it could not be."""

    def close(self) -> None:
        """Give everything back."""


class RotatingFile:
    """Appends lines to a file; a full one becomes `path.1`, the older ones move up, at most `keep` of them stay.

    A file that somebody else moved or removed is opened anew. After an error it is tried again at most every 10 s.

    Args:
        path: of the newest file; its directory must exist.
        max_size: bytes of one file; 0 = no limit.
        keep: how many old files stay, >= 0.
        clock: monotonic seconds.
    """

    def __init__(self, path: Path, max_size: int, keep: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._max_size = max_size
        self._keep = keep
        self._clock = clock
        self._fd: int | None = None
        self._size = 0
        self._retry_at = float("-inf")
        self.error: str | None = None

    def write(self, line: str) -> bool:
        """Append the line; False (and `error`) when the disk refuses or did so a moment ago."""
        if self._fd is None and self._clock() < self._retry_at:
            return False
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._open()
            if self._max_size and self._size and self._size + len(data) > self._max_size:
                self._rotate()
            self._append(data)
        except OSError as error:
            self.error = error.strerror or type(error).__name__
            self._retry_at = self._clock() + RETRY_S
            self.close()
            return False
        self.error = None
        return True

    def close(self) -> None:
        """Close the file; the next `write` opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):  # what could not be flushed was counted when it was written
                os.close(fd)

    def _open(self) -> None:
        if self._fd is not None:
            mine = os.fstat(self._fd)
            try:
                there = self._path.stat()
            except FileNotFoundError:
                there = None
            if there is not None and (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev):
                return
            self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _append(self, data: bytes) -> None:
        assert self._fd is not None
        if os.write(self._fd, data) != len(data):  # the last block of a full disk: leave no half line behind
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(data)

    def _rotate(self) -> None:
        self.close()
        if self._keep == 0:
            self._path.unlink(missing_ok=True)
        for number in range(self._keep, 0, -1):
            older = rotated(self._path, number - 1)
            if older.exists():
                older.replace(rotated(self._path, number))
        self._open()


def rotated(path: Path, number: int) -> Path:
    """The name of the n-th old file; 0 is the file itself."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


class Stream:
    """Writes lines to a stream such as stderr, past Python's buffers where there is a descriptor beneath."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.fd: int | None = None
        with contextlib.suppress(io.UnsupportedOperation):
            self.fd = stream.fileno()

    def write(self, line: str) -> bool:
        """Write the line; False when nobody reads any more."""
        data = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
        try:
            if self.fd is None:
                self._stream.write(bytes(data).decode())
            while self.fd is not None and data:
                data = data[os.write(self.fd, data) :]
        except (OSError, ValueError):  # closed, by the other side or by us
            return False
        return True

    def close(self) -> None:
        """Leave the stream open: it is not ours."""


class Writer:
    """One thread that takes lines from a bounded queue and hands each to its sink.

    Args:
        lost_line: makes the line that tells of `n` lost lines and why; written when a sink works again.
        idle: called about every 5 s and after each line, in the thread.
    """

    def __init__(self, lost_line: Callable[[int, str], str], idle: Callable[[], None] = lambda: None) -> None:
        # SimpleQueue: the one that may be used from finalizers, in which asyncio logs forgotten tasks.
        self._queue: queue.SimpleQueue[tuple[Sink, str] | threading.Event] = queue.SimpleQueue()
        self._lost_line = lost_line
        self._idle = idle
        self._overflowed = 0
        self._lost_at: dict[int, int] = {}
        self.lost = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, sink: Sink, line: str) -> None:
        """Queue one line; counted as lost when the queue is full."""
        if self._queue.qsize() < QUEUE_LINES:
            self._queue.put((sink, line))
        else:
            self._overflowed += 1
            self.lost += 1

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put before is written; False when that took longer than `timeout_s`."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued, for at most `timeout_s`, and end the thread. Safe twice."""
        if not self._closed.is_set():
            self.flush(timeout_s)
            self._closed.set()
            self.flush(0.1)  # wakes the thread, so that it sees the end at once
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                item = self._queue.get(timeout=5.0)
            except queue.Empty:
                self._idle()
                continue
            if isinstance(item, threading.Event):
                item.set()
                continue
            self._write(*item)
            self._idle()

    def _write(self, sink: Sink, line: str) -> None:
        missing = self._lost_at.get(id(sink), 0) + self._overflowed
        if missing and sink.write(self._lost_line(missing, getattr(sink, "error", None) or "queue")):
            self._lost_at.pop(id(sink), None)
            self._overflowed = 0
        if not sink.write(line):
            self._lost_at[id(sink)] = self._lost_at.get(id(sink), 0) + 1
            self.lost += 1
