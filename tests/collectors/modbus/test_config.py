from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from collectors.modbus import TYPE
from collectors.modbus.config import ModbusConfig, parse_invalid
from collectors.modbus.layout import blocks_of

TAG = {"name": "t", "address": "40001", "type": "int16"}


def device(**keys: Any) -> ModbusConfig:
    return ModbusConfig.model_validate({"name": "d", "type": "modbus", "url": "tcp://plc", "tags": [TAG], **keys})


def with_tag(**keys: Any) -> ModbusConfig:
    return device(tags=[{"name": "t", **keys}])


def mistakes(call: Any, **keys: Any) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        call(**keys)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


def test_what_the_contract_shows_is_accepted() -> None:
    config = device(
        url="tcp://192.168.10.21:502",
        label="三号冲床",
        unit_id=1,
        word_order="ABCD",
        interval="1 s",
        max_registers=125,
        report={"heartbeat": "60 s"},
        tags=[
            {"name": "temperature", "address": "40001", "type": "float32", "unit": "Cel", "deadband": 0.2},
            {"name": "parts", "label": "产量", "address": "holding:100", "type": "uint32", "word_order": "CDAB",
             "interval": "5 s"},
            {"name": "running", "address": "coil:0"},
            {"name": "fault", "address": "40010.10"},
            {"name": "lot", "address": "holding:200", "type": "string", "length": 8, "encoding": "gbk"},
            {"name": "pressure", "address": "input:7", "type": "int16", "invalid": ["0x8000"], "scale": 0.1,
             "offset": -10, "decimals": 1, "min": 0, "max": 100},
            {"name": "mode", "address": "holding:30", "type": "uint16", "map": {0: "idle", 1: "running"}},
            {"name": "total", "address": "holding:300", "type": "uint64", "as": "string"},
        ],
    )  # fmt: skip
    assert config.groups() == {"1s": 1.0, "5s": 5.0}
    infos = {info.name: info for info in config.tag_infos()}
    assert {name: info.type for name, info in infos.items()} == {
        "temperature": "number", "parts": "number", "running": "boolean", "fault": "boolean", "lot": "string",
        "pressure": "number", "mode": "string", "total": "string",
    }  # fmt: skip
    assert infos["parts"].group == "5s"
    assert infos["fault"].source == "40010.10"
    assert infos["total"].wide
    assert infos["pressure"].rules.offset == -10


@pytest.mark.parametrize(
    ("url", "endpoint", "where"),
    [
        ("tcp://plc", ("plc", 502), "plc:502"),
        ("tcp://PLC:1502", ("plc", 1502), "plc:1502"),
        ("TCP://192.168.10.21/", ("192.168.10.21", 502), "192.168.10.21:502"),
        ("tcp://[fe80::1]:503", ("fe80::1", 503), "[fe80::1]:503"),
    ],
)
def test_addresses_of_devices(url: str, endpoint: tuple[str, int], where: str) -> None:
    config = device(url=url)
    assert ((config.endpoint.host, config.endpoint.port), config.where) == (endpoint, where)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("192.168.10.21:502", "did you mean tcp://192.168.10.21:502"),
        ("/dev/ttyUSB0", "did you mean serial:///dev/ttyUSB0"),
        ("serial://ttyUSB0", "three slashes"),
        ("serial:///dev/ttyUSB0?baudrate=9600", "keys beside it"),
        ("serial://COM3", "port of Windows"),
        ("rtu+tcp://10.0.0.1", "no usual port"),
        ("listen://0.0.0.0", "no usual port"),
        ("rtu://dev/ttyUSB0", "did you mean serial://"),
        ("ascii+tcp://10.0.0.1:4001", "not supported yet"),
        ("mqtt://plc", "not mqtt://"),
        ("tcp://", "expected tcp://"),
        ("tcp://plc:99999", "port from 1 to 65535"),
        ("tcp://plc:0", "expected tcp://"),
        ("tcp://plc:502/1", "unit goes into unit_id"),
        ("tcp://user@plc", "expected tcp://"),
        ("tcp://p lc", "expected tcp://"),
    ],
)
def test_other_urls_are_refused(url: str, says: str) -> None:
    [(loc, message)] = mistakes(device, url=url)
    assert loc == ("url",)
    assert says in message


