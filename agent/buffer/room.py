"""How much of the volume the store may use, and the room it holds in reserve.

A full disk also blocks deleting, so room is taken beforehand: the write-ahead log has its full size from the start,
the database never commits a page for which no block is allocated, and a file of its own is given up when even opening
finds no room. All sizes in bytes. May import: the standard library.
"""

from __future__ import annotations

import os
from pathlib import Path

PAGE = 512
"""Of a new database. Every commit writes some pages whole, however little changed in them, and each of them twice: with
pages of 4096 bytes 1,000 values a second cost 2.9 GB a day, with these 1.6.
"""
WAL_ROOM = 2 * 1024 * 1024
"""Allocated for the write-ahead log; transactions and checkpoints are kept small enough to stay below it."""
SPARE_FILE = 1024 * 1024
"""Given up only to open the database on a full disk."""
GROWTH = 256 * 1024
"""Blocks are allocated ahead of the database in steps of this size."""
SMALLEST = 4 * 1000 * 1000
"""No cap is smaller: the reserves alone take three quarters of it."""

_MARGIN = 100 * 1000 * 1000
_MOST = 1000**3


def margin(volume: int) -> int:
    """Room that is left to others on a volume of this size: 100 MB or 5 %, at most 20 %."""
    return min(max(_MARGIN, volume // 20), volume // 5)


def cap(max_size: int, used: int, free: int, volume: int) -> int:
    """Bytes that all files of the store may have together, by configuration and by what the volume has left."""
    return min(max_size, used + free - margin(volume))


def default_max_size(directory: Path) -> int:
    """Return the cap for a configuration that names none: 1 GB, or a quarter of free space and own files if less."""
    try:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        volume = os.statvfs(existing)
    except OSError:  # a disk in trouble, which the store will find out: what it may take matters when it is well again
        return _MOST
    own = sum(allocated(path) for path in directory.glob("outbox.*")) if directory.exists() else 0
    return max(SMALLEST, min(_MOST, (volume.f_bavail * volume.f_frsize + own) // 4))


def size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def allocated(path: Path) -> int:
    """Bytes that a file takes on its volume; 0 if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return max(status.st_blocks * 512, status.st_size)


def allocate(path: Path, size: int) -> bool:
    """Make sure that blocks for the first `size` bytes of a file are there; False when the volume has not that much."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError:
        return False
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
