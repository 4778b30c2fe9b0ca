from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import status
from agent.columns import width
from agent.metrics import render_metrics
from agent.status import Snapshot, StatusFiles, age_s, find_run_dir, is_running, read_status
from agent.status_text import judge, render_not_running, render_status, render_values


def snapshot() -> Snapshot:
    return {
        "agent": {
            "version": "0.1.0",
            "run": "9f3c1a7be2d04c55",
            "pid": 812,
            "site": "plant-2",
            "gateway": "gw-01",
            "label": "二号厂房网关",
            "language": "zh",
            "started_at": 1_700_000_000_123,
            "since_s": 11_111.2,
            "config": "sha256:1",
            "state": "running",
        },
        "broker": {
            "state": "connected",
            "url": "mqtts://broker:8883",
            "protocol": "5",
            "since_s": 400.0,
            "cause": None,
            "text": None,
            "window": 100,
            "in_flight": 2,
            "plaintext": False,
        },
        "buffer": {
            "state": "ok",
            "backlog": 0,
            "bytes": 12_345_678,
            "cap": 10**9,
            "oldest_s": None,
            "fills_in_s": None,
        },
        "counters": {"produced": 10, "carried_over": 0, "delivered": 9, "dropped": {"cap": 0, "refused": 1}},
        "devices": {
            "press-3": {
                "type": "modbus",
                "state": "ok",
                "since_s": 10.0,
                "label": "三号冲床",
                "last_read_age_s": 0.4,
                "tags": 12,
                "bad_tags": 0,
                "polls": 100,
                "missed": 0,
                "late_p99_ms": 3.2,
                "reconnects": 0,
                "requests": 200,
                "values_per_s": 12.0,
            },
            "meter-04": {"type": "modbus", "state": "ok", "since_s": 10.0},
        },
        "lines": {},
        "clock": {"synced": True},
        "loop_lag_ms": 1.2,
        "rss": 50_000_000,
        "findings": [],
    }


KEYS = (
    *("agent", "broker", "buffer", "counters", "devices", "clock", "findings", "tags", "state", "cause", "text"),
    *("facts", "last_read_age_s", "since_s", "bytes", "cap", "label", "dropped", "backlog"),
)


def lose_a_meter(page: Snapshot) -> None:
    meter = page["devices"]["meter-04"]
    meter["state"] = "bad"
    meter["cause"] = "no_answer"
    meter["text"] = "no answer"
    meter["facts"] = {"unit_id": 4, "line": "meters", "others": 11}


