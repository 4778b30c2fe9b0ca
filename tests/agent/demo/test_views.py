import fcntl
import io
import os
import struct
import termios
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest

from agent.demo.board import Board
from agent.demo.cells import Paint, bare
from agent.demo.children import ChildFailed
from agent.demo.configuration import DEVICES
from agent.demo.ledger import Ledger
from agent.demo.show import Outcome, summary
from agent.demo.terminal import Screen, is_screen, may_colour, shows_braille
from agent.demo.texts import Texts
from agent.demo.views import LineView, Scene, TableView, listen_command

EN = Texts("en")


def scene() -> Scene:
    now_ms = time.time_ns() // 1_000_000
    shown = Scene(
        board=Board(DEVICES),
        ledger=Ledger(),
        broker="mosquitto",
        port=41_883,
        configuration_file="/tmp/shopfloor-demo-x/agent.yaml",
        agent_log=lambda _lines: ["08:15:03  三号冲床  正常"],
        started=time.monotonic() - 12,
    )
    values: dict[str, Any] = {"temperature": 52.5, "torque": None}
    message = {"device": "press-3", "group": "1s", "ts": now_ms, "run": "a" * 16, "seq": 1, "values": values}
    shown.board.data(message | {"quality": {"torque": "bad:timeout"}})
    shown.board.meta("press-3", {"label": "三号冲床", "tags": {"temperature": {"unit": "Cel"}, "torque": {}}})
    shown.board.status({"state": "online", "devices": {"press-3": "degraded"}})
    shown.ledger.take(message)
    return shown


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """The far end of a terminal, and the stream of a program in it."""
    far, near = os.openpty()
    try:
        with os.fdopen(near, "w", encoding="utf-8") as stream:
            yield far, stream
    finally:
        os.close(far)


def read(far: int) -> str:
    """What was sent to the terminal until it was given back."""
    sent = b""
    while not sent.endswith(b"\x1b[?25h\x1b[?1049l"):
        sent += os.read(far, 4_096)
    return sent.decode()


def test_the_table_is_drawn_into_the_window_and_the_terminal_given_back(terminal: tuple[int, TextIO]) -> None:
    far, stream = terminal
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with Screen(stream) as screen:
        assert screen.size() == (80, 24)
        TableView(screen, EN, Paint(enabled=True), trends=True).update(scene())
    sent = read(far)
    assert sent.startswith("\x1b[?1049h\x1b[?25l")
    assert sent.count("\n") < 24
    text = bare(sent)
    assert "三号冲床" in text
    assert "bad:timeout" in text
    assert "mosquitto_sub -h 127.0.0.1 -p 41883 -t 'shopfloor/#' -v" in text
    assert "lost 0" in text


def test_the_cursor_comes_back_after_an_error(terminal: tuple[int, TextIO]) -> None:
    far, stream = terminal
    with pytest.raises(KeyboardInterrupt), Screen(stream):
        raise KeyboardInterrupt
    assert read(far) == "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?7h\x1b[?25h\x1b[?1049l"


def test_what_a_terminal_can_do(terminal: tuple[int, TextIO]) -> None:
    _, stream = terminal
    xterm = {"TERM": "xterm-256color"}
    assert is_screen(stream, xterm)
    assert may_colour(stream, xterm)
    assert not may_colour(stream, xterm | {"NO_COLOR": "1"})
    assert may_colour(stream, xterm | {"NO_COLOR": ""})
    assert not is_screen(stream, {"TERM": "dumb"})
    assert not is_screen(stream, {})
    assert not is_screen(io.StringIO(), xterm)
    assert shows_braille(stream, xterm)
    assert not shows_braille(stream, {"TERM": "linux"})


def test_lines_are_written_once_for_each_news() -> None:
    stream = io.StringIO()
    view = LineView(stream, EN)
    shown = scene()
    view.update(shown)
    view.update(shown)
    device, counters = stream.getvalue().splitlines()
    assert device[10:] == "press-3 三号冲床  temperature 52.5 Cel  torque - (bad:timeout)"
    assert counters.startswith("messages 1   values 1   0/s   lost 0   repeated 0   broker mosquitto 127.0.0.1:41883")


def test_the_rate_is_that_of_the_last_seconds() -> None:
    shown = scene()
    shown.rate(100.0)
    for seq in range(2, 12):
        shown.ledger.take({"device": "press-3", "run": "a" * 16, "seq": seq, "values": {"a": 1, "b": 2}})
    assert shown.rate(102.0) == 10.0
    assert shown.rate(104.0) == 5.0
    assert shown.rate(110.0) == 0.0


def test_the_command_to_listen_along() -> None:
    assert " ".join(listen_command(1883)) == "mosquitto_sub -h 127.0.0.1 -p 1883 -t 'shopfloor/#' -v"


def ledger(*seqs: int, devices: tuple[str, ...] = DEVICES) -> Ledger:
    account = Ledger()
    for seq in seqs:
        device = devices[seq % len(devices)]
        account.take({"run": "a" * 16, "seq": seq, "device": device, "values": {"a": 1}})
    return account


def outcome(**more: Any) -> Outcome:
    return Outcome(**{"seconds": 12.3, "first_after": 4.2, "awaited": True, "interruptions": 0} | more)


def test_a_good_end() -> None:
    account, board = ledger(1, 2, 3, 4), Board(DEVICES)
    board.meta("press-3", {"label": "三号冲床"})
    assert outcome().exit_code(account) == 0
    assert summary(outcome(), account, board, EN).splitlines() == [
        "Summary: 12 s, first reading after 4.2 s",
        "  press-3 三号冲床  1 readings in 1 messages",
        "  cnc-7             2 readings in 2 messages",
        "  this-host         1 readings in 1 messages",
        "  4 messages, 4 readings; lost 0, repeated 0",
        "  Every message arrived.",
    ]


@pytest.mark.parametrize(
    ("account", "changes"),
    [
        (ledger(1, 2, 3, 5), {}),
        (ledger(1, 2, devices=DEVICES[:2]), {}),
        (ledger(), {"first_after": None}),
        (ledger(1, 2, 3), {"failure": ChildFailed("agent", 1, "bug")}),
    ],
    ids=["lost", "never delivered", "nothing", "agent failed"],
)
def test_bad_ends(account: Ledger, changes: dict[str, Any]) -> None:
    assert outcome(**changes).exit_code(account) == 1
    assert "Every message arrived" not in summary(outcome(**changes), account, Board(DEVICES), EN)


def test_an_early_ctrl_c_blames_no_device() -> None:
    account = ledger(1, 2, devices=DEVICES[:1])
    assert outcome(awaited=False).exit_code(account) == 0


def test_a_failure_shows_the_end_of_the_log() -> None:
    text = summary(outcome(failure=ChildFailed("agent", 3, "line 1\nline 2")), ledger(1), Board(DEVICES), Texts("zh"))
    assert text.startswith("采集程序意外退出（代码 3），日志末尾：\nline 1\nline 2\n")
