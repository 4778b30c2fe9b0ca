"""The lock that makes one process the owner of a data directory.

A lock on a file of its own, apart from the database, so that it survives a database that is set aside. The kernel
gives it up with the process, however that ends. May import: the standard library.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK_NAME = "outbox.lock"


class DataDirectoryInUse(Exception):
    """Another process owns the data directory.

    Attributes:
        directory: the directory.
        pid: process id of the owner, None if it could not be read.
    """

    def __init__(self, directory: Path, pid: int | None) -> None:
        owner = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{directory} is in use by {owner}: stop it, or give this agent a directory of its own")
        self.directory = directory
        self.pid = pid


class DirectoryLock:
    """Hold on a data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lock; no effect when held. Creates the directory.

        Raises:
            DataDirectoryInUse: another process holds it.
            OSError: the file system does not allow it.
        """
        if self._fd is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(fd, 32).strip()
            os.close(fd)
            raise DataDirectoryInUse(self._directory, int(text) if text.isdigit() else None) from None
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:  # a full disk: the lock holds, only its owner cannot be named
            pass

    def release(self) -> None:
        """Give the lock back; safe twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
