"""Finding the message that makes the broker close the connection, so that it does not do so for ever.

Some brokers do not refuse a message (too large, a topic that is not allowed), they end the session, and every session
after it, because the message is sent again. After such an end the next session begins with one message at a time;
whatever is then alone under way when the session ends the same way is guilty.

Pure. May import: the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_OWN = 10

# DISCONNECT reasons that can be about what we sent: errors, refusals, formats and sizes - not shutting down, quotas.
_ABOUT_A_MESSAGE = frozenset({0x80, 0x81, 0x82, 0x83, 0x87, 0x90, 0x94, 0x95, 0x99, 0x9A, 0x9B})


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
