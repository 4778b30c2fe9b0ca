"""What a witness hears, as it comes: the file of its listener is read once, not again at each look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


class Hearing:
    """Follows a listener's file from where it stands now.

    Args:
        file: `Witness.heard`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = file.stat().st_size if file.exists() else 0

    def news(self) -> Iterator[tuple[float, str, bytes]]:
        """What came since the last call: arrival (seconds since the epoch), topic, payload; not what was retained."""
        with self._file.open("rb") as log:
            log.seek(self._at)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            at, retained, rest = line.split(b" ", 2)
            topic, _, payload = rest.partition(b" ")
            if retained == b"0":
                yield float(at), topic.decode(), payload
