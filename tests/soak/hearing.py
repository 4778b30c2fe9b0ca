"""What a listener (`mosquitto_sub -F '%U %r %t %p'`) writes down, read as it comes: every line once, when whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO


class Hearing:
    """Follows a listener's file.

    Args:
        file: `Witness.heard`.
        whole: from its beginning; else from where it stands now.
    """

    def __init__(self, file: Path, *, whole: bool = False) -> None:
        self._file = file
        self._at = file.stat().st_size if file.exists() and not whole else 0

    def news(self) -> Iterator[tuple[float, str, bytes]]:
        """What came since the last that was taken: arrival (seconds since the epoch), topic, payload; not retained."""
        with self._file.open("rb") as log:
            log.seek(self._at)
            yield from read_lines(self._lines(log))

    def _lines(self, log: BinaryIO) -> Iterator[bytes]:
        for line in log:
            if not line.endswith(b"\n"):
                return  # the rest is still to be written
            self._at += len(line)
            yield line


def read_lines(lines: Iterable[bytes]) -> Iterator[tuple[float, str, bytes]]:
    """The same of whole lines."""
    for line in lines:
        at, retained, rest = line.rstrip(b"\n").split(b" ", 2)
        topic, _, payload = rest.partition(b" ")
        if retained == b"0":
            yield float(at), topic.decode(), payload
