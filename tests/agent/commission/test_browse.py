"""`shopfloor browse` against a server with a tree."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import main
from agent.config import load
from tests.collectors.opcua.conftest import NODES
from tests.servers.opcua import DECOY, free_port
from tests.servers.opcua_odd import OddServer


@pytest.fixture(scope="module")
def server() -> Iterator[OddServer]:
    with OddServer(NODES) as running:
        yield running


def test_a_tree_with_values_types_and_units(server: OddServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", server.url, "--under", "/Objects/Line"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Press1/  nsu=urn:test:plant;s=Press1"
    assert "  Speed = 100.0  mm/s  Double  r  nsu=urn:test:plant;s=Press1.Speed" in lines
    assert '  标签 = "冲床"  String  r  nsu=urn:test:plant;s=Press1.标签' in lines
    assert not any("EURange" in line for line in lines)


def test_values_of_all_types_are_shown(server: OddServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Servers show texts in languages, names and identifiers already in their own part of the tree."""
    assert main(["browse", server.url, "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    shown = [entry for entry in entries if entry["names"][0] in NODES and entry.get("value") != DECOY]
    assert {entry.get("type", ""): entry.get("value") for entry in shown} == {
        "Boolean": True,
        "SByte": -8,
        "Byte": 200,
        "Int16": -30000,
        "UInt16": 60000,
        "Int32": 7,
        "UInt32": 4_000_000_000,
        "Int64": -(2**60),
        "UInt64": 2**60,
        "Float": 23.4,
        "Double": 1.5,
        "String": "三号冲床",
        "LocalizedText": "läuft",
        "QualifiedName": "Speed",
        "DateTime": "2026-11-23T18:00:00.123Z",
        "Guid": "72962b91-fa75-4ae6-8d28-b404dc7daf63",
        "NodeId": "ns=2;s=a",
        "ByteString": None,
        "Int32[3]": None,
        "Null": None,
    }


def test_depth_find_and_limit(server: OddServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", server.url, "--depth", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Line/" in shown
    assert "Press1" not in shown
    assert main(["browse", server.url, "--find", "press2/SPEED", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["names"], found["value"], found["unit"]) == (["Line", "Press2", "Speed"], 100.0, "mm/s")
    assert main(["browse", server.url, "--max", "2"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "--max" in printed.err


def test_a_list_of_tags_that_the_configuration_takes_as_it_is(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arrays are left out; names in other scripts get names of their own."""
    out = tmp_path / "cnc.csv"
    assert main(["browse", server.url, "--under", "/Objects/Line", "--csv", str(out)]) == 0
    file = tmp_path / "agent.yaml"
    file.write_text(
        "site: plant\ngateway: gw-1\nmqtt: {url: 'mqtt://127.0.0.1'}\n"
        f"devices:\n  - {{name: cnc, type: opcua, url: '{server.url}', security: {{policy: None}},\n"
        "     tags_file: cnc.csv}\n"
    )
    loaded = load(file)
    assert loaded.mistakes == []
    assert loaded.config is not None
    tags = {tag.name: tag for tag in loaded.config.devices[0].tags}  # type: ignore[attr-defined]  # opcua has tags
    assert len(tags) == 8
    assert (tags["Press1.Speed"].node, tags["Press1.Speed"].unit) == ("nsu=urn:test:plant;s=Press1.Speed", "mm/s")
    capsys.readouterr()
    assert main(["browse", "cnc", "-c", str(file), "--find", "Press1/Speed"]) == 0
    assert capsys.readouterr().out.startswith("Line/Press1/Speed = 100.0")


def test_namesakes_in_several_namespaces_each_get_a_tag(
    server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plant.csv"
    assert main(["browse", server.url, "--find", "speed", "--csv", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text("utf-8-sig").splitlines()))
    speeds = {row["name"]: row["node"] for row in rows if row["name"].startswith("speed")}
    assert speeds.keys() == {"speed", "speed-2", "speed-3", "speed-4"}
    assert len(set(speeds.values())) == 4
    assert main(["browse", server.url, "--find", "array", "--csv"]) == 0
    assert "left out: 1 variables" in capsys.readouterr().err


def test_what_cannot_be_browsed(server: OddServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", f"opc.tcp://127.0.0.1:{free_port()}"]) == 1
    assert "refused" in capsys.readouterr().err
    assert main(["browse", "http://x"]) == 2
    assert main(["browse", server.url, "--under", "/Objects/Nowhere"]) == 1
    assert main(["browse", server.url, "--find", "nothing has this name"]) == 1
    file = tmp_path / "agent.yaml"
    file.write_text("site: plant\ngateway: gw-1\nmqtt: {url: 'mqtt://127.0.0.1'}\ndevices: [{name: box, type: host}]\n")
    capsys.readouterr()
    assert main(["browse", "box", "-c", str(file)]) == 2
    assert main(["browse", "cnc", "-c", str(file)]) == 2
    assert "no device is named cnc" in capsys.readouterr().err
