"""`shopfloor read` as a person calls it: a table or JSON, an exit code, and each device for itself."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agent.commission import read as command
from agent.commission.read import read
from collectors.api import Batch, CollectorStats, Context, TagInfo, Unavailable
from collectors.fields import DeviceConfig
from tests.daemon import modbus, site
from tests.servers.modbus import ModbusServer
from tests.servers.mosquitto import free_port

HOST = {"name": "box", "type": "host", "sets": ["memory"]}


def write(directory: Path, *devices: dict[str, Any]) -> Path:
    path = directory / "agent.yaml"
    path.write_text(json.dumps(site("mqtt://127.0.0.1:1", devices)))
    return path


def test_good_device_is_0_and_tells_every_tag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ModbusServer() as plc:
        plc.set("holding", 0, [7, 8, 9])
        assert read(write(tmp_path, modbus("plc", plc.url), HOST), ["plc"], as_json=True) == 0
    (report,) = json.loads(capsys.readouterr().out)["devices"].values()
    assert [(tag["name"], tag["value"], tag["quality"]) for tag in report["tags"]] == [
        ("t0", 7, None),
        ("t1", 8, None),
        ("t2", 9, None),
    ]


def test_dead_device_is_1_and_says_why_beside_one_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(write(tmp_path, modbus("plc", f"tcp://127.0.0.1:{free_port()}"), HOST), []) == 1
    shown = capsys.readouterr().out
    assert "t0" in shown
    assert "box" in shown
    assert "refused" in shown


def test_unknown_device_and_broken_configuration_are_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, HOST)
    assert read(path, ["bax"]) == 2
    assert "there are: box" in capsys.readouterr().err
    path.write_text("site: [")
    assert read(path, []) == 2
    assert "agent.yaml:1" in capsys.readouterr().err


class Odd:
    """A collector as it must not be."""

    pushes: ClassVar[bool] = False
    tags_version = 0
    groups: ClassVar[dict[str, float]] = {"1s": 1.0}

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def open(self) -> None:
        raise self._error

    def tags(self) -> Sequence[TagInfo]:
        return [TagInfo("n", "1s", "x", "number")]

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        return []

    def stats(self) -> CollectorStats:
        return CollectorStats()

    async def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ZeroDivisionError("oops"), "bug"),
        (Unavailable("timeout", "no_answer", "silent", where="x", unit_id=1), "no_answer"),
    ],
)
async def test_bug_in_one_collector_is_that_devices_trouble(
    monkeypatch: pytest.MonkeyPatch, error: Exception, cause: str
) -> None:
    class Kind:
        @staticmethod
        def create(config: DeviceConfig, _: Context) -> Odd:
            return Odd(error)

    monkeypatch.setattr(command, "collector_type", lambda *_: Kind)
    devices = [DeviceConfig(name=name, type="test") for name in ("a", "b")]
    reports = await command._read_all(devices, [], "en")
    assert [report["cause"] for report in reports.values()] == [cause, cause]


def test_device_that_never_answers_ends_by_its_time_out(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        assert read(write(tmp_path, modbus("plc", url, timeout="200 ms")), [], as_json=True) == 1
