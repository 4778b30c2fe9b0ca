"""Tag lists: what becomes of a table, what a spreadsheet does to it, what broken ones print, and the way back."""

from __future__ import annotations

import gc
import io
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.cli import main
from agent.commission import tags as tags_command
from agent.config import AgentConfig, Loaded, load
from agent.grid import Cell, fold, letters
from agent.tag_cells import CellError, format_map, order_name, parse_list, parse_map, type_name
from collectors.modbus.config import ModbusConfig
from collectors.opcua.config import OpcuaConfig

openpyxl = pytest.importorskip("openpyxl")

HEAD = "site: plant\ngateway: gw-1\nmqtt: {url: 'mqtts://broker'}\ndevices:\n"
PRESS = HEAD + "  - {name: press, type: modbus, url: 'tcp://10.0.0.1', report: {}, tags_file: %s}\n"
CNC = HEAD + "  - {name: cnc, type: opcua, url: 'opc.tcp://10.0.0.1', security: {policy: None}, tags_file: %s}\n"


def load_list(
    directory: Path, content: bytes | str, name: str = "list.csv", config: str = PRESS, ref: str = ""
) -> Loaded:
    data = content.encode() if isinstance(content, str) else content
    (directory / name).write_bytes(data)
    file = directory / "agent.yaml"
    file.write_text(config % (ref or name), encoding="utf-8")
    return load(file)


def device(loaded: Loaded) -> Any:
    assert not loaded.mistakes, "\n".join(map(str, loaded.mistakes))
    assert loaded.config is not None
    return loaded.config.devices[0]


def tags_of(loaded: Loaded) -> dict[str, Any]:
    return {tag.name: tag for tag in device(loaded).tags}


def workbook(
    sheets: dict[str, list[list[Any]]], formats: dict[str, str] | None = None, merge: tuple[str, ...] = ()
) -> bytes:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    first = book.worksheets[0]
    for place, form in (formats or {}).items():
        first[place].number_format = form
    for cells in merge:
        first.merge_cells(cells)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


CHINESE = (
    "三号冲床点表\n序号,变量名,寄存器地址,数据类型,读写,单位,倍率,采集周期(ms),状态说明,备注\n"
    "1,油温,40001,REAL,R,℃,,1000,,\n2,产量,４０１０１,无符号32位整数,R,件,-,5000,,总产量\n"
    '3,mode,holding：30,WORD,R,,,,"0:停止，1:运行",\n4,故障,40010.10,BOOL,R/W,,,,,\n'
)


def test_a_chinese_list(tmp_path: Path) -> None:
    tags = tags_of(load_list(tmp_path, CHINESE))
    assert list(tags) == ["40001", "40101", "mode", "40010.10"]
    assert (tags["40001"].label, tags["40001"].type, tags["40001"].interval) == ("油温", "float32", 1.0)
    assert (tags["40101"].address, tags["40101"].type, tags["40101"].description) == ("40101", "uint32", "总产量")
    assert tags["mode"].map == {0: "停止", 1: "运行"}
    assert str(tags["40010.10"].where) == "holding:9.10"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_and_delimiters(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = '名称,地址,类型,备注\r\n油温,40001,int16,甲\r\n"a""b，c",40002,int16,\r\n'.replace(",", delimiter)
    text = text.replace('"a""b', '"压""力')
    tags = tags_of(load_list(tmp_path, text.encode(encoding)))
    assert [(tag.label, tag.description) for tag in tags.values()] == [("油温", "甲"), ('压"力，c', None)]


def test_headings_over_two_rows_in_csv_and_workbook(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["点位", None, "数据类型", "量程", None, "单位"],
        ["名称", "地址", None, "下限", "上限", None],
        ["a", "40001", "int16", 0, 100.5, "bar"],
    ]
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows)
    data = workbook({"S": rows}, merge=("A1:B1", "C1:C2", "D1:E1", "F1:F2"))
    for loaded in (load_list(tmp_path, text), load_list(tmp_path, data, "list.xlsx")):
        tag = tags_of(loaded)["a"]
        assert (tag.address, tag.min, tag.max, tag.unit) == ("40001", 0, 100.5, "bar")


