"""What is published of what was read: value rules, limits, maps, changes only, heartbeats. Pure, one object per device.

Promises: a value outside its limits or without a text in its map is null with `bad:range`, never a number; the
deadband compares with the last value *sent*; a change of quality always passes and clears the deadband; after
`reset` (start, reconnect) the first value passes; a group that is bad as a whole is told at once and then every
heartbeat, never every interval. No clock, no I/O, no asyncio: times come in as monotonic seconds.

May import: `collectors.api`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import isfinite, lcm
from typing import TypeAlias

from collectors.api import ALL_TAGS, Batch, TagInfo, TagRules, Value

DEFAULT_HEARTBEAT_S = 60.0
"""How often a group that is bad as a whole is repeated when the device has no `report` (CONTRACT 4)."""
LARGEST_EXACT = 2**53
"""Beyond it a JSON reader that uses doubles sees another integer."""
BAD_RANGE = "bad:range"
BAD_DECODE = "bad:decode"
BAD_INVALID = "bad:invalid"

Step: TypeAlias = Callable[[Value], tuple[Value, str | None]]
"""Raw value -> published value and, if it became unusable, why."""


class _TagStep:
    """A tag's step, with the raw value that it last had and what came of it."""

    __slots__ = ("name", "published", "raw", "step")

    def __init__(self, name: str, step: Step) -> None:
        self.name = name
        self.step = step
        self.raw: Value = None
        self.published: tuple[Value, str | None] = (None, None)


class _Group:
    """State of one group: what was last seen and last sent."""

    __slots__ = (
        "current",
        "current_at",
        "deadbands",
        "quality",
        "recovering",
        "sent",
        "sent_quality",
        "sent_whole_at",
        "steps",
    )

    def __init__(self) -> None:
        self.steps: list[_TagStep] = []
        self.deadbands: dict[str, float] = {}
        self.current: dict[str, Value] = {}
        self.quality: dict[str, str] = {}
        self.current_at: float | None = None
        self.sent: dict[str, Value] = {}
        self.sent_quality: dict[str, str] = {}
        self.sent_whole_at: float | None = None
        # Lost before: the first value of each tag is a recovery, which carries gateway time.
        self.recovering = False


