"""Addresses in the makers' notations: where they lie, what is refused, and that plans respect the maps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.modbus import TYPE
from collectors.modbus.address import AddressError, NotSupportedYet
from collectors.modbus.brands import BRAND_NAMES, BRANDS, Range
from collectors.modbus.config import ModbusConfig
from collectors.modbus.layout import blocks_of
from collectors.modbus.notation import locate


def device(brand: object, *tags: dict[str, object], **keys: object) -> ModbusConfig:
    named = [{"name": f"t{index}", **tag} for index, tag in enumerate(tags)]
    return ModbusConfig.model_validate(
        {"name": "d", "type": "modbus", "url": "tcp://10.0.0.1", "brand": brand, "tags": named, **keys}
    )


def refusals(brand: object, *tags: dict[str, object]) -> list[tuple[tuple[object, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        device(brand, *tags)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("brand", "text", "where"),
    [
        ("inovance-h3u", "D100", "holding:100"),
        ("inovance-h3u", "d100", "holding:100"),
        ("inovance-h3u", "D100.10", "holding:100.10"),
        ("inovance-h3u", "R0", "holding:12288"),
        ("inovance-h3u", "SD0", "holding:9216"),
        ("inovance-h3u", "T0", "holding:61440"),
        ("inovance-h3u", "C199", "holding:62663"),
        ("inovance-h3u", "C200", "holding:63232"),
        ("inovance-h3u", "C201", "holding:63234"),
        ("inovance-h3u", "M8", "coil:8"),
        ("inovance-h3u", "M8000", "coil:8000"),
        ("inovance-h5u", "S0", "coil:57344"),
        ("inovance-h5u", "B0", "coil:12288"),
        ("inovance-h5u", "X17", "coil:63503"),
        ("inovance-h5u", "X1777", "coil:64511"),
        ("inovance-h5u", "Y7", "coil:64519"),
        ("inovance-h5u", "Y10", "coil:64520"),
        ("inovance-am", "%MW10", "holding:10"),
        ("inovance-am", "%MD10", "holding:20"),
        ("inovance-am", "%MB20", "holding:10"),
        ("inovance-am", "%MX20.3", "holding:10.3"),
        ("inovance-am", "%MX21.3", "holding:10.11"),
        ("inovance-am", "%QX1.2", "coil:10"),
        ("inovance-am", "%ix0.7", "discrete:7"),
        ("inovance-am", "%MW10.12", "holding:10.12"),
        ("xinje-xd", "D0", "holding:0"),
        ("xinje-xd", "HD0", "holding:41088"),
        ("xinje-xd", "SD10", "holding:28682"),
        ("xinje-xd", "TD0", "holding:32768"),
        ("xinje-xd", "CD0", "holding:36864"),
        ("xinje-xd", "X0", "coil:20480"),
        ("xinje-xd", "Y10", "coil:24584"),
        ("xinje-xd", "HM0", "coil:49408"),
        ("xinje-xc", "X0", "coil:16384"),
        ("xinje-xc", "Y0", "coil:18432"),
        ("xinje-xc", "D8000", "holding:16384"),
        ("xinje-xc", "TD0", "holding:12288"),
        ("xinje-xc", "CD634", "holding:14970"),
        ("xinje-xc", "FD5000", "holding:23432"),
        ("xinje-xc", "FD8511", "holding:27135"),
        ("xinje-xc", "X1037", "coil:16927"),
        ("xinje-xc", "S1023", "coil:21503"),
        ("xinje-xc", "M8511", "coil:25087"),
        ("xinje-xc", "T618", "coil:26218"),
        ("xinje-xc", "C634", "coil:28282"),
        ("xinje-xd", "HSD1023", "holding:48255"),
        ("xinje-xd", "FD8191", "holding:58559"),
        ("xinje-xd", "Y20", "coil:24592"),
        ("delta-dvp", "D0", "holding:4096"),
        ("delta-dvp", "D4095", "holding:8191"),
        ("delta-dvp", "D4096", "holding:36864"),
        ("delta-dvp", "M0", "coil:2048"),
        ("delta-dvp", "M1535", "coil:3583"),
        ("delta-dvp", "M1536", "coil:45056"),
        ("delta-dvp", "X10", "discrete:1032"),
        ("delta-dvp", "Y0", "coil:1280"),
        ("delta-dvp", "T0", "holding:1536"),
        ("delta-dvp", "C0", "holding:3584"),
        ("delta-dvp", "C200", "holding:1792"),
        ("siemens-s7-200-smart", "VW100", "holding:50"),
        ("siemens-s7-200-smart", "VD100", "holding:50"),
        ("siemens-s7-200-smart", "VB100", "holding:50"),
        ("siemens-s7-200-smart", "V0.1", "holding:0.9"),
        ("siemens-s7-200-smart", "V1.1", "holding:0.1"),
        ("siemens-s7-200-smart", "AIW2", "input:1"),
        ("siemens-s7-200-smart", "Q1.2", "coil:10"),
        ("siemens-s7-200-smart", "I0.7", "discrete:7"),
        ("schneider", "%MW10", "holding:10"),
        ("schneider", "%MW10.3", "holding:10.3"),
        ("schneider", "%MW10:X3", "holding:10.3"),
        ("schneider", "%MX20.3", "holding:10.3"),
        ("schneider", "%M5", "coil:5"),
        ("mitsubishi-fx5", "D100", "holding:100"),
        ("mitsubishi-fx5", "D100.A", "holding:100.10"),
        ("mitsubishi-fx5", "X10", "discrete:8"),
        ("mitsubishi-fx5", "Y10", "coil:8"),
        ("mitsubishi-fx5", "M0", "coil:8192"),
        ("mitsubishi-fx5", "40001", "holding:0"),
        ("delta-dvp", "40010.10", "holding:9.10"),
        ("delta-dvp", "holding:9.1", "holding:9.1"),
    ],
)
def test_places(brand: str, text: str, where: str) -> None:
    assert str(locate(text, brand).address) == where


@pytest.mark.parametrize(
    ("brand", "text", "says"),
    [
        ("inovance-h5u", "D8000", "out of range: Inovance H5U and Easy has D0 to D7999"),
        ("inovance-h3u", "M7680", "M0 to M7679 and M8000 to M8511"),
        ("inovance-h5u", "X18", "counts in octal on Inovance H5U and Easy: there is no 18; after X7 comes X10"),
        ("inovance-h5u", "X2000", "X0 to X1777"),
        ("inovance-h5u", "HD0", "it has M, B, S, X, Y, D, R"),
        ("inovance-h3u", "D100.16", "bits 0 to 15"),
        ("inovance-h3u", "D100.A", "written 0 to 15"),
        ("inovance-h3u", "M8.1", "one bit already"),
        ("inovance-h3u", "C200.1", "32 bits wide"),
        ("inovance-am", "%MX20.8", "bits 0 to 7"),
        ("inovance-am", "%MD32768", "out of range"),
        ("inovance-am", "%MB21", "high byte of %MW10"),
        ("inovance-am", "D100", "expected %MW10"),
        ("delta-dvp", "D12000", "D0 to D4095 and D4096 to D11999"),
        ("delta-dvp", "M4096", "M1536 to M4095"),
        ("siemens-s7-200-smart", "VW101", "middle of a register"),
        ("siemens-s7-200-smart", "VB101", "low byte of VW100"),
        ("siemens-s7-200-smart", "VW30000", "out of range"),
        ("siemens-s7-200-smart", "AIW1", "even"),
        ("siemens-s7-200-smart", "V0.8", "bits 0 to 7"),
        ("siemens-s7-200-smart", "Q32.0", "Q0.0 to Q31.7"),
        ("schneider", "%MD10", "%MW10 and %MW11 in M221, M340 and M580, and %MW20 and %MW21 in M241"),
        ("schneider", "%QX0.0", "expected %MW10"),
        ("schneider", "100", "holding:100"),
        ("mitsubishi-fx5", "D8000", "D0 to D7999"),
    ],
)
def test_what_the_maker_does_not_name_is_refused(brand: str, text: str, says: str) -> None:
    with pytest.raises(AddressError) as caught:
        locate(text, brand)
    assert says in str(caught.value)


def test_without_a_brand_the_makers_are_named() -> None:
    with pytest.raises(NotSupportedYet, match=r"brand: on the device .*delta-dvp"):
        locate("D100")


def test_hold_start_moves_v_memory() -> None:
    config = device({"name": "siemens-s7-200-smart", "hold_start": "&VB1000"}, {"address": "VW1000", "type": "int16"})
    assert str(config.tags[0].where) == "holding:0"
    assert config.max_registers == 120
    (error,) = refusals({"name": "siemens-s7-200-smart", "hold_start": 1000}, {"address": "VW100", "type": "int16"})
    assert error[0] == ("tags", 0, "address")
    assert "VB1000 (hold_start)" in error[1]
    assert "only Siemens" in refusals({"name": "schneider", "hold_start": 2}, {"address": "%M0"})[0][1]


def test_word_order_and_limit_are_the_makers_unless_written() -> None:
    tag: dict[str, object] = {"address": "D100", "type": "float32"}
    assert device("delta-dvp", tag).word_order == "CDAB"
    assert device("delta-dvp", tag, word_order="ABCD").word_order == "ABCD"
    assert device("siemens-s7-200-smart", {"address": "VD0", "type": "int32"}).word_order == "ABCD"
    assert device(None, {"address": "40001", "type": "int16"}).word_order == "ABCD"


def test_a_timer_is_its_value_or_its_contact() -> None:
    config = device(
        "delta-dvp", {"address": "T3", "type": "uint16"}, {"address": "T3"}, {"address": "C3", "type": "bool"}
    )
    assert [str(tag.where) for tag in config.tags] == ["holding:1539", "coil:1539", "coil:3587"]
    assert config.tags[1].json_type == "boolean"


@pytest.mark.parametrize(
    ("brand", "tag", "key", "says"),
    [
        ("delta-dvp", {"address": "D4095", "type": "float32"}, "address", "what follows D4095 lies elsewhere"),
        ("delta-dvp", {"address": "C200", "type": "int16"}, "type", "32 bits wide: int32, uint32, float32"),
        ("inovance-am", {"address": "%MD1", "type": "uint16"}, "type", "32 bits wide"),
        ("siemens-s7-200-smart", {"address": "VB100", "type": "int16"}, "address", "one byte"),
        ("delta-dvp", {"address": "D100"}, "address", "registers need a type"),
        ("delta-dvp", {"address": "D10000000", "type": "int16"}, "address", "out of range"),
    ],
)
def test_types_fit_the_element(brand: str, tag: dict[str, object], key: str, says: str) -> None:
    ((loc, message),) = refusals(brand, tag)
    assert loc == ("tags", 0, key)
    assert says in message


def test_an_unknown_brand_is_the_only_mistake() -> None:
    ((loc, *_), *others) = refusals("invance", {"address": "D100", "type": "int16"}, {"address": "X8"})
    assert loc[0] == "brand"
    assert all(other[0][0] == "brand" for other in others)


def test_no_request_crosses_from_one_stretch_of_the_map_to_another() -> None:
    config = device(
        "delta-dvp",
        {"address": "D4090", "type": "int16"}, {"address": "D4096", "type": "int16"},
        {"address": "M1535"}, {"address": "M1536"}, {"address": "C199", "type": "int16"},
        max_gap=2000,
    )  # fmt: skip
    shown = [str(block) for block in blocks_of(config, frozenset({"1s"}))]
    assert shown == [
        "coil 3583 (1 bit)", "coil 45056 (1 bit)", "holding 3783 (1 register)", "holding 8186 (1 register)",
        "holding 36864 (1 register)",
    ]  # fmt: skip
    contiguous = device("delta-dvp", {"address": "T255"}, {"address": "M0"}, max_gap=2000)
    assert len(blocks_of(contiguous, frozenset({"1s"}))) == 2
    together = device("delta-dvp", {"address": "X377"}, {"address": "S1023"}, {"address": "Y0"}, max_gap=2000)
    assert len(blocks_of(together, frozenset({"1s"}))) == 3
    next_door = device("xinje-xd", {"address": "S0"}, {"address": "S8"}, max_gap=8)
    assert len(blocks_of(next_door, frozenset({"1s"}))) == 1
    stretches = device("delta-dvp", {"address": "Y377"}, {"address": "T0"}, max_gap=2000)
    assert [str(block) for block in blocks_of(stretches, frozenset({"1s"}))] == ["coil 1535..1536 (2 bits)"]


def test_explain_shows_place_and_note() -> None:
    explained = TYPE.explain(device("mitsubishi-fx5", {"address": "D7", "type": "float32"}, {"address": "X17"}))
    assert [(tag.area, tag.offset, tag.order) for tag in explained.tags] == [
        ("holding", 7, "CDAB"),
        ("discrete", 15, None),
    ]
    assert "general knowledge" in explained.tags[0].note
    assert "initial value" in explained.notes[0]


@pytest.mark.parametrize("brand", BRAND_NAMES)
def test_the_map_of_a_brand_has_no_overlap(brand: str) -> None:
    ranges = sorted(BRANDS[brand].ranges, key=lambda one: (one.area, one.offset))
    for one, following in pairwise(ranges):
        assert one.area != following.area or one.end <= following.offset, (one, following)
    assert all(one.end <= 65536 for one in ranges)


ranges = st.sampled_from([(brand, one) for brand in BRAND_NAMES for one in BRANDS[brand].ranges])


@given(ranges, st.data())
@settings(max_examples=200)
def test_every_element_of_every_range_lies_where_the_table_says(pair: tuple[str, Range], data: st.DataObject) -> None:
    brand, one = pair
    number = data.draw(st.integers(one.first, one.last))
    place = locate(one.shown(number), brand)
    if one.registers or one.symbol not in {"T", "C"}:
        assert place.address.area == one.area
        assert place.address.offset == one.offset + (number - one.first) * max(1, one.registers)
        assert place.end == one.end
    assert place.region > 0


@given(st.sampled_from(BRAND_NAMES), st.from_regex(r"%?[A-Z]{1,3}[0-9]{1,6}([.:]X?[0-9A-F]{1,2})?", fullmatch=True))
@settings(max_examples=200)
def test_any_text_has_a_place_on_the_wire_or_is_refused(brand: str, text: str) -> None:
    try:
        place = locate(text, brand)
    except AddressError:
        return
    assert 0 <= place.address.offset <= 65535
    assert place.address.bit is None or 0 <= place.address.bit <= 15
    assert place.address.offset < place.end
