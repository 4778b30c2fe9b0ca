"""The short way through a PublishResponse against the library's, value by value; see `test_fast_server` for servers."""

from __future__ import annotations

import struct
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.opcua.fast import read
from collectors.opcua.sample import LAST_TICKS, Message, Sample, message_of, to_datetime

NOW = datetime(2026, 11, 23, 20, 0, 0, 123456, tzinfo=UTC)

NODE_IDS = [
    "i=255",
    "i=256",
    "ns=3;i=65535",
    "ns=300;i=5",
    "i=70000",
    "ns=2;s=Press;1=a",
    "s=",
    "ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63",
    "ns=1;b=AP8=",
]


@pytest.fixture(scope="module")
def ua() -> Any:
    import asyncua

    return asyncua.ua


def library(ua: Any, data: bytes) -> Message:
    """What the slow path makes of a response."""
    from asyncua.common.utils import Buffer
    from asyncua.ua.ua_binary import struct_from_binary

    answer = struct_from_binary(ua.PublishResponse, Buffer(data))
    answer.ResponseHeader.ServiceResult.check()
    result = answer.Parameters
    return message_of(ua, result.SubscriptionId, result.NotificationMessage, answer.ResponseHeader.Timestamp)


def packed(response: Any) -> bytes:
    from asyncua.ua.ua_binary import struct_to_binary

    return bytes(struct_to_binary(response))


def response(ua: Any, *notifications: Any) -> Any:
    made = ua.PublishResponse()
    made.ResponseHeader.Timestamp = NOW
    made.Parameters.SubscriptionId = 7
    made.Parameters.AvailableSequenceNumbers = [41, 42]
    made.Parameters.NotificationMessage.SequenceNumber = 42
    made.Parameters.NotificationMessage.NotificationData = list(notifications)
    made.Parameters.Results = [ua.StatusCode(0), ua.StatusCode(0x80000000)]
    return made


def changes(ua: Any, *values: Any) -> Any:
    return ua.DataChangeNotification(
        [ua.MonitoredItemNotification(handle, value) for handle, value in enumerate(values, 1)]
    )


def value(ua: Any, variant: Any, **parts: Any) -> Any:
    return ua.DataValue(variant, **parts)


def same(left: list[Sample], right: list[Sample]) -> bool:
    """Equal, and of equal types; repr because NaN differs from itself, and 1 is True."""
    return repr(left) == repr(right)


def micros(ticks: int | None) -> int | None:
    """As the library keeps times: to the microsecond, from 1601 to 9999."""
    return None if ticks is None else min(max(ticks, 0), LAST_TICKS) // 10 * 10


def as_library(message: Message) -> Message:
    samples = [(*sample[:4], micros(sample[4]), micros(sample[5])) for sample in message.samples]
    return message._replace(server_ticks=micros(message.server_ticks), samples=samples)


def assert_same(ua: Any, data: bytes) -> Message:
    """Both ways make the same of it, and the short way knows it."""
    quick = read(data)
    assert quick is not None
    slow = library(ua, data)
    assert repr(as_library(quick)) == repr(slow)
    return quick


# What a server may send, as bytes: type -> strategy of the value's encoding.

I32 = struct.Struct("<i")
lengths_of = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 19: "I"}
blobs = st.one_of(st.none(), st.binary(max_size=12)).map(
    lambda raw: I32.pack(-1) if raw is None else I32.pack(len(raw)) + raw
)
texts = st.one_of(st.none(), st.text(max_size=8).map(str.encode), st.binary(max_size=6)).map(
    lambda raw: I32.pack(-1) if raw is None else I32.pack(len(raw)) + raw
)
ticks = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(130_000_000_000_000_000, 140_000_000_000_000_000),
    st.sampled_from([0, 1, 9, 10, -1, LAST_TICKS - 1, LAST_TICKS, LAST_TICKS + 1, 863_999_999_999, 2**63 - 1]),
)


def integers(code: str) -> st.SearchStrategy[bytes]:
    size = struct.calcsize(code)
    edges = [bytes(size), b"\xff" * size, b"\xff" * (size - 1) + b"\x7f", bytes(size - 1) + b"\x80"]
    return st.one_of(st.binary(min_size=size, max_size=size), st.sampled_from(edges))


