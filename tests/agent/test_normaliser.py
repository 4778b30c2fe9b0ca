from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.normaliser import Normaliser
from agent.rules import compile_long_way, compile_step
from collectors.api import ALL_TAGS, Batch, TagInfo, TagRules, Value


def tag(name: str = "t", *, wide: bool = False, **rules: Any) -> TagInfo:
    return TagInfo(name, "1s", "holding:0", "number", wide=wide, rules=TagRules(**rules))


def batch(at: float, quality: dict[str, str] | None = None, **values: Value) -> Batch:
    return Batch("press", "1s", at, dict(values), dict(quality or {}))


def normaliser(*tags: TagInfo, heartbeat: float | None = None, pushes: bool = False) -> Normaliser:
    made = Normaliser("press", ["1s"], heartbeat=heartbeat, pushes=pushes)
    made.learn(tags)
    return made


@pytest.mark.parametrize(
    ("rules", "raw", "published"),
    [
        ({"scale": 0.1}, 3, 0.3),
        ({"scale": 0.1, "offset": -10}, 235, 13.5),
        ({"scale": 10}, 3, 30),
        ({"offset": 0.2}, 0.1, 0.3),
        ({"decimals": 1}, 23.449, 23.4),
        ({"decimals": 0}, 23.6, 24),
        ({"minimum": 0, "maximum": 100}, 100, 100),
        ({"map": {0: "idle", 1: "running"}}, 1, "running"),
        ({"scale": 0.5, "map": {1: "half"}}, 2, "half"),
        ({"as_string": True}, 2**63, "9223372036854775808"),
        ({"as_string": True, "offset": 1}, 2**63, "9223372036854775809"),
    ],
)
def test_value_is_published_as_the_rules_say(rules: dict[str, Any], raw: Value, published: Value) -> None:
    step = compile_step(tag(**rules))
    assert step is not None
    value, reason = step(raw)
    assert (value, type(value), reason) == (published, type(published), None)


_NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64),
    st.integers(-40_000, 70_000),
    st.floats(width=32),
    st.floats(),
    st.floats(-1000, 1000),
    # Half-way between two of the last decimals, and a hair beside it.
    st.builds(lambda n, d, by: math.nextafter(n / 10**d + 5 / 10 ** (d + 1), by), st.integers(-999, 999),
              st.integers(0, 5), st.sampled_from([-math.inf, math.inf, 0.0])),
    st.booleans(), st.none(), st.text(max_size=2),
)  # fmt: skip


@settings(max_examples=500)
@given(
    st.lists(_NUMBERS, min_size=1, max_size=20),
    st.one_of(st.none(), st.sampled_from([1.0, 0.1, 0.01, 0.001, 10.0, 0.5, 0.3048, -1.0, 1e-9]), st.floats(-1e6, 1e6)),
    st.one_of(st.none(), st.sampled_from([-10.0, 0.5, 273.15, 0.0]), st.floats(-1e6, 1e6)),
    st.one_of(st.none(), st.integers(0, 15)),
    st.one_of(st.none(), st.floats(-500, 500)),
    st.one_of(st.none(), st.floats(-500, 500)),
)
def test_the_short_way_leads_where_the_long_one_does(
    raws: list[Value],
    scale: float | None,
    offset: float | None,
    decimals: int | None,
    minimum: float | None,
    maximum: float | None,
) -> None:
    one = tag(scale=scale, offset=offset, decimals=decimals, minimum=minimum, maximum=maximum)
    short, long = compile_step(one), compile_long_way(one)
    if short is None or long is None:
        assert short is long
        return
    for raw in raws:
        (got, why), (value, reason) = short(raw), long(raw)
        assert (repr(got), type(got), why) == (repr(value), type(value), reason), raw


@pytest.mark.parametrize(
    ("rules", "raw"),
    [
        ({"minimum": 0}, -1),
        ({"maximum": 100, "scale": 0.1}, 1001),
        ({"map": {0: "idle"}}, 7),
        ({"scale": 1e300}, 1e300),
    ],
)
def test_value_out_of_range_is_null_with_its_reason(rules: dict[str, Any], raw: Value) -> None:
    step = compile_step(tag(**rules))
    assert step is not None
    assert step(raw) == (None, "bad:range")


def test_64_bit_integer_beyond_2_to_53_is_null_unless_as_string() -> None:
    step = compile_step(tag(wide=True))
    assert step is not None
    assert step(2**53) == (2**53, None)
    assert step(2**53 + 1) == (None, "bad:range")


def test_tag_without_rules_costs_nothing() -> None:
    assert compile_step(tag()) is None
    assert compile_step(tag(deadband=0.5)) is None


