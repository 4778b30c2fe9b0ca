"""Finding the message that makes the broker close the connection, so that it does not do so for ever.

Some brokers do not refuse a message (too large, a topic that is not allowed), they end the session, and every session
after it, because the message is sent again. After such an end the next session begins with one message at a time;
whatever is then alone under way when the session ends the same way is guilty. What was found guilty again and again is
not sent for a while: each attempt would cost everybody else a session.

Pure: no clock, `now` is monotonic seconds. May import: the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_OWN = 10

# DISCONNECT reasons that can be about what we sent: errors, refusals, formats and sizes - not shutting down, quotas.
_ABOUT_A_MESSAGE = frozenset({0x80, 0x81, 0x82, 0x83, 0x87, 0x90, 0x94, 0x95, 0x99, 0x9A, 0x9B})

TRIES = 3
"""A topic that ended so many sessions is not published on any more."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 600.0
_ABOUT_AS_LARGE = 0.9


class Suspicion:
    """Carried from session to session.

    Attributes:
        careful: how many messages the next session sends one at a time before it trusts again.
    """

    def __init__(self) -> None:
        self.careful = 0

    def after_session(
        self, under_way: Sequence[T], tried: Sequence[T], *, closed: bool, code: int | None, alone: bool
    ) -> T | None:
        """Return what is guilty of the end of a session, None if nothing is, or it is not known yet.

        Args:
            under_way: what was sent and not acknowledged.
            tried: those of it that were found guilty before.
            closed: the broker ended the session, soon after it began.
            code: its reason, None = without a word.
            alone: the session sent one message at a time.
        """
        self.careful = 0
        if not closed or not under_way or not (code is None or code in _ABOUT_A_MESSAGE):
            return None
        if len(tried) == 1:
            return tried[0]
        if alone and len(under_way) == 1:
            return under_way[0]
        # Fresh messages and our own take turns with these.
        self.careful = 2 * len(under_way) + _OWN
        return None


@dataclass(slots=True)
class _Record:
    """`size`: bytes of the smallest guilty message; `until`: not tried before; `pause_s`: after the next end."""

    size: int
    times: int = 0
    until: float = float("-inf")
    pause_s: float = FIRST_PAUSE_S


class Shunned:
    """Topics of readings on which messages ended sessions: by their mere topic, or by their size.

    After `TRIES` ends, messages on the topic that are about as large as the guilty ones, or larger, are not sent for a
    pause that doubles with each further end. One entry for each topic of the configuration at most.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def __bool__(self) -> bool:
        return bool(self._records)

    def blame(self, topic: str, size: int, now: float) -> bool:
        """A message of this size ended a session; whether the topic is shunned from now on for the first time."""
        record = self._records.setdefault(topic, _Record(size))
        record.size = min(record.size, size)
        record.times += 1
        if record.times < TRIES:
            return False
        record.until = now + record.pause_s
        record.pause_s = min(2 * record.pause_s, LONGEST_PAUSE_S)
        return record.times == TRIES

    def shuns(self, topic: str, size: int, now: float) -> bool:
        """Whether a message is better not sent now."""
        record = self._records.get(topic)
        return record is not None and now < record.until and size >= record.size * _ABOUT_AS_LARGE

    def worked(self, topic: str, size: int) -> None:
        """The broker took a message of this size."""
        record = self._records.get(topic)
        if record is not None and size >= record.size * _ABOUT_AS_LARGE:
            del self._records[topic]