def test_headings_of_several_columns_may_be_any_words_where_nothing_hangs_on_them(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["注塑机通讯地址表 V1.2"],
        ["序号", "机台一", None, None, "工程量设置", None, None, "说明"],
        [None, "名称", "地址(十进制)", "类型", "单位", "倍率", "量程(下限)", None],
        [1, "料筒一段", 40001.0, "16位有符号", "℃", 0.1, 0, "加热"],
    ]
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows).replace(
        "40001.0", "40001"
    )
    data = workbook({"S": rows}, merge=("A1:H1", "A2:A3", "B2:D2", "E2:G2", "H2:H3"))
    for loaded in (load_list(tmp_path, text), load_list(tmp_path, data, "list.xlsx")):
        tag = tags_of(loaded)["40001"]
        assert (tag.label, tag.type, tag.unit, tag.scale, tag.min) == ("料筒一段", "int16", "℃", 0.1, 0)
        assert tag.description == "加热"


def test_what_is_to_be_done_with_the_number_is_not_lost_in_brackets(tmp_path: Path) -> None:
    (mistake,) = load_list(tmp_path, "名称,地址,类型,倍率(除以)\na,40001,int16,10\n").mistakes
    assert (mistake.line, mistake.column) == (1, 4)
    assert "unknown heading '倍率(除以)'" in mistake.message


def test_texts_of_a_map_may_stand_behind_a_hyphen() -> None:
    assert parse_map("0-停止；1 － 运行;-1—故障") == [("0", "停止"), ("1", "运行"), ("-1", "故障")]
    with pytest.raises(CellError):
        parse_map("0-5")


def test_a_row_with_a_single_cell_is_a_heading_of_the_rows_below(tmp_path: Path) -> None:
    text = "名称,地址,类型\n一号线,,\na,40001,int16\n备注：地址以PLC程序V2.3为准,,\n,40002,int16\n"
    assert list(tags_of(load_list(tmp_path, text))) == ["a", "40002"]
    (mistake,) = load_list(tmp_path, "名称,地址,类型\na,40001,int16\n备用,,int16\n").mistakes
    assert (mistake.line, "'备用' has no address" in mistake.message) == (3, True)


def test_alarm_limits_are_no_limits_of_the_value(tmp_path: Path) -> None:
    loaded = load_list(tmp_path, "名称,地址,类型,报警,\n,,,下限,上限\na,40001,int16,1,2\n")
    assert [str(one).partition("list.csv:")[2] for one in loaded.mistakes] == [
        f"2:{column}: devices[press].tags_file: cell {letter}2: unknown heading '报警 {text}': a column whose heading"
        " begins with # is left out"
        for column, letter, text in ((4, "D", "下限"), (5, "E", "上限"))
    ]


def test_a_workbook_as_makers_hand_them_out(tmp_path: Path) -> None:
    data = workbook(
        {
            "点表": [
                ["三号冲床点表"], [], ["变量名称", "PLC地址", "数据类型", "单位", "系数", "#内部"],
                ["油温", 40001, "REAL", "℃", 0.1, "x"], ["温度信号"], ["产量", 40101, "DINT", "件", 1, None],
                ["# 备用", 40200, "INT"], ["bit10", 40010.1, "BOOL"], ["bit0", 40011, "BOOL"],
                ["bit5", 40010.5, "BOOL"],
            ],
            "报警": [["代码", "文本"], [1, "过载"]],
        },
        formats={"B8": "0.00", "B9": "0.0"}, merge=("A1:F1", "A5:F5"),
    )  # fmt: skip
    loaded = load_list(tmp_path, data, "list.xlsx", ref="list.xlsx#点表")
    tags = tags_of(loaded)
    assert {name: str(tag.where) for name, tag in tags.items()} == {
        "40001": "holding:0", "40101": "holding:100", "bit10": "holding:9.10", "bit0": "holding:10.0",
        "bit5": "holding:9.5",
    }  # fmt: skip
    assert tags["40001"].scale == 0.1
    again = load_list(tmp_path, data, "list.xlsx", ref="{file: list.xlsx, sheet: 点表}")
    assert device(again).tags == device(loaded).tags
    (mistake,) = load_list(tmp_path, data, "list.xlsx").mistakes
    assert "has several sheets (点表, 报警): choose one, as in {file: ..., sheet: 点表}" in mistake.message
    (mistake,) = load_list(tmp_path, data, "list.xlsx", ref="list.xlsx#X").mistakes
    assert "has no sheet 'X'; it has 点表, 报警" in mistake.message