def floats(code: str, width: Any) -> st.SearchStrategy[bytes]:
    return st.floats(width=width).map(lambda number: struct.pack(code, number))


def node_ids() -> st.SearchStrategy[bytes]:
    from asyncua import ua
    from asyncua.ua.ua_binary import nodeid_to_binary

    return st.sampled_from([bytes(nodeid_to_binary(ua.NodeId.from_string(text))) for text in NODE_IDS])


localized = st.integers(0, 3).flatmap(
    lambda mask: st.tuples(*[texts] * mask.bit_count()).map(lambda parts: bytes([mask]) + b"".join(parts))
)
encodings: dict[int, st.SearchStrategy[bytes]] = {
    0: st.just(b""),
    **{type_id: integers(code) for type_id, code in lengths_of.items()},
    10: floats("<f", 32),
    11: floats("<d", 64),
    12: texts,
    13: ticks.map(lambda number: struct.pack("<q", number)),
    14: st.binary(min_size=16, max_size=16),
    15: blobs,
    16: texts,
    17: st.deferred(node_ids),
    18: st.deferred(node_ids),
    20: st.tuples(st.binary(min_size=2, max_size=2), texts).map(b"".join),
    21: localized,
}


@st.composite
def items(draw: st.DrawFn) -> bytes:
    """A monitored item's notification as it is on the wire."""
    # Picoseconds of both times, or of the first when both are there, are what the library reads in the wrong order.
    mask = draw(st.integers(0, 63).filter(lambda bits: not (bits & 16 and bits & 8)))
    type_id = draw(st.sampled_from(sorted(encodings)))
    parts = [struct.pack("<IB", draw(st.integers(0, 2**32 - 1)), mask)]
    if mask & 1:
        parts += [bytes([type_id]), draw(encodings[type_id])]
    if mask & 2:
        parts.append(struct.pack("<I", draw(st.one_of(st.just(0), st.integers(0, 2**32 - 1)))))
    for time_bit, pico_bit in ((4, 16), (8, 32)):
        if mask & time_bit:
            parts.append(struct.pack("<q", draw(ticks)))
        if mask & pico_bit:
            parts.append(b"\x0f\x27")
    return b"".join(parts)


def wire(parts: list[bytes], *, available: int = 2, results: int = 1, diagnostics: int = -1) -> bytes:
    """A whole response around items."""
    inner = I32.pack(len(parts)) + b"".join(parts) + I32.pack(diagnostics)
    return b"".join(
        [
            b"\x01\x00\x3d\x03",
            struct.pack("<qIIBi", 134_000_000_000_000_000, 5, 0, 0, -1),
            b"\x00\x00\x00",
            struct.pack("<Ii", 7, available) + bytes(4 * max(0, available)),
            struct.pack("<?Iq", False, 42, 134_000_000_000_000_001),
            I32.pack(1) + b"\x01\x00\x2b\x03\x01" + I32.pack(len(inner)) + inner,
            I32.pack(results) + bytes(4 * max(0, results)),
            I32.pack(diagnostics),
        ]
    )


@settings(max_examples=200)
@given(st.lists(items(), max_size=12), st.integers(-1, 3), st.integers(-1, 3), st.sampled_from([-1, 0]))
def test_what_is_generated_is_read_as_the_library_does(
    ua: Any, parts: list[bytes], available: int, results: int, diagnostics: int
) -> None:
    data = wire(parts, available=available, results=results, diagnostics=diagnostics)
    message = assert_same(ua, data)
    assert (message.subscription, message.number, message.news, len(message.samples)) == (7, 42, True, len(parts))


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(encodings)), st.integers(0, 3).map(lambda bits: bits * 4 | 1)), max_size=4
    ),
    st.integers(1, 300),
    st.data(),
)
def test_runs_of_the_same_kind_are_read_as_one_by_one(
    ua: Any, kinds: list[tuple[int, int]], length: int, data: st.DataObject
) -> None:
    parts: list[bytes] = []
    for type_id, mask in kinds:
        encoded = data.draw(encodings[type_id])
        for handle in range(length):
            head = struct.pack("<IBB", handle, mask, type_id)
            parts.append(head + encoded + struct.pack("<q", 134_000_000_000_000_000) * (mask >> 2).bit_count())
    assert len(assert_same(ua, wire(parts)).samples) == len(parts)


