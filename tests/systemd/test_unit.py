"""The unit and its drop-ins, as systemd judges them."""

from __future__ import annotations

import shutil
from pathlib import Path
from subprocess import run

import pytest

from agent.commission.addresses import drop_in
from agent.config_model import AgentConfig, MqttConfig
from collectors.host.config import HostConfig

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "shopfloor-agent.service"
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def _config() -> AgentConfig:
    return AgentConfig(
        site="plant",
        gateway="gw-1",
        mqtt=MqttConfig(url="mqtts://192.0.2.1:8883"),
        devices=(HostConfig(name="box", type="host"),),
    )


def _exposure(tmp_path: Path, threshold: int, drop_ins: dict[str, str]) -> int:
    units = tmp_path / "etc" / "systemd" / "system"
    (units / f"{UNIT.name}.d").mkdir(parents=True)
    shutil.copy(UNIT, units)
    for name, text in drop_ins.items():
        (units / f"{UNIT.name}.d" / name).write_text(text)
    command = ["systemd-analyze", "security", "--offline=true", f"--root={tmp_path}", f"--threshold={threshold}"]
    done = run([*command, UNIT.name], check=False, capture_output=True, text=True)
    assert not done.stderr.strip(), done.stderr
    return done.returncode


@needs_analyze
def test_the_unit_is_hardened() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=11", str(UNIT)]
    assert run(command, check=False, capture_output=True).returncode == 0


@needs_analyze
def test_the_list_of_addresses_hardens_it_further(tmp_path: Path) -> None:
    text, _ = drop_in(_config(), ["192.0.2.53"], lambda _: [])
    assert _exposure(tmp_path, 10, {"addresses.conf": text}) == 0


@needs_analyze
def test_serial_ports_cost_little(tmp_path: Path) -> None:
    serial = {"serial.conf": (SYSTEMD / "drop-ins" / "serial.conf").read_text()}
    assert _exposure(tmp_path / "alone", 13, serial) == 0
    text, _ = drop_in(_config(), [], lambda _: [])
    assert _exposure(tmp_path / "both", 12, {**serial, "addresses.conf": text}) == 0


def test_what_the_agent_relies_on() -> None:
    lines = UNIT.read_text().splitlines()
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=always",
        "RestartPreventExitStatus=2",
        "User=shopfloor",
        "StateDirectoryMode=0700",
        "RuntimeDirectoryMode=0755",
        "WatchdogSec=30s",
        "ProcSubset=all",
    ):
        assert line in lines
    (start,) = (line for line in lines if line.startswith("ExecStart="))
    assert start.endswith("python -I -m agent run -c /etc/shopfloor-agent/agent.yaml")
