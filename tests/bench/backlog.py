"""Fills the store of our agent with messages of a run that never reached the broker.

    python -m tests.bench.backlog DIRECTORY MESSAGES BYTES

Their time is now, so that the replay begins at once and not after the random delay of an old backlog.
"""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path

from agent.buffer.records import Work
from agent.buffer.store import Store
from agent.message import Heading, encode
from collectors.api import Batch

_TRANSACTION = 5000
_DEVICE = "press"


def fill(directory: Path, messages: int, size: int) -> None:
    """Write so many messages of about `size` bytes each."""
    now = time.time_ns() // 1_000_000
    heading = Heading("bench", "gw", secrets.token_hex(8))
    store = Store(directory, run=heading.run, started_at=now, max_size=4_000_000_000, max_payload=60_000)
    base = store.open().base
    empty = len(_body(heading, {}, now, 1))
    tags = [f"tag_{at:03}" for at in range(max(1, (size - empty) // 16))]
    for first in range(1, messages + 1, _TRANSACTION):
        rows = [
            (base + seq, _DEVICE, "1s", _body(heading, {tag: seq % 7919 / 8 for tag in tags}, now, seq))
            for seq in range(first, min(first + _TRANSACTION, messages + 1))
        ]
        store.commit(Work(rows=rows, now=now))
    store.commit(Work(now=now, end="stopped"))
    store.close()


def _body(heading: Heading, values: dict[str, float], now: int, seq: int) -> bytes:
    batch = Batch(_DEVICE, "1s", 0.0, dict(values), {})
    return encode(heading, batch, ts=now, rev="00000000", clock=None, first_seq=seq, max_payload=60_000)[0]


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
