"""What the fuzzer does with OPC UA: what a server publishes, from the bytes of the responses to batches.

The short way of reading a response must say what the library says, or leave it to the library; what `News` makes of a
message is held against the message as the library decodes it, without the code that is tested.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, TypeAlias

from collectors.api import Batch, TagInfo, Value
from collectors.opcua import fast
from collectors.opcua.news import News
from collectors.opcua.node_ids import parse
from collectors.opcua.sample import Message, message_of, to_datetime
from collectors.opcua.session import GARBLED, load
from collectors.opcua.state import Kept, Tag

Target: TypeAlias = Callable[[bytes], None]

LIBRARY = load()
ua = LIBRARY.ua
NOW_MS = 1_800_000_000_000
MAX_SKEW_S = 60.0
EPOCH, NO_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(1601, 1, 2, tzinfo=UTC)
RESPONSE = b"\x01\x00\x3d\x03"
"""What a response begins with: where it stands in the input, a new one begins."""
BAD, NUMBERS, TEXTS = 0x8000_0000, range(2, 12), (12, 14, 16, 17, 18, 20, 21)
BOOLEAN, FLOAT, DATE_TIME, STATUS = 1, 10, 13, 19
ENUMERATION = {0: "off", 7: "on"}


def notifications() -> tuple[list[bytes], Target]:
    """The input is one response after the other to publish requests of one connection."""

    from asyncua.common.utils import Buffer

    def decode(data: bytes) -> Any:
        return LIBRARY.decode(ua.PublishResponse, Buffer(data))

    def one(data: bytes) -> None:
        setting, *responses = data.split(RESPONSE)
        bits = setting[0] if setting else 0
        server = _Server(decode, "server" if bits & 1 else "source", shortest=not bits & 2, read=not bits & 4)
        for response in responses[:8]:
            server.published(RESPONSE + response)

    return _seeds(), one


class _Server:
    """The tags that a server is asked to watch, and what became of what it sent."""

    def __init__(self, decode: Callable[[bytes], Any], time: Any, *, shortest: bool, read: bool) -> None:
        self.decode = decode
        self.kept = Kept()
        self.news = News("d", time, MAX_SKEW_S, self.kept)
        self.read = read
        """Whether the short way is gone where it can be."""
        self.shortest = shortest
        self.last: dict[int, Any] = {}
        self.types: dict[str, type] = {}
        self.number = 0
        for handle in range(1, 8):
            lead = self.news.tags[handle] = self._tag(f"t{handle}")
            if handle == 5:
                lead.element, lead.readers = (1,), (self._tag("first", element=(0,)),)
            if handle == 6:
                lead.enum_text, lead.texts = True, ENUMERATION
            if handle == 7:
                self.kept.kinds[lead.key] = "number"
                lead.learn("number")

    def _tag(self, name: str, element: tuple[int, ...] | None = None) -> Tag:
        info = TagInfo(name=name, group="1s", source=f"ns=2;s={name}")
        return Tag(info, parse(info.source), shortest=self.shortest, element=element)

    def published(self, data: bytes) -> None:
        """A response came."""
        message = fast.read(data)
        try:
            answer = self.decode(data)
            answer.ResponseHeader.ServiceResult.check()
            result = answer.Parameters
            slow = message_of(ua, result.SubscriptionId, result.NotificationMessage, answer.ResponseHeader.Timestamp)
        except (ua.UaError, *GARBLED):
            assert message is None, f"{message!r} is what is unreadable"
            return
        if message is not None:
            assert _told(message) == _told(slow), f"{message!r} is not {slow!r}"
        taken = message if message is not None and self.read else slow
        self.number += 1
        self.news.server_clock(None, NOW_MS)
        self.news.take_in("1s", taken.samples, float(self.number), NOW_MS)
        self._check(self.news.take(), list(_items(result.NotificationMessage)))

    def _check(self, batches: list[Batch], items: list[Any]) -> None:
        for batch in batches:
            assert batch.values, "a batch of nothing"
            assert batch.quality.keys() | batch.age_ms.keys() <= batch.values.keys()
            assert all(value is not None or name in batch.quality for name, value in batch.values.items())
        for handle, lead in self.news.tags.items():
            sent = [item.Value for item in items if item.ClientHandle == handle]
            for tag in (lead, *lead.readers):
                name = tag.info.name
                self._follow(tag, [batch for batch in batches if name in batch.values], self.last.get(handle), sent)
            if sent:
                self.last[handle] = sent[-1]
        known = {tag.info.name for lead in self.news.tags.values() for tag in (lead, *lead.readers)}
        assert all(batch.values.keys() <= known for batch in batches)

    def _follow(self, tag: Tag, batches: list[Batch], last: Any, sent: list[Any]) -> None:
        """The tag's values are those that were sent, in their order, but for those that repeat the one before."""
        reached = {0}
        for item in sent:
            further = {at + 1 for at in reached if at < len(batches) and self._is(tag, batches[at], item)}
            reached = further | (reached if last is not None and _repeats(last, item) else set())
            last = item
        got = [(batch.values[tag.info.name], batch.quality.get(tag.info.name), batch.ts) for batch in batches]
        assert len(batches) in reached, f"{tag.info.name}: {got} is not {sent}"

    def _is(self, tag: Tag, batch: Batch, item: Any) -> bool:
        name = tag.info.name
        value, quality = batch.values[name], batch.quality.get(name)
        status = item.StatusCode.value if item.StatusCode is not None else 0
        if status & BAD:
            return value is None and quality == f"bad:status-0x{status & 0xFFFF0000:08X}"
        if value is None:
            return quality is not None and self._may_be_null(tag, item, quality)
        assert self.types.setdefault(name, _json(value)) is _json(value), f"{name} was a {self.types[name]}: {value!r}"
        uncertain = quality == f"uncertain:status-0x{status & 0xFFFF0000:08X}" if status >> 30 else quality is None
        return uncertain and self._equal(tag, value, item.Value) and self._in_time(batch, name, item)

    def _may_be_null(self, tag: Tag, item: Any, quality: str) -> bool:
        """A plain, good number is a value, unless the tag is something else."""
        variant = item.Value
        usual = tag.element is None and not tag.enum_text and variant is not None and not variant.is_array
        number = usual and variant.VariantType.value in NUMBERS and isinstance(variant.Value, int | float)
        return not (number and isfinite(variant.Value) and tag.kind == "number") and quality[:4] in ("bad:", "unce")

    def _equal(self, tag: Tag, value: Value, variant: Any) -> bool:
        raw, kind = variant.Value, variant.VariantType.value
        for index in tag.element or ():
            raw = raw[index]
        if tag.enum_text:
            return value == ENUMERATION.get(raw)
        if kind == FLOAT and self.shortest:
            assert isinstance(value, float)
            return struct.pack("<f", value) == struct.pack("<f", raw) and len(repr(value)) <= len(repr(raw))
        if kind in NUMBERS or kind == BOOLEAN:
            return isfinite(raw) and type(value) is type(raw) and bool(value == raw)
        if kind == DATE_TIME:
            return value == f"{raw:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        if kind == STATUS:
            return value == f"0x{raw.value:08X}"
        return kind in TEXTS and value == _text(raw)

    def _in_time(self, batch: Batch, name: str, item: Any) -> bool:
        """The time that the server gave, or the gateway's where that is none or too far ahead."""
        time = item.SourceTimestamp if self.news.time == "source" else item.ServerTimestamp
        told = NOW_MS if batch.ts is None else batch.ts
        told -= batch.age_ms.get(name, 0)
        given = (time - EPOCH) // timedelta(milliseconds=1) if time is not None and time >= NO_TIME else NOW_MS
        return told == NOW_MS if given > NOW_MS + 1000 * MAX_SKEW_S else abs(told - given) <= 1