@pytest.mark.parametrize(
    ("cell", "form", "says"),
    [
        (40010.1, "General", "40010.1 and 40010.10 are the same"),
        (40010.15, "0.0", None),
        (date(2026, 1, 2), "yyyy-mm-dd", "made a date"),
        ("=A1&B1", "General", "never calculated"),
        ("#REF!", "General", "the error #REF!"),
        (40010, "General", "bit 0 or the whole register?"),
        (True, "General", "expected an address"),
    ],
)
def test_what_a_spreadsheet_does_to_addresses(tmp_path: Path, cell: Any, form: str, says: str | None) -> None:
    data = workbook({"S": [["name", "address", "type"], ["a", cell, "bool"]]}, formats={"B2": form})
    loaded = load_list(tmp_path, data, "list.xlsx")
    if says is None:
        assert str(tags_of(loaded)["a"].where) == "holding:9.15"
        return
    (mistake,) = loaded.mistakes
    assert (mistake.line, mistake.column) == (2, 2)
    assert mistake.file.endswith("list.xlsx#S")
    assert "cell B2: " in mistake.message
    assert says in mistake.message


def test_without_openpyxl_it_is_said_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = workbook({"S": [["name", "address"], ["a", "coil:0"]]})
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (mistake,) = load_list(tmp_path, data, "list.xlsx").mistakes
    assert "pip install 'shopfloor-agent[xlsx]'" in mistake.message
    assert mistake.path == "devices[press].tags_file"


def test_lists_for_opcua(tmp_path: Path) -> None:
    text = '名称,节点,单位,死区\n主轴,"nsu=http://x/cnc;s=""Spindle"".""Speed""",r/min,5\ntemp,ns=2;i=7,,\n'
    config = device(load_list(tmp_path, text, config=CNC))
    assert isinstance(config, OpcuaConfig)
    assert [(tag.name, tag.label, tag.deadband) for tag in config.tags] == [
        ("Spindle_._Speed", "主轴", 5.0),
        ("temp", None, None),
    ]


def test_tags_beside_the_list_and_its_content_count(tmp_path: Path) -> None:
    both = PRESS.replace("tags_file", "tags: [{name: x, address: 'coil:1'}], tags_file")
    first = device(load_list(tmp_path, "name,address\na,coil:0\n", config=both))
    assert [tag.name for tag in first.tags] == ["x", "a"]
    second = load_list(tmp_path, "name,address\na,coil:2\n", config=both)
    assert first.fingerprint != device(second).fingerprint
    assert second.digest != load_list(tmp_path, "name,address\na,coil:3\n", config=both).digest
    (mistake,) = load_list(tmp_path, "name,address\nx,coil:0\n", config=both).mistakes
    assert str(mistake).endswith(
        "list.csv:2:1: devices[press].tags[x].name: cell A2: the name 'x' is taken already in this device, in line 5"
    )


def test_what_is_exported_keeps_its_zeros_in_a_spreadsheet(tmp_path: Path) -> None:
    text = "名称,地址,类型\n故障,40010.10,bool\n就绪,40010.0,bool\n门,00001,\n转速,40011,int16\n急停,40012.5,bool\n"
    before = device(load_list(tmp_path, text))
    exported = tags_command.as_csv(before)
    assert exported is not None
    assert [line.split(",")[0] for line in exported.splitlines()[1:]] == [
        "'40010.10", "'40010.0", "'00001", "40011", "40012.5",
    ]  # fmt: skip
    assert device(load_list(tmp_path, exported)).tags == before.tags


@pytest.mark.parametrize(("count_from", "offsets"), [(0, (0x2006, 0x2044, 3, 0, 11)), (1, (0x2005, 0x2043, 2, 0, 10))])
def test_a_column_of_function_codes_and_one_of_numbers(
    tmp_path: Path, count_from: int, offsets: tuple[int, ...]
) -> None:
    text = (
        "参数,功能码,寄存器地址,个数,类型,读写\nA相电压,03H,2006H,2,float,R\n频率,04,0x2044,2,float,R\n"
        f"运行,1,3,,,R\n报警,离散输入,{count_from},,,R\n故障,03/06,11.4,1,,R/W\n"
    )
    loaded = load_list(tmp_path, text, ref=f"{{file: list.csv, count_from: {count_from}}}")
    areas = ("holding", "input", "coil", "discrete", "holding")
    assert [(tag.where.area, tag.where.offset) for tag in device(loaded).tags] == list(zip(areas, offsets, strict=True))
    assert device(loaded).tags[-1].where.bit == 4
    assert device(load_list(tmp_path, tags_command.as_csv(device(loaded)) or "")).tags == device(loaded).tags


