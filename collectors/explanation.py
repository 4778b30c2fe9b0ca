"""What can be said of a configured device without asking it, for `shopfloor check`. Imported from `collectors.api`.

May import: the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a configured device will cost; for `check`.

    Attributes:
        requests_per_s: requests to the device.
        wire_s_per_s: share of its line's time (1.0 = always busy), at the given answer time of the device.
        line: what it shares with others (resolved url or line name); None = nothing.
        messages_per_s: messages that reach the broker, as far as the configuration tells (reports: the heartbeats).
        values_per_message: how many values such a message carries on average.
        answer_s: how long the device is taken to think before each answer, in seconds; None = not counted.
    """

    requests_per_s: float
    wire_s_per_s: float
    line: str | None
    messages_per_s: float
    values_per_message: float
    answer_s: float | None = None


@dataclass(frozen=True, slots=True)
class TagExplanation:
    """One tag as the collector understood it; a row of `check --explain`.

    `area`, `offset` and `bit` are None where the protocol has no such thing.
    """

    tag: str
    source: str
    group: str
    type: str
    area: str | None = None
    offset: int | None = None
    bit: int | None = None
    order: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What will be read: each tag, each request (`"holding 100..124 (25 registers) every 1s"`), and what to know."""

    tags: Sequence[TagExplanation]
    requests: Sequence[str]
    notes: Sequence[str] = ()