@pytest.mark.parametrize(
    ("keys", "loc", "says"),
    [
        ({"address": "40001"}, "address", "registers need a type"),
        ({"address": "100", "type": "int16"}, "address", "holding:100"),
        ({"address": "D100", "type": "int16"}, "address", "name the maker with brand:"),
        ({"address": 40010.1, "type": "int16"}, "address", "quotes"),
        ({"address": "40001.16"}, "address", "0 to 15"),
        ({"address": "coil:0.1"}, "address", "one bit"),
        ({"address": "holding:65535", "type": "int32"}, "address", "past the last offset"),
        ({"address": "holding:65530", "type": "string", "length": 8}, "address", "ends at 65537"),
        ({"address": "40001.3", "type": "int16"}, "type", "leave the type out"),
        ({"address": "coil:0", "type": "uint16"}, "type", "leave the type out"),
        ({"address": "coil:0", "word_order": "CDAB"}, "word_order", "no bytes"),
        ({"address": "coil:0", "invalid": "0x1"}, "invalid", "no invalid"),
        ({"address": "40001", "type": "string"}, "type", "length in registers"),
        ({"address": "40001", "type": "string", "length": 126}, "length", "125"),
        ({"address": "40001", "type": "string", "length": 4, "scale": 2.0}, "scale", "no scale"),
        ({"address": "40001", "type": "string", "length": 4, "encoding": "gbx"}, "encoding", "gb18030"),
        ({"address": "40001", "type": "string", "length": 4, "encoding": "hex"}, "encoding", "unknown"),
        ({"address": "40001", "type": "int16", "length": 4}, "length", "only a string"),
        ({"address": "40001", "type": "int16", "encoding": "gbk"}, "encoding", "only a string"),
        ({"address": "40001", "type": "int16", "as": "string"}, "as", "int64"),
        ({"address": "40001", "type": "real"}, "type", "float32"),
        ({"address": "40001", "type": "int16", "interval": "1 ms"}, "interval", "10 ms"),
        ({"address": "40001", "type": "int16", "interval": "fast"}, "interval", "duration"),
    ],
)
def test_a_mistake_in_a_tag_is_told_at_its_key(keys: dict[str, Any], loc: str, says: str) -> None:
    found = mistakes(with_tag, **keys)
    assert ("tags", 0, loc) in [where for where, _ in found]
    assert any(says in message for _, message in found)


@pytest.mark.parametrize(
    ("type_", "item", "says"),
    [
        ("int16", "0x18000", "wider than the 16 bits"),
        ("int16", "65535", "written 0xFFFF, the number -1"),
        ("int16", 40000, "never is this number"),
        ("uint16", "-1", "never"),
        ("int16", "1.5", "never"),
        ("bcd16", "10000", "never"),
        ("float32", "1e39", "never"),
        ("bool", "1", "no invalid value"),
        ("int16", "NaN", "bit pattern in hex"),
        ("int16", "0xZZ", "bit pattern in hex"),
        ("int16", None, "bit pattern in hex"),
    ],
)
def test_an_invalid_that_does_not_fit(type_: str, item: object, says: str) -> None:
    [(loc, message)] = mistakes(with_tag, address="40001", type=type_, invalid=["0x7", item])[-1:]
    assert loc == ("tags", 0, "invalid", 1)
    assert says in message


def test_hex_is_a_bit_pattern_and_all_else_a_number() -> None:
    assert parse_invalid("0x8000").pattern == 0x8000
    assert [parse_invalid(item).number for item in ("-1", "1.5", "1e3", -1, 2.5)] == [-1, 1.5, 1000, -1, 2.5]
    assert with_tag(address="40001", type="int16", invalid="0x8000").tags[0].invalid == ["0x8000"]


