"""The way from runners into the outbox: stamps batches with wall time, and holds them while the clock is impossible.

Promises: while the clock shows a time before the build's date, batches wait here, unnumbered and unencoded, for up to
`HOLD_S` after the start; then they are stamped from the monotonic clock, right if the clock was set meanwhile. The wait
is bounded: beyond `HELD_BATCHES` the oldest is dropped and its values counted in `values_lost`.
May import: `agent.buffer`, `agent.clock`, `collectors.api`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from agent.buffer.outbox import Outbox
from agent.clock import Clock
from collectors.api import Batch

HOLD_S = 120.0
HELD_BATCHES = 20_000
_LOOK_S = 0.5


class Intake:
    """Takes batches from the runners and appends them to the outbox.

    Attributes:
        values: values accepted since the start.
        values_lost: values dropped here, before they became part of a message.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._held: deque[tuple[Batch, str]] = deque()
        self._holding = clock.impossible
        self._hold_until = clock.monotonic() + HOLD_S
        self.values = 0
        self.values_lost = 0

    async def put(self, batches: Sequence[Batch], rev: str) -> None:
        """Accept batches of one device, explained by its `meta` of revision `rev`."""
        for batch in batches:
            self.values += len(batch.values)
            if self._holding:
                self._hold(batch, rev)
            else:
                await self._append(batch, rev)

    async def release_loop(self) -> None:
        """Wait until the clock can be believed or was waited for long enough, then let the held batches go."""
        while self._holding:
            if not self._clock.impossible or self._clock.monotonic() >= self._hold_until:
                await self.release()
            else:
                await asyncio.sleep(_LOOK_S)

    async def release(self) -> None:
        """Let the held batches go now, in order."""
        while self._held:
            batch, rev = self._held.popleft()
            await self._append(batch, rev)
        self._holding = False

    def _hold(self, batch: Batch, rev: str) -> None:
        if len(self._held) >= HELD_BATCHES:
            dropped, _ = self._held.popleft()
            self.values_lost += len(dropped.values)
        self._held.append((batch, rev))

    async def _append(self, batch: Batch, rev: str) -> None:
        ts = batch.ts if batch.ts is not None else self._clock.stamp(batch.at)
        await self._outbox.append(batch, ts=ts, rev=rev, clock=self._clock.mark)
