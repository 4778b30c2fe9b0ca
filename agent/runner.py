"""One device's life: schedule, isolation, back-off, pause, and the bad batches of a device that does not answer.

Promises: what goes wrong in a collector, its own cancellations included, stays in its runner (the only place with a
broad `except`); polls are due at
`previous due + interval`, a missed one is skipped and counted, never queued; a poll in flight is never cancelled before
the process ends; delays between attempts grow with jitter and start over after the first good batch.

May import: `agent.device_state`, `agent.normaliser`, `collectors.api`, `collectors.backoff`, structlog.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from agent.device_state import DeviceState
from agent.normaliser import Normaliser
from collectors.api import (
    Batch,
    Collector,
    CollectorError,
    CollectorStats,
    LoginRefused,
    Misconfigured,
    TagInfo,
    Unavailable,
)
from collectors.backoff import Backoff, after_refusals

log = structlog.get_logger("shopfloor.device")

LONGEST_DELAY_S = 10.0
"""Between attempts: a machine that is switched on is seen within seconds, and an attempt costs next to nothing."""
CLOSE_S = 2.0
"""How long a collector may take to give everything back."""
LONGEST_SHIFT_S = 1.0
"""First polls are spread over so long; a group that is due once an hour must not be an hour late after a reconnect."""


class CoreFailure(Exception):
    """What comes after the collectors failed: no device's fault, the process must end."""