class TestFiles:
    def test_both_are_written_and_readable_by_all(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            files = StatusFiles(tmp_path / "run")
            assert files.write(snapshot())
            assert files.write(snapshot())
        finally:
            os.umask(before)
        assert sorted(path.name for path in files.run_dir.iterdir()) == ["metrics.prom", "status.json"]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in files.run_dir.iterdir())
        known = read_status(files.run_dir)
        assert known is not None
        assert known["v"] == 1
        assert known["devices"]["press-3"]["label"] == "三号冲床"
        assert "三号冲床" in (files.run_dir / "status.json").read_text(encoding="utf-8")
        assert is_running(known, files.run_dir)

    def test_a_disk_that_refuses_is_told_and_survived(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("in the way")
        files = StatusFiles(tmp_path / "run")
        assert not files.write(snapshot())
        assert files.error is not None
        (tmp_path / "run").unlink()
        assert files.write(snapshot())
        assert files.error is None

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
    def test_what_cannot_be_understood_is_no_status(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "status.json").write_bytes(content)
        assert read_status(tmp_path) is None
        assert read_status(tmp_path / "status.json") is None
        assert read_status(tmp_path / "nowhere") is None


class TestAge:
    @pytest.fixture
    def written(self, tmp_path: Path) -> dict[str, Any]:
        StatusFiles(tmp_path).write(snapshot())
        return json.loads((tmp_path / "status.json").read_bytes())  # type: ignore[no-any-return] # JSON has no types

    def test_old_means_not_running(self, written: dict[str, Any], tmp_path: Path) -> None:
        written["written"]["monotonic"] -= 14
        assert is_running(written, tmp_path)
        written["written"]["monotonic"] -= 2
        assert not is_running(written, tmp_path)

    def test_a_clock_that_is_set_changes_nothing(self, written: dict[str, Any], tmp_path: Path) -> None:
        for mtime in (0, 4_000_000_000):
            os.utime(tmp_path / "status.json", (mtime, mtime))
            assert age_s(written, tmp_path) < 5

    def test_a_file_of_an_earlier_boot_is_old(self, written: dict[str, Any], tmp_path: Path) -> None:
        written["written"]["boot_id"] = "another"
        assert age_s(written, tmp_path) == float("inf")
        assert "本机上次开机" in render_not_running(written, float("inf"), "zh")[0]

    @pytest.mark.parametrize("stamp", [None, {}, {"monotonic": 1e12, "boot_id": status.boot_id()}, {"monotonic": "x"}])
    def test_without_a_usable_stamp_the_files_own_time_decides(
        self, written: dict[str, Any], tmp_path: Path, stamp: object
    ) -> None:
        written["written"] = stamp
        assert is_running(written, tmp_path)
        os.utime(tmp_path / "status.json", (1_000_000_000, 1_000_000_000))
        assert not is_running(written, tmp_path)

    def test_stopped_is_not_running(self, written: dict[str, Any], tmp_path: Path) -> None:
        written["agent"]["state"] = "stopped"
        assert not is_running(written, tmp_path)


class TestPlaces:
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def test_systemd_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/state:{tmp_path}/other")
        monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/run")
        assert status.choose_data_dir() == tmp_path / "state"
        assert status.choose_run_dir(tmp_path / "data") == tmp_path / "run"

    def test_commands_take_the_first_that_holds_a_status(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert find_run_dir() is None
        home = tmp_path / "home/.local/state/shopfloor-agent/run"
        StatusFiles(home).write(snapshot())
        assert find_run_dir() == home
        named = tmp_path / "data/run"
        StatusFiles(named).write(snapshot())
        assert find_run_dir(tmp_path / "data") == named
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "empty"))
        assert find_run_dir() == home
        StatusFiles(tmp_path / "empty").write(snapshot())
        assert find_run_dir() == tmp_path / "empty"

    def test_an_ordinary_user_gets_directories_of_his_own(self, tmp_path: Path) -> None:
        if os.getuid() != 0:
            assert status.choose_data_dir() == tmp_path / "home/.local/state/shopfloor-agent"
            assert status.choose_run_dir(tmp_path) == tmp_path / "run"
            return
        code = (
            "import os; from agent.status import *\n"
            "os.setgroups([]);os.setgid(65534);os.setuid(65534)\n"
            "print(choose_data_dir(), choose_run_dir(choose_data_dir()))\n"
        )
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20, env={"HOME": "/h"}
        ).stdout
        assert out.split() == ["/h/.local/state/shopfloor-agent", "/h/.local/state/shopfloor-agent/run"]


class TestMetrics:
    def test_every_line_is_well_formed_and_families_stand_together(self) -> None:
        page = snapshot()
        page["devices"]['we"ird\\\n'] = page["devices"]["press-3"]
        seen: list[str] = []
        for line in render_metrics(page).splitlines():
            if line.startswith("#"):
                assert re.fullmatch(r"# (HELP|TYPE) shopfloor_[a-z0-9_]+ .+", line)
                continue
            match = re.fullmatch(
                r'(shopfloor_[a-z0-9_]+)(\{[a-z]+="([^"\\\n]|\\.)*"(,[a-z]+="([^"\\\n]|\\.)*")*\})? -?[0-9.e+-]+', line
            )
            assert match, line
            if not seen or seen[-1] != match[1]:
                seen.append(match[1])
        assert len(seen) == len(set(seen))
        assert 'device="we\\"ird\\\\\\n"' in render_metrics(page)

    def test_figures(self) -> None:
        lines = render_metrics(snapshot()).splitlines()
        assert "shopfloor_messages_delivered_total 9" in lines
        assert 'shopfloor_messages_dropped_total{reason="refused"} 1' in lines
        assert 'shopfloor_device_late_p99_seconds{device="press-3"} 0.0032' in lines
        assert 'shopfloor_device_state{device="press-3",type="modbus",state="ok"} 1' in lines
        assert "shopfloor_clock_synced 1" in lines
        assert not any("fills_in" in line or "oldest_age" in line for line in lines)
        assert "# TYPE shopfloor_device_polls_total counter" in lines