def test_numbers_of_a_list_without_areas_and_in_hex(tmp_path: Path) -> None:
    text = "名称,地址(十六进制),类型\na,10,int16\nb,1F,int16\nc,40010,int16\n"
    (mistake,) = load_list(tmp_path, text, ref="{file: list.csv, area: input, count_from: 0}").mistakes
    assert (mistake.line, mistake.column) == (4, 2)
    tags = tags_of(load_list(tmp_path, text.partition("c,")[0], ref="{file: list.csv, area: input, count_from: 0}"))
    assert [str(tag.where) for tag in tags.values()] == ["input:16", "input:31"]
    brand = PRESS.replace("report: {}", "report: {}, brand: inovance-h5u")
    mixed = "名称,功能码,地址,类型\na,3,D100,int16\nb,3,40010,int16\n"
    tags = tags_of(load_list(tmp_path, mixed, config=brand))
    assert [str(tag.where) for tag in tags.values()] == ["holding:100", "holding:9"]


def test_decimal_places_are_refused_until_told(tmp_path: Path) -> None:
    text = "名称,地址,类型,小数位,系数\na,40001,int16,2,\nb,40002,int16,1,0.5\nc,40003,int16,0,\n"
    (mistake,) = load_list(tmp_path, text).mistakes
    assert (mistake.line, mistake.column) == (1, 4)
    assert "{file: ..., decimals: rounds} or {file: ..., decimals: scales}" in mistake.message
    rounds = tags_of(load_list(tmp_path, text, ref="{file: list.csv, decimals: rounds}"))
    assert [(tag.decimals, tag.scale) for tag in rounds.values()] == [(2, None), (1, 0.5), (0, None)]
    scales = tags_of(load_list(tmp_path, text, ref="{file: list.csv, decimals: scales}"))
    assert [(tag.decimals, tag.scale) for tag in scales.values()] == [(None, 0.01), (None, 0.05), (None, None)]


