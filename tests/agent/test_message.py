"""Encoding and splitting: what subscribers receive, for any batch."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.message import Heading, belongs, decode, encode, mark_replayed, ts_of
from collectors.api import ALL_TAGS, Batch, Value

HEADING = Heading("plant-2", "gw-01", "9f3c1a7be2d04c55")


def encoded(batch: Batch, *, first_seq: int = 1, max_payload: int = 60_000, clock: str | None = None) -> list[bytes]:
    return encode(
        HEADING, batch, ts=1_700_000_000_123, rev="5be1c09a", clock=clock, first_seq=first_seq, max_payload=max_payload
    )


def test_golden_message() -> None:
    batch = Batch(
        "press-3",
        "1s",
        0.0,
        {"temperature": 23.5, "parts": 12, "running": True, "torque": None, "lot": "批次"},
        {"torque": "bad:timeout"},
        {"running": 320},
    )
    (body,) = encoded(batch, first_seq=123456, clock="unsynced")
    assert body.decode() == (
        '{"v":1,"ts":1700000000123,"site":"plant-2","gateway":"gw-01","device":"press-3","group":"1s",'
        '"run":"9f3c1a7be2d04c55","seq":123456,"rev":"5be1c09a",'
        '"values":{"temperature":23.5,"parts":12,"running":true,"torque":null,"lot":"批次"},'
        '"quality":{"torque":"bad:timeout"},"age_ms":{"running":320},"clock":"unsynced"}'
    )
    assert mark_replayed(body) == body[:-1] + b',"replayed":true}'
    assert ts_of(body) == 1_700_000_000_123
    assert decode(body)["seq"] == 123456


def test_empty_parts_are_left_out() -> None:
    (body,) = encoded(Batch("d", "1s", 0.0, {"a": 1}))
    assert list(decode(body)) == ["v", "ts", "site", "gateway", "device", "group", "run", "seq", "rev", "values"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "bad:invalid"),
        (math.inf, "bad:invalid"),
        (-math.inf, "bad:invalid"),
        (None, "bad:invalid"),
        (2**70, "bad:range"),
        ("\ud800", "bad:decode"),
        (b"raw", "bad:decode"),
    ],
)
def test_what_must_not_be_published_becomes_null_and_says_why(value: Any, reason: str) -> None:
    (body,) = encoded(Batch("d", "1s", 0.0, {"good": 1.5, "wrong": value}, {"other": "uncertain:stale"}))
    message = decode(body)
    assert message["values"] == {"good": 1.5, "wrong": None}
    assert message["quality"] == {"other": "uncertain:stale", "wrong": reason}


def test_text_that_looks_like_a_null_is_text() -> None:
    (body,) = encoded(Batch("d", "1s", 0.0, {"a": '":null', "b": 2}))
    assert decode(body)["values"] == {"a": '":null', "b": 2}
    assert "quality" not in decode(body)


def test_all_tags_stands_alone() -> None:
    (body,) = encoded(Batch("d", "1s", 0.0, {}, {ALL_TAGS: "bad:not-connected"}))
    assert decode(body)["values"] == {}
    assert decode(body)["quality"] == {"*": "bad:not-connected"}
    (body,) = encoded(Batch("d", "1s", 0.0, {"a": 1}, {ALL_TAGS: "bad:not-connected"}))
    assert "quality" not in decode(body)


def test_all_tags_is_never_split() -> None:
    quality = {ALL_TAGS: "bad:timeout", **{f"tag-{at}": "bad:range" for at in range(1000)}}
    (body,) = encoded(Batch("d", "1s", 0.0, {}, quality), max_payload=2000)
    assert decode(body)["quality"] == {"*": "bad:timeout"}


def test_a_value_too_large_for_any_message_is_told_by_its_quality() -> None:
    bodies = encoded(Batch("d", "1s", 0.0, {"a": 1, "text": "x" * 5000, "b": 2}), max_payload=1000)
    values: dict[str, Value] = {}
    quality: dict[str, str] = {}
    for body in bodies:
        values |= decode(body)["values"]
        quality |= decode(body).get("quality", {})
    assert values == {"a": 1, "text": None, "b": 2}
    assert quality == {"text": "bad:range"}


NAMES = st.text("abcdefghijklmnop_-.0123456789", min_size=1, max_size=30)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(),
    st.text(max_size=40),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    values = draw(st.dictionaries(NAMES, VALUES, max_size=60))
    tags = sorted(values)
    quality = {tag: "bad:timeout" for tag in tags if draw(st.booleans())} if draw(st.booleans()) else {}
    quality |= {tag: "bad:range" for tag in draw(st.lists(NAMES, max_size=3))}
    age_ms = {tag: 5 for tag in tags[::3]}
    return Batch(draw(NAMES), "1s", 0.0, values, quality, age_ms)


@settings(max_examples=200)
@given(batches(), st.integers(700, 3000), st.integers(1, 2**40), st.sampled_from([None, "unsynced"]))
def test_parts_are_disjoint_complete_and_fit(batch: Batch, max_payload: int, first_seq: int, clock: str | None) -> None:
    bodies = encoded(batch, first_seq=first_seq, max_payload=max_payload, clock=clock)
    messages = [json.loads(body, parse_constant=pytest.fail) for body in bodies]
    values: dict[str, Value] = {}
    named: set[str] = set()
    for at, (body, message) in enumerate(zip(bodies, messages, strict=True)):
        assert len(mark_replayed(body)) <= max_payload
        assert message["seq"] == first_seq + at
        assert (message["device"], message["group"], message["ts"]) == (batch.device, "1s", 1_700_000_000_123)
        assert belongs(body, HEADING.run, first_seq + at, batch.device, "1s")
        assert not belongs(body, HEADING.run, first_seq + at + 1, batch.device, "1s")
        tags = set(message["values"]) | set(message.get("quality", {}))
        assert not tags & named
        named |= tags
        values |= message["values"]
        for tag, value in message["values"].items():
            if value is None:
                assert tag in message["quality"]
        assert set(message.get("age_ms", {})) <= set(message["values"])
    assert named == set(batch.values) | set(batch.quality)
    assert list(values) == list(batch.values) or len(bodies) > 1
    for tag, value in batch.values.items():
        if isinstance(value, float) and not math.isfinite(value):
            assert values[tag] is None
        elif not isinstance(value, str) or values[tag] is not None:
            assert values[tag] == value


def test_decode_refuses_what_is_no_object() -> None:
    for text in (b"", b"[1]", b"{"):
        with pytest.raises(ValueError, match=r".*"):
            decode(text)