@given(
    raw=st.one_of(st.integers(-(2**63), 2**64), st.floats(allow_nan=False, allow_infinity=False), st.booleans()),
    scale=st.one_of(st.none(), st.floats(1e-9, 1e9)),
    offset=st.one_of(st.none(), st.floats(-1e9, 1e9)),
    decimals=st.one_of(st.none(), st.integers(0, 6)),
    limits=st.one_of(st.none(), st.tuples(st.floats(-1e6, 0), st.floats(0, 1e6))),
)
@settings(max_examples=200)
def test_published_value_is_finite_and_within_limits_or_null(
    raw: Value,
    scale: float | None,
    offset: float | None,
    decimals: int | None,
    limits: tuple[float, float] | None,
) -> None:
    low, high = limits or (None, None)
    step = compile_step(tag(scale=scale, offset=offset, decimals=decimals, minimum=low, maximum=high))
    value, reason = step(raw) if step is not None else (raw, None)
    if value is None:
        assert reason == "bad:range"
    else:
        assert isinstance(value, int | float)
        assert math.isfinite(value)
        assert limits is None or limits[0] <= value <= limits[1]


def test_whole_group_passes_every_time_without_report() -> None:
    n = normaliser(tag())
    assert [len(n.take(batch(at, t=1))) for at in (1.0, 2.0, 3.0)] == [1, 1, 1]


def test_report_passes_changes_and_the_whole_group_every_heartbeat() -> None:
    n = normaliser(tag("a"), tag("b"), heartbeat=60)
    assert [b.values for b in n.take(batch(0, a=1, b=1))] == [{"a": 1, "b": 1}]
    assert n.take(batch(1, a=1, b=1)) == ()
    assert [b.values for b in n.take(batch(2, a=1, b=2))] == [{"b": 2}]
    assert n.take(batch(59, a=1, b=2)) == ()
    assert [b.values for b in n.take(batch(60, a=1, b=2))] == [{"a": 1, "b": 2}]


def test_deadband_compares_with_the_last_sent_value() -> None:
    n = normaliser(tag("a", deadband=1.0), heartbeat=600)
    n.take(batch(0, a=10.0))
    sent = [b.values["a"] for at in range(1, 12) for b in n.take(batch(at, a=10.0 + at * 0.3))]
    assert sent == pytest.approx([11.2, 12.4])


def test_change_of_quality_passes_and_clears_the_deadband() -> None:
    n = normaliser(tag("a", deadband=5.0), tag("b"), heartbeat=600)
    n.take(batch(0, a=10.0, b=1))
    (bad,) = n.take(batch(1, {"a": "bad:timeout"}, a=None, b=1))
    assert (bad.values, bad.quality) == ({"a": None}, {"a": "bad:timeout"})
    assert n.take(batch(2, {"a": "bad:timeout"}, a=None, b=1)) == ()
    (good,) = n.take(batch(3, a=11.0, b=1))
    assert (good.values, good.quality) == ({"a": 11.0}, {})


def test_first_value_after_a_reconnect_passes() -> None:
    n = normaliser(tag("a", deadband=5.0), heartbeat=600)
    n.take(batch(0, a=10.0))
    n.reset()
    assert [b.values for b in n.take(batch(1, a=10.0))] == [{"a": 10.0}]


def test_dead_device_is_told_at_once_and_then_every_heartbeat() -> None:
    n = normaliser(tag("a"))
    n.take(batch(0, a=1))
    told = [at for at in range(1, 200) if n.lost("timeout", at)]
    assert told == [1, 61, 121, 181]
    (changed,) = n.lost("not-connected", 200)
    assert (changed.values, changed.quality) == ({}, {ALL_TAGS: "bad:not-connected"})


def test_group_that_is_bad_as_a_whole_is_short_and_not_repeated() -> None:
    n = normaliser(tag("a"), tag("b"))
    bad = {"a": "bad:exception-2", "b": "bad:exception-2"}
    (told,) = n.take(batch(0, bad, a=None, b=None))
    assert (told.values, told.quality) == ({}, {ALL_TAGS: "bad:exception-2"})
    assert n.take(batch(1, bad, a=None, b=None)) == ()
    assert len(n.take(batch(2, a=1, b=2))) == 1


def test_push_device_heartbeat_is_whole_and_carries_gateway_time() -> None:
    n = normaliser(tag("a"), tag("b"), heartbeat=60, pushes=True)
    assert n.due(0) == []
    n.take(Batch("press", "1s", 0, {"a": 1, "b": 2}, ts=123))
    n.refresh()
    (first,) = n.due(0)
    assert first.values == {"a": 1, "b": 2}
    n.take(Batch("press", "1s", 5, {"b": 3}, ts=124))
    assert n.next_due() == 60
    assert n.due(59) == []
    (heartbeat,) = n.due(60)
    assert (heartbeat.values, heartbeat.ts) == ({"a": 1, "b": 3}, None)


