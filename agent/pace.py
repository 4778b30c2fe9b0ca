"""How fast: delays between MQTT sessions, the rate of the backlog and how many of it may be under way.

Pure: no clock, no sleeping; every method that needs the time is given monotonic seconds. May import: the standard
library, `collectors.backoff`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from collectors.backoff import FIRST_REFUSED_S, LONGEST_REFUSED_S, Backoff, after_refusals


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Only tests change them.

    Attributes:
        connect: for name look-up, TCP and TLS; CONNACK has as long again.
        silent: a session in which nothing at all is acknowledged for so long, though something should be, is dropped.
        skipped: so is one in which a message stays unacknowledged for so long while later ones are.
        first, longest: ceiling of the first delay between sessions, and of all.
        first_refused, refused: the same after refusals, of which fifteen an hour are the most: brokers lock accounts.
        short: a session that lasted longer was a success, and delays start over.
        twin: ceiling of the first delay once another client is found to use our client id.
        every: how often status and counters are published.
        spread, long_backlog: a backlog older than `long_backlog` starts after a random delay of up to `spread`.
        farewell: for the acknowledgement of `stopped`.
        settle: least time between two publications of one retained topic.
    """

    connect: float = 8.0
    silent: float = 18.0  # with a round of the pump and a sample: found within 20 s
    skipped: float = 60.0
    first: float = 1.0
    longest: float = 60.0
    first_refused: float = FIRST_REFUSED_S
    refused: float = LONGEST_REFUSED_S
    short: float = 60.0
    twin: float = 120.0
    every: float = 60.0
    spread: float = 30.0
    long_backlog: float = 60.0
    farewell: float = 2.0
    settle: float = 1.0


KICKS_OF_A_TWIN = 3


class Reconnect:
    """Decides how long to wait for the next session.

    Delays grow until a session lasts. A session that is taken over again and again means that another client uses our
    client id; then delays are long enough not to make the two throw each other out in turn.

    Args:
        timing: see there.
        uniform: `random.uniform` or what a test puts in its place.
    """

    def __init__(self, timing: Timing, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._timing = timing
        self._uniform = uniform
        self._unreachable = Backoff(timing.first, timing.longest, uniform=uniform)
        self._refused = after_refusals(timing.first_refused, timing.refused, uniform)
        self._kicks: deque[float] = deque(maxlen=KICKS_OF_A_TWIN)
        self._twin_longest = 0.0

    @property
    def twin(self) -> bool:
        """Another client uses our client id."""
        return self._twin_longest > 0

    @property
    def kicks(self) -> int:
        """How many sessions were taken over of late."""
        return len(self._kicks)

    def start_over(self) -> None:
        """The reason of the last end is known and dealt with."""
        self._unreachable.reset()
        self._kicks.clear()

    def after_failure(self, *, refused: bool) -> float:
        """Seconds to wait after an attempt that brought no session."""
        self._kicks.clear()  # a broker that comes and goes is no twin
        return (self._refused if refused else self._unreachable).next_delay()

    def after_session(self, lasted: float, now: float, *, kicked: bool) -> float:
        """Seconds to wait after a session.

        Args:
            lasted: seconds that it did.
            now: monotonic seconds.
            kicked: another client took it over, or the broker closed it without a word, which may mean the same.
        """
        timing = self._timing
        if lasted >= timing.short:
            self._unreachable.reset()
            self._refused.reset()
        if lasted >= 2 * timing.refused or not kicked:
            self._twin_longest = 0.0
        if not kicked or lasted >= timing.short:
            self._kicks.clear()
        if kicked and lasted < timing.short:
            self._kicks.append(now)
        if len(self._kicks) == KICKS_OF_A_TWIN and now - self._kicks[0] <= timing.short:
            self._twin_longest = self._twin_longest or timing.twin
        if self._twin_longest:
            delay = self._uniform(self._twin_longest / 2, self._twin_longest)
            self._twin_longest = min(2 * self._twin_longest, timing.refused)
            return delay
        return self._unreachable.next_delay()


class TokenBucket:
    """Lets `rate` messages a second through, a tenth of a second's worth at once.

    Args:
        rate: per second, 0 = no limit.
        now: monotonic seconds.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate / 10)
        self._tokens = self._most
        self._at = now

    def available(self, now: float, wanted: int) -> int:
        """How many of the wanted messages may go now."""
        if self._rate <= 0:
            return wanted
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return min(wanted, int(self._tokens))

    def take(self, count: int) -> None:
        """These went."""
        self._tokens -= count

    def wait_s(self) -> float:
        """Seconds until the next may go."""
        return max(0.0, (1 - self._tokens) / self._rate) if self._rate > 0 else 0.0


class BacklogWindow:
    """How much of the backlog may be unacknowledged, so that fresh messages do not queue behind it.

    Begins small, rises slowly while it is used and acknowledgements come about as fast as ever, halves when they take
    `SLOW` times as long as the fastest of late and at least `NOTICEABLE_S` more: then a queue has formed on the way,
    and it is ours.

    Args:
        most: never more, >= 1.
    """

    FIRST = 4
    SLOW = 3.0
    NOTICEABLE_S = 0.1
    MEMORY_S = 60.0

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._size = float(min(self.FIRST, self._most))
        self._floor = self._next_floor = float("inf")
        self._floor_until = float("-inf")
        self._judge_at = float("-inf")

    @property
    def size(self) -> int:
        """Messages."""
        return int(self._size)

    def observe(self, latency: float, now: float, used: int | None = None) -> None:
        """A message was acknowledged `latency` seconds after it was sent; `used`: so much of it was, None = all."""
        if now >= self._floor_until:  # the fastest of this span and the one before it
            self._floor, self._next_floor = self._next_floor, float("inf")
            self._floor_until = now + self.MEMORY_S
        self._next_floor = min(self._next_floor, latency)
        if now < self._judge_at:
            return
        floor = min(self._floor, self._next_floor)
        slow = latency > max(self.SLOW * floor, floor + self.NOTICEABLE_S)
        # A change shows only in what is sent after it: judged again when that has come back.
        self._judge_at = now + latency
        if slow:
            self._size = max(1.0, self._size / 2)
        elif used is None or 2 * used >= self._size:
            self._size = min(float(self._most), self._size * 1.1 + 0.5)
