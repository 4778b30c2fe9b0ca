"""What the fuzzer does with the files that people write: each is loaded as `shopfloor check` does.

`load` must end with a configuration or with mistakes that have a place in a file, whatever stands in the configuration,
in a template, or in a tag list (CSV of any encoding, workbook).
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from xml.sax.saxutils import escape

from agent.config import load
from agent.grid import letters

Target: TypeAlias = Callable[[bytes], None]

ROOT = Path(__file__).resolve().parents[2]
HEAD = "site: p\ngateway: gw-1\nmqtt: {url: 'mqtts://broker'}\ndevices:\n"
MODBUS = "  - {name: d, type: modbus, url: 'tcp://10.0.0.1', report: {}, tags_file: %s}\n"
OPCUA = "  - {name: e, type: opcua, url: 'opc.tcp://10.0.0.2', security: {policy: None}, tags_file: %s}\n"
TOLD = "  - {name: f, type: modbus, url: 'tcp://10.0.0.3', tags_file: {file: %s, decimals: scales, count_from: 1}}\n"
USERS = (MODBUS, OPCUA, TOLD)
TEMPLATE = "type: modbus\nvars: {ct: 1, at}\nword_order: CDAB\ntags_file: list.csv\ntags:\n" + (
    "  - {name: p, address: 'holding:${at}', type: float32, scale: [0.1, '${ct}']}\n"
)
USER = "  - {name: g, template: ./meter.yaml, url: 'tcp://10.0.0.4', unit_id: 7, vars: {ct: 40, at: 20}}\n"
LIST = "name,address,type,map\nt,holding:0,uint16,0=off 1=on\n"
CHINESE_LIST = (
    "名称;地址;类型;倍率;采集周期(ms);读写;状态说明\n温度;40001;REAL;0.1;500;R;0=停止\n故障;40010.10;BOOL;;;;\n"
)
NODE_LIST = "名称\t节点\t单位\n转速\tns=2;s=a\tr/min\n"
CELLS = 3
KINDS = {"#": ("n", "v"), "?": ("b", "v"), "!": ("e", "v"), "=": ("str", "f"), "@": ("d", "v")}
"""First letter of a cell -> its type in the file, and the element that holds it."""
CELL_LIST = (
    "名称\t地址\t类型\t倍率\t下限\n油温\t#040001\tint16\t#00.1\t?01\n"
    "b\t#140010.1\tBOOL\t=01+1\t!0#N/A\nc\t@02026-01-02\n合并"
)


def configuration() -> tuple[list[bytes], Target]:
    """The input is the configuration; a template and tag lists for it to name stand beside it."""
    directory = _directory()
    (directory / "meter.yaml").write_text(TEMPLATE)
    (directory / "list.csv").write_text(LIST)
    (directory / "list.xlsx").write_bytes(_workbook())
    (directory / "gb.csv").write_bytes(CHINESE_LIST.encode("gb18030"))
    lists = HEAD + MODBUS % "list.csv" + TOLD % "gb.csv" + MODBUS.replace("name: d", "name: x") % "list.xlsx"
    examples = [path.read_bytes() for path in sorted((ROOT / "config" / "examples").glob("*.yaml"))]

    def one(data: bytes) -> None:
        (directory / "agent.yaml").write_bytes(data)
        _load(directory)

    return [*examples, (HEAD + USER).encode(), lists.encode()], one


def template() -> tuple[list[bytes], Target]:
    """The input is a template that a device uses."""
    directory = _directory()
    (directory / "list.csv").write_text(LIST)
    (directory / "agent.yaml").write_text(HEAD + USER)
    shipped = [path.read_bytes() for path in sorted((ROOT / "config" / "devices").glob("*.yaml"))]

    def one(data: bytes) -> None:
        (directory / "meter.yaml").write_bytes(data)
        _load(directory)

    return [TEMPLATE.encode(), *shipped], one


def tag_list() -> tuple[list[bytes], Target]:
    """The input's first byte says whose tag list follows: each of the devices understands it differently."""
    directories = [_directory() for _ in USERS]
    for directory, user in zip(directories, USERS, strict=True):
        (directory / "agent.yaml").write_text(HEAD + user % "list.csv")

    def one(data: bytes) -> None:
        directory = directories[(data[0] if data else 0) % len(USERS)]
        (directory / "list.csv").write_bytes(data[1:])
        _load(directory)

    lists = enumerate((LIST, NODE_LIST, CHINESE_LIST))
    codecs = ("utf-8-sig", "gb18030", "utf-16", "utf-16-be")
    return [bytes([user]) + text.encode(codec) for user, text in lists for codec in codecs], one


def workbook() -> tuple[list[bytes], Target]:
    """The input's first byte says what follows: a file, the XML of one part of a workbook, or a sheet's cells."""
    directory = _directory()
    (directory / "agent.yaml").write_text(HEAD + TOLD % "list.xlsx")
    whole = _workbook()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    inside = ("xl/worksheets/sheet1.xml", "xl/styles.xml", "xl/workbook.xml")

    def one(data: bytes) -> None:
        which, content = data[0] if data else 0, data[1:]
        if which == CELLS:
            which, content = 0, _sheet(content.decode(errors="replace"))
        if which < len(inside):
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for name, part in parts.items():
                    archive.writestr(name, content if name == inside[which] else part)
            content = packed.getvalue()
        (directory / "list.xlsx").write_bytes(content)
        _load(directory)

    cells = bytes([CELLS]) + CELL_LIST.encode()
    return [cells, b"\xff" + whole, *(bytes([at]) + parts[name] for at, name in enumerate(inside))], one


def _directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _load(directory: Path) -> None:
    loaded = load(directory / "agent.yaml")
    assert (loaded.config is None) == bool(loaded.mistakes)
    for mistake in loaded.mistakes:
        assert mistake.message, mistake
        assert mistake.line > 0, mistake
        assert mistake.column > 0, mistake


def _sheet(text: str) -> bytes:
    """Rows are lines, cells end at tabs and begin with their kind (see `KINDS`) and style, if they are no texts."""
    rows = []
    for row, line in enumerate(text.split("\n")[:60], 1):
        cells = []
        for column, cell in enumerate(line.split("\t")[:12], 1):
            kind = KINDS.get(cell[:1])
            value = escape("".join(letter for letter in (cell if kind is None else cell[2:]) if letter.isprintable()))
            inner = f"<is><t>{value}</t></is>" if kind is None else f"<{kind[1]}>{value}</{kind[1]}>"
            style = 1 if kind is not None and cell[1:2] == "1" else 0
            cells.append(
                f'<c r="{letters(column)}{row}" s="{style}" t="{kind[0] if kind else "inlineStr"}">{inner}</c>'
            )
        rows.append(f'<row r="{row}">{"".join(cells)}</row>')
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    merged = '<mergeCells count="1"><mergeCell ref="A5:E5"/></mergeCells>'
    return f'<worksheet xmlns="{space}"><sheetData>{"".join(rows)}</sheetData>{merged}</worksheet>'.encode()


def _workbook() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (
        ["名称", "地址", "类型", "倍率", "下限"],
        ["油温", "40001", "int16", 0.1, 1],
        ["b", 40010.1, "BOOL", None, None],
        ["c", 40012, "uint16", "=1+1", True],
        ["合并", None, None, None, None],
    ):
        sheet.append(row)
    sheet["B3"].number_format = "0.00"
    sheet.merge_cells("A5:E5")
    packed = io.BytesIO()
    book.save(packed)
    return packed.getvalue()


TARGETS = {"configuration": configuration, "template": template, "tag list": tag_list, "workbook": workbook}
