"""One process a line: whoever has a serial port or a serial server open holds a lock file in the run directory.

Promises: two processes that know one run directory never have one line open at the same time; a process that dies
lets go by dying; where no lock can be made (no directory, no permission to write) reading goes on without one. May
import: the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from pathlib import Path

_NOT_HERE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC, errno.ENOLCK}


class LineHeld(Exception):
    """Another process, or another part of this one, has the line.

    Attributes:
        pid: whose; None = it does not say.
        by_agent: whether that is the running agent.
    """

    def __init__(self, pid: int | None, *, by_agent: bool) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid
        self.by_agent = by_agent


class LineLock:
    """A hold on one line."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go; safe twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class LineLocks:
    """The locks of one run directory.

    Args:
        directory: where the lock files are; None = no locks.
        agent: whether this process is the agent; else it is one of its tools.
    """

    def __init__(self, directory: Path | None = None, *, agent: bool = False) -> None:
        self._directory = directory
        self._holder = "agent" if agent else "tool"

    def take(self, place: str) -> LineLock:
        """Hold the line that leads to `place`.

        Raises:
            LineHeld: somebody else does.
        """
        if self._directory is None:
            return LineLock(None)
        name = hashlib.sha256(os.path.realpath(place).encode() if place.startswith("/") else place.encode()).hexdigest()
        descriptor = _open(self._directory / f"line-{name[:16]}.lock")
        if descriptor is None:
            return LineLock(None)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = os.pread(descriptor, 64, 0).decode(errors="replace").split()
            os.close(descriptor)
            pid = int(words[0]) if words and words[0].isdigit() else None
            raise LineHeld(pid, by_agent=words[1:] == ["agent"]) from None
        except OSError:
            os.close(descriptor)
            return LineLock(None)
        with contextlib.suppress(OSError):  # a tool of another user may lock the file without being able to sign it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {self._holder}\n".encode(), 0)
        return LineLock(descriptor)


def _open(path: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    return None
