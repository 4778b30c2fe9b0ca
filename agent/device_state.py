"""What is known of one device's condition, and the log lines that tell people when it changes.

Promises: one line per change of state, none while it lasts; a device that stays lost but for another cause is told
again at most every `RELOG_S`, at once if a person has to act.
May import: `agent.normaliser`, `collectors.api`, structlog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import structlog

from agent.normaliser import Normaliser
from collectors.api import ALL_TAGS, ActionNeeded, CollectorError, Misconfigured

log = structlog.get_logger("shopfloor.device")

State: TypeAlias = Literal["starting", "ok", "degraded", "bad", "misconfigured", "paused", "off"]

RELOG_S = 600.0
_LATENESS_SAMPLES = 512


class Lateness:
    """The last polls' lateness, for its 99th percentile; bounded."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._next = 0

    def add(self, seconds: float) -> None:
        """Note how long after its due time a poll began."""
        if len(self._samples) < _LATENESS_SAMPLES:
            self._samples.append(seconds)
        else:
            self._samples[self._next] = seconds
            self._next = (self._next + 1) % _LATENESS_SAMPLES

    def p99(self) -> float | None:
        """Seconds; None before the first poll."""
        if not self._samples:
            return None
        return sorted(self._samples)[min(len(self._samples) - 1, int(len(self._samples) * 0.99))]


class DeviceState:
    """Condition and counters of one device; written by its runner, read by status.

    Attributes:
        state: as in the `status` message.
        since: monotonic time of the last change of `state`.
        cause, text, facts: of the error that lasts, if one does (`CollectorError`).
        last_read_at: monotonic time of the last answer.
        polls, missed, reconnects, values: counted since the runner was made.
        bad_tags: tags that are not good as last seen.
    """

    def __init__(self, device: str, label: str | None, clock: Callable[[], float]) -> None:
        self.device = device
        self.label = label
        self._clock = clock
        self.state: State = "starting"
        self.since = clock()
        self.cause: str | None = None
        self.text: str | None = None
        self.facts: Mapping[str, str | int | float] = {}
        self.last_read_at: float | None = None
        self.polls = 0
        self.missed = 0
        self.reconnects = 0
        self.values = 0
        self.bad_tags = 0
        self.lateness = Lateness()
        self._logged_at = float("-inf")
        self._logged_cause = ""
        self._lost_since: float | None = None

    def lost(self, error: CollectorError) -> None:
        """The device cannot be read: tell it if that is new."""
        now = self._clock()
        state: State = "misconfigured" if isinstance(error, Misconfigured) else "bad"
        due = isinstance(error, ActionNeeded) or now >= self._logged_at + RELOG_S
        if state != self.state or (error.cause != self._logged_cause and due):
            self._logged_at, self._logged_cause = now, error.cause
            fields = {**error.facts, "cause": error.cause, "text": error.text}
            event = "device_misconfigured" if state == "misconfigured" else "device_lost"
            self._log(log.warning, event, fields)
        if self._lost_since is None:
            self._lost_since = now
        self._enter(state)
        self.cause, self.text, self.facts = error.cause, error.text, error.facts

    def answered(self, normaliser: Normaliser, tags: int) -> None:
        """The device answered: tell it if that changes its condition."""
        latest = [(values, quality) for _, values, quality in normaliser.latest().values()]
        self.bad_tags = sum(tags if ALL_TAGS in quality else len(quality) for _, quality in latest)
        all_bad = all(ALL_TAGS in quality or (quality and len(quality) >= len(values)) for values, quality in latest)
        state: State = "ok" if not self.bad_tags else "bad" if all_bad else "degraded"
        if state == self.state:
            return
        if self._lost_since is not None and state != "bad":
            down_s, self._lost_since = self._clock() - self._lost_since, None
            self._log(log.info, "device_back", {"down_s": round(down_s, 1)})
        elif state == "ok":
            first = self.state == "starting"
            self._log(log.info, "device_ok" if first else "device_recovered", {"tags": tags} if first else {})
        if state != "ok":
            tag, quality = next((item for _, qualities in latest for item in qualities.items()), ("", ""))
            self._log(
                log.warning, "device_degraded", {"bad": self.bad_tags, "of": tags, "tag": tag, "quality": quality}
            )
            if state == "bad" and self._lost_since is None:
                self._lost_since = self._clock()
        self._enter(state)

    def paused(self, seconds: float) -> None:
        """The device is left alone on purpose."""
        self._enter("paused")
        self._log(log.info, "device_paused", {"for_s": round(seconds)})

    def resumed(self) -> None:
        """The pause is over; what the device says is not known yet."""
        self._enter("starting")
        self._lost_since = None
        self._log(log.info, "device_resumed", {})

    def _enter(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.since = self._clock()
        self.cause, self.text, self.facts = None, None, {}

    def _log(self, write: Callable[..., object], event: str, fields: Mapping[str, object]) -> None:
        write(event, **{**fields, "device": self.device, "label": self.label})
