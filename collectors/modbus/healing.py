"""What a device showed that it does not read, and what to ask next to know more: the plan heals itself.

A request of several places that is refused is cut in two until the places at fault stand alone. Whether a cut then has
to stay is found out: the two places beside it are read together (refused: what lies between them must not be crossed),
then the whole request again (refused: it is too long, and the longest that is not is searched). What is refused stays
out of all requests, and is tried again after growing pauses, and when the device was connected anew.

Promises: whatever a device refuses, and however long requests it takes, after a bounded number of questions every place
that can be read alone is read, and no other request is refused again. Nothing is asked that the plan did not name.

Pure; the clock is handed in. May import: the standard library, `collectors.modbus.address`,
`collectors.modbus.lengths`, `collectors.modbus.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from collectors.modbus.address import Area
from collectors.modbus.lengths import Lengths
from collectors.modbus.plan import Block, Cut, Limits, Rules, Span, Stretch, plan

QUARANTINED = "bad:quarantined"
SILENT = "bad:timeout"
FIRST_RETRY_S = 60.0
LAST_RETRY_S = 3600.0
FIRST_REST_S = 10.0
"""A place that stays mute rests shorter at first: a time-out is no proof."""
FORGET_TRIAL_S = 600.0
"""A cut that could not be judged in so long is taken back: its tags may be gone."""
STORM_POLLS = 3
"""So many polls in a row a device may refuse everything that was read before, as at its start, and is not believed."""

Place: TypeAlias = tuple[Area, Stretch]


class Outcome(Enum):
    """What came of a question."""

    READ = "read"
    REFUSED = "refused"
    """Exception 2 or 3: not these addresses, or not so many."""
    SILENT = "silent"
    UNKNOWN = "unknown"
    """The device was busy, or could not be asked: nothing follows from it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request beyond the plan; one whose block has spans brings values of tags too."""

    kind: Literal["part", "bridge", "again", "length", "retry"]
    block: Block


@dataclass(slots=True)
class _Refused:
    """A stretch that is left out; asked again at `retry_at`."""

    quality: str
    retry_at: float
    pause: float
    is_bridge: bool
    """Two places that are read each, and not together."""


@dataclass(slots=True)
class _Trial:
    """A request that was refused as a whole, and where it is cut."""

    block: Block
    places: Sequence[Stretch]
    cut: Cut
    bridge: Block
    halves: set[Stretch]
    since: float
    mute: bool
    """Silence counts as refusal: that is how the block was refused."""
    bridged: bool = False

    def holds(self, other: _Trial) -> bool:
        """Whether the other one is a part of this one."""
        mine, its = self.block, other.block
        within = mine.area == its.area and mine.offset <= its.offset and its.end <= mine.end
        return within and len(other.places) < len(self.places)


class Knowledge:
    """What one device showed; outlives its connections.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.version = 0
        """Rises with every change of `rules`."""
        self.rules = Rules()
        self.mute = False
        """Nothing was answered, the last time it was asked for its tags."""
        self._clock = clock
        self._layout: Hashable = None
        self._lengths = Lengths(clock)
        self._refused: dict[Place, _Refused] = {}
        self._trials: list[_Trial] = []
        self._next_retry = float("inf")
        self._ever_read = False
        self._storm = 0

    def fit(self, layout: Hashable) -> None:
        """Say what is read now: what was learned of other tags is forgotten, so that nothing unnamed is asked."""
        if layout != self._layout:
            self._layout = layout
            self._refused.clear()
            self._trials.clear()
            self._lengths.forget_tags()
            self._changed()

    def reconnected(self) -> None:
        """The device was connected anew, and may be another: try again what it refused, and longer requests."""
        self._retry_all(self._clock())
        self._lengths.reconnected()

    def quality(self, area: Area, stretch: Stretch) -> str | None:
        """Why a place is left out; None if it is not."""
        found = self._refused.get((area, stretch))
        return found.quality if found is not None else None

    @property
    def has_questions(self) -> bool:
        """Whether there is something to find out now."""
        due = self._clock() >= self._next_retry or self._lengths.wants_more
        return due or bool(self._trials) or self._lengths.is_searching

    # -- what polls tell -----------------------------------------------------------------------------------------

    def believes(self, read: int) -> bool:
        """Whether refusals of a poll that read so many blocks say something about addresses."""
        if read:
            self._ever_read, self._storm = True, 0
            return True
        self._storm += 1
        return not self._ever_read or self._storm >= STORM_POLLS

    def was_read(self, block: Block) -> None:
        """A block was read, which tells of the halves of earlier trials."""
        self._lengths.was_read(block)
        self._need_not_wait_for(block)

    def _need_not_wait_for(self, block: Block) -> None:
        for trial in self._trials:
            if trial.block.area == block.area and trial.halves:
                trial.halves = {half for half in trial.halves if half[0] < block.offset or half[1] > block.end}

    def not_read(self, block: Block, quality: str = QUARANTINED) -> None:
        """A block was refused, or stays mute while others answer: cut it, or leave its only place out."""
        now = self._clock()
        places = sorted({(span.offset, span.end) for span in block.spans})
        if len(places) == 1:
            pause = FIRST_RETRY_S if quality == QUARANTINED else FIRST_REST_S
            self._leave_out(block.area, places[0], quality, pause)
            return
        if any(trial.block.area == block.area and trial.places == places for trial in self._trials):
            return
        middle = len(places) // 2
        parts = places[:middle], places[middle:]
        halves = {(part[0][0], max(end for _, end in part)) for part in parts}
        before, after = places[middle - 1], places[middle]
        bridge = _block(block.area, before[0], max(before[1], after[1]))
        self._trials.append(
            _Trial(block, places, (after[0], after[1] - after[0]), bridge, halves, now, quality == SILENT)
        )
        self._changed()

    # -- what to find out ----------------------------------------------------------------------------------------

    def heal(
        self, refused: Iterable[Block], limits: Limits, spans: Sequence[Span] = ()
    ) -> Generator[Ask, Outcome, None]:
        """Ask what is to be known now, the parts of refused blocks first; may be left at any time, and begun anew.

        Args:
            refused: blocks of this poll.
            limits: what the configuration allows.
            spans: all tags, to see how long requests might be.
        """
        waiting = list(refused)
        while True:
            # What can be judged comes first, and one block after the other: a limit found with one spares the others.
            ask = self._next() or (None if waiting else self._retry() or self._longer(limits, spans))
            if ask is not None:
                outcome = yield ask
                self._answer(ask, outcome)
                if outcome in {Outcome.UNKNOWN, Outcome.SILENT}:
                    return  # not now
            elif not waiting:
                return
            else:
                block = waiting.pop(0)
                if len({(span.offset, span.end) for span in block.spans}) == 1 or not self._is_explained(block):
                    self.not_read(block)
                parts = plan(block.spans, limits, self.rules)
                for part in parts:
                    outcome = yield Ask("part", part)
                    if outcome is Outcome.READ:
                        self.was_read(part)
                    elif outcome is Outcome.REFUSED:
                        waiting.insert(0, part)

    def _next(self) -> Ask | None:
        if (question := self._lengths.question()) is not None:
            return Ask("length", question)
        self._drop_explained()
        for trial in self._trials:
            if not trial.halves and not any(trial.holds(other) for other in self._trials):
                if trial.bridged:
                    return Ask("again", _block(trial.block.area, trial.block.offset, trial.block.end))
                return Ask("bridge", trial.bridge)
        return None

    def _retry(self) -> Ask | None:
        if self._clock() < self._next_retry:
            return None
        (area, stretch), _ = min(self._refused.items(), key=lambda item: item[1].retry_at)
        return Ask("retry", _block(area, *stretch))

    def _longer(self, limits: Limits, spans: Sequence[Span]) -> Ask | None:
        self._lengths.try_more(spans, limits, self.rules)
        return self._next() if self._lengths.is_searching else None

    def _answer(self, ask: Ask, outcome: Outcome) -> None:
        stretch = (ask.block.offset, ask.block.end)
        if ask.kind == "retry":
            self._retried((ask.block.area, stretch), outcome)
        elif ask.kind == "length":
            if outcome is not Outcome.UNKNOWN:
                silent = outcome is Outcome.SILENT
                self._lengths.answered(ask.block.count, was_read=outcome is Outcome.READ, was_silent=silent)
                self._drop_long_bridges()
        elif (trial := self._asked_for(ask)) is not None and self._counts(outcome, trial.mute):
            self._judged(trial, ask, outcome is Outcome.READ)

    @staticmethod
    def _counts(outcome: Outcome, mute: bool) -> bool:
        return outcome in {Outcome.READ, Outcome.REFUSED} or (mute and outcome is Outcome.SILENT)

    def _asked_for(self, ask: Ask) -> _Trial | None:
        asked = (ask.block.area, ask.block.offset, ask.block.end)
        for trial in self._trials:
            block = trial.bridge if ask.kind == "bridge" else trial.block
            if trial.bridged != (ask.kind == "again") or trial.halves:
                continue  # another trial with the same bridge may be a step further
            if (block.area, block.offset, block.end) == asked:
                return trial
        return None

    def _judged(self, trial: _Trial, ask: Ask, was_read: bool) -> None:
        if ask.kind == "bridge" and was_read:
            trial.bridged = True
            if trial.bridge.count < trial.block.count:
                return
        self._trials.remove(trial)
        if ask.kind == "bridge" and not was_read:
            if self._lengths.refused_pair(ask.block):
                self._drop_long_bridges()
            else:
                self._leave_out(
                    ask.block.area, (ask.block.offset, ask.block.end), QUARANTINED, LAST_RETRY_S, is_bridge=True
                )
        elif was_read:
            self.was_read(trial.block)  # it was a passing trouble
        else:
            self._begin_search(trial)
        self._changed()

    def _begin_search(self, trial: _Trial) -> None:
        """The two halves of a block are read, and what is between them too, but not all of it: it is too long."""
        block = trial.block
        cut = trial.cut[0]
        left = max(span.end for span in block.spans if (span.offset, span.width) < trial.cut) - block.offset
        self._lengths.too_long(block, max(left, block.end - cut), mute=trial.mute)
        self._drop_long_bridges()

    def _drop_explained(self) -> None:
        """Take cuts back whose reason is known by now."""
        oldest = self._clock() - FORGET_TRIAL_S
        kept = [trial for trial in self._trials if trial.since > oldest and not self._is_explained(trial.block)]
        if len(kept) < len(self._trials):
            for trial in self._trials:
                # What is explained within a half is no reason to wait for the half itself any more.
                if trial not in kept:
                    self._need_not_wait_for(trial.block)
            self._trials = kept
            self._changed()

    def _is_explained(self, block: Block) -> bool:
        if block.count > self._lengths.limits.get(block.area, block.count):
            return True
        return any(
            area == block.area and block.offset <= first and end <= block.end for area, (first, end) in self._refused
        )

    # -- what is left out ----------------------------------------------------------------------------------------

    def _leave_out(self, area: Area, stretch: Stretch, quality: str, pause: float, *, is_bridge: bool = False) -> None:
        self._refused[area, stretch] = _Refused(quality, self._clock() + pause, pause, is_bridge)
        self._changed()

    def _drop_long_bridges(self) -> None:
        """What was taken for holes is too long for the device."""
        limits = self._lengths.limits
        self._refused = {
            (area, (first, end)): entry
            for (area, (first, end)), entry in self._refused.items()
            if not (entry.is_bridge and end - first > limits.get(area, end - first))
        }
        self._changed()

    def _retried(self, place: Place, outcome: Outcome) -> None:
        now = self._clock()
        entry = self._refused[place]
        if outcome is Outcome.READ:
            del self._refused[place]
            self._retry_all(now)  # what one can be read again for, holds for the others, most likely
        else:
            if outcome is not Outcome.UNKNOWN:
                entry.pause = min(2 * entry.pause, LAST_RETRY_S)
            if outcome is Outcome.REFUSED:
                entry.quality = QUARANTINED
            entry.retry_at = now + entry.pause
        self._changed()

    def _retry_all(self, now: float) -> None:
        for entry in self._refused.values():
            entry.retry_at = min(entry.retry_at, now)
        self._next_retry = min(self._next_retry, now) if self._refused else float("inf")

    def _changed(self) -> None:
        refused: dict[Area, list[Stretch]] = {}
        for area, stretch in self._refused:
            refused.setdefault(area, []).append(stretch)
        cuts: dict[Area, set[Cut]] = {}
        for trial in self._trials:
            block = trial.block
            last = max((span.offset, span.width) for span in block.spans)
            first = min((span.offset, span.width) for span in block.spans)
            cuts.setdefault(block.area, set()).update({first, trial.cut, (last[0], last[1] + 1)})
        rules = Rules(
            self._lengths.limits,
            {area: sorted(found) for area, found in refused.items()},
            {area: sorted(found) for area, found in cuts.items()},
        )
        self._next_retry = min((entry.retry_at for entry in self._refused.values()), default=float("inf"))
        if rules != self.rules:
            self.rules = rules
            self.version += 1


def _block(area: Area, first: int, end: int) -> Block:
    return Block(area, first, end - first, ())


def left_out(known: Knowledge, spans: Iterable[Span]) -> dict[int, str]:
    """Index of each tag that is in no request -> its quality."""
    found = ((span.index, known.quality(span.area, (span.offset, span.end))) for span in spans)
    return {index: quality for index, quality in found if quality is not None}
