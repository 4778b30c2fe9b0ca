from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.columns import width
from agent.demo.board import Board
from agent.demo.cells import Paint, bare
from agent.demo.table import Table, age_text, for_people, layout, shares, sparkline, value_text
from agent.demo.texts import Texts, language_of

EN = Texts("en")
NOW = 10_000
FOOTER = [(["messages 12", "values 120", "lost 0"], "   "), (["listen along:", "mosquitto_sub", "-v"], " ")]


def board(host_tags: int = 30) -> Board:
    shown = Board(("press-3", "cnc-7", "this-host"))
    tags = {"temperature": {"label": "模具温度", "unit": "Cel", "group": "1s"}, "lot": {"label": "批次", "group": "1s"}}
    shown.meta("press-3", {"label": "三号冲床", "tags": tags})
    shown.status({"state": "online", "devices": {"press-3": "ok"}})
    values: dict[str, Any] = {"temperature": 52.5, "lot": "批次000096", "torque": None}
    message = {"device": "press-3", "group": "1s", "ts": 9_600, "values": values}
    shown.data(message | {"quality": {"torque": "bad:timeout"}})
    host = {f"cpu_core{number}_percent": number / 7 for number in range(host_tags)}
    shown.data({"device": "this-host", "group": "2s", "ts": 9_000, "values": host})
    return shown


def window(size: tuple[int, int], *, paint: bool = False, host_tags: int = 30, texts: Texts = EN) -> list[str]:
    table = Table(texts, Paint(paint))
    return table.window(("demo", "0:12"), list(board(host_tags).devices.values()), FOOTER, size, NOW)


def test_a_window_of_80_by_24() -> None:
    lines = window((80, 24))
    assert len(lines) == 24
    assert lines[:7] == [
        " demo" + " " * 70 + "0:12 ",
        "device        tag                           value  unit       age  quality      ",
        "press-3       temperature                    52.5  Cel      0.4 s  good         ",
        "三号冲床      lot                      批次000096           0.4 s  good         ",
        "ok            torque                            -           0.4 s  bad:timeout  ",
        "cnc-7         waiting for readings",
        "this-host     cpu_core0_percent                 0           1.0 s  good         ",
    ]
    assert lines[-4].strip() == "+ 16 more tags"
    assert lines[-3:] == ["", "messages 12   values 120   lost 0", "listen along: mosquitto_sub -v"]


def test_a_wide_window_has_labels_and_trends() -> None:
    heading = window((120, 40))[1].split()
    assert heading == ["device", "tag", "label", "value", "unit", "trend", "age", "quality"]
    assert "label" in window((100, 40))[1].split()
    assert "trend" not in window((100, 40))[1].split()


@given(st.integers(4, 200), st.integers(1, 60), st.booleans(), st.integers(0, 40), st.sampled_from(["zh", "en"]))
@settings(max_examples=150)
def test_no_window_is_overfull(columns: int, lines: int, paint: bool, tags: int, language: Any) -> None:
    drawn = window((columns, lines), paint=paint, host_tags=tags, texts=Texts(language))
    assert len(drawn) <= lines
    assert max(width(bare(line)) for line in drawn) <= columns
    assert paint or not any("\x1b" in line for line in drawn)


def test_every_layout_fits() -> None:
    assert all(layout(columns).width <= columns for columns in range(4, 250))


def test_every_device_keeps_rows_in_a_low_window() -> None:
    text = "\n".join(window((80, 10)))
    assert all(name in text for name in ("press-3", "cnc-7", "this-host"))


def test_a_change_is_bold_for_a_moment() -> None:
    shown = board()
    shown.data({"device": "press-3", "group": "1s", "ts": NOW, "values": {"temperature": 53.5}})
    table = Table(EN, Paint(enabled=True))
    devices = list(shown.devices.values())
    assert "\x1b[1m" in table.rows(devices, 80, 20, NOW + 100)[1]
    assert "\x1b[1m" not in table.rows(devices, 80, 20, NOW + 2_000)[1]


@pytest.mark.parametrize(
    ("wanted", "room", "dealt"),
    [
        ([8, 7, 30], 18, [8, 7, 3]),
        ([2, 7, 30], 18, [2, 7, 9]),
        ([8, 7, 30], 10, [3, 4, 3]),
        ([8, 7, 3], 40, [8, 7, 3]),
        ([8, 7, 3], 2, [0, 1, 1]),
        ([], 5, []),
    ],
)
def test_rows_are_dealt_fairly(wanted: list[int], room: int, dealt: list[int]) -> None:
    assert shares(wanted, room) == dealt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (23.4, "23.4"),
        (1 / 3, "0.333333"),
        (48_211, "48211"),
        (8_345_718_784, "8,345,718,784"),
        (1e-7, "1e-07"),
        (True, "yes"),
        ("", ""),
        (None, "-"),
    ],
)
def test_values_for_people(value: Any, text: str) -> None:
    assert value_text(value, EN) == text


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (24_754_458_624, "By", ("24.75", "GB")),
        (999_999, "By", ("1000", "kB")),
        (1_000_000, "By", ("1", "MB")),
        (8_000_000_000_000_000, "By", ("8000", "TB")),
        (9_999, "By", ("9999", "By")),
        (24_754_458_624, "", ("24,754,458,624", "")),
        (None, "By", ("-", "By")),
    ],
)
def test_bytes_for_people(value: Any, unit: str, shown: tuple[str, str]) -> None:
    assert for_people(value, unit, EN) == shown


@pytest.mark.parametrize(
    ("age", "text"), [(-50, "0.0 s"), (400, "0.4 s"), (12_000, "12 s"), (119_000, "119 s"), (600_000, "10 min")]
)
def test_ages_fit_their_column(age: int, text: str) -> None:
    assert age_text(age) == text


def test_a_trend_is_scaled_to_its_own_range() -> None:
    assert sparkline([], 4) == ""
    assert sparkline([5, 5, 5, 5], 4) == "⣀⣀"
    assert sparkline([0, 1, 2, 3], 4) == "⣠⣾"
    assert sparkline(range(100), 4) == sparkline(range(92, 100), 4)


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_language_follows_the_locale(variables: dict[str, str], language: str) -> None:
    assert language_of(variables) == language


def test_both_languages_have_the_same_texts() -> None:
    from agent.demo import texts

    assert set(texts._EN) == set(texts._ZH)
