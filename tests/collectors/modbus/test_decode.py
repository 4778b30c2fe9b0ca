from __future__ import annotations

import math
import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.api import Value
from collectors.modbus.datatypes import NUMBERS, WordOrder, arrival
from collectors.modbus.decode import BitDecoder, Field, RegisterDecoder, clean_text, shortest_floats

ORDERS: tuple[WordOrder, ...] = ("ABCD", "CDAB", "BADC", "DCBA")


def one(data: bytes, type_: str | None, **more: Any) -> tuple[Value, str | None]:
    values, bad = RegisterDecoder([Field("x", 0, type_, **more)]).decode(data)
    assert len(values) == 1
    return values[0], bad.get("x")


# -- word orders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "arrives"),
    [("ABCD", "41424344"), ("CDAB", "43444142"), ("BADC", "42414443"), ("DCBA", "44434241")],
)
def test_32_bits_arrive_as_the_order_names_them(order: WordOrder, arrives: str) -> None:
    assert one(bytes.fromhex(arrives), "uint32", order=order) == (0x41424344, None)


@pytest.mark.parametrize(
    ("order", "arrives"),
    [
        ("ABCD", "0102030405060708"),
        ("CDAB", "0708050603040102"),
        ("BADC", "0201040306050807"),
        ("DCBA", "0807060504030201"),
    ],
)
def test_64_bits_reverse_the_words_or_swap_the_bytes(order: WordOrder, arrives: str) -> None:
    assert one(bytes.fromhex(arrives), "uint64", order=order) == (0x0102030405060708, None)


@pytest.mark.parametrize(("order", "value"), [("ABCD", 0x1234), ("CDAB", 0x1234), ("BADC", 0x3412), ("DCBA", 0x3412)])
def test_16_bits_and_bits_know_only_the_byte_swap(order: WordOrder, value: int) -> None:
    data = b"\x12\x34"
    assert one(data, "uint16", order=order) == (value, None)
    for bit in range(16):
        assert one(data, None, order=order, bit=bit) == (bool(value >> bit & 1), None)


@pytest.mark.parametrize(("order", "text"), [("ABCD", "AbCd"), ("CDAB", "AbCd"), ("BADC", "bAdC"), ("DCBA", "bAdC")])
def test_strings_know_only_the_byte_swap(order: WordOrder, text: str) -> None:
    assert one(b"AbCd", "string", order=order, length=2) == (text, None)


@given(st.sampled_from(sorted(set(NUMBERS) - {"bool", "bcd16", "bcd32"})), st.sampled_from(ORDERS), st.data())
@settings(max_examples=200)
def test_what_a_device_packs_is_what_comes_out(type_: str, order: WordOrder, data: st.DataObject) -> None:
    kind = NUMBERS[type_]
    size = kind.registers * 2
    assembled = data.draw(st.binary(min_size=size, max_size=size))
    wire = bytearray(size)
    for index, where in enumerate(arrival(order, kind.registers)):
        wire[where] = assembled[index]
    expected = struct.unpack(">" + kind.code, assembled)[0]
    value, reason = one(bytes(wire), type_, order=order)
    if math.isfinite(expected):
        assert (value, reason) == (expected, None)
    else:
        assert (value, reason) == (None, "bad:invalid")


def test_many_tags_of_all_kinds_overlapping_and_out_of_order_in_one_reply() -> None:
    words = struct.pack(">hHiIf", -2, 0xABCD, -3, 4_000_000_000, 23.4) + b"lot\0"
    decoder = RegisterDecoder([
        Field("float", 6, "float32", shortest=True),
        Field("int", 0, "int16"),
        Field("again", 0, "uint16"),
        Field("bit", 1, None, bit=15),
        Field("both", 0, "uint32"),
        Field("unsigned", 4, "uint32"),
        Field("signed", 2, "int32"),
        Field("text", 8, "string", length=2),
        Field("flag", 0, "bool"),
    ])  # fmt: skip
    values, bad = decoder.decode(words)
    assert dict(zip(decoder.names, values, strict=True)) == {
        "float": 23.4, "int": -2, "again": 65534, "bit": True, "both": 0xFFFEABCD, "unsigned": 4_000_000_000,
        "signed": -3, "text": "lot", "flag": True,
    }  # fmt: skip
    assert bad == {}


@st.composite
def fields(draw: st.DrawFn) -> list[Field]:
    found = []
    for index in range(draw(st.integers(1, 8))):
        type_ = draw(st.sampled_from([*NUMBERS, "string", None]))
        width = 2 if type_ == "string" else NUMBERS[type_].registers if type_ else 1
        found.append(
            Field(
                f"t{index}",
                draw(st.integers(0, 8 - width)),
                type_,
                order=draw(st.sampled_from(ORDERS)),
                bit=None if type_ else draw(st.integers(0, 15)),
                length=2 if type_ == "string" else None,
                encoding=draw(st.sampled_from(["utf-8", "gbk", "latin-1"])),
                patterns=frozenset({0x8000} if type_ in {"int16", "float32", "bcd16"} and draw(st.booleans()) else ()),
                shortest=type_ == "float32" and draw(st.booleans()),
            )
        )
    return found


