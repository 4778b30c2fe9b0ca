"""Scenarios in processes of their own; the module is its own scenario, which its seed chooses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.soak import processes
from tests.soak.claims import Claim, Options
from tests.soak.processes import Scenario

WELL, KILLED, RAISES, EXITS, FAILS, LEAVES = range(6)


def run(options: Options) -> list[Claim]:
    """What a scenario is asked for."""
    match options.seed:
        case 1:  # KILLED
            os.kill(os.getpid(), signal.SIGKILL)
        case 2:  # RAISES
            raise ValueError("no")
        case 3:  # EXITS
            sys.exit("mosquitto_sub is not installed")
        case 4:  # FAILS
            raise AssertionError("not within 5 s: a session\nand a long log")
        case 5:  # LEAVES
            left = subprocess.Popen(["sleep", "60"])
            (options.disk / "left").write_text(str(left.pid))
            os.kill(os.getpid(), signal.SIGKILL)
    print("half a line, ", end="")
    print("and the rest")
    return [Claim("it holds", "nothing", "1", passed=True)]


def _scenario(name: str, kind: int, directory: Path) -> Scenario:
    return Scenario(name, __name__, "tried", Options(directory, directory, kind, short=True))


def test_one_that_dies_costs_no_other_its_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kinds = {"killed": KILLED, "raises": RAISES, "exits": EXITS, "fails": FAILS, "leaves": LEAVES, "well": WELL}
    begun, ended = list[str](), list[str]()
    claims = processes.run(
        [_scenario(name, kind, tmp_path) for name, kind in kinds.items()],
        2,
        lambda scenario: begun.append(scenario.name),
        lambda scenario, found, seconds: ended.append(scenario.name),
    )
    assert begun == list(kinds)
    assert sorted(ended) == sorted(kinds)
    assert claims.pop("well") == [Claim("it holds", "nothing", "1", passed=True)]
    died = "ended with {} before it had a result"
    assert {name: [(claim.figure, claim.passed) for claim in found] for name, found in claims.items()} == {
        "killed": [(died.format(-9), False)],
        "raises": [(died.format(1), False)],
        "exits": [(died.format(1), False)],
        "fails": [("not within 5 s: a session", False)],
        "leaves": [(died.format(-9), False)],
    }
    out, error = capfd.readouterr()
    assert "well: half a line, and the rest\n" in out
    assert "ValueError: no" in error
    left = Path("/proc", (tmp_path / "left").read_text())
    deadline = time.monotonic() + 5
    while left.exists() and "Z" not in (left / "stat").read_text():
        assert time.monotonic() < deadline, "what it started goes on"
        time.sleep(0.01)