# name: (list, what each line of the output has behind "list.csv:")
H = "name,address,type,scale,map,invalid,interval\n"
BROKEN: dict[str, tuple[str, list[str]]] = {
    "no headings": ("a,40001,int16\n", ["1:1: devices[press].tags_file: cell A1: no row of headings was found"]),
    "only headings": (H, ["1:1: devices[press].tags_file: cell A1: no tags stand below the headings"]),
    "unknown heading": (
        "name,address,厂家\na,coil:0,x\n",
        ["1:3: devices[press].tags_file: cell C1: unknown heading '厂家': a column whose heading begins with #"],
    ),
    "function code": (
        "名称,功能码,地址,类型\na,3,7,int16\nb,3,8,int16\n",
        ["1:3: devices[press].tags_file: cell C1: '地址': numbers may count from 0 or from 1, 7 is hold"],
    ),
    "function code that writes": (
        "名称,功能码,地址\na,16,0\nb,读,1\n",
        [
            "2:2: devices[press].tags_file[row 2]: cell B2: expected a function code that reads, 1 to 4, or an area",
            "3:2: devices[press].tags_file[row 3]: cell B3: expected a function code that reads, 1 to 4, or an area",
        ],
    ),
    "area and address differ": (
        "名称,功能码,地址,类型\na,4,40010,int16\n",
        ["2:3: devices[press].tags_file[row 2]: cell C2: 40010 is an address of the area holding by its first"],
    ),
    "hex without a word": (
        "名称,功能码,地址,类型\na,4,1F,int16\n",
        ["2:3: devices[press].tags_file[row 2]: cell C2: 1F is in hex: write 0x1F, or (HEX) into the heading"],
    ),
    "unit with a factor": (
        "name,address,type,unit\na,40001,int16,0.1V\nb,40002,int16,×0.01 A\nc,40003,int16,1/min\n",
        [
            "2:4: devices[press].tags_file[row 2]: cell D2: '0.1V' is a unit and a factor: write V here, and 0.1 into",
            "3:4: devices[press].tags_file[row 3]: cell D3: '×0.01 A' is a unit and a factor: write A here, and 0.01",
        ],
    ),
    "station": (
        "name,address,站号\na,coil:0,1\n",
        ["1:3: devices[press].tags_file: cell C1: '站号': a list describes one device: its number is unit_id:"],
    ),
    "two columns of a kind": (
        "name,地址,寄存器\na,coil:0,1\n",
        ["1:3: devices[press].tags_file: cell C1: '寄存器' means 'address', and so does column 2 already"],
    ),
    "bare address": (
        H + "a,100,int16,,,,\n",
        ["2:2: devices[press].tags[a].address: cell B2: 100 alone can be the offset 100 counted from 0"],
    ),
    "unknown type": (H + "a,40001,整型,,,,\n", ["2:3: devices[press].tags[a].type: cell C2: expected bool, int16"]),
    "no type": (H + "a,40001,,,,,\n", ["2:2: devices[press].tags[a].address: cell B2: registers need a type"]),
    "no address": (
        H + "a,,int16,,,,\n",
        ["2:1: devices[press].tags_file[row 2]: cell A2: 'a' has no address: give it one, or begin the row with #"],
    ),
    "no number": (
        H + "a,40001,int16,x,,,\n",
        ["2:4: devices[press].tags[a].scale: cell D2: expected a number, got 'x'"],
    ),
    "decimal comma": (
        H + 'a,40001,int16,"0,1",,,\n',
        ["2:4: devices[press].tags[a].scale: cell D2: expected a number, got '0,1'; did you mean 0.1?"],
    ),
    "map without numbers": (
        H + "a,40001,int16,,idle;running,,\n",
        ["2:5: devices[press].tags_file[row 2]: cell E2: expected number=text;number=text such as 0=idle;1=running"],
    ),
    "map without text": (
        H + "a,40001,int16,,0=;1=b,,\n",
        ["2:5: devices[press].tags_file[row 2]: cell E2: a number without a text"],
    ),
    "map of bits": (
        H + "a,40001,int16,,bit0:a bit1:b,,\n",
        ["2:5: devices[press].tags_file[row 2]: cell E2: a list of bits, and a map is of numbers: give each bit a row"],
    ),
    "map twice": (
        H + "a,40001,int16,,0=a;0=b,,\n",
        ["2:5: devices[press].tags[a].map.0: cell E2: the key 0 stands here twice"],
    ),
    "invalid too wide": (
        H + "a,40001,int16,,,0x18000,\n",
        ["2:6: devices[press].tags[a].invalid[#1]: cell F2: wider than the 16 bits of int16"],
    ),
    "interval": (
        H + "a,40001,int16,,,,fast\n",
        ["2:7: devices[press].tags[a].interval: cell G2: expected a duration such as 500 ms"],
    ),
    "interval of what": (
        "名称,地址,采集周期\na,coil:0,1000\n",
        ["2:3: devices[press].tags_file[row 2]: cell C2: 1000 of what? Write 1000 ms or 1000 s"],
    ),
    "name twice": (
        H + "a,40001,int16,,,,\n\na,40002,int16,,,,\n",
        ["4:1: devices[press].tags[a].name: cell A4: the name 'a' is taken already in this device, in row 2 of "],
    ),
    "name with a blank": (
        H + "oil temp,40001,int16,,,,\n",
        ["2:1: devices[press].tags[oil temp].name: cell A2: a name is"],
    ),
    "write only": (
        "name,address,读写\na,coil:0,只写\n",
        ["2:3: devices[press].tags_file[row 2]: cell C2: can only be written, and this agent only reads"],
    ),
    "lost zero": (
        "name,address\na,40010.1\nb,40010.2\nc,40010.1\n",
        [
            "2:2: devices[press].tags_file[row 2]: cell B2: 40010.1 stands here 2 times: a spreadsheet makes 4",
            "4:2: devices[press].tags_file[row 4]: cell B4: 40010.1 stands here 2 times",
        ],
    ),
    "lost bit 0": (
        "name,address,type\na,40010,bool\nb,40010.2,bool\n",
        ["2:2: devices[press].tags_file[row 2]: cell B2: bit 0 or the whole register? A spreadsheet makes 40010 of"],
    ),
    "all at once": (
        H + "a,100,int16,,,,\nb,40001,REEL,,,,\nb,40003,int16,y,,,\n",
        [
            "2:2: devices[press].tags[a].address: cell B2: 100 alone",
            "3:3: devices[press].tags[b].type: cell C3: expected bool",
            "4:1: devices[press].tags[b].name: cell A4: the name 'b' is taken",
            "4:4: devices[press].tags[b].scale: cell D4: expected a number, got 'y'",
        ],
    ),
    "length of a number": (
        "name,address,type,寄存器数量\na,40001,float32,2\nb,40003,float32,4\n",
        ["3:4: devices[press].tags[b].length: cell D3: only a string has a length"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_broken_lists_print(name: str, tmp_path: Path) -> None:
    text, expected = BROKEN[name]
    loaded = load_list(tmp_path, text)
    printed = [str(mistake) for mistake in loaded.mistakes]
    assert loaded.config is None
    assert len(printed) == len(expected), "\n".join(printed)
    for line, wanted in zip(printed, expected, strict=True):
        assert line.startswith(f"{tmp_path}/list.csv:{wanted}"), "\n".join(printed)


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"\xd0\xcf\x11\xe0" + b"x" * 100, "list.xls", "old .xls workbook"),
        (b"PK\x03\x04 no workbook", "list.xlsx", "is damaged or no workbook"),
        (b"name,address\n", "list.xlsx", "named like a workbook and is none"),
        (b" \n", "list.csv", "is empty"),
        (b"\xff\xff\x80" * 3, "list.csv", "is no text in UTF-8, GB18030 or UTF-16"),
        (b"x" * 8_000_001, "list.csv", "larger than 8 MB"),
    ],
)  # fmt: skip
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, name: str, says: str) -> None:
    (mistake,) = load_list(tmp_path, content, name).mistakes
    assert (mistake.line, mistake.path) == (5, "devices[press].tags_file")
    assert says in mistake.message