def _items(message: Any) -> Iterator[Any]:
    for data in message.NotificationData or ():
        if isinstance(data, ua.DataChangeNotification):
            yield from data.MonitoredItems or ()


def _repeats(last: Any, item: Any) -> bool:
    same = last.SourceTimestamp == item.SourceTimestamp and last.StatusCode == item.StatusCode
    if not same or item.SourceTimestamp is None:
        return False
    if last.Value is None or item.Value is None:
        return last.Value is item.Value
    if isinstance(last.Value.Value, ua.NodeId) and isinstance(item.Value.Value, ua.NodeId):
        return bool(last.Value.Value == item.Value.Value)  # of two encodings of one node
    return repr(last.Value) == repr(item.Value)


def _json(value: Value) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _text(raw: Any) -> str:
    if isinstance(raw, ua.NodeId):
        return str(raw.to_string())
    for part in ("Text", "Name", "Value"):
        raw = getattr(raw, part, raw)
    return "" if raw is None else str(raw)


def _told(message: Message) -> str:
    """As text, since NaN is no NaN; times as the library has them, to the microsecond and within its calendar."""
    samples = [(*sample[:4], *map(_time, sample[4:])) for sample in message.samples]
    server = _time(message.server_ticks)
    return repr((message.subscription, message.number, server, samples, message.statuses, message.news))


def _time(ticks: int | None) -> datetime | None:
    return to_datetime(ticks) if ticks is not None else None


def _seeds() -> list[bytes]:
    values = (1.5, 7, True, "text", b"ab", [1.0, 2.0], datetime(2020, 1, 2, tzinfo=UTC), ua.NodeId(7, 2), None)
    variants = [
        *map(ua.Variant, values),
        ua.Variant(23.4, ua.VariantType.Float),
        ua.Variant(7, ua.VariantType.Int32),
        ua.Variant(ua.LocalizedText("x"), ua.VariantType.LocalizedText),
        ua.Variant(ua.StatusCode(5), ua.VariantType.StatusCode),
    ]
    seeds = [_response([(handle, variant, 0)]) for variant in variants for handle in (1, 5, 6, 7)]
    seeds.append(
        _response([(1, variants[0], 0x4000_0000), (1, variants[0], BAD), (2, variants[1], 0), (1, variants[9], 0)])
    )
    return [b"\x00" + one + other for one, other in zip(seeds, seeds[-1:] + seeds, strict=False)]


def _response(items: list[tuple[int, Any, int]]) -> bytes:
    from asyncua.ua.ua_binary import struct_to_binary

    response = ua.PublishResponse()
    response.ResponseHeader.Timestamp = datetime(2026, 11, 23, tzinfo=UTC)
    response.Parameters.SubscriptionId = 7
    change = ua.DataChangeNotification()
    for handle, variant, status in items:
        item = ua.MonitoredItemNotification()
        item.ClientHandle = handle
        item.Value = ua.DataValue(variant, ua.StatusCode(status), SourceTimestamp=datetime(2026, 11, 23, tzinfo=UTC))
        change.MonitoredItems = [*change.MonitoredItems, item]
    response.Parameters.NotificationMessage.NotificationData = [change]
    return bytes(struct_to_binary(response))


TARGETS = {"OPC UA": notifications}