class Normaliser:
    """Turns what a collector read into what is published.

    Args:
        device: name of the device.
        groups: names of its groups.
        heartbeat: seconds between whole groups when only changes are published; None = every batch is published whole.
        pushes: the device reports by itself: heartbeats come from `due`, not from its batches.
    """

    def __init__(self, device: str, groups: Iterable[str], *, heartbeat: float | None, pushes: bool = False) -> None:
        self._device = device
        self._report = heartbeat is not None
        self._heartbeat = heartbeat if heartbeat is not None else DEFAULT_HEARTBEAT_S
        self._pushes = pushes
        self._groups: dict[str, _Group] = {name: _Group() for name in groups}

    def learn(self, tags: Sequence[TagInfo]) -> None:
        """Take over the rules of the tags; what was sent stays known."""
        for group in self._groups.values():
            group.steps, group.deadbands = [], {}
        for tag in tags:
            group = self._groups.setdefault(tag.group, _Group())
            step = compile_step(tag)
            if step is not None:
                group.steps.append(_TagStep(tag.name, step))
            if tag.rules.deadband:
                group.deadbands[tag.name] = tag.rules.deadband

    def reset(self) -> None:
        """Let the next value of every tag pass: after a start or a reconnect."""
        for group in self._groups.values():
            group.recovering = ALL_TAGS in group.sent_quality
            group.sent, group.sent_quality, group.sent_whole_at = {}, {}, None
            group.current, group.quality = {}, {}

    def refresh(self) -> None:
        """Let the next batch (or heartbeat) of every group be whole, of which anything was sent."""
        for group in self._groups.values():
            if group.sent_whole_at is not None:
                group.sent_whole_at = float("-inf")

    def take(self, batch: Batch) -> Sequence[Batch]:
        """Return what of a batch is to be published: nothing, the batch, or parts of it. The batch is consumed."""
        group = self._groups.setdefault(batch.group, _Group())
        self._apply_rules(group, batch)
        self._remember(group, batch)
        if _is_all_bad(batch):
            return self._all_bad(group, batch)
        if not self._report:
            group.sent_quality, group.sent_whole_at = batch.quality, batch.at
            return (batch,)
        if not self._pushes and (group.sent_whole_at is None or batch.at >= group.sent_whole_at + self._heartbeat):
            return (self._whole(group, batch),)
        if batch.values == group.sent and batch.quality == group.sent_quality:
            return ()
        return self._changes(group, batch)

    def lost(self, reason: str, at: float) -> list[Batch]:
        """The batches of a device that does not answer: on the change of reason, then every heartbeat."""
        batches: list[Batch] = []
        for name, group in self._groups.items():
            batch = Batch(self._device, name, at, {}, {ALL_TAGS: f"bad:{reason}"})
            self._remember(group, batch)
            batches.extend(self._all_bad(group, batch))
        return batches

    def due(self, at: float) -> list[Batch]:
        """Heartbeats of a device that reports by itself: each group that is due, whole, with gateway time."""
        return [
            self._whole(group, Batch(self._device, name, at, dict(group.current), dict(group.quality)))
            for name, group in self._groups.items()
            if group.sent_whole_at is not None and at >= group.sent_whole_at + self._heartbeat
        ]

    def next_due(self) -> float | None:
        """Monotonic time of the next heartbeat; None when nothing was sent yet."""
        times = [group.sent_whole_at for group in self._groups.values() if group.sent_whole_at is not None]
        return min(times) + self._heartbeat if times else None

    def latest(self) -> Mapping[str, tuple[float, Mapping[str, Value], Mapping[str, str]]]:
        """Group -> (monotonic time, values, quality) as last seen, published or not."""
        return {
            name: (group.current_at, group.current, group.quality)
            for name, group in self._groups.items()
            if group.current_at is not None
        }

    def bad_tags(self) -> int:
        """How many tags are not good as last seen; a group that is bad as a whole counts 1."""
        return sum(len(group.quality) for group in self._groups.values())

    def _apply_rules(self, group: _Group, batch: Batch) -> None:
        values = batch.values
        for tag in group.steps:
            name = tag.name
            raw = values.get(name)
            if raw is None:
                continue
            # Most values of a machine stay as they are. Zeros are no proof: 0.0, -0.0 and False are equal.
            if raw != tag.raw or raw == 0 or raw.__class__ is not tag.raw.__class__:
                tag.raw = raw
                tag.published = tag.step(raw)
            values[name], reason = tag.published
            if reason is not None:
                batch.quality[name] = reason

    def _remember(self, group: _Group, batch: Batch) -> None:
        group.current_at = batch.at
        if self._pushes and ALL_TAGS not in batch.quality:
            group.current.update(batch.values)
            group.quality.pop(ALL_TAGS, None)
            for name in batch.values:
                group.quality.pop(name, None)
            group.quality.update(batch.quality)
        elif self._pushes:
            # Copies: the batch may still wait to be stamped when the next news change what is current.
            group.current, group.quality = dict(batch.values), dict(batch.quality)
        else:
            group.current, group.quality = batch.values, batch.quality

    def _all_bad(self, group: _Group, batch: Batch) -> Sequence[Batch]:
        reasons = set(batch.quality.values())
        if len(reasons) == 1 and not self._pushes:
            batch.values, batch.quality = {}, {ALL_TAGS: reasons.pop()}
        unchanged = batch.quality == group.sent_quality and not any(v is not None for v in group.sent.values())
        if self._pushes and ALL_TAGS not in batch.quality:
            return self._changes(group, batch)
        if unchanged and group.sent_whole_at is not None and batch.at < group.sent_whole_at + self._heartbeat:
            return ()
        group.sent, group.sent_quality, group.sent_whole_at = {}, dict(batch.quality), batch.at
        batch.ts, batch.age_ms = None, {}
        return (batch,)

    def _whole(self, group: _Group, batch: Batch) -> Batch:
        group.sent, group.sent_quality, group.sent_whole_at = dict(batch.values), dict(batch.quality), batch.at
        return batch

    def _changes(self, group: _Group, batch: Batch) -> Sequence[Batch]:
        """Keep what differs from what was last sent; errors and recoveries apart, with gateway time."""
        if group.sent_whole_at is None:
            group.sent_whole_at = batch.at
        if not batch.quality and not group.sent_quality and batch.values.keys() <= group.sent.keys():
            return self._good_changes(group, batch)
        sent, sent_quality, deadbands = group.sent, group.sent_quality, group.deadbands
        was_all_bad = ALL_TAGS in sent_quality
        if was_all_bad:
            del sent_quality[ALL_TAGS]
        plain: dict[str, Value] = {}
        turned: dict[str, Value] = {}
        quality: dict[str, str] = {}
        for name, value in batch.values.items():
            new, old = batch.quality.get(name), sent_quality.get(name)
            if new != old or (was_all_bad and name not in sent):
                turned[name] = value
                if new is None:
                    sent_quality.pop(name, None)
                else:
                    quality[name] = sent_quality[name] = new
            elif name not in sent:
                (turned if group.recovering else plain)[name] = value
            elif differs(sent[name], value, deadbands.get(name)):
                plain[name] = value
                if new is not None:
                    quality[name] = new
            else:
                continue
            sent[name] = value
        if batch.ts is None:
            # Gateway time is what errors and recoveries carry: one message does for all.
            plain |= turned
            turned = {}
        return [part for part in (self._part(batch, plain, quality), self._turned(batch, turned, quality)) if part]

    def _good_changes(self, group: _Group, batch: Batch) -> Sequence[Batch]:
        """`_changes` of what is good and was good before, which is the rule."""
        sent, values = group.sent, batch.values
        changed = {name: value for name, value in values.items() if value != sent[name]}
        doubtful = [name for name in group.deadbands if name in changed]
        doubtful += [name for name, value in changed.items() if value != value]  # NaN: see `differs`
        for name in doubtful:
            if name in changed and not differs(sent[name], values[name], group.deadbands.get(name)):
                del changed[name]
        sent.update(changed)
        if len(changed) == len(values):
            return (batch,)
        part = self._part(batch, changed, {})
        return () if part is None else (part,)

    def _turned(self, batch: Batch, values: dict[str, Value], quality: dict[str, str]) -> Batch | None:
        part = self._part(batch, values, quality)
        if part is not None:
            part.ts, part.age_ms = None, {}
        return part

    @staticmethod
    def _part(batch: Batch, values: dict[str, Value], quality: dict[str, str]) -> Batch | None:
        if not values:
            return None
        return Batch(
            batch.device,
            batch.group,
            batch.at,
            values,
            {name: quality[name] for name in values if name in quality},
            {name: age for name, age in batch.age_ms.items() if name in values},
            batch.ts,
        )