def test_a_host_has_no_tags(tmp_path: Path) -> None:
    loaded = load_list(tmp_path, "name,address\n", config=HEAD + "  - {name: b, type: host, tags_file: %s}\n")
    assert [one.message for one in loaded.mistakes] == ["devices of this type have no tags"]


def test_cells() -> None:
    assert parse_map("0=idle;1=running") == [("0", "idle"), ("1", "running")]
    assert parse_map("0:停止，1:运行、2：故障") == [("0", "停止"), ("1", "运行"), ("2", "故障")]
    assert parse_map('0=a,b;1="c;d";\n0x2=e') == [("0", "a,b"), ("1", "c;d"), ("0x2", "e")]
    assert parse_list("0x8000； -1") == ["0x8000", "-1"]
    assert [order_name(text) for text in ("abcd", "CD AB", "2143", "大端")] == ["ABCD", "CDAB", "BADC", "大端"]
    assert [type_name(text) for text in ("LREAL", "Float 32", "16位无符号整数", "有符号32位", "整型", "STRING")] == [
        "float64", "float32", "uint16", "int32", "整型", "string",
    ]  # fmt: skip
    assert fold("４０００１：Ａ，") == "40001:A,"
    assert [letters(column) for column in (1, 26, 27, 52, 703)] == ["A", "Z", "AA", "AZ", "AAA"]


@given(st.dictionaries(st.integers(-5, 70_000), st.text(max_size=12), min_size=1, max_size=6))
@settings(max_examples=200)
def test_a_map_survives_its_cell(entries: dict[int, str]) -> None:
    assert {int(number): text for number, text in parse_map(format_map(entries))} == entries


NUMBERS = ["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16", "bcd32"]
texts = st.text(st.characters(exclude_categories=("C", "Zl", "Zp"), include_characters="\n"), min_size=1, max_size=20)
words = texts.filter(lambda text: bool(text.strip()))
floats = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: value + 0.0)
units = words.map(str.strip).filter(lambda text: text.strip() and text not in {"-", "--", "—", "——", "/", "\\", "无"}
                                    and text.casefold() not in {"na", "n/a", "none"} and "\n" not in text
                                    and fold(text) == text)  # fmt: skip


