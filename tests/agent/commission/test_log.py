from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commission.log import TAIL_LINES, Printer, follow_file, log, parse, read_files, show
from agent.log_file import RotatingFile, rotated

SHANGHAI = ZoneInfo("Asia/Shanghai")


def event(name: str, ts: str = "2026-07-01T00:15:03.000Z", **fields: object) -> str:
    return json.dumps({"ts": ts, "level": "info", "event": name, **fields}, ensure_ascii=False)


LOST = event("device_lost", device="press-1", label="1号冲床", cause="no_route", where="192.168.10.21:502")
SENTENCE = "08:15:03  1号冲床  网络不通（192.168.10.21）：先看机床是否开机，再查网线。"


def test_events_become_sentences_with_local_time() -> None:
    later = event("agent_ready", "2026-07-01T16:00:00.000Z")
    lines = list(Printer("zh", SHANGHAI, None).render([LOST, "<4>" + LOST, later]))
    assert lines == [
        "2026-07-01 周三",
        SENTENCE,
        SENTENCE,
        "2026-07-02 周四",
        "00:00:00  网关     采集程序就绪。",
    ]


def test_what_is_no_event_is_passed_through_safely() -> None:
    foreign = ["Started shopfloor-agent.service.", "{not json", '{"a":1}', "[1]", "", "\x1b[2Jx", "{" * 2000]
    lines = list(Printer("en", SHANGHAI, None).render(foreign))
    assert lines == ["Started shopfloor-agent.service.", "{not json", '{"a":1}', "[1]", "\\x1b[2Jx", "{" * 2000]


def test_one_device_alone_by_name_or_label() -> None:
    others = [event("device_ok", device="press-2"), event("agent_ready"), "Started."]
    for device in ("press-1", "1号冲床"):
        assert list(Printer("zh", SHANGHAI, device).render([*others, LOST]))[1:] == [SENTENCE]


@given(st.text(max_size=80) | st.dictionaries(st.sampled_from(["ts", "event", "x"]), st.text() | st.integers()))
@settings(max_examples=150)
def test_no_line_is_too_strange(found: object) -> None:
    line = found if isinstance(found, str) else json.dumps(found)
    parse(line)
    list(Printer("zh", None, None).render([line]))
    assert parse(event("e", "0001-01-01T00:00:00+00:00")) is not None
    list(Printer("zh", SHANGHAI, None).render([event("e", "9999-12-31T23:59:59.999Z")]))


def test_all_files_are_read_oldest_first(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a.log", max_size=200, keep=3)
    for number in range(8):
        file.write(event("device_back", device=f"d{number}"))
    file.close()
    assert rotated(tmp_path / "a.log", 3).exists()
    devices = [json.loads(line)["device"] for line in read_files(tmp_path / "a.log")]
    assert devices == [f"d{number}" for number in range(8 - len(devices), 8)]
    assert len(devices) >= 4


class Script:
    """Does one step each time the follower finds nothing new; ends it after the last."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)

    def __call__(self) -> bool:
        if not self._steps:
            return False
        self._steps.pop(0)()
        return True


def test_following_goes_through_rotations(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    file = RotatingFile(path, max_size=100, keep=5)

    def write(*lines: str) -> Callable[[], object]:
        return lambda: [file.write(line) for line in lines]

    line = "x" * 40
    steps = Script(
        write("1" + line),
        write("2" + line, "3" + line),  # one rotation
        write(*(f"{number}" + line for number in range(4, 10))),  # several at once
        lambda: path.rename(tmp_path / "elsewhere"),
        write("a" + line),
    )
    assert [line[0] for line in follow_file(path, steps)] == list("123456789a")
    file.close()


def test_following_waits_for_whole_lines_and_survives_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\n")

    def add(text: str) -> Callable[[], object]:
        def step() -> None:
            with path.open("a") as file:
                file.write(text)

        return step

    steps = Script(add("he"), add("llo\n三号"), add("冲床\n"), lambda: os.truncate(path, 0), add("new\n"))
    assert list(follow_file(path, steps)) == ["old", "hello", "三号冲床", "new"]


def test_following_begins_with_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"{number}\n" for number in range(100_000)))
    lines = list(follow_file(path, Script()))
    assert lines == [str(number) for number in range(100_000 - TAIL_LINES, 100_000)]


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    (tmp_path / "a.log").write_text(LOST + "\n", encoding="utf-8")
    assert show(tmp_path / "a.log", "zh", SHANGHAI, follow=False, device=None, out=out) == 0
    assert out.getvalue() == f"2026-07-01 周三\n{SENTENCE}\n"
    assert show(tmp_path / "b.log", "en", SHANGHAI, follow=False, device=None, out=out) == 1
    assert show(tmp_path, "en", SHANGHAI, follow=False, device=None, out=out) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"shopfloor: {tmp_path}/b.log does not exist yet.",
        f"shopfloor: {tmp_path}: Is a directory",
    ]


def journalctl(directory: Path, script: str) -> None:
    """A journalctl as a machine with systemd has one, saying what the test wants."""
    program = directory / "journalctl"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_without_a_file_the_journal_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert show(None, "zh", SHANGHAI, follow=False, device=None, out=io.StringIO()) == 1
    assert "log.file" in capsys.readouterr().err
    (tmp_path / "said").write_text(f"Started.\n{LOST}\n", encoding="utf-8")
    journalctl(tmp_path, f'echo "$@" > {tmp_path}/asked; while read -r l; do echo "$l"; done < {tmp_path}/said\n')
    out = io.StringIO()
    assert show(None, "zh", SHANGHAI, follow=True, device=None, out=out) == 0
    assert out.getvalue() == f"Started.\n2026-07-01 周三\n{SENTENCE}\n"
    assert (tmp_path / "asked").read_text() == "-u shopfloor-agent -o cat --no-pager -q -f -n 50\n"
    journalctl(tmp_path, "exit 0\n")
    assert show(None, "en", SHANGHAI, follow=False, device=None, out=out) == 1
    assert "systemd-journal" in capsys.readouterr().err


def test_the_command_takes_file_language_and_zone_from_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text(LOST + "\n", encoding="utf-8")
    config = tmp_path / "agent.yaml"
    config.write_text(
        "site: plant-2\ngateway: gw-01\ntimezone: Asia/Shanghai\nlanguage: zh\nlog: {file: a.log}\n"
        "mqtt: {url: 'mqtt://127.0.0.1:1883'}\ndevices: [{name: box, type: host}]\n"
    )
    assert log(config) == 0
    assert capsys.readouterr().out == f"2026-07-01 周三\n{SENTENCE}\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert log(tmp_path / "none.yaml") == 1
    assert "none.yaml" in capsys.readouterr().err
