"""A disk that fails on demand, below a whole process: errors of syncs, slow and hanging ones, a read-only file system.

    disk = FaultyDisk(build_in, data_directory)
    with Daemon(directory, config, environment=disk.environment):
        disk.fail_syncs(errno.EIO, every=3)
        disk.heal()

A library that is preloaded (`disk.c`): it needs a C compiler, no rights, and leaves the real disk alone. What it
refuses it has not done; that a refused sync may have lost what was written before is tested below SQLite (power cuts).
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
_LAYOUT = "6i"


class FaultyDisk:
    """What a process meets below one directory.

    Args:
        build_in: where the library and its control file go.
        directory: whose files are concerned.
    """

    def __init__(self, build_in: Path, directory: Path) -> None:
        self._library = build_in / "faulty_disk.so"
        self._directory = directory
        command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self._control = build_in / "faulty_disk.control"
        self._control.write_bytes(bytes(struct.calcsize(_LAYOUT)))
        with self._control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    @staticmethod
    def possible() -> bool:
        """Whether there is a compiler."""
        return shutil.which("gcc") is not None

    @property
    def environment(self) -> Mapping[str, str]:
        """For the process."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAULTY_DISK": os.path.realpath(self._directory),
            "FAULTY_DISK_CONTROL": str(self._control),
        }

    @property
    def syncs(self) -> int:
        """Syncs so far, failed ones included."""
        return int(struct.unpack(_LAYOUT, self._memory[:])[5])

    def heal(self) -> None:
        """Be a good disk."""
        self._set()

    def fail_syncs(self, code: int, every: int) -> None:
        """Let every so-manieth sync fail."""
        self._set(code, every)

    def slow_syncs(self, milliseconds: int) -> None:
        """Let every sync take so long."""
        self._set(0, 0, milliseconds)

    def hang(self) -> None:
        """Let syncs wait until `heal`."""
        self._set(0, 0, 0, 1)

    def read_only(self) -> None:
        """Be a file system that was mounted read-only, also for files that are open."""
        self._set(0, 0, 0, 0, errno.EROFS)

    def _set(self, *numbers: int) -> None:
        self._memory[:20] = struct.pack("5i", *numbers, *[0] * (5 - len(numbers)))