class Runner:
    """Runs one device.

    Args:
        device, label: its name, and its name for people.
        make: makes a fresh collector; one is made for each attempt, none is ever reconnected.
        sink: takes what is to be published, explained by meta revision `rev`.
        announce: takes the tags when they become known or change, returns the revision of the device's `meta`.
        normaliser: of this device.
        groups: name -> interval in seconds, as the configuration tells.
        stagger: 0..1, the share of its shortest interval by which this device's polls are shifted against the others'.
        patience: seconds that a call into the collector may take without sending a request before it counts as stuck.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        device: str,
        label: str | None,
        *,
        make: Callable[[], Collector],
        sink: Callable[[Sequence[Batch], str], Awaitable[None]],
        announce: Callable[[str, Sequence[TagInfo]], str],
        normaliser: Normaliser,
        groups: Mapping[str, float],
        stagger: float = 0.0,
        patience: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device = device
        self.state = DeviceState(device, label, clock)
        self.normaliser = normaliser
        self.tags: Sequence[TagInfo] = ()
        self.groups = groups
        self._make = make
        self._sink = sink
        self._announce = announce
        self._stagger = stagger
        self._patience = patience
        self._clock = clock
        self._backoff = Backoff(ceiling=LONGEST_DELAY_S)
        self._refused = after_refusals()
        self._wake = asyncio.Event()
        self._push_scope: asyncio.Timeout | None = None
        self._stopping = False
        self._paused_until: float | None = None
        self._rev = ""
        self._learned: tuple[int, int] | None = None
        self._collector: Collector | None = None
        self._past = CollectorStats()
        self._stats_failed = False
        self._busy_since: float | None = None
        self._progress = (float("-inf"), 0)

    def stop(self) -> None:
        """Ask the runner to end after the poll in flight, if there is one."""
        self._stopping = True
        self._interrupt()

    def pause(self, seconds: float) -> None:
        """Leave the device alone for so long; its connection is closed (unless others use it)."""
        self._paused_until = self._clock() + seconds
        self._interrupt()

    def resume(self) -> None:
        """End a pause."""
        self._paused_until = None
        self._interrupt()

    def refresh(self) -> None:
        """Publish every group whole at the next opportunity: somebody new listens."""
        self.normaliser.refresh()
        self._interrupt()

    def announce(self) -> None:
        """Announce the tags again, as far as they were: what announces them changed."""
        if self._rev:
            self._rev = self._announce(self.device, self.tags)

    @property
    def paused_s(self) -> float:
        """Seconds the pause still lasts; 0 = not paused."""
        return max(0.0, self._paused_until - self._clock()) if self._paused_until is not None else 0.0

    def stuck_s(self) -> float:
        """Seconds beyond its patience since a call into the collector began or last sent a request; 0 while waiting."""
        if self._busy_since is None:
            return 0.0
        requests = self.stats().requests
        since, seen = self._progress
        if requests != seen:
            self._progress = (self._clock(), requests)
        elif since < self._busy_since:
            self._progress = (self._busy_since, requests)
        return max(0.0, self._clock() - self._progress[0] - self._patience)

    def stats(self) -> CollectorStats:
        """Counters of the device since the runner was made, over all its connections."""
        now, past = CollectorStats(), self._past
        try:
            now = self._collector.stats() if self._collector is not None else now
        except Exception:  # whoever asks is the core, or the collector's own life
            if not self._stats_failed:
                log.exception("device_bug", device=self.device)
            self._stats_failed = True
        return CollectorStats(
            past.requests + now.requests, past.wire_s + now.wire_s, past.samples_lost + now.samples_lost
        )

    async def run(self) -> None:
        """Run until `stop`, or until cancelled at the end of the process."""
        while not self._stopping:
            if self._paused_until is not None:
                await self._pass_pause()
                continue
            trouble = await self._one_connection()
            if trouble is None or self._ending:
                continue
            self.state.lost(trouble)
            if isinstance(trouble, Misconfigured):
                await self._rest("config", None)
                continue
            reason = trouble.reason if isinstance(trouble, Unavailable) else "not-connected"
            backoff = self._refused if isinstance(trouble, LoginRefused) else self._backoff
            await self._rest(reason, self._clock() + backoff.next_delay())
            self.state.reconnects += 1

    async def _one_connection(self) -> CollectorError | None:
        """Make a collector, open it and collect until told to end (None) or until it fails."""
        try:
            collector = self._collector = self._make()
            self._busy_since = self._clock()
            if not self._rev:
                self._learn(collector)
            await collector.open()
            self._learn(collector)
            self.normaliser.reset()
            await (self._listen(collector) if collector.pushes else self._poll(collector))
        except CollectorError as error:
            return error
        except CoreFailure:
            raise
        except (Exception, asyncio.CancelledError) as error:  # the isolation boundary: a bug costs one device
            if _is_own_end(error):
                raise
            return self._bug(error)
        finally:
            await self._close()
        return None

    def _bug(self, error: BaseException) -> Unavailable:
        detail = f"{type(error).__name__}: {error}"
        if self.state.facts.get("detail") != detail:
            log.error("device_bug", device=self.device, exc_info=error)
        return Unavailable("not-connected", "bug", f"the agent itself failed on this device: {detail}", detail=detail)

    async def _poll(self, collector: Collector) -> None:
        groups = collector.groups
        first = self._clock() + self._stagger * min(LONGEST_SHIFT_S, *groups.values())
        due = dict.fromkeys(groups, first)
        while not self._ending:
            now = self._clock()
            first = min(due.values())
            if first > now:
                self._busy_since = None
                await self._sleep_until(first)
                continue
            ready = frozenset(name for name, at in due.items() if at <= now)
            self.state.lateness.add(now - first)
            self._busy_since = now
            batches = await collector.collect(ready)
            self.state.polls += 1
            await self._accept(collector, batches)
            now = self._clock()
            for name in ready:
                due[name] += groups[name]
                if due[name] <= now:
                    behind = int((now - due[name]) // groups[name]) + 1
                    self.state.missed += behind
                    due[name] += behind * groups[name]

    async def _listen(self, collector: Collector) -> None:
        while not self._ending:
            self._busy_since = self._clock()
            batches = await self._collect_until(collector, self.normaliser.next_due())
            await self._accept(collector, batches)
            heartbeats = self.normaliser.due(self._clock())
            if heartbeats:
                await self._publish(heartbeats)

    async def _collect_until(self, collector: Collector, at: float | None) -> Sequence[Batch]:
        """Wait for news of a collector that pushes, at most until the monotonic time `at` or an interruption."""
        scope = asyncio.timeout(None if at is None else max(0.0, at - self._clock()))
        try:
            async with scope:
                self._push_scope = scope
                return await collector.collect(frozenset())
        except TimeoutError:
            # ETIMEDOUT is a TimeoutError too: only the one of our own scope is no trouble.
            if not scope.expired():
                raise
            return ()
        finally:
            self._push_scope = None

    async def _accept(self, collector: Collector, batches: Sequence[Batch]) -> None:
        if not batches:
            return
        self._learn(collector)
        answered = False
        for batch in batches:
            self.state.values += len(batch.values)
            answered = answered or len(batch.quality) < len(batch.values)
            published = self.normaliser.take(batch)
            if published:
                await self._publish(published)
        self.state.last_read_at = batches[-1].at
        if answered:
            self._backoff.reset()
            self._refused.reset()
        self.state.answered(self.normaliser, len(self.tags))

    async def _publish(self, batches: Sequence[Batch]) -> None:
        try:
            await self._sink(batches, self._rev)
        except Exception as error:
            raise CoreFailure(f"cannot take in readings of {self.device}") from error

    def _learn(self, collector: Collector) -> None:
        version = (id(collector), collector.tags_version)
        # A runner that ends announces nothing any more: its device may be gone from the configuration.
        if version != self._learned and not self._stopping:
            self._learned = version
            self.tags = collector.tags()
            self.normaliser.learn(self.tags)
            self._rev = self._announce(self.device, self.tags)

    async def _close(self) -> None:
        collector = self._collector
        if collector is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await collector.close()
        except (Exception, asyncio.CancelledError) as error:  # what cannot be closed is left behind; life goes on
            if _is_own_end(error):
                raise
            log.exception("device_close_failed", device=self.device)
        self._past = self.stats()
        self._collector = None
        self._busy_since = None

    @property
    def _ending(self) -> bool:
        return self._stopping or self._paused_until is not None

    def _interrupt(self) -> None:
        self._wake.set()
        if self._push_scope is not None and not self._push_scope.expired():
            self._push_scope.reschedule(asyncio.get_running_loop().time())

    async def _sleep_until(self, at: float) -> None:
        """Sleep until the monotonic time `at`, or until interrupted."""
        self._wake.clear()
        timer = asyncio.get_running_loop().call_later(max(0.0, at - self._clock()), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _rest(self, reason: str, until: float | None) -> None:
        """Tell that every tag is bad, and keep telling it every heartbeat, until `until` or an interruption."""
        paused = self._paused_until
        while True:
            lost = self.normaliser.lost(reason, self._clock())
            if lost:
                await self._publish(lost)
            now = self._clock()
            if self._stopping or self._paused_until != paused or (until is not None and now >= until):
                return
            heartbeat = self.normaliser.next_due()
            await self._sleep_until(min(at for at in (until, heartbeat, now + 60.0) if at is not None))

    async def _pass_pause(self) -> None:
        self.state.paused(self.paused_s)
        while self._paused_until is not None and not self._stopping:
            until = self._paused_until
            await self._rest("paused", until)
            if self._paused_until is not None and self._clock() >= self._paused_until:
                self._paused_until = None
        if not self._stopping:
            self.state.resumed()


def look(make: Callable[[], Collector], device: str) -> tuple[Mapping[str, float], bool]:
    """What a collector tells without being opened: its groups, and whether it pushes. Nothing, if none can be made."""
    try:
        collector = make()
        return dict(collector.groups), collector.pushes
    except Exception:  # the same boundary: its runner will fail the same way, and tell it as the device's trouble
        log.exception("device_bug", device=device)
        return {}, False


def _is_own_end(error: BaseException) -> bool:
    """Whether the runner itself was cancelled; a collector may also hand on the cancellation of a task of its own."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