def _is_all_bad(batch: Batch) -> bool:
    quality = batch.quality
    if not quality:
        return False
    if ALL_TAGS in quality:
        return True
    return len(quality) >= len(batch.values) and all(
        value is None and quality.get(name, "").startswith("bad:") for name, value in batch.values.items()
    )


def differs(old: Value, new: Value, deadband: float | None) -> bool:
    """Whether `new` is to be published after `old`: any change, or one larger than the deadband for numbers."""
    # NaN, which no collector should bring, equals nothing: not even itself, and it is within no deadband.
    was_nan, is_nan = old != old, new != new
    if was_nan or is_nan:
        return was_nan != is_nan
    if deadband is not None and isinstance(old, int | float) and isinstance(new, int | float):
        return abs(new - old) > deadband
    # 1 == True and 1 == 1.0 in Python; a bool and a number never share a tag, so equality is enough.
    return old != new


def compile_step(tag: TagInfo) -> Step | None:
    """Return the function from raw to published value of a tag, or None if it is published as it is.

    Scale and offset are applied as one exact fraction of decimals: 3 x 0.1 is published as 0.3, not
    0.30000000000000004.
    """
    rules = tag.rules
    steps: list[Step] = []
    if rules.scale is not None or rules.offset is not None:
        steps.append(_linear(rules))
    if rules.decimals is not None:
        steps.append(_rounded(rules.decimals))
    if rules.minimum is not None or rules.maximum is not None:
        steps.append(_limited(rules.minimum, rules.maximum))
    if rules.map is not None:
        steps.append(_mapped(rules.map))
    if rules.as_string:
        steps.append(lambda value: (str(value), None))
    elif tag.wide:
        steps.append(_exact)
    if not steps:
        return None
    if len(steps) == 1:
        return steps[0]

    def chain(value: Value) -> tuple[Value, str | None]:
        for step in steps:
            value, reason = step(value)
            if value is None:
                return None, reason
        return value, None

    return chain


def _linear(rules: TagRules) -> Step:
    scale = Fraction(repr(rules.scale)) if rules.scale is not None else Fraction(1)
    offset = Fraction(repr(rules.offset)) if rules.offset is not None else Fraction(0)
    denominator = lcm(scale.denominator, offset.denominator)
    factor: float = int(scale * denominator)
    addend: float = int(offset * denominator)
    if max(abs(factor), abs(addend), denominator) > LARGEST_EXACT:
        # Not a decimal that a person would write; such numbers are not exact in floating point either.
        factor, addend, denominator = float(scale), float(offset), 1
    as_string = rules.as_string

    def linear(value: Value) -> tuple[Value, str | None]:
        if isinstance(value, str | None):
            return None, BAD_DECODE
        result = value * factor + addend
        scaled = result / denominator if denominator != 1 else result
        if not isfinite(scaled):
            return None, BAD_RANGE
        # Integers that JSON readers cannot hold are none that a device counts: the tag stays a number.
        return (scaled if as_string or abs(scaled) <= LARGEST_EXACT else float(scaled)), None

    return linear


def _rounded(decimals: int) -> Step:
    def rounded(value: Value) -> tuple[Value, str | None]:
        if not isinstance(value, float):
            return value, None
        if not isfinite(value):
            return None, BAD_INVALID
        if abs(value) > LARGEST_EXACT:
            return value, None  # has no decimals, and would become an integer that JSON cannot hold
        return (round(value, decimals) if decimals else round(value)), None

    return rounded


def _limited(minimum: float | None, maximum: float | None) -> Step:
    low = minimum if minimum is not None else float("-inf")
    high = maximum if maximum is not None else float("inf")

    def limited(value: Value) -> tuple[Value, str | None]:
        if isinstance(value, str | None) or low <= value <= high:
            return value, None
        return None, BAD_RANGE

    return limited


def _mapped(texts: Mapping[int, str]) -> Step:
    def mapped(value: Value) -> tuple[Value, str | None]:
        text = texts.get(value) if value is not None else None  # type: ignore[arg-type]  # 1.0 finds the key 1
        return (text, None) if text is not None else (None, BAD_RANGE)

    return mapped


def _exact(value: Value) -> tuple[Value, str | None]:
    if isinstance(value, int | float) and abs(value) > LARGEST_EXACT:
        return None, BAD_RANGE
    return value, None
