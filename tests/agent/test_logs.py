from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pty
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import logs
from agent.log_file import QUEUE_LINES, RotatingFile, Writer, rotated
from agent.logs import LINES_A_MINUTE, RateLimit, Settings
from collectors.fields import SecretText


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[IO[str]]:
    with (tmp_path / "stderr").open("w", encoding="utf-8") as file:
        yield file


def written(active: logs.Logging, path: Path) -> list[str]:
    assert active.flush()
    return path.read_text(encoding="utf-8").splitlines()


def test_json_has_a_fixed_order_and_readable_chinese(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(), "zh", None, stream=stream)
    log = structlog.get_logger()
    log.warning("device_lost", label="三号冲床", cause="no_route", where="h:502", device="press-3", line=None)
    (line,) = written(active, tmp_path / "stderr")
    assert list(json.loads(line)) == ["ts", "level", "event", "device", "label", "cause", "where"]
    assert '"label":"三号冲床"' in line
    ts = json.loads(line)["ts"]
    assert len(ts) == len("2026-07-01T00:15:03.123Z")
    assert ts.endswith("Z")


def test_what_a_device_sends_stays_on_one_line(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(), "en", None, stream=stream)
    evil = "x\r\n\x1b[2J\x9b\x85\u2028\u202e\x00\udce9"
    structlog.get_logger().info("device_lost", detail=evil)
    (line,) = written(active, tmp_path / "stderr")
    assert line.isprintable()
    assert json.loads(line)["detail"] == evil


def test_secrets_are_not_shown(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(), "en", None, stream=stream)
    log = structlog.get_logger()
    log.info("a", what=SecretText("canary"), deep={"password": "canary", "ok": [SecretText("canary")]})
    log.info("b", url="mqtt://user:canary@broker:1883", token="canary")
    logging.getLogger("paho").error("connecting to mqtts://u:canary@h failed with %r", SecretText("canary"))
    try:
        raise ValueError("opc.tcp://u:canary@h")
    except ValueError:
        log.exception("c")
    lines = written(active, tmp_path / "stderr")
    assert len(lines) == 4
    assert "canary" not in "".join(lines)
    assert json.loads(lines[1])["url"] == "mqtt://***@broker:1883"


def test_libraries_speak_through_the_same_renderer(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(), "en", None, stream=stream)
    logging.getLogger("pymodbus.logging").error("No response received after 3 retries")
    logging.getLogger("asyncua.client.ua_client").info("open channel")
    logging.getLogger("asyncua.client.ua_client").warning("closing\nnow %d", 7)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if isinstance(handler, logs._LibraryHandler)]
    # pytest's own handlers, taken off above, raise for what comes now
    logging.getLogger("other").warning("%d bottles", "no")
    lines = [json.loads(line) for line in written(active, tmp_path / "stderr")]
    assert [(line["event"], line["logger"], line["text"]) for line in lines] == [
        ("library_log", "asyncua.client.ua_client", "closing\nnow 7"),
        ("library_log", "other", "%d bottles"),
    ]


def test_levels(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(level="warning"), "en", None, stream=stream)
    log = structlog.get_logger()
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("e")
    assert [json.loads(line)["level"] for line in written(active, tmp_path / "stderr")] == [
        "warning", "error", "critical",
    ]  # fmt: skip


def test_a_traceback_is_part_of_its_line(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(), "en", None, stream=stream)
    try:
        raise LookupError("gears")
    except LookupError as error:
        structlog.get_logger().error("device_lost", device="d", cause="bug", exc_info=error)
        structlog.get_logger().exception("device_lost", device="d", cause="bug")
    lines = [json.loads(line) for line in written(active, tmp_path / "stderr")]
    assert all(line["exception"].endswith("LookupError: gears\n") for line in lines)
    assert [line["level"] for line in lines] == ["error", "error"]


def test_sentences_on_a_terminal_json_elsewhere() -> None:
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w") as terminal:
            active = logs.configure(Settings(), "zh", "Asia/Shanghai", stream=terminal)
            structlog.get_logger().warning("device_lost", label="1号冲床", cause="no_route", where="192.168.10.21:502")
            assert active.flush()
            shown = os.read(ours, 1000).decode()
    finally:
        os.close(ours)
    assert shown[8:] == "  1号冲床  网络不通（192.168.10.21）：先看机床是否开机，再查网线。\r\n"