@given(fields(), st.binary(min_size=16, max_size=16), st.lists(st.tuples(st.integers(0, 15), st.integers(0, 255))))
@settings(max_examples=200)
def test_what_is_remembered_of_earlier_replies_never_shows(
    some: list[Field], data: bytes, changes: list[tuple[int, int]]
) -> None:
    together = RegisterDecoder(some)
    reply = bytearray(data)
    for at, byte in [(0, data[0]), *changes]:
        reply[at] = byte
        values, bad = together.decode(bytes(reply))
        for field, value in zip(some, values, strict=True):
            [alone], alone_bad = RegisterDecoder([field]).decode(bytes(reply))
            assert (value, bad.get(field.name)) == (alone, alone_bad.get(field.name))
            assert type(value) is type(alone)


# -- invalid, NaN, BCD ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "data", "patterns", "numbers", "expected"),
    [
        ("int16", "8000", {0x8000}, set(), (None, "bad:invalid")),
        ("int16", "7fff", {0x8000}, set(), (0x7FFF, None)),
        ("int16", "ffff", set(), {-1}, (None, "bad:invalid")),
        ("uint16", "ffff", {0xFFFF}, set(), (None, "bad:invalid")),
        ("uint16", "ffff", set(), {65535}, (None, "bad:invalid")),
        ("int32", "80000000", {0x80000000}, set(), (None, "bad:invalid")),
        ("uint64", "ffffffffffffffff", {0xFFFFFFFFFFFFFFFF}, set(), (None, "bad:invalid")),
        ("float32", "c479f99a", set(), {-999.9}, (None, "bad:invalid")),
        ("float32", "7f7fffff", {0x7F7FFFFF}, set(), (None, "bad:invalid")),
        ("float32", "80000000", {0x80000000}, set(), (None, "bad:invalid")),
        ("float32", "00000000", {0x80000000}, set(), (0.0, None)),
        ("float64", "c08f3f3333333333", set(), {-999.9}, (None, "bad:invalid")),
        ("bcd16", "ffff", {0xFFFF}, set(), (None, "bad:invalid")),
        ("bcd16", "9999", set(), {9999}, (None, "bad:invalid")),
        ("float32", "7fc00000", set(), set(), (None, "bad:invalid")),
        ("float32", "7f800000", set(), set(), (None, "bad:invalid")),
        ("float64", "fff0000000000000", set(), set(), (None, "bad:invalid")),
        ("bcd16", "1234", set(), set(), (1234, None)),
        ("bcd16", "123a", set(), set(), (None, "bad:decode")),
        ("bcd32", "12345678", set(), set(), (12345678, None)),
        ("bcd32", "f2345678", set(), set(), (None, "bad:decode")),
        ("bool", "0000", set(), set(), (False, None)),
        ("bool", "0100", set(), set(), (True, None)),
    ],
)
def test_what_is_no_value_is_none(
    type_: str, data: str, patterns: set[int], numbers: set[float], expected: tuple[Value, str | None]
) -> None:
    for shortest in (False, True) if type_ == "float32" else (False,):
        found = one(
            bytes.fromhex(data), type_, patterns=frozenset(patterns), numbers=frozenset(numbers), shortest=shortest
        )
        assert found == expected
        assert type(found[0]) is type(expected[0])


def test_an_invalid_pattern_is_seen_in_the_order_of_the_value() -> None:
    assert one(bytes.fromhex("00008000"), "int32", order="CDAB", patterns=frozenset({0x80000000})) == (
        None,
        "bad:invalid",
    )


def test_quality_comes_and_goes_with_the_value_and_not_with_its_neighbours() -> None:
    fields = [
        Field("a", 0, "int16", patterns=frozenset({0x8000})),
        Field("b", 1, "bcd16"),
        Field("f", 2, "float32", shortest=True),
    ]
    decoder = RegisterDecoder(fields)
    good = bytes.fromhex("00011234") + struct.pack(">f", 0.1)
    no_a = bytes.fromhex("80001234") + struct.pack(">f", 0.1)
    no_b_f = bytes.fromhex("8000123a") + struct.pack(">f", float("nan"))
    assert decoder.decode(good) == ([1, 1234, 0.1], {})
    assert decoder.decode(no_a) == ([None, 1234, 0.1], {"a": "bad:invalid"})
    worst: dict[str, str] = {"a": "bad:invalid", "b": "bad:decode", "f": "bad:invalid"}
    assert decoder.decode(no_b_f) == ([None, None, None], worst)
    assert decoder.decode(no_b_f) == ([None, None, None], worst)
    assert decoder.decode(good) == ([1, 1234, 0.1], {})


# -- shortest float32 ----------------------------------------------------------------------------------------------


def digits(value: float) -> tuple[int, ...]:
    return Decimal(repr(value)).normalize().as_tuple().digits


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
@settings(max_examples=200)
def test_shortest_floats_are_read_back_as_the_same_float32(floats: list[float]) -> None:
    for short, wanted in zip(shortest_floats(floats), floats, strict=True):
        assert struct.unpack(">f", struct.pack(">f", short))[0] == wanted
        assert len(digits(short)) <= min(len(digits(wanted)), 9)


