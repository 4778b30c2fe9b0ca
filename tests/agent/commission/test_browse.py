"""`shopfloor browse` against a server with a tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import main
from agent.config import load
from tests.servers.opcua import free_port
from tests.servers.opcua_odd import OddServer


@pytest.fixture(scope="module")
def server() -> Iterator[OddServer]:
    with OddServer({"alone": 1.0}) as running:
        yield running


def test_a_tree_with_values_types_and_units(server: OddServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["browse", server.url, "--under", "/Objects/Line"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Press1/  nsu=urn:test:plant;s=Press1"
    assert "  Speed = 100.0  mm/s  Double  r  nsu=urn:test:plant;s=Press1.Speed" in lines
    assert '  标签 = "冲床"  String  r  nsu=urn:test:plant;s=Press1.标签' in lines
    assert not any("EURange" in line for line in lines)


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