def test_picoseconds_stand_behind_their_own_time() -> None:
    """OPC UA Part 6, 5.2.2.17; the library expects both times first."""
    source, server = 134_000_000_000_000_010, 134_000_000_000_000_020
    item = struct.pack("<IBBdqHqH", 3, 0x3D, 11, 1.5, source, 9999, server, 9998)
    message = read(wire([item, item]))
    assert message is not None
    assert message.samples == [(3, 11, 1.5, 0, source, server)] * 2


def test_what_the_library_packs(ua: Any) -> None:
    kinds = ua.VariantType
    when = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    variants = [
        ua.Variant(1.5, kinds.Double),
        ua.Variant(float("nan"), kinds.Float),
        ua.Variant(-(2**63), kinds.Int64),
        ua.Variant(2**64 - 1, kinds.UInt64),
        ua.Variant(True, kinds.Boolean),
        ua.Variant(None, kinds.Null),
        ua.Variant("三号冲床", kinds.String),
        ua.Variant(None, kinds.String),
        ua.Variant("", kinds.String),
        ua.Variant(when, kinds.DateTime),
        ua.Variant(datetime(1601, 1, 1, tzinfo=UTC), kinds.DateTime),
        ua.Variant(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), kinds.DateTime),
        ua.Variant(uuid.UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63"), kinds.Guid),
        ua.Variant(b"\x00\xff", kinds.ByteString),
        ua.Variant(None, kinds.ByteString),
        ua.Variant(ua.XmlElement("<a/>"), kinds.XmlElement),
        *(ua.Variant(ua.NodeId.from_string(text), kinds.NodeId) for text in NODE_IDS),
        ua.Variant(ua.StatusCode(0x80340000), kinds.StatusCode),
        ua.Variant(ua.QualifiedName("Speed", 2), kinds.QualifiedName),
        ua.Variant(ua.LocalizedText("läuft", "de"), kinds.LocalizedText),
        ua.Variant(ua.LocalizedText("läuft"), kinds.LocalizedText),
        ua.Variant(ua.LocalizedText(None), kinds.LocalizedText),
    ]
    values = [value(ua, variant, SourceTimestamp=when, ServerTimestamp=NOW) for variant in variants]
    values.append(value(ua, None, StatusCode=ua.StatusCode(0x80310000)))
    message = assert_same(ua, packed(response(ua, changes(ua, *values))))
    assert message.samples[0][:4] == (1, 11, 1.5, 0)
    assert to_datetime(message.samples[0][4] or 0) == when
    assert message.server_ticks is not None
    assert to_datetime(message.server_ticks) == NOW
    assert message.samples[-1][:4] == (len(values), 0, None, 0x80310000)
    assert {sample[2] for sample in message.samples} >= {"<a/>", "ns=2;s=Press;1=a", "läuft", "Speed", 0x80340000}


def _odd(ua: Any) -> dict[str, Any]:
    kinds = ua.VariantType
    one = value(ua, ua.Variant(1.5, kinds.Double))
    plain = changes(ua, one)
    header, diagnosed, told, results, events, faulty = (response(ua, changes(ua, one)) for _ in range(6))
    header.ResponseHeader.AdditionalHeader = ua.ExtensionObject(ua.NodeId(11), b"x")
    diagnosed.ResponseHeader.ServiceDiagnostics = ua.DiagnosticInfo(SymbolicId=1)
    told.ResponseHeader.StringTable = ["a"]
    results.Parameters.DiagnosticInfos = [ua.DiagnosticInfo()]
    events.Parameters.NotificationMessage.NotificationData = [ua.EventNotificationList([])]
    faulty.ResponseHeader.ServiceResult = ua.StatusCode(0x80790000)
    inner = changes(ua, one)
    inner.DiagnosticInfos = [ua.DiagnosticInfo(SymbolicId=1)]
    return {
        "array": response(ua, changes(ua, one, value(ua, ua.Variant([1, 2], kinds.Int32)))),
        "structure": response(ua, changes(ua, value(ua, ua.Variant(ua.Range(0, 1), kinds.ExtensionObject)))),
        "value in a value": response(ua, changes(ua, value(ua, ua.Variant(one, kinds.DataValue)))),
        "expanded": response(
            ua, changes(ua, value(ua, ua.Variant(ua.ExpandedNodeId(1, 0, NamespaceUri="urn:a"), kinds.ExpandedNodeId)))
        ),
        "keep-alive": response(ua),
        "two": response(ua, plain, plain),
        "event": events,
        "status change": response(ua, ua.StatusChangeNotification(ua.StatusCode(0x80340000))),
        "additional header": header,
        "diagnostics": diagnosed,
        "string table": told,
        "diagnostics of results": results,
        "diagnostics of items": response(ua, inner),
        "fault": faulty,
    }