@given(st.integers(-999_999, 999_999), st.integers(0, 6))
@settings(max_examples=200)
def test_a_decimal_of_six_digits_survives_float32(digits: int, places: int) -> None:
    number = float(f"{digits}e-{places}")
    as_float32 = struct.unpack(">f", struct.pack(">f", number))[0]
    assert shortest_floats([as_float32]) == [number]


def test_the_extremes_have_a_short_form() -> None:
    largest = struct.unpack(">f", bytes.fromhex("7f7fffff"))[0]
    smallest = struct.unpack(">f", bytes.fromhex("00000001"))[0]
    assert shortest_floats([largest, smallest, -0.0, 23.399999618530273]) == [3.4028235e38, 1.4013e-45, 0.0, 23.4]


def test_floats_without_a_shortest_form_keep_all_their_digits() -> None:
    data = struct.pack(">f", 23.4)
    assert one(data, "float32", shortest=True) == (23.4, None)
    assert one(data, "float32") == (23.399999618530273, None)


def test_unchanged_floats_keep_their_form_while_others_change() -> None:
    decoder = RegisterDecoder([Field(f"f{index}", 2 * index, "float32", shortest=True) for index in range(3)])
    assert decoder.decode(struct.pack(">3f", 1.1, 2.2, 3.3))[0] == [1.1, 2.2, 3.3]
    assert decoder.decode(struct.pack(">3f", 1.1, float("inf"), 3.4)) == ([1.1, None, 3.4], {"f1": "bad:invalid"})
    assert decoder.decode(struct.pack(">3f", 1.1, 2.3, 3.4)) == ([1.1, 2.3, 3.4], {})


# -- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"LOT-42\0\0", "ascii", ("LOT-42", None)),
        (b"LOT-42  ", "ascii", ("LOT-42", None)),
        (b"  LOT-42", "ascii", ("LOT-42", None)),
        (b"LOT-42\r\n", "ascii", ("LOT-42", None)),
        (b"LOT\0OLD!", "ascii", ("LOT", None)),
        (b"LOT\0\xff\xff\xff\xff", "utf-8", ("LOT", None)),
        (b"\0\0\0\0\0\0\0\0", "utf-8", ("", None)),
        (b"        ", "utf-8", ("", None)),
        (b"\0L\0O\0T\0\0", "ascii", (None, "bad:decode")),
        (b"\x10\x06LOT-42", "ascii", (None, "bad:decode")),
        (b"01\x1d17\x1d99", "ascii", ("01\x1d17\x1d99", None)),
        (b"LOT\x0742\0\0", "ascii", (None, "bad:decode")),
        (b"LOT\x8542\0\0", "latin-1", (None, "bad:decode")),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", "utf-8", (None, "bad:decode")),
        (b"caf\xe9\0\0\0\0", "ascii", (None, "bad:decode")),
        (b"caf\xe9\0\0\0\0", "latin-1", ("café", None)),
        ("三号冲床".encode("gbk"), "gbk", ("三号冲床", None)),
        ("三号\0\0\0\0".encode("gb18030"), "gb18030", ("三号", None)),
        ("三号\0".encode() + b"\xe5", "utf-8", ("三号", None)),
        ("三号".encode("utf-16-be") + bytes(4), "utf-16-be", ("三号", None)),
    ],
)
def test_texts(data: bytes, encoding: str, expected: tuple[Value, str | None]) -> None:
    assert len(data) == 8
    assert one(data, "string", length=4, encoding=encoding) == expected


@given(st.text(max_size=20))
@settings(max_examples=150)
def test_a_text_has_no_nul_and_can_be_published(text: str) -> None:
    cleaned, reason = clean_text(text)
    assert (cleaned is None) == (reason is not None)
    if isinstance(cleaned, str):
        assert "\0" not in cleaned
        assert not cleaned.endswith(" ")


# -- coils ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=2000), st.data())
@settings(max_examples=60)
def test_bits_are_packed_from_the_least_on(bits: list[bool], data: st.DataObject) -> None:
    packed = bytearray((len(bits) + 7) // 8)
    for index, bit in enumerate(bits):
        packed[index // 8] |= bit << index % 8
    picks = data.draw(st.lists(st.integers(0, len(bits) - 1), min_size=1, max_size=20))
    decoder = BitDecoder([(f"t{index}", at) for index, at in enumerate(picks)])
    for _ in range(2):
        values, bad = decoder.decode(bytes(packed))
        assert (list(values), bad) == ([bits[at] for at in picks], {})


def test_an_infinity_that_stays_while_others_change_keeps_its_quality() -> None:
    decoder = RegisterDecoder([Field("a", 0, "float32", shortest=True), Field("b", 2, "float32", shortest=True)])
    infinity, one, two = (struct.pack(">f", number) for number in (math.inf, 1.0, 2.0))
    for data, b in ((infinity + one, 1.0), (infinity + two, 2.0)):
        values, bad = decoder.decode(data)
        assert (list(values), dict(bad)) == ([None, b], {"a": "bad:invalid"})