def test_under_systemd_each_line_tells_its_level(
    stream: IO[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    active = logs.configure(Settings(level="debug"), "en", None, stream=stream)
    log = structlog.get_logger()
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("e")
    assert [line[:4] for line in written(active, tmp_path / "stderr")] == ["<7>{", "<6>{", "<4>{", "<3>{", "<2>{"]
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")  # the journal of somebody else
    active = logs.configure(Settings(), "en", None, stream=stream)
    log.info("after")
    assert written(active, tmp_path / "stderr")[-1].startswith("{")


def test_with_a_file_the_journal_gets_errors_alone(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(file=tmp_path / "agent.log"), "en", None, stream=stream)
    structlog.get_logger().info("device_back", device="d")
    structlog.get_logger().error("agent_failed")
    assert [json.loads(line)["event"] for line in written(active, tmp_path / "agent.log")] == [
        "device_back", "agent_failed",
    ]  # fmt: skip
    assert len(written(active, tmp_path / "stderr")) == 1


def test_while_the_file_cannot_be_written_stderr_gets_everything(stream: IO[str], tmp_path: Path) -> None:
    (tmp_path / "agent.log").symlink_to("/dev/full")
    active = logs.configure(Settings(file=tmp_path / "agent.log"), "en", None, stream=stream)
    structlog.get_logger().info("device_back", device="a")
    assert active.flush()
    structlog.get_logger().info("device_back", device="b")
    assert [json.loads(line)["device"] for line in written(active, tmp_path / "stderr")] == ["b"]
    assert active.lost == 2


def test_reconfiguring_takes_the_place_of_what_was(stream: IO[str], tmp_path: Path) -> None:
    log = structlog.get_logger("made before")
    first = logs.configure(Settings(), "en", None, stream=stream)
    log.info("one")
    second = logs.configure(Settings(format="sentences"), "en", "UTC", stream=stream)
    log.info("agent_ready")
    logging.getLogger("x").warning("only once")
    assert first is not second
    lines = written(second, tmp_path / "stderr")
    assert len(lines) == 3
    assert lines[1].endswith("agent  the agent is ready.")


def test_storms_are_limited_and_the_rest_is_counted(stream: IO[str], tmp_path: Path, clock: Clock) -> None:
    active = logs.configure(Settings(), "en", None, stream=stream, clock=clock)
    log = structlog.get_logger()
    for _ in range(100):
        log.info("device_back", device="d")
        log.error("agent_failed")
        logging.getLogger("noisy").warning("again")
    log.info("device_lost", device="e")
    clock.now += 61
    log.info("device_back", device="d")
    events = [json.loads(line) for line in written(active, tmp_path / "stderr")]
    names = [event["event"] for event in events]
    assert names.count("device_back") == LINES_A_MINUTE + 1
    assert names.count("agent_failed") == 100
    assert names.count("library_log") == LINES_A_MINUTE
    assert names.count("device_lost") == 1
    suppressed = {event["of"]: event["lines"] for event in events if event["event"] == "log_suppressed"}
    assert suppressed == {"device_back": 40, "library_log:noisy": 40}
    assert names[-1] == "device_back"


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(0, 30)), max_size=300))
@settings(max_examples=60)
def test_the_limit_accounts_for_every_line(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    limit = RateLimit(clock)
    admitted = told = 0
    for event, pause in steps:
        clock.now += pause
        told += sum(lines for _, lines in limit.ended())
        admitted += limit.admit(event)
        assert len(limit._windows) <= logs._MAX_EVENTS + 1
    clock.now += 61
    assert admitted + told + sum(lines for _, lines in limit.ended()) == len(steps)


def test_the_limit_tells_a_bounded_number_of_events_apart(clock: Clock) -> None:
    limit = RateLimit(clock)
    for number in range(10_000):
        limit.admit(f"event_{number}")
    assert len(limit._windows) == logs._MAX_EVENTS + 1


async def test_a_finalizer_may_log(stream: IO[str], tmp_path: Path) -> None:
    active = logs.configure(Settings(), "en", None, stream=stream)

    async def fail() -> None:
        raise ValueError("nobody asked")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    gc.collect()
    lines = [json.loads(line) for line in written(active, tmp_path / "stderr")]
    assert [line["logger"] for line in lines] == ["asyncio"]
    assert "nobody asked" in lines[0]["exception"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20) | st.binary(),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(max_size=4) | st.integers(), inner),
    max_leaves=20,
)


@given(values)
@settings(max_examples=150)
def test_any_value_becomes_one_line_of_json(value: object) -> None:
    line = logs._json_line(datetime.now(UTC), "e", {"level": "info", "value": logs.plain(value), "n": float("nan")})
    assert "\n" not in line
    assert isinstance(json.loads(line), dict)
    line.encode()


def test_values_that_resist_are_named() -> None:
    class Sulky:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[Any] = []
    loop.append(loop)
    assert logs.plain(Sulky()) == "<Sulky>"
    assert json.dumps(logs.plain(loop))
    assert logs.plain("x" * 10_000) == "x" * 4096 + "…"
    assert logs.plain(float("inf")) is None