def test_what_is_odd_is_left_to_the_library(ua: Any) -> None:
    for name, made in _odd(ua).items():
        data = packed(made)
        assert read(data) is None, name
        if name != "fault":
            library(ua, data)
    assert read(packed(ua.ServiceFault())) is None
    good = packed(response(ua, changes(ua, value(ua, ua.Variant(1.5, ua.VariantType.Double)))))
    assert read(good) is not None
    assert read(good + b"\x00") is None
    assert read(b"") is None


def test_every_cut_falls_back(ua: Any) -> None:
    data = wire(_samples_of_all())
    assert read(data) is not None
    for end in range(len(data)):
        assert read(data[:end]) is None


def _samples_of_all() -> list[bytes]:
    tail = struct.pack("<Iqq", 0, 134_000_000_000_000_000, 134_000_000_000_000_000)
    bodies = {
        **{type_id: bytes(struct.calcsize(code)) for type_id, code in lengths_of.items()},
        0: b"",
        10: bytes(4),
        11: bytes(8),
        12: I32.pack(3) + b"abc",
        13: bytes(8),
        14: bytes(16),
        15: I32.pack(-1),
        17: b"\x03\x02\x00" + I32.pack(1) + b"a",
        20: b"\x00\x00" + I32.pack(1) + b"a",
        21: b"\x03" + I32.pack(1) + b"a" + I32.pack(1) + b"b",
    }
    return [struct.pack("<IBB", 1, 0x0F, type_id) + body + tail for type_id, body in bodies.items() for _ in range(2)]


@settings(max_examples=200)
@given(st.data())
def test_a_changed_byte_is_read_as_the_library_does_or_left_to_it(ua: Any, data: st.DataObject) -> None:
    """Never an exception, and never another value than the library's, whatever a server sends."""
    from asyncua.ua.uaerrors import UaError

    whole = bytearray(wire(_samples_of_all()))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    quick = read(bytes(whole))
    if quick is None:
        return
    try:
        slow = library(ua, bytes(whole))
    except (UaError, struct.error, ValueError, LookupError, TypeError, OverflowError):
        # Stricter than we are about what is not looked at here, such as the type of a NodeId's identifier.
        return
    if not any(_both_times_and_picoseconds(whole)):
        assert repr(as_library(quick)) == repr(slow)


def _both_times_and_picoseconds(data: bytearray) -> list[bool]:
    """Masks with which the library reads times in the wrong order; taken from anywhere, so rather too often."""
    return [byte & 0x3F in (0x1D, 0x1F, 0x3D, 0x3F, 0x1C, 0x1E, 0x3C, 0x3E) and byte < 64 for byte in data]


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 120))
def test_garbage_is_left_to_the_library(garbage: bytes, keep: int) -> None:
    read(garbage)
    read(wire(_samples_of_all())[:keep] + garbage)


@pytest.mark.parametrize("count", [2**31 - 1, -2, 10_000_000])
def test_a_lying_length_costs_nothing(count: int) -> None:
    good = wire([struct.pack("<IBBd", 1, 1, 11, 1.5)])
    begin = time.perf_counter()
    for pos in range(len(good) - 3):
        read(good[:pos] + I32.pack(count) + good[pos + 4 :])
    assert time.perf_counter() - begin < 1
