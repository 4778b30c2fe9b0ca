"""Notifications of a server -> batches: the n-th batch carries each node's n-th value, with the time it deserves. Pure.

Promises: a tag keeps the JSON type it first had (another one is null, `bad:decode`); a time that is further ahead of
the gateway than `max_skew`, and every time of a server whose clock is further off than that, is replaced by the
gateway's (an old time is not skew); the queue is bounded, and what it gives up is counted and never the latest value of
a tag.
Times come in as arguments: no clock here.

May import: `collectors.api`, `collectors.opcua.{sample,state,values}`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Literal, TypeAlias

from collectors.api import Batch, JsonType, Value
from collectors.opcua.sample import Sample, sample_of
from collectors.opcua.state import Kept, Tag
from collectors.opcua.values import (
    BAD_DECODE,
    BAD_ELEMENT,
    BAD_RANGE,
    NO_TICKS,
    SCALARS,
    TICKS_1970,
    decode,
    element_of,
    is_wide,
    ms_to_ticks,
    overflowed,
    quality_of,
    ticks_to_ms,
    undecodable,
)

TimeOf: TypeAlias = Literal["source", "server", "gateway"]
GONE = frozenset({"bad:status-0x80330000", "bad:status-0x80340000"})
"""BadNodeIdInvalid, BadNodeIdUnknown: the node is not there (any more)."""
QUEUE_VALUES = 50_000
"""Values that wait for the agent; beyond it batches of a group are merged into one (about 10 MB)."""


class News:
    """Builds batches, and holds them until the agent takes them.

    Args:
        device: name of the device.
        time: whose time the readings carry.
        max_skew: seconds.
        kept: from the connection before.
    """

    def __init__(self, device: str, time: TimeOf, max_skew: float, kept: Kept) -> None:
        self.tags: dict[int, Tag] = {}
        """By handle."""
        self.queue_values = QUEUE_VALUES
        self.samples_lost = 0
        self.learned = 0
        """Rises whenever a type was learned."""
        self.skew_s: float | None = None
        """Seconds the device's clock is ahead of the gateway's, once it is further off than `max_skew`."""
        self.undecodable: list[tuple[str, str]] = []
        """Tag and what it is, of tags that can never be read; to be reported."""
        self.silent: list[str] = []
        """Tags that the server watches and never sends; to be reported."""
        self._device = device
        self.time = time
        self._max_skew_ms = round(max_skew * 1000)
        self._kept = kept
        self._server_is_off = False
        self._queue: deque[Batch] = deque()
        self._queued = 0

    def server_clock(self, server_ms: int | None, now_ms: int) -> None:
        """Compare the server's clock, as a message just told it, with the gateway's."""
        if self.time == "gateway" or server_ms is None:
            return
        offset = server_ms - now_ms
        self._server_is_off = abs(offset) > self._max_skew_ms
        if self._server_is_off:
            self.skew_s = offset / 1000

    def add(self, group: str, items: Iterable[Any], at: float, now_ms: int, *, every: bool = False) -> list[Tag]:
        """Queue the batches of what the library decoded (`ClientHandle`, `Value`); see `take_in`."""
        samples = [sample_of(item.ClientHandle, item.Value) for item in items]
        return self.take_in(group, samples, at, now_ms, every=every)

    def take_in(
        self, group: str, samples: Iterable[Sample], at: float, now_ms: int, *, every: bool = False
    ) -> list[Tag]:
        """Queue the batches of one notification of a group.

        Args:
            group: whose subscription it came from.
            samples: in the order they came.
            at: monotonic seconds when it came.
            now_ms: the gateway's clock then.
            every: a value that was sent before is no repetition but the answer to a question.

        Returns:
            The tags whose node no longer exists.
        """
        pages = _Pages(self._device, group, at)
        first, stamps = pages.all[0]
        values, tags = first.values, self.tags
        gone: list[Tag] = []
        stamped = self.time != "gateway" and not self._server_is_off
        time, latest = (4 if self.time == "source" else 5), ms_to_ticks(now_ms + self._max_skew_ms)
        for sample in samples:
            lead = tags.get(sample[0])
            if lead is None:
                # Of an item that was replaced meanwhile.
                continue
            lead.heard = at
            if not every and lead.repeats(sample):
                continue
            name, raw, ticks = lead.info.name, sample[2], sample[time]
            if (
                sample[1] in lead.direct
                and not sample[3]
                and name not in values
                and raw.__class__ in SCALARS
                and isfinite(raw)
            ):
                # As nearly all values are: what is done to the others would change nothing.
                values[name] = raw
                lead.quality = None
                if stamped:
                    if ticks is None or not NO_TICKS <= ticks <= latest:
                        stamps[name] = self._time_of(ticks, now_ms)
                    else:
                        stamps[name] = (ticks - TICKS_1970) // 10_000
                continue
            for tag in (lead, *lead.readers) if lead.readers else (lead,):
                batch, there = pages.next(tag.info.name)
                self._read_into(tag, sample, batch)
                if stamped and not (every and batch.values[tag.info.name] is None):
                    there[tag.info.name] = self._time_of(ticks, now_ms)
            if lead.quality in GONE:
                gone.append(lead)
        self._put_all(pages, now_ms)
        return gone

    def tell(self, tags: Iterable[Tag], at: float) -> None:
        """Queue the qualities of tags that have no value, with gateway time: a batch for each group."""
        batches: dict[str, Batch] = {}
        for lead in tags:
            group = lead.info.group
            batch = batches.get(group)
            if batch is None:
                batch = batches[group] = Batch(self._device, group, at, {})
            for tag in (lead, *lead.readers):
                tag.quality = lead.quality
                batch.values[tag.info.name] = None
                if tag.quality is not None:
                    batch.quality[tag.info.name] = tag.quality
        for batch in batches.values():
            self._put(batch)

    def take(self) -> list[Batch]:
        """Return all that is queued, oldest first."""
        taken = list(self._queue)
        self._queue.clear()
        self._queued = 0
        return taken

    def __len__(self) -> int:
        return len(self._queue)

    def _read_into(self, tag: Tag, sample: Sample, batch: Batch) -> None:
        tag.quality = self._read(tag, sample, batch.values)
        if tag.quality is not None:
            batch.quality[tag.info.name] = tag.quality

    def _read(self, tag: Tag, sample: Sample, values: dict[str, Value]) -> str | None:
        """Put the value into `values` and return its quality."""
        name = tag.info.name
        _, type_id, raw, status, _, _ = sample
        quality = None
        if status:
            quality = quality_of(status)
            if overflowed(status):
                self.samples_lost += 1
            if quality is not None and quality[0] == "b":
                values[name] = None
                return quality
        if tag.element is not None:
            raw, reason = element_of(raw, tag.element)
        else:
            reason = None
        value, kind, reason = decode(type_id, raw, tag.shortest) if reason is None else (None, None, reason)
        what = None
        if reason == BAD_DECODE:
            what = undecodable(type_id, raw)
        elif reason == BAD_ELEMENT:
            what = f"no element {','.join(map(str, tag.element or ()))} in what the server sends"
        elif tag.enum_text and reason is None:
            value, kind, reason, what = _text_of(tag, value)
        if reason is None and kind is not None and kind != tag.kind and not self._learn(tag, kind):
            reason, what = BAD_DECODE, f"a {kind} now, and it was a {self._kept.kinds[tag.key]}"
        if reason is not None:
            values[name] = None
            if what is not None and tag.key not in self._kept.undecodable:
                self._kept.undecodable.add(tag.key)
                self.undecodable.append((name, what))
            # Uncertain and without a value: the status says more.
            return reason if quality is None or raw is not None else quality
        if is_wide(type_id) and tag.key not in self._kept.wide:
            self._kept.wide.add(tag.key)
            self.learned += 1
        values[name] = value
        return quality

    def _learn(self, tag: Tag, kind: JsonType) -> bool:
        """Return whether the tag may have this type."""
        if self._kept.kinds.setdefault(tag.key, kind) != kind:
            return False
        tag.learn(kind)
        self.learned += 1
        return True

    def _time_of(self, ticks: int | None, now_ms: int) -> int:
        """Milliseconds UTC; the gateway's where there is none or it is ahead."""
        time = ticks_to_ms(ticks)
        if time is None:
            return now_ms
        if time > now_ms + self._max_skew_ms:
            self.skew_s = (time - now_ms) / 1000
            return now_ms
        return time

    def _put_all(self, pages: _Pages, now_ms: int) -> None:
        for batch, times in pages.all:
            if times:
                _stamp(batch, times, now_ms)
            if batch.values:
                self._put(batch)

    def _put(self, batch: Batch) -> None:
        self._queue.append(batch)
        self._queued += len(batch.values)
        if self._queued > self.queue_values:
            self._squeeze()

    def _squeeze(self) -> None:
        """Merge what waits into one batch for each group: the latest value of every tag stays."""
        merged: dict[str, Batch] = {}
        for batch in self._queue:
            older = merged.get(batch.group)
            merged[batch.group] = batch if older is None else merge(older, batch)
        kept = sum(len(batch.values) for batch in merged.values())
        self.samples_lost += self._queued - kept
        self._queue = deque(merged.values())
        self._queued = kept