class TestRotatingFile:
    def test_full_files_move_up_and_the_oldest_goes(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.log"
        file = RotatingFile(path, max_size=30, keep=2)
        for number in range(9):
            assert file.write(f"line {number} ......")  # 15 bytes: two a file
        file.close()
        assert path.read_text() == "line 8 ......\n"
        assert [line[5] for line in rotated(path, 1).read_text().splitlines()] == ["6", "7"]
        assert [line[5] for line in rotated(path, 2).read_text().splitlines()] == ["4", "5"]
        assert not rotated(path, 3).exists()
        assert path.stat().st_mode & 0o777 == 0o640

    def test_without_old_files_and_with_long_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.log"
        file = RotatingFile(path, max_size=10, keep=0)
        for number in range(3):
            assert file.write(f"{number}" * 20)
        file.close()
        assert path.read_text() == "2" * 20 + "\n"
        assert list(tmp_path.iterdir()) == [path]

    def test_it_goes_on_where_it_ended(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.log"
        for number in range(3):
            file = RotatingFile(path, max_size=25, keep=1)
            file.write(f"line {number} ....")
            file.close()
        assert path.read_text() == "line 2 ....\n"
        assert rotated(path, 1).read_text().count("\n") == 2

    def test_a_file_moved_by_somebody_else_is_opened_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.log"
        file = RotatingFile(path, max_size=0, keep=1)
        file.write("one")
        path.rename(tmp_path / "moved")
        file.write("two")
        path.unlink()
        file.write("three")
        file.close()
        assert (tmp_path / "moved").read_text() == "one\n"
        assert path.read_text() == "three\n"

    def test_a_full_disk_is_tried_again_later(self, tmp_path: Path, clock: Clock) -> None:
        path = tmp_path / "agent.log"
        path.symlink_to("/dev/full")
        file = RotatingFile(path, max_size=1000, keep=1, clock=clock)
        assert not file.write("lost")
        assert file.error == "No space left on device"
        path.unlink()
        assert not file.write("too soon")
        clock.now += 11
        assert file.write("kept")
        assert file.error is None
        file.close()
        assert path.read_text() == "kept\n"

    def test_no_half_line_stays_behind(self, tmp_path: Path, clock: Clock) -> None:
        path = tmp_path / "agent.log"
        file = RotatingFile(path, max_size=0, keep=1, clock=clock)
        assert file.write("whole")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))  # as a disk does that fills up within the line
        try:
            assert not file.write("x" * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_text() == "whole\n"
        clock.now += 11
        assert file.write("after")
        file.close()
        assert path.read_text() == "whole\nafter\n"

    def test_a_directory_that_is_not_there(self, tmp_path: Path, clock: Clock) -> None:
        file = RotatingFile(tmp_path / "logs" / "agent.log", max_size=0, keep=1, clock=clock)
        assert not file.write("lost")
        (tmp_path / "logs").mkdir()
        clock.now += 11
        assert file.write("kept")
        file.close()


class Slow:
    """A disk that hangs until it is let go, or says that it is full."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.full = False
        self.lines: list[str] = []
        self.error: str | None = None

    def write(self, line: str) -> bool:
        self.go.wait(5)
        if self.full:
            self.error = "full"
            return False
        self.lines.append(line)
        return True

    def close(self) -> None:
        pass


def test_a_hanging_disk_holds_nobody_up_and_what_is_lost_is_told() -> None:
    writer = Writer(lambda lines, reason: f"{lines} lost: {reason}")
    disk = Slow()
    begun = time.monotonic()
    for number in range(QUEUE_LINES + 100):
        writer.put(disk, str(number))
    assert time.monotonic() - begun < 1.0
    lost = writer.lost
    assert 95 <= lost <= 100
    disk.go.set()
    assert writer.flush(5)
    assert disk.lines.count(f"{lost} lost: queue") == 1
    disk.full = True
    writer.put(disk, "gone")
    assert writer.flush(5)
    disk.full = False
    writer.put(disk, "kept")
    writer.close()
    writer.close()
    assert disk.lines[-2:] == ["1 lost: full", "kept"]


def test_lines_are_written_before_the_process_ends(tmp_path: Path) -> None:
    code = (
        "import structlog\nfrom agent import logs\n"
        "logs.configure(logs.Settings(), 'en', None)\n"
        "for n in range(50): structlog.get_logger().info('device_back', n=n)\n"
        "raise SystemExit(3)\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert child.returncode == 3
    assert [json.loads(line)["n"] for line in child.stderr.splitlines()] == list(range(50))


def test_a_reader_that_is_gone_is_no_trouble() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as stream:
        active = logs.configure(Settings(), "en", None, stream=stream)
        structlog.get_logger().info("agent_ready")
        assert active.flush()
        assert active.lost == 1
        active.close()


def test_an_unknown_zone_is_the_systems() -> None:
    assert logs.zone("Middle/Earth") is None
    assert logs.zone("../etc/passwd") is None
    assert str(logs.zone("Asia/Shanghai")) == "Asia/Shanghai"
