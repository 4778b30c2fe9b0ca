"""A PLC with brand addresses from a spreadsheet and a meter from a template, read from a real server."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from agent.cli import main
from tests.servers.modbus import ModbusServer

openpyxl = pytest.importorskip("openpyxl")


def words(value: float, *, low_first: bool = False) -> list[int]:
    high, low = struct.unpack(">HH", struct.pack(">f", value))
    return [low, high] if low_first else [high, low]


def test_spreadsheet_brand_and_template_reach_the_right_registers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = openpyxl.Workbook()
    for row in (
        ["三号冲床点表"],
        ["变量名", "地址", "数据类型", "单位", "状态说明"],
        ["油温", "D100", "REAL", "℃", None],
        ["产量", "C200", "DINT", "件", None],
        ["parts_high", "D4096", "WORD", None, None],
        ["mode", "D10", "WORD", None, "0:停止，1:运行"],
        ["fault", "D20.10", None, None, None],
        ["running", "X17", "BOOL", None, None],
    ):
        book.active.append(row)
    book.save(tmp_path / "press.xlsx")
    with ModbusServer(units=(1, 2)) as server:
        server.set("holding", 4096 + 100, words(23.4, low_first=True))
        server.set("holding", 0x700, [70_000 & 0xFFFF, 70_000 >> 16])
        server.set("holding", 36864, [7])
        server.set("holding", 4096 + 10, [1])
        server.set("holding", 4096 + 20, [1 << 10])
        server.set("discrete", 1024 + 0o17, [1])
        server.set("holding", 0x2006, words(2301.0), unit=2)
        server.set("holding", 0x2012, words(15000.0), unit=2)
        (tmp_path / "agent.yaml").write_text(
            "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b'}\ndevices:\n"
            f"  - {{name: press, type: modbus, url: '{server.url}', brand: delta-dvp, tags_file: press.xlsx}}\n"
            f"  - {{name: meter, type: modbus, url: '{server.url}', unit_id: 2, template: chint-dtsu666,"
            " vars: {ct: 40}}\n",
            encoding="utf-8",
        )
        assert main(["read", "-c", str(tmp_path / "agent.yaml"), "--json"]) == 0
        seen = server.seen()
    found = json.loads(capsys.readouterr().out)
    press, meter = ({tag["name"]: tag["value"] for tag in one["tags"]} for one in found["devices"].values())
    assert press == {
        "D100": 23.4, "C200": 70_000, "parts_high": 7, "mode": "运行", "fault": True, "running": True,
    }  # fmt: skip
    assert (meter["voltage_l1"], meter["power"]) == (230.1, 60_000)
    assert set(seen.functions) <= {1, 2, 3, 4}