class _Pages:
    """The batches of one notification, with the times of their values: the n-th carries each tag's n-th value."""

    def __init__(self, device: str, group: str, at: float) -> None:
        self.all: list[tuple[Batch, dict[str, int]]] = [(Batch(device, group, at, {}), {})]
        self._turns: dict[str, int] = {}

    def next(self, name: str) -> tuple[Batch, dict[str, int]]:
        """Where the next value of this tag goes."""
        first = self.all[0]
        if name not in first[0].values:
            return first
        turn = self._turns[name] = self._turns.get(name, 0) + 1
        if turn == len(self.all):
            self.all.append((Batch(first[0].device, first[0].group, first[0].at, {}), {}))
        return self.all[turn]


def _text_of(tag: Tag, value: Value) -> tuple[Value, JsonType | None, str | None, str | None]:
    """The text of an enumeration's number: value, type, reason and what to tell."""
    if tag.texts is None:
        return None, None, BAD_DECODE, "an enumeration whose texts the server does not tell: use map"
    text = tag.texts.get(value) if isinstance(value, int) else None
    return (text, "string", None, None) if text is not None else (None, None, BAD_RANGE, None)


def merge(older: Batch, newer: Batch) -> Batch:
    """One batch with the latest value of every tag of both, at the time of the newer."""
    only_older = older.values.keys() - newer.values.keys()
    ages = dict(newer.age_ms)
    if older.ts is not None and newer.ts is not None:
        behind = max(0, newer.ts - older.ts)
    else:
        behind = round((newer.at - older.at) * 1000)
    for name in only_older:
        age = older.age_ms.get(name, 0) + behind
        if age:
            ages[name] = age
    quality = {name: text for name, text in older.quality.items() if name in only_older}
    return Batch(
        newer.device,
        newer.group,
        newer.at,
        {**older.values, **newer.values},
        {**quality, **newer.quality},
        ages,
        newer.ts,
    )


def _stamp(batch: Batch, stamps: Mapping[str, int], now_ms: int) -> None:
    """Give the batch its newest time, and every tag how much older it is; a time of now is the gateway's."""
    newest = max(stamps.values())
    batch.ts = None if newest == now_ms else newest
    if min(stamps.values()) != newest:
        batch.age_ms = {name: newest - time for name, time in stamps.items() if time != newest}
