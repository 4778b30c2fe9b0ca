"""The whole demo: simulated machines, the real agent, a broker and an independent subscriber, all in processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.demo.broker import BrokerName, installed
from agent.demo.configuration import DEVICES

_ALL_DEVICES_S = 30.0


def start(tmp_path: Path, *command: str) -> subprocess.Popen[str]:
    variables = os.environ | {"TMPDIR": str(tmp_path), "LANG": "C.UTF-8", "LC_ALL": ""}
    return subprocess.Popen(
        [sys.executable, *command], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def left_running(tmp_path: Path) -> list[str]:
    """Command lines of processes that were started with something in this directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes()
        except OSError:
            continue
        if os.fsencode(tmp_path) in command:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def check(text: str, code: int, tmp_path: Path) -> None:
    summary = text[text.index("Summary:") :]
    assert code == 0, text
    assert re.search(r"messages, \d+ readings; lost 0, repeated 0", summary), text
    for device in DEVICES:
        assert re.search(rf"^  {device} .* [1-9]\d* readings in [1-9]", summary, re.MULTILINE), text
    assert list(tmp_path.iterdir()) == []
    assert left_running(tmp_path) == []


def test_it_shows_readings_and_ends_by_itself(tmp_path: Path) -> None:
    if not installed():
        pytest.skip("no broker is installed")
    with start(tmp_path, "-m", "agent", "demo", "--seconds", "3") as demo:
        text, _ = demo.communicate(timeout=50)
    assert re.search(r"mosquitto_sub -h 127\.0\.0\.1 -p \d+ -t 'shopfloor/#' -v", text)
    assert re.search(r"press-3 三号冲床  running yes  state running  temperature \d", text)
    check(text, demo.returncode, tmp_path)


@pytest.mark.parametrize("broker", ["amqtt"])
def test_ctrl_c_ends_it_with_a_summary(broker: BrokerName, tmp_path: Path) -> None:
    if broker not in installed():
        pytest.skip(f"{broker} is not installed")
    code = f"import sys; from agent.demo.show import run_demo; sys.exit(run_demo(None, {broker!r}))"
    with start(tmp_path, "-c", code) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        deadline = time.monotonic() + _ALL_DEVICES_S
        while time.monotonic() < deadline and not all(f"  {device} " in "".join(lines) for device in DEVICES):
            lines.append(demo.stdout.readline())
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=20)
    check("".join(lines) + rest, demo.returncode, tmp_path)