def test_all_mistakes_come_at_once() -> None:
    found = mistakes(
        device,
        unit_id=256,
        max_gap=-1,
        tags=[
            TAG,
            {"name": "a", "address": "40001"},
            {"name": "b", "address": "40001", "type": "string", "scale": 1.0},
        ],
    )
    assert [loc for loc, _ in found] == [
        ("unit_id",), ("max_gap",), ("tags", 1, "address"), ("tags", 2, "type"), ("tags", 2, "scale"),
    ]  # fmt: skip


def test_a_value_is_never_put_together_from_two_requests() -> None:
    tags = [TAG, {"name": "b", "address": "40002", "type": "int64"},
            {"name": "s", "address": "40010", "type": "string", "length": 5}]  # fmt: skip
    found = mistakes(device, max_registers=3, tags=tags)
    assert [loc for loc, _ in found] == [("tags", 1, "type"), ("tags", 2, "length")]


def test_keys_of_later_versions_are_known() -> None:
    assert {"expect", "hours", "off"} <= {
        key for model in ModbusConfig.__mro__ if hasattr(model, "unsupported") for key in model.unsupported()
    }


def test_what_will_be_read_and_what_it_costs() -> None:
    config = device(
        interval="500 ms",
        tags=[
            {"name": "a", "address": "holding:0", "type": "int32", "word_order": "CDAB"},
            {"name": "b", "address": "holding:9", "type": "int16"},
            {"name": "c", "address": "holding:20", "type": "int16", "interval": "10 s"},
            {"name": "bit", "address": "40010.10"},
            {"name": "coil", "address": "00011"},
        ],
    )
    explanation = TYPE.explain(config)
    assert list(explanation.requests) == [
        "coil 10 (1 bit) every 500ms",
        "holding 0..9 (10 registers) every 500ms",
        "holding 20 (1 register) every 10s",
    ]
    rows = {row.tag: (row.area, row.offset, row.bit, row.type, row.order, row.group) for row in explanation.tags}
    assert rows["a"] == ("holding", 0, None, "int32", "CDAB", "500ms")
    assert rows["bit"] == ("holding", 9, 10, "bool", "ABCD", "500ms")
    assert rows["coil"] == ("coil", 10, None, "bool", None, "500ms")
    cost = TYPE.estimate(config)
    assert cost.requests_per_s == pytest.approx(4.1)
    assert cost.messages_per_s == pytest.approx(2.1)
    assert cost.values_per_message == pytest.approx((4 * 2 + 0.1) / 2.1)
    assert cost.line == "tcp://plc:502"
    assert len(blocks_of(config, frozenset({"500ms", "10s"}))) == 3


def test_reports_are_estimated_by_their_heartbeat() -> None:
    assert TYPE.estimate(device(report={"heartbeat": "50 s"})).messages_per_s == pytest.approx(0.02)


def test_two_thousand_tags_validate_quickly() -> None:
    tags = [{"name": f"t{index}", "address": f"holding:{2 * index}", "type": "float32"} for index in range(2000)]
    assert len(blocks_of(device(tags=tags), frozenset({"1s"}))) == 33


def test_values_that_share_registers_are_noted() -> None:
    tags = [
        {"name": "a", "address": "40030", "type": "float32"},
        {"name": "b", "address": "40031", "type": "float32"},
        {"name": "word", "address": "40040", "type": "uint16"},
        {"name": "bit", "address": "40040.3"},
        {"name": "same", "address": "40040", "type": "int16"},
        {"name": "text", "address": "input:0", "type": "string", "length": 10},
        {"name": "within", "address": "input:4", "type": "uint16"},
        {"name": "behind", "address": "input:10", "type": "uint16"},
    ]
    config = TYPE.config_model.model_validate({"name": "d", "type": "modbus", "url": "tcp://h", "tags": tags})
    shared = {tag.tag: tag.note.rpartition("with ")[2] for tag in TYPE.explain(config).tags if "shares" in tag.note}
    assert shared == {"a": "b", "b": "a", "text": "within", "within": "text"}
