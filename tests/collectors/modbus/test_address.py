from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.modbus.address import AREAS, Address, AddressError, NotSupportedYet, parse_address

FIRST_DIGIT = {"coil": "0", "discrete": "1", "input": "3", "holding": "4"}


@pytest.mark.parametrize(
    ("text", "area", "offset", "bit"),
    [
        ("40001", "holding", 0, None),
        ("400001", "holding", 0, None),
        ("49999", "holding", 9998, None),
        ("465536", "holding", 65535, None),
        ("30010", "input", 9, None),
        ("300010", "input", 9, None),
        ("10001", "discrete", 0, None),
        ("00001", "coil", 0, None),
        ("000001", "coil", 0, None),
        ("065536", "coil", 65535, None),
        ("40010.1", "holding", 9, 1),
        ("40010.10", "holding", 9, 10),
        ("40010.01", "holding", 9, 1),
        ("coil:0", "coil", 0, None),
        ("discrete:7", "discrete", 7, None),
        ("input:0x1F", "input", 31, None),
        ("input:1FH", "input", 31, None),
        ("holding:2006h.3", "holding", 0x2006, 3),
        ("holding:0X10.15", "holding", 16, 15),
        ("Holding:100", "holding", 100, None),
        (" holding : 100 ", "holding", 100, None),
        ("holding:40001", "holding", 40001, None),
        ("holding:65535", "holding", 65535, None),
    ],
)
def test_forms(text: str, area: str, offset: int, bit: int | None) -> None:
    assert parse_address(text) == Address(area, offset, bit)  # type: ignore[arg-type]  # areas as plain text


@pytest.mark.parametrize(
    "text", ["D100", "VW100", "%MW10", "HD0", "X17", "%MX10.3", "M8000", "SM0.1", "HSD12", "%IX0.0"]
)
def test_notations_of_makers_come_later(text: str) -> None:
    with pytest.raises(NotSupportedYet, match="not supported yet"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("100", ("holding:100", "40100", "holding:99")),
        ("1", ("holding:1)", "40001", "holding:0")),
        ("0", ("holding:0",)),
        ("0x64", ("holding:0x64", "40100", "holding:99")),
        ("20001", ("holding:20001", "420001", "holding:20000")),
        ("012", ("holding:012", "40012")),
        ("100.3", ("holding:100.3", "40100.3", "holding:99.3")),
        ("65536", ("465536", "holding:65535")),
        ("2006H", ("holding:0x2006", "48198", "holding:8197")),
        ("H2006", ("holding:0x2006", "48198", "holding:8197")),
        ("&h2006", ("holding:0x2006", "48198", "holding:8197")),
        ("00FFh.3", ("holding:0x00FF.3", "40255.3", "holding:254.3")),
        ("0x0020", ("holding:0x0020", "40032", "holding:31", "00020", "coil:19", "coil:20")),
        ("4x0001", ("40001", "holding:0", "holding:1)")),
        ("4X100.3", ("40100.3", "holding:99.3", "holding:100.3)")),
        ("3x7", ("30007", "input:6", "input:7)")),
        ("1x0", ("discrete:0)",)),
    ],
)
def test_a_bare_number_is_refused_with_both_readings(text: str, readings: tuple[str, ...]) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert not isinstance(caught.value, NotSupportedYet)
    for reading in readings:
        assert reading in str(caught.value)
        parse_address(reading.rstrip(")"))


@pytest.mark.parametrize("text", ["40020-40021", "40020~40021", "40020～40021", "40020..40021", "40020 - 21"])
def test_a_range_is_written_as_its_first_register(text: str) -> None:
    with pytest.raises(AddressError, match=r"write the first register, 40020; the type tells how many follow"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("40000", "count from 1"),
        ("000000", "count from 1: the first is 000001"),
        ("465537", "past the last"),
        ("holding:65536", "past the last"),
        ("70000", "past the last"),
        ("40001.16", "0 to 15"),
        ("40001.001", "0 to 15"),
        ("coil:1.0", "one bit already"),
        ("10001.3", "one bit already"),
        ("holdings:3", "did you mean holding:3"),
        ("memory:3", "unknown area"),
        ("holding:", "expected"),
        ("holding:-1", "expected"),
        ("", "expected"),
        ("４０００１", "expected"),
        ("40001,5", "expected"),
        ("4x70000", "past the last"),
        ("0x", "expected"),
        ("FFFFFh", "past the last"),
        ("H", "expected"),
        ("40001.", "expected"),
        ("temperature", "expected"),
        ("nsu=http://x;s=y", "expected"),
    ],
)
def test_what_is_no_address_is_said_to_be_none(text: str, says: str) -> None:
    with pytest.raises(AddressError, match=says):
        parse_address(text)


areas = st.sampled_from(AREAS)


@given(areas, st.integers(0, 65535), st.none() | st.integers(0, 15))
@settings(max_examples=200)
def test_all_notations_of_an_address_mean_the_same(area: str, offset: int, bit: int | None) -> None:
    bit = bit if area in {"input", "holding"} else None
    tail = "" if bit is None else f".{bit}"
    forms = [f"{area}:{offset}", f"{area}:0x{offset:X}", f"{FIRST_DIGIT[area]}{offset + 1:05d}"]
    if offset < 9999:
        forms.append(f"{FIRST_DIGIT[area]}{offset + 1:04d}")
    expected = Address(area, offset, bit)  # type: ignore[arg-type]  # areas as plain text
    assert {parse_address(form + tail) for form in forms} == {expected}
    assert parse_address(str(expected)) == expected


@given(st.text(max_size=20) | st.from_regex(r"[0-9a-zA-Z:%.]{1,12}", fullmatch=True))
@settings(max_examples=200)
def test_any_text_is_an_address_within_its_area_or_a_clear_refusal(text: str) -> None:
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert 0 <= address.offset <= 65535
    assert address.bit is None or 0 <= address.bit <= 15
