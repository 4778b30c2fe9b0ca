"""`shopfloor check`: what it prints, as text and as JSON, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.commission.check import check, costs, lines
from agent.config import load

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "config" / "examples" / "mixed.yaml"


def test_a_good_file_is_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(EXAMPLE) == 0
    printed = capsys.readouterr().out
    assert "no mistakes. Site plant-2, gateway gw-hall-2." in printed
    for word in ("press-3", "cnc-7", "box", "messages/day", "192.168.10.21:502", "To mqtt://192.168.10.5:1883", ">= "):
        assert word in printed
    assert "allow_plaintext is on" in printed
    assert "address" not in printed


def test_explain_shows_each_tag_and_each_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(EXAMPLE, explain=True) == 0
    printed = capsys.readouterr().out
    for word in ("holding:100", "discrete:4", "ns=2;s=Spindle.Speed", "reads "):
        assert word in printed


def test_explain_shows_what_becomes_of_a_value_and_equal_devices_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.yaml"
    meters = "".join(
        f"  - {{name: m{n}, type: modbus, url: 'tcp://10.0.0.1', unit_id: {n}, template: chint-dtsu666,"
        f" vars: {{ct: {ct}}}}}\n"
        for n, ct in ((1, 40), (2, 40), (3, 20))
    )
    molder = (
        "  - name: p\n    type: modbus\n    url: tcp://10.0.0.2\n    tags:\n"
        "      - {name: t, label: 料筒, address: 40001, type: int16, scale: 0.1, offset: -10, unit: Cel}\n"
        "      - {name: mode, address: 40002, type: uint16, map: {0: 手动, 1: 半自动, 2: 全自动}}\n"
    )
    file.write_text(f"site: s\ngateway: g1\nmqtt: {{url: 'mqtts://b'}}\ndevices:\n{meters}{molder}", encoding="utf-8")
    assert check(file, explain=True) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.endswith(":") and not line.startswith(" ")] == ["m1, m2:", "m3:", "p:"]
    (power,) = {line.split("x ")[1].split()[0] for line in printed if line.startswith("power  ") and "x 4" in line}
    assert power == "4"
    temperature = next(line for line in printed if line.startswith("t "))
    assert "料筒" in temperature
    assert "x 0.1 - 10 Cel" in temperature
    assert any("0=手动, 1=半自动, ..." in line for line in printed)
    assert check(file, as_json=True, explain=True) == 0
    found = json.loads(capsys.readouterr().out)["explain"]["p"]["tags"][0]
    assert (found["label"], found["value"]) == ("料筒", "x 0.1 - 10 Cel")


def test_mistakes_are_results_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("sit: x\n")
    assert check(file) == 2
    out, err = capsys.readouterr()
    assert f"{file}:1:1: sit: unknown key 'sit'; did you mean 'site'?" in out.splitlines()
    assert out.splitlines()[-1].startswith("3 mistakes.")
    assert not err
    assert check(tmp_path / "missing.yaml") == 2


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(EXAMPLE, as_json=True, explain=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mistakes"] == []
    assert found["digest"].startswith("sha256:")
    press, cnc, box = found["estimates"]["devices"]
    assert [one["at_least"] for one in (press, cnc, box)] == [True, True, False]
    assert box["messages_a_day"] == 8640
    assert found["estimates"]["buffer"]["max_size"] == 2_000_000_000
    assert found["estimates"]["buffer"]["lasts_s"] > 86_400
    assert [tag["tag"] for tag in found["explain"]["press-3"]["tags"]] == ["parts", "temperature", "door_open"]
    file = tmp_path / "agent.yaml"
    file.write_text("site: x\n  y: z\n")
    assert check(file, as_json=True) == 2
    found = json.loads(capsys.readouterr().out)
    assert {"file", "line", "column", "path", "message"} == set(found["mistakes"][0])
    assert "estimates" not in found


def test_devices_of_one_address_share_the_time_of_its_line() -> None:
    config = load(ROOT / "config" / "examples" / "modbus.yaml").config
    assert config is not None
    found = costs(config)
    budget = next(one for one in lines(config, found) if "192.168.10.30" in one.line)
    assert budget.devices == ["meter-01", "meter-02"]
    assert budget.busy == pytest.approx(sum(cost.estimate.wire_s_per_s for cost in found[1:]))
    assert budget.fits == {}


def test_estimated_bytes_are_of_the_right_size() -> None:
    config = load(EXAMPLE).config
    assert config is not None
    for cost in costs(config):
        a_message = cost.bytes_a_day / cost.messages_a_day
        values = cost.estimate.values_per_message
        assert 250 + 8 * values < a_message < 500 + 60 * values
        assert cost.stored_bytes_a_day < cost.bytes_a_day


def test_check_of_a_modbus_site_loads_no_protocol_library() -> None:
    code = (
        "import sys; from pathlib import Path; from agent.commission.check import check; "
        f"check(Path({str(ROOT / 'config/examples/modbus.yaml')!r}), explain=True); "
        "heavy = {'asyncua', 'pymodbus', 'paho', 'psutil', 'amqtt'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
