"""The canonical message: what a batch becomes, once, before it is stored or sent.

Promises: a batch is split (where it must be), numbered and encoded exactly once; a message that is sent again is
byte-identical but for a final `,"replayed":true`; no message exceeds `max_payload`, that suffix included; never NaN
or Infinity, and never a null without a quality that says why. In the normal case a batch costs one `orjson.dumps`
and nothing per value.

Pure: no asyncio, no I/O, no clock. May import: orjson, `collectors.api`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import orjson

from collectors.api import ALL_TAGS, Batch, Value

_REPLAYED = b',"replayed":true}'
_RESERVED = len(_REPLAYED) - 1
"""Bytes that every message leaves free below `max_payload`, so that it still fits when it is sent again."""

_NO_SEQ = 999_999_999_999_999
"""Stands for the number while parts are measured: no real one is longer."""

INVALID = "bad:invalid"
RANGE = "bad:range"
DECODE = "bad:decode"


@dataclass(slots=True)
class Message:
    """One encoded message on its way: made by the outbox, lent to the publisher, given back by `ack` or `refuse`.

    Attributes:
        run, seq: the key by which subscribers recognise duplicates.
        device, group: for the topic.
        body: canonical JSON as it is stored, without the mark of a re-sent message.
        replayed: whether this sending must carry the mark (`mark_replayed`); the format sees to it.
        tries: how often the broker refused it.
        order, at, place, stored: the outbox's own notes (see `agent.buffer.lanes`); nobody else touches them.
    """

    run: str
    seq: int
    device: str
    group: str
    body: bytes
    replayed: bool = False
    tries: int = 0
    order: int = 0
    at: float = 0.0
    place: int = 0
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Heading:
    """What all messages of one start of the agent have in common."""

    site: str
    gateway: str
    run: str


def encode(
    heading: Heading, batch: Batch, *, ts: int, rev: str, clock: str | None, first_seq: int, max_payload: int
) -> list[bytes]:
    """Return the canonical bodies of a batch, numbered from `first_seq`; more than one only if it is too large.

    Parts have equal device, group and `ts` and disjoint tags. A single value that is too large for any message
    becomes null with `bad:range`.

    Args:
        ts: ms UTC.
        rev: which `meta` explains the message.
        clock: `unsynced`, or None when the clock can be trusted.
        max_payload: bytes; the mark of a re-sent message is counted in.
    """
    values, quality, age_ms = _sound(batch)
    head: dict[str, Any] = {
        "v": 1,
        "ts": ts,
        "site": heading.site,
        "gateway": heading.gateway,
        "device": batch.device,
        "group": batch.group,
        "run": heading.run,
        "seq": first_seq,
        "rev": rev,
    }
    body = _dumps(head, values, quality, age_ms, clock)
    if body is None or _has_unexplained_null(body, values, quality):
        values, quality = _cleaned(values, quality)
        body = _dumps(head, values, quality, age_ms, clock) or b""
    limit = max_payload - _RESERVED
    if len(body) <= limit:
        return [body]
    head["seq"] = _NO_SEQ
    parts = list(_parts(head, values, quality, age_ms, clock, limit))
    bodies = []
    for seq, (part_values, part_quality, part_age) in enumerate(parts, first_seq):
        head["seq"] = seq
        bodies.append(_dumps(head, part_values, part_quality, part_age, clock) or b"")
    return bodies


def mark_replayed(body: bytes) -> bytes:
    """Return the canonical body with `,"replayed":true` as its last key."""
    return body[:-1] + _REPLAYED


def decode(body: bytes) -> dict[str, Any]:
    """Return the message as an object.

    Raises:
        ValueError: not JSON, or not an object.
    """
    message = orjson.loads(body)
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object")  # noqa: TRY004 - one error for the caller: not a message
    return message


def ts_of(body: bytes) -> int:
    """Return `ts` (ms UTC) of a canonical body without decoding all of it."""
    start = len(b'{"v":1,"ts":')
    return int(body[start : body.index(b",", start)])


def belongs(body: bytes, run: str, seq: int, device: str, group: str) -> bool:
    """Whether a canonical body is the message of this key: what is read back from a damaged file may be another."""
    key = f'"device":"{device}","group":"{group}","run":"{run}","seq":{seq},'.encode()
    return body.startswith(b'{"v":1,"ts":') and key in body[: len(key) + 400]


def _sound(batch: Batch) -> tuple[Mapping[str, Value], Mapping[str, str], Mapping[str, int]]:
    """Return the parts of a batch; `*` beside values would be ambiguous and loses to them."""
    if ALL_TAGS in batch.quality and batch.values:
        return batch.values, {t: q for t, q in batch.quality.items() if t != ALL_TAGS}, batch.age_ms
    return batch.values, batch.quality, batch.age_ms


def _dumps(
    head: dict[str, Any],
    values: Mapping[str, Value],
    quality: Mapping[str, str],
    age_ms: Mapping[str, int],
    clock: str | None,
) -> bytes | None:
    """Encode; None when a value is none that JSON knows (an integer beyond 64 bits, half a surrogate pair)."""
    message = {**head, "values": values}
    if quality:
        message["quality"] = quality
    if age_ms:
        message["age_ms"] = age_ms
    if clock is not None:
        message["clock"] = clock
    try:
        body = orjson.dumps(message, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError:
        return None
    # A copy: orjson's own result is the cut-off front of a larger buffer, and the rest of it stays unusable as long
    # as the message lives (measured: 1.5 KB messages took 8 KB each).
    return memoryview(body).tobytes()


def _has_unexplained_null(body: bytes, values: Mapping[str, Value], quality: Mapping[str, str]) -> bool:
    """Whether a null (orjson writes NaN as one) may stand without a quality; errs on the side of True."""
    nulls = body.count(b":null")
    return nulls > 0 and nulls != sum(1 for tag in quality if values.get(tag, 0) is None)


def _cleaned(values: Mapping[str, Value], quality: Mapping[str, str]) -> tuple[dict[str, Value], Mapping[str, str]]:
    """Replace what must not be published by null with a quality. The last guard: the normaliser does this before."""
    clean: dict[str, Value] = {}
    reasons = dict(quality)
    for tag, value in values.items():
        reason = _reason_against(value)
        clean[tag] = value if reason is None else None
        if reason is not None:
            reasons.setdefault(tag, reason)
    return clean, reasons


def _reason_against(value: object) -> str | None:
    """Why a value cannot be published; None if it can."""
    if value is None:
        return INVALID
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else RANGE
    if isinstance(value, float):
        return None if isfinite(value) else INVALID
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return DECODE
        return None
    return DECODE


_Part = tuple[Mapping[str, Value], Mapping[str, str], Mapping[str, int]]


def _parts(
    head: dict[str, Any],
    values: Mapping[str, Value],
    quality: Mapping[str, str],
    age_ms: Mapping[str, int],
    clock: str | None,
    limit: int,
) -> Iterator[_Part]:
    """Halve the tags until each part fits."""
    if ALL_TAGS in quality:
        # "All the others" means nothing in a part: the named ones give way, and are told by the reason of the rest.
        yield {}, {ALL_TAGS: quality[ALL_TAGS]}, {}
        return
    tags = list(values)
    tags += [tag for tag in quality if tag not in values]
    waiting = [tags]
    while waiting:
        tags = waiting.pop()
        part = (
            {tag: values[tag] for tag in tags if tag in values},
            {tag: quality[tag] for tag in tags if tag in quality},
            {tag: age_ms[tag] for tag in tags if tag in age_ms},
        )
        size = len(_dumps(head, *part, clock) or b"")
        if size <= limit:
            yield part
        elif len(tags) == 1:
            yield {tags[0]: None}, {tags[0]: RANGE}, part[2]
        else:
            middle = len(tags) // 2
            waiting.append(tags[middle:])
            waiting.append(tags[:middle])