@st.composite
def tag(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from([*NUMBERS, "bit", "coil", "string"]))
    offset = draw(st.integers(0, 9000))
    found: dict[str, Any] = {}
    for key, values in {"label": words, "description": words, "unit": units, "interval": st.floats(0.02, 1e5)}.items():
        if draw(st.booleans()):
            found[key] = draw(values)
    if kind == "coil":
        return {**found, "address": f"coil:{offset}"}
    if kind == "bit":
        return {**found, "address": f"{40001 + offset}.{draw(st.integers(0, 15))}"}
    found |= {
        "address": draw(st.sampled_from([f"holding:{offset}", f"{30001 + offset}", f"input:0x{offset:X}"])),
        "type": kind,
    }
    if kind == "string":
        return {**found, "length": draw(st.integers(1, 20)), "encoding": draw(st.sampled_from(["gbk", "utf-8"]))}
    for key in ("scale", "offset", "min", "deadband"):
        if draw(st.booleans()):
            found[key] = abs(draw(floats)) if key == "deadband" else draw(floats)
    if draw(st.booleans()):
        found["decimals"] = draw(st.integers(0, 15))
    if draw(st.booleans()):
        found["map"] = draw(st.dictionaries(st.integers(0, 9), texts, min_size=1, max_size=4))
    if draw(st.booleans()):
        found["invalid"] = draw(st.lists(st.sampled_from(["0x8000", "0x7FFF", "7"]), min_size=1, max_size=3))
    if draw(st.booleans()):
        found["word_order"] = draw(st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
    return found


@given(st.lists(tag(), min_size=1, max_size=8, unique_by=lambda one: str(one["address"])))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_import_of_export_is_the_same(tmp_path: Path, tags: list[dict[str, Any]]) -> None:
    named = [{"name": f"t{index}", **one} for index, one in enumerate(tags)]
    made = ModbusConfig.model_validate(
        {"name": "press", "type": "modbus", "url": "tcp://10.0.0.1", "report": {}, "tags": named}
    )
    text = tags_command.as_csv(made)
    assert text is not None
    read = device(load_list(tmp_path, text.encode("utf-8-sig")))
    assert read.tags == made.tags


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_list(tmp_path, CHINESE)
    file = tmp_path / "agent.yaml"
    assert tags_command.export(file, "press") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "name,label,address,type,interval,unit,map,description"
    assert tags_command.export(file, "press", csv_file=tmp_path / "out.csv") == 0
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbfname,")
    assert tags_command.export(file, "pres") == 2
    assert tags_command.export(tmp_path / "none.yaml", "press") == 2
    assert tags_command.export(file, "press", csv_file=tmp_path / "none" / "out.csv") == 1
    assert "did you mean 'press'?" in capsys.readouterr().err


def test_two_thousand_tags_load_in_time(tmp_path: Path) -> None:
    rows = "".join(f"t{n},holding:{2 * n},float32,Cel,0.1,说明{n}\n" for n in range(2000))
    content = "name,address,type,unit,scale,description\n" + rows
    load_list(tmp_path, content)
    started = time.perf_counter()
    loaded: AgentConfig | None = load_list(tmp_path, content).config
    assert loaded is not None
    assert time.perf_counter() - started < 1.5  # a third of it on a machine of its own


WORDS = [
    "name", "address", "type", "map", "invalid", "interval", "名称", "地址", "小数位", "读写", "量程", "下限",
    "周期(ms)", "40001", "40010.1", "D100", "REAL", "0=idle;1=run", "0x8000", "ａ：", "", " ", "-", "#", '"', "\n",
    "\x00",
]  # fmt: skip


@given(
    st.lists(st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=6), max_size=6),
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "gb18030", "utf-16"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_list_crashes_the_loader(tmp_path: Path, rows: list[list[str]], delimiter: str, encoding: str) -> None:
    text = "\n".join(delimiter.join(row) for row in [["name", "address"], *rows])
    loaded = load_list(tmp_path, text.encode(encoding, "replace"))
    assert (loaded.config is None) == bool(loaded.mistakes)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12), st.integers(0, 10_000))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damaged_workbook_crashes_the_loader(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(workbook({"S": [["name", "address", "type"], ["a", "40001", "int16"], ["b", 40010.1, "bool"]]}))
    for place, value in changes:
        data[place % len(data)] = value
    loaded = load_list(tmp_path, bytes(data[: len(data) - cut if cut < 500 else None]), "list.xlsx")
    assert loaded.mistakes


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_list(tmp_path, CHINESE)
    assert main(["tags", "export", "-c", str(tmp_path / "agent.yaml"), "press"]) == 0
    assert "'40010.10,故障,'40010.10,bool" in capsys.readouterr().out


def test_nothing_of_a_list_stays_in_memory(tmp_path: Path) -> None:
    """A start does not collect garbage, and what it makes is never gone through: cells in a cycle would stay."""
    gc.collect()
    gc.disable()
    try:
        loaded = load_list(tmp_path, "name,address,type\nt,holding:0,uint16\n")
        cells = [found for found in gc.get_objects() if isinstance(found, Cell)]
    finally:
        gc.enable()
    assert device(loaded).tags
    assert not cells
