"""Notifications to batches; without a server."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.api import Batch, TagInfo, Value
from collectors.opcua import news as news_module
from collectors.opcua.news import News, merge
from collectors.opcua.node_ids import parse
from collectors.opcua.state import NOTHING, Kept, Tag

NOW = 1_700_000_000_000


def news(names: Iterable[str] = ("a", "b", "c"), time: Any = "source", kept: Kept | None = None) -> News:
    made = News("d", time, 60.0, kept or Kept())
    for handle, name in enumerate(names, 1):
        info = TagInfo(name=name, group="1s", source=f"ns=2;s={name}")
        made.tags[handle] = Tag(info, parse(info.source), shortest=True)
    return made


def item(handle: int, value: Any, ms: int | None = NOW, type_id: int = 11, status: int = 0) -> Any:
    """A monitored item's notification, of the shape of the library's."""
    time = datetime.fromtimestamp(ms / 1000, UTC) if ms is not None else None
    return SimpleNamespace(
        ClientHandle=handle,
        Value=SimpleNamespace(
            Value=SimpleNamespace(Value=value, VariantType=SimpleNamespace(value=type_id)),
            StatusCode=SimpleNamespace(value=status),
            SourceTimestamp=time,
            ServerTimestamp=None,
        ),
    )


def added(some: News, *items: Any, at: float = 1.0, now_ms: int = NOW + 10) -> list[Batch]:
    some.add("1s", items, at, now_ms)
    return some.take()


def test_the_nth_batch_carries_the_nth_value() -> None:
    batches = added(news(), item(1, 1.0), item(1, 2.0), item(2, 5.0), item(1, 3.0), item(2, 6.0), item(9, 0.0))
    assert [batch.values for batch in batches] == [{"a": 1.0, "b": 5.0}, {"a": 2.0, "b": 6.0}, {"a": 3.0}]


def test_ts_is_the_newest_and_ages_are_the_differences() -> None:
    (batch,) = added(news(), item(1, 1.0, NOW - 700), item(2, 2.0, NOW), item(3, 3.0, NOW - 1))
    assert (batch.ts, batch.age_ms, batch.at) == (NOW, {"a": 700, "c": 1}, 1.0)


def test_a_time_too_far_ahead_is_the_gateways() -> None:
    some = news()
    (batch,) = added(some, item(1, 1.0, NOW + 120_010), item(2, 2.0, NOW))
    assert (batch.ts, batch.age_ms, some.skew_s) == (None, {"b": 10}, 120.0)


def test_an_old_time_is_no_skew() -> None:
    some = news()
    (batch,) = added(some, item(1, 1.0, 1000))
    assert (batch.ts, some.skew_s) == (1000, None)


def test_a_repeated_value_is_dropped_but_never_a_change_of_status() -> None:
    """The same time, status and value again is what the server sent before; without a time nothing is known."""
    some = news()
    first = added(some, item(1, 1.0))
    assert (len(first), added(some, item(1, 1.0))) == (1, [])
    assert [batch.values for batch in added(some, item(1, 1.0, status=0x40000000))] == [{"a": 1.0}]
    assert [batch.values for batch in added(some, item(1, 2.0, status=0x40000000))] == [{"a": 2.0}]
    assert [batch.values for batch in added(some, item(2, 1.0, None), item(2, 1.0, None))] == [{"b": 1.0}] * 2
    some.tags[1].last = None
    assert [batch.values for batch in added(some, item(1, 2.0, status=0x40000000))] == [{"a": 2.0}]


def test_elements_of_one_array_are_tags_of_their_own() -> None:
    some = news(["a"])
    lead = some.tags[1]
    info = TagInfo(name="b", group="1s", source="ns=2;s=a[1,0]")
    lead.element = (2,)
    lead.readers = (Tag(info, lead.address, shortest=True, element=(1, 0)),)
    (batch,) = added(some, item(1, [1.5, [7.0], 3.5]))
    assert (batch.values, batch.quality) == ({"a": 3.5, "b": 7.0}, {})
    (batch,) = added(some, item(1, [1.5]))
    assert batch.quality == dict.fromkeys("ab", "bad:status-0x80370000")


def test_a_number_that_becomes_an_array_is_told_and_comes_back() -> None:
    some = news(["a"])
    added(some, item(1, 1.0, NOW))
    for ms, odd in enumerate(([1.0, 2.0], [], None), 1):
        (batch,) = added(some, item(1, odd, NOW + ms))
        assert batch.values == {"a": None}
        assert batch.quality["a"].startswith("bad:")
    assert [batch.values for batch in added(some, item(1, 2.0, NOW + 9))] == [{"a": 2.0}]
    assert some.undecodable == [("a", "an array: name the element with index")]


def test_a_number_of_an_enumeration_becomes_its_text() -> None:
    some = news(["a", "b"])
    some.tags[1].enum_text = some.tags[2].enum_text = True
    some.tags[1].texts = {0: "idle", 1: "running"}
    (batch,) = added(some, item(1, 1, type_id=6), item(2, 1, type_id=6))
    assert (batch.values, batch.quality) == ({"a": "running", "b": None}, {"b": "bad:decode"})
    (batch,) = added(some, item(1, 9, type_id=6))
    assert batch.quality == {"a": "bad:range"}


def test_no_time_is_the_gateways() -> None:
    (batch,) = added(news(), item(1, 1.0, None), item(2, 2.0, NOW))
    assert (batch.ts, batch.age_ms) == (None, {"b": 10})


def test_the_clock_of_the_server_decides_for_all() -> None:
    some = news()
    some.server_clock(NOW - 61_000, NOW)
    (batch,) = added(some, item(1, 1.0))
    assert (batch.ts, some.skew_s) == (None, -61.0)
    some.server_clock(NOW, NOW)
    (batch,) = added(some, item(1, 2.0))
    assert batch.ts == NOW


def test_qualities() -> None:
    some = news()
    (batch,) = added(
        some,
        item(1, 1.0, status=0x80340000),
        item(2, 2.0, status=0x40000000),
        item(3, None, type_id=0, status=0x40920000),
    )
    assert batch.values == {"a": None, "b": 2.0, "c": None}
    assert batch.quality == {
        "a": "bad:status-0x80340000",
        "b": "uncertain:status-0x40000000",
        "c": "uncertain:status-0x40920000",
    }
    assert some.add("1s", [item(1, None, status=0x80340000), item(2, None, status=0x80310000)], 1.0, NOW) == [
        some.tags[1]
    ]


def test_a_tag_keeps_its_type_and_a_wide_one_is_told() -> None:
    kept = Kept()
    some = news(kept=kept)
    added(some, item(1, 5, type_id=9), item(2, True, type_id=1))
    assert (kept.kinds, kept.wide, some.learned) == (
        {("a", "ns=2;s=a"): "number", ("b", "ns=2;s=b"): "boolean"},
        {("a", "ns=2;s=a")},
        3,
    )
    (batch,) = added(some, item(1, True, type_id=1), item(2, 1, type_id=6), item(3, "x", type_id=12))
    assert (batch.values, batch.quality) == (
        {"a": None, "b": None, "c": "x"},
        {"a": "bad:decode", "b": "bad:decode"},
    )
    assert some.undecodable == [
        ("a", "a boolean now, and it was a number"),
        ("b", "a number now, and it was a boolean"),
    ]


def test_what_is_told_without_a_value_is_grouped() -> None:
    some = news()
    for tag in some.tags.values():
        tag.quality = "bad:status-0x80340000"
    some.tell(some.tags.values(), 3.0)
    (batch,) = some.take()
    assert (batch.values, batch.ts, batch.at) == ({"a": None, "b": None, "c": None}, None, 3.0)
    assert set(batch.quality.values()) == {"bad:status-0x80340000"}


def test_merge_keeps_the_latest_value_its_quality_and_its_age() -> None:
    older = Batch("d", "1s", 1.0, {"a": 1, "b": None}, {"b": "bad:decode"}, {"a": 5}, ts=1000)
    newer = Batch("d", "1s", 2.0, {"c": 3, "b": 4}, {}, {"c": 7}, ts=1900)
    assert merge(older, newer) == Batch("d", "1s", 2.0, {"a": 1, "b": 4, "c": 3}, {}, {"a": 905, "c": 7}, ts=1900)
    assert merge(newer, older).values == {"c": 3, "b": None, "a": 1}


SAMPLES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([(11, 1.5), (11, math.nan), (10, 0.1), (6, -3), (9, 2**63), (1, True), (12, "x"), (0, None)]),
        st.sampled_from([0, 0, 0, 0x480, 0x40000000, 0x80340000]),
        st.sampled_from([None, 0, 1_000, NOW, NOW + 1, NOW + 60_010, NOW + 60_011, NOW + 10**9]),
    ),
    max_size=8,
)


@settings(max_examples=150)
@given(st.lists(SAMPLES, max_size=8), st.sampled_from(["source", "gateway"]), st.booleans())
def test_the_short_way_of_good_values_leads_where_the_long_one_does(
    messages: list[list[tuple[int, tuple[int, Any], int, int | None]]], time: str, shortest: bool
) -> None:
    seen = []
    for long_way in (False, True):
        some = news(time=time)
        for tag in some.tags.values():
            tag.shortest = shortest
        took: list[Any] = []
        for message in messages:
            for tag in some.tags.values():
                if long_way:
                    tag.direct = NOTHING
            items = [item(handle, raw, ms, type_id, status) for handle, (type_id, raw), status, ms in message]
            took.append([tag.info.name for tag in some.add("1s", items, 1.0, NOW + 10)])
            took.extend(some.take())
            took.append([tag.quality for tag in some.tags.values()])
        seen.append((took, some.samples_lost, some.skew_s, some.undecodable))
    assert seen[0] == seen[1]


def test_a_tag_whose_type_is_known_from_before_goes_the_short_way_at_once() -> None:
    info = TagInfo(name="a", group="1s", source="ns=2;s=a")
    address = parse(info.source)
    assert 11 in Tag(info, address, shortest=True, kind="number").direct
    assert 10 not in Tag(info, address, shortest=True, kind="number").direct
    assert 10 in Tag(info, address, shortest=False, kind="number").direct
    assert not Tag(info, address, shortest=True, kind="number", element=(1,)).direct
    assert not Tag(info, address, shortest=True, kind="string", enum_text=True).direct


@settings(max_examples=60)
@given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers()), min_size=1, max_size=6), max_size=40))
def test_a_full_queue_loses_only_what_it_counts_and_never_the_latest(messages: list[list[tuple[int, int]]]) -> None:
    some = news()
    some.queue_values = 20
    latest: dict[str, Value] = {}
    put = 0
    for number, message in enumerate(messages):
        times = range(NOW + put, NOW + put + len(message))
        items = [item(handle, value, ms, type_id=8) for (handle, value), ms in zip(message, times, strict=True)]
        some.add("1s", items, float(number), NOW)
        for handle, value in message:
            latest["abc"[handle - 1]] = value
            put += 1
    taken = some.take()
    seen: dict[str, Value] = {}
    for batch in taken:
        seen.update(batch.values)
    assert seen == latest
    assert put == some.samples_lost + sum(len(batch.values) for batch in taken)
    assert sum(len(batch.values) for batch in taken) <= 20
    assert [batch.at for batch in taken] == sorted(batch.at for batch in taken)
    assert news_module.QUEUE_VALUES >= 10_000