class TestPage:
    def test_all_well(self) -> None:
        assert render_status(snapshot(), 2, "zh")[0] == "一切正常：2 台设备都在采集。"
        assert render_status(snapshot(), 2, "en")[0] == "all well: 2 devices are read."

    @pytest.mark.parametrize(
        ("language", "words"), [("zh", "看不到被权限拒收的消息"), ("en", "denied messages cannot be seen")]
    )
    def test_the_blind_spot_of_311_is_where_users_look(self, language: str, words: str) -> None:
        page = snapshot()
        assert not any(words in line for line in render_status(page, 2, language))
        page["broker"]["protocol"] = "3.1.1"
        assert any(words in line for line in render_status(page, 2, language))

    def test_a_line_that_several_devices_share_tells_how_busy_it_is(self) -> None:
        page = snapshot()
        line = {"state": "connected", "busy": 0.42, "reconnects": 1, "requests": 9, "late": 3}
        page["lines"] = cast(
            "Any", {"meters": {**line, "users": ["a", "b"]}, "tcp://10.0.0.1:502": {**line, "users": ["c"]}}
        )
        lines = render_status(page, 2, "en")
        at = lines.index("line    devices  busy  late polls  reconnects")
        assert lines[at + 1].split() == ["meters", "2", "42%", "3", "1"]
        assert not any("10.0.0.1" in one for one in lines)
        assert 'shopfloor_line_busy_ratio{line="meters"} 0.42' in render_metrics(page)

    @pytest.mark.parametrize("language", ["zh", "en"])
    def test_the_first_line_says_what_is_wrong_and_what_to_do(self, language: str) -> None:
        page = snapshot()
        lose_a_meter(page)
        first = render_status(page, 2, language)[0]
        assert "meter-04" in first
        assert "A/B" in first

    def test_the_worst_comes_first(self) -> None:
        page = snapshot()
        lose_a_meter(page)
        page["broker"] |= {"state": "refused", "cause": "bad_login", "text": "t"}
        page["buffer"]["state"] = "degraded"
        page["agent"]["config_refused"] = "agent.yaml:6:5: prot: unknown key"
        assert [who for who, _ in judge(page, "en").problems] == ["buffer", "broker", "meter-04", "configuration"]

    def test_pauses_and_starts_are_not_wrong(self) -> None:
        page = snapshot()
        page["devices"]["meter-04"]["state"] = "paused"
        page["devices"]["meter-04"]["paused_for_s"] = 1500.0
        lines = render_status(page, 2, "zh")
        assert lines[0] == "一切正常：2 台设备中 1 台在采集，其余正在启动或已暂停。"
        assert any("已暂停（还有 25 分钟）" in line for line in lines)

    def test_notes_do_not_make_it_wrong(self) -> None:
        page = snapshot()
        page["clock"]["synced"] = False
        page["broker"]["plaintext"] = True
        verdict = judge(page, "zh")
        assert not verdict.problems
        assert len(verdict.notes) == 2

    def test_columns_are_aligned_with_chinese_in_them(self) -> None:
        page = snapshot()
        lines = render_status(page, 2, "zh")
        head = next(i for i, line in enumerate(lines) if line.startswith("设备"))
        column = width(lines[head].partition("类型")[0])
        for line in lines[head + 1 : head + 3]:
            assert width(line.partition("modbus")[0]) == column

    def test_values(self) -> None:
        devices = {
            "press-3": {
                "label": "三号冲床",
                "state": "ok",
                "tags": [
                    {"name": "temperature", "label": "温度", "value": 23.5, "unit": "Cel", "quality": None, "age_s": 1},
                    {"name": "running", "label": None, "value": True, "unit": None, "quality": None, "age_s": 0.1},
                    {"name": "evil", "value": "\x1b[2J", "quality": "bad:timeout", "age_s": None},
                ],
            }
        }
        lines = render_values(devices, "zh")
        assert lines[0] == "press-3  三号冲床  正常"
        assert "\x1b" not in "".join(lines)
        assert re.search(r"temperature\s+温度\s+23.5\s+Cel\s+正常\s+1 秒", lines[2])
        assert re.search(r"running\s+true\s+正常\s+100 毫秒", lines[3])
        assert "超时" in lines[4]

    @given(
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.booleans(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(KEYS),
                    inner,
                    max_size=6,
                )
            ),
            max_leaves=25,
        ),
        st.sampled_from(["zh", "en"]),
    )
    @settings(max_examples=150)
    def test_a_file_of_another_version_is_shown_as_far_as_it_goes(self, found: object, language: str) -> None:
        page = found if isinstance(found, dict) else {"devices": {"x": found}}
        for line in (*render_status(page, 1, language), *render_not_running(page, 1, language)):
            assert "\n" not in line
        render_values(page, language)


def test_asking_for_the_status_loads_nothing_heavy() -> None:
    code = "import sys, agent.commission.operate; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20).stdout
    assert not {"pydantic", "yaml", "structlog", "orjson", "asyncio", "paho"} & set(out.split())