def test_recovery_of_a_push_device_carries_gateway_time() -> None:
    n = normaliser(tag("a"), tag("b"), heartbeat=60, pushes=True)
    assert [b.ts for b in n.take(Batch("press", "1s", 0, {"a": 1, "b": 2}, ts=100))] == [100]
    n.lost("not-connected", 5)
    n.reset()
    assert [(b.values, b.ts) for b in n.take(Batch("press", "1s", 9, {"a": 1}, ts=100))] == [({"a": 1}, None)]
    assert [(b.values, b.ts) for b in n.take(Batch("press", "1s", 10, {"a": 4}, ts=110))] == [({"a": 4}, 110)]


def test_error_of_one_tag_leaves_the_time_of_the_others() -> None:
    n = normaliser(tag("a"), tag("b"), heartbeat=60, pushes=True)
    n.take(Batch("press", "1s", 0, {"a": 1, "b": 2}, ts=100))
    parts = n.take(Batch("press", "1s", 1, {"a": None, "b": 3}, {"a": "bad:status-0x80310000"}, ts=110))
    assert [(b.values, b.quality, b.ts) for b in parts] == [
        ({"b": 3}, {}, 110),
        ({"a": None}, {"a": "bad:status-0x80310000"}, None),
    ]


@pytest.mark.parametrize("deadband", [None, 0.5])
def test_not_a_number_is_told_once_and_does_not_hide_what_comes_after(deadband: float | None) -> None:
    n = normaliser(tag("a", deadband=deadband), tag("b"), heartbeat=600)
    n.take(batch(0, a=1.0, b=1))
    assert len(n.take(batch(1, a=float("nan"), b=1))) == 1
    assert not n.take(batch(2, a=float("nan"), b=1))
    (back,) = n.take(batch(3, a=1.0, b=1))
    assert back.values == {"a": 1.0}


@pytest.mark.parametrize("rules", [{"decimals": 0}, {"decimals": 2}, {"scale": 2, "decimals": 0}])
@pytest.mark.parametrize("raw", [float("nan"), float("inf"), float("-inf"), 1e300, 3.4e38])
def test_rounding_takes_any_float_and_makes_no_integer_that_json_cannot_hold(rules: dict[str, Any], raw: float) -> None:
    step = compile_step(tag(**rules))
    assert step is not None
    value, reason = step(raw)
    if math.isfinite(raw):
        assert isinstance(value, float)
    else:
        assert value is None
        assert reason is not None


def test_integer_that_scaling_makes_too_large_stays_a_number_of_json() -> None:
    step = compile_step(tag(scale=1e10))
    assert step is not None
    value, _ = step(2**32)
    assert value == pytest.approx(2**32 * 1e10)
    assert isinstance(value, float)


def test_map_takes_numbers_and_bools_and_nothing_else() -> None:
    step = compile_step(tag(map={0: "off", 1: "on"}))
    assert step is not None
    assert [step(raw)[0] for raw in (True, False, 1.0, 1, "1", 0.5)] == ["on", "off", "on", "on", None, None]


def test_somebody_new_is_not_sent_groups_that_nothing_is_known_of() -> None:
    n = normaliser(tag("a"), heartbeat=60, pushes=True)
    n.refresh()
    assert n.due(1000) == []
    assert n.next_due() is None


def test_recovery_and_change_of_a_polled_device_share_a_message() -> None:
    n = normaliser(tag("a"), tag("b"), heartbeat=600)
    n.take(batch(0, {"a": "bad:exception-2"}, a=None, b=1))
    (both,) = n.take(batch(1, a=5, b=2))
    assert (both.values, both.quality, both.ts) == ({"a": 5, "b": 2}, {}, None)


def test_each_reason_of_a_dead_device_is_told_once() -> None:
    n = normaliser(tag("a"), heartbeat=60)
    n.take(batch(0, a=1))
    assert [len(n.lost(reason, at)) for at, reason in enumerate(("timeout", "timeout", "paused", "paused"), 1)] == [
        1,
        0,
        1,
        0,
    ]


def test_what_was_handed_on_does_not_change_with_the_next_news() -> None:
    n = normaliser(tag("a"), heartbeat=60, pushes=True)
    (told,) = n.take(Batch("press", "1s", 0, {}, {ALL_TAGS: "bad:stale"}))
    n.take(Batch("press", "1s", 1, {"a": 1}))
    assert (told.values, told.quality) == ({}, {ALL_TAGS: "bad:stale"})
