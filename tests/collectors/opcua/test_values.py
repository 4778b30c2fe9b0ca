"""Values, qualities and times; without a server."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.opcua.values import decode, overflowed, quality_of, shortest_float, to_ms

BOOL, INT32, FLOAT, DOUBLE, STRING, WHEN, BYTES, STATUS, TEXT, STRUCTURE = 1, 6, 10, 11, 12, 13, 15, 19, 21, 22


@pytest.mark.parametrize(
    ("status", "quality"),
    [
        (0, None),
        (0x002F0000, None),
        (0x00000480, None),
        (0x40900000, "uncertain:status-0x40900000"),
        (0x80340000, "bad:status-0x80340000"),
        (0x80340480, "bad:status-0x80340000"),
        (0xC0000000, "bad:status-0xC0000000"),
    ],
)
def test_status_to_quality(status: int, quality: str | None) -> None:
    assert quality_of(status) == quality


def test_the_overflow_bit_counts_only_with_the_info_type_of_data_values() -> None:
    assert overflowed(0x00000480)
    assert overflowed(0x80340480)
    assert not overflowed(0x00000080)
    assert not overflowed(0x00000400)


@pytest.mark.parametrize(
    ("type_id", "value", "expected"),
    [
        (BOOL, True, (True, "boolean", None)),
        (BOOL, None, (None, None, "bad:invalid")),
        (INT32, -5, (-5, "number", None)),
        (DOUBLE, float("inf"), (None, None, "bad:invalid")),
        (FLOAT, float("nan"), (None, None, "bad:invalid")),
        (0, None, (None, None, "bad:invalid")),
        (STRING, None, ("", "string", None)),
        (STRING, "", ("", "string", None)),
        (STRING, "x" * 4096, ("x" * 4096, "string", None)),
        (STRING, "x" * 4097, (None, None, "bad:range")),
        (STRING, "度" * 1366, (None, None, "bad:range")),
        (STRING, "\udcb6\udce8", (None, None, "bad:decode")),
        (TEXT, None, ("", "string", None)),
        (STATUS, 0x80340000, ("0x80340000", "string", None)),
        (WHEN, datetime(1601, 1, 1, tzinfo=UTC), (None, None, "bad:invalid")),
        (WHEN, datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), ("1999-12-31T23:59:59.999Z", "string", None)),
        (
            WHEN,
            datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8))),
            ("2026-01-01T00:00:00.000Z", "string", None),
        ),
        (BYTES, b"\x00", (None, None, "bad:decode")),
        (STRUCTURE, object(), (None, None, "bad:decode")),
        (INT32, [1, 2], (None, None, "bad:decode")),
        (INT32, [], (None, None, "bad:decode")),
    ],
)
def test_decode(type_id: int, value: Any, expected: tuple[Any, Any, Any]) -> None:
    assert decode(type_id, value, True) == expected


def test_a_float_is_short_only_where_nothing_is_calculated_from_it() -> None:
    near = struct.unpack("<f", struct.pack("<f", 23.4))[0]
    assert decode(FLOAT, near, True) == (23.4, "number", None)
    assert decode(FLOAT, near, False) == (near, "number", None)
    assert decode(DOUBLE, near, True) == (near, "number", None)


def digits(value: float) -> tuple[int, ...]:
    return Decimal(repr(value)).normalize().as_tuple().digits


@settings(max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_short_form_is_the_same_float(value: float) -> None:
    short = shortest_float(value)
    assert struct.pack("<f", short) == struct.pack("<f", value)
    assert len(digits(short)) <= min(len(digits(value)), 9)


@settings(max_examples=200)
@given(st.integers(-999_999, 999_999), st.integers(-20, 20))
def test_six_digits_survive(digits: int, exponent: int) -> None:
    number = float(f"{digits}e{exponent}")
    assert shortest_float(struct.unpack("<f", struct.pack("<f", number))[0]) == number


def test_times() -> None:
    assert to_ms(None) is None
    assert to_ms(datetime(1601, 1, 1, tzinfo=UTC)) is None
    assert to_ms(datetime(1970, 1, 1, 0, 0, 1, 2999, tzinfo=UTC)) == 1002
    assert to_ms(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)) == 253402300799000
