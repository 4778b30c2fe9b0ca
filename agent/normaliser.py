"""What is published of what was read: value rules, limits, maps, changes only, heartbeats. Pure, one object per device.

Promises: a value outside its limits or without a text in its map is null with `bad:range`, never a number; the
deadband compares with the last value *sent*; a change of quality always passes and clears the deadband; after
`reset` (start, reconnect) the first value passes; a group that is bad as a whole is told at once and then every
heartbeat, never every interval. No clock, no I/O, no asyncio: times come in as monotonic seconds.

May import: `agent.rules`, `collectors.api`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from operator import ne

from agent.rules import Step, compile_step
from collectors.api import ALL_TAGS, Batch, TagInfo, Value

DEFAULT_HEARTBEAT_S = 60.0
"""How often a group that is bad as a whole is repeated when the device has no `report` (CONTRACT 4)."""
_NUMERIC = frozenset({int, float, bool})


class _Rules:
    """The rules of a group's tags, with the raw values that they last had and what came of these."""

    __slots__ = ("_names", "_published", "_raws", "_reasons", "_steps", "_types")

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._names = tuple(steps)
        self._steps = tuple(steps.values())
        self._raws: list[Value] = [None] * len(steps)
        self._types: list[type] = []
        self._published: dict[str, Value] = {}
        self._reasons: dict[str, str] = {}

    def apply(self, values: dict[str, Value], quality: dict[str, str]) -> None:
        """Put what is to be published in the place of the raw values."""
        if not self._names:
            return
        raws = list(map(values.get, self._names))
        types = list(map(type, raws))
        # Most values of a machine stay as they are. Zeros are no proof: 0.0, -0.0 and False are equal.
        if types != self._types or raws != self._raws or 0 in raws:
            self._look_at_each(raws, types)
        if None in raws:
            values.update((name, value) for name, value in self._published.items() if values.get(name) is not None)
        else:
            values.update(self._published)
        if self._reasons:
            quality.update(self._reasons)

    def _look_at_each(self, raws: list[Value], types: list[type]) -> None:
        published, reasons, old_raws = self._published, self._reasons, self._raws
        same_types = types == self._types
        for name, step, raw, old in zip(self._names, self._steps, raws, old_raws, strict=True):
            if raw == old and raw != 0 and same_types:
                continue
            if raw is None:
                reasons.pop(name, None)
                continue
            published[name], reason = step(raw)
            if reason is not None:
                reasons[name] = reason
            elif reasons:
                reasons.pop(name, None)
        self._raws, self._types = raws, types


class _Group:
    """State of one group: what was last seen and last sent."""

    __slots__ = (
        "current",
        "current_at",
        "deadbands",
        "quality",
        "recovering",
        "rules",
        "sent",
        "sent_quality",
        "sent_whole_at",
    )

    def __init__(self) -> None:
        self.rules = _Rules({})
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
        steps: dict[str, dict[str, Step]] = {}
        for group in self._groups.values():
            group.rules, group.deadbands = _Rules({}), {}
        for tag in tags:
            group = self._groups.setdefault(tag.group, _Group())
            step = compile_step(tag)
            if step is not None:
                steps.setdefault(tag.group, {})[tag.name] = step
            if tag.rules.deadband:
                group.deadbands[tag.name] = tag.rules.deadband
        for name, of_group in steps.items():
            self._groups[name].rules = _Rules(of_group)

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
        group.rules.apply(batch.values, batch.quality)
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
        changed = dict(compress(values.items(), map(ne, values.values(), map(sent.__getitem__, values))))
        for name, deadband in group.deadbands.items():
            new = changed.get(name)
            # What compares with nothing, NaN, stays here: see below.
            if (
                new.__class__ in _NUMERIC and (old := sent[name]).__class__ in _NUMERIC and abs(new - old) <= deadband  # type: ignore[operator]  # both are numbers
            ):
                del changed[name]
        if any(map(ne, changed.values(), changed.values())):
            for name in [name for name, value in changed.items() if value != value]:
                if not differs(sent[name], values[name], None):
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
            {name: quality[name] for name in values if name in quality} if quality else {},
            {name: age for name, age in batch.age_ms.items() if name in values} if batch.age_ms else {},
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
