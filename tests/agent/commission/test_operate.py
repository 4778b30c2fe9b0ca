from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.commission import operate
from agent.control import SOCKET_NAME, ControlError, ControlServer
from agent.status import StatusFiles
from tests.agent.test_status import lose_a_meter, snapshot


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, "C.UTF-8")
    return tmp_path


@pytest.fixture
async def asked(run_dir: Path) -> AsyncIterator[list[dict[str, Any]]]:
    """A running agent as the commands see one; yields what it was asked."""
    seen: list[dict[str, Any]] = []

    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        seen.append(body)
        target = body.get("target") or body.get("device")
        if target == "press-9":
            raise ControlError("unknown_target", "no device is named press-9")
        match body["command"]:
            case "values":
                tag = {"name": "parts", "label": "产量", "value": 7, "unit": None, "quality": None, "age_s": 0.5}
                return {"devices": {"press-3": {"label": "三号冲床", "state": "ok", "tags": [tag]}}}
            case "pause":
                return {"paused": [target], "for_s": body["for_s"]}
        return {"resumed": ["press-3"] if target else []}

    StatusFiles(run_dir).write(snapshot())
    server = ControlServer(run_dir / SOCKET_NAME, answer)
    await server.start()
    yield seen
    await server.close()


Output = pytest.CaptureFixture[str]


def test_nothing_there(capsys: Output) -> None:
    assert operate.status() == 1
    assert operate.pause("press-3", "30m") == 1
    assert operate.resume() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "shopfloor: no running agent was found.\n" * 3


def test_all_well_is_0_and_in_the_agents_language(run_dir: Path, capsys: Output) -> None:
    StatusFiles(run_dir).write(snapshot())
    assert operate.status() == 0
    assert capsys.readouterr().out.startswith("一切正常")


def test_something_wrong_is_1(run_dir: Path, capsys: Output) -> None:
    page = snapshot()
    lose_a_meter(page)
    StatusFiles(run_dir).write(page)
    assert operate.status() == 1
    assert capsys.readouterr().out.startswith("! meter-04  线路 meters 上站号 4 无应答")
    assert operate.status(as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["devices"]["meter-04"]["state"] == "bad"


def test_json_is_the_file_and_whether_it_runs(run_dir: Path, capsys: Output) -> None:
    StatusFiles(run_dir).write(snapshot())
    assert operate.status(as_json=True) == 0
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert shown["running"] is True
    assert shown["age_s"] < 5
    assert {key: shown[key] for key in snapshot()} == snapshot()
    assert "三号冲床" in out


def test_an_agent_that_died_is_told(run_dir: Path, capsys: Output) -> None:
    StatusFiles(run_dir).write(snapshot())
    found = json.loads((run_dir / "status.json").read_bytes())
    found["written"]["monotonic"] -= 100
    (run_dir / "status.json").write_text(json.dumps(found))
    assert operate.status() == 1
    assert capsys.readouterr().out.startswith("采集程序没有在运行，最后一次状态（1 分钟 4")
    assert operate.status(as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["running"] is False
    assert operate.resume() == 1
    assert "没有在运行" in capsys.readouterr().err


def test_a_file_that_cannot_be_understood(run_dir: Path, capsys: Output) -> None:
    (run_dir / "status.json").write_text("{")
    assert operate.status() == 1
    assert "cannot be understood" in capsys.readouterr().err


async def test_values(asked: list[dict[str, Any]], capsys: Output) -> None:
    assert await asyncio.to_thread(operate.status, values="") == 0
    assert "parts  产量   7        正常  500 毫秒" in capsys.readouterr().out
    assert await asyncio.to_thread(operate.status, values="press-3", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["devices"]["press-3"]["tags"][0]["value"] == 7
    assert [body["device"] for body in asked] == [None, "press-3"]
    assert await asyncio.to_thread(operate.status, values="press-9") == 1
    assert capsys.readouterr().err == "shopfloor: 没有叫 press-9 的设备或线路；现有：press-3, meter-04\n"


async def test_pause_and_resume(asked: list[dict[str, Any]], capsys: Output) -> None:
    assert await asyncio.to_thread(operate.pause, "press-3", "30m") == 0
    assert capsys.readouterr().out == "已暂停：press-3，30 分钟后自动恢复（提前恢复：shopfloor resume）。\n"
    assert await asyncio.to_thread(operate.resume, "press-3") == 0
    assert await asyncio.to_thread(operate.resume) == 0
    assert capsys.readouterr().out == "已恢复采集：press-3。\n没有暂停中的设备。\n"
    assert asked == [
        {"command": "pause", "target": "press-3", "for_s": 1800.0},
        {"command": "resume", "target": "press-3"},
        {"command": "resume", "target": None},
    ]


@pytest.mark.parametrize("span", ["soon", "0", "8 d", "-5m", ""])
def test_a_span_that_is_none_is_a_mistake_of_usage(span: str, run_dir: Path, capsys: Output) -> None:
    StatusFiles(run_dir).write(snapshot())
    assert operate.pause("press-3", span) == 2
    assert "--for" in capsys.readouterr().err


def test_without_a_socket_the_service_is_named(run_dir: Path, capsys: Output) -> None:
    StatusFiles(run_dir).write(snapshot())
    assert operate.resume() == 1
    assert "systemctl status shopfloor-agent" in capsys.readouterr().err
