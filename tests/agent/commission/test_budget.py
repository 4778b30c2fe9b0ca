from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commission.budget import Asked, budgets
from agent.commission.check import costs, lines
from agent.config import AgentConfig, load
from collectors.api import Estimate


def asked(device: str, line: str | None, share: float, *groups: str) -> Asked:
    return Asked(device, Estimate(1.0, share, line, 1.0, 1.0), groups)


def test_what_fits_is_left_alone() -> None:
    [budget] = budgets([asked("a", "bus", 0.3, "1s"), asked("b", "bus", 0.5, "1s"), asked("c", None, 9.0, "1s")], {})
    assert (budget.line, budget.busy, list(budget.devices), budget.fits) == ("bus", 0.8, ["a", "b"], {})
    assert str(budget) == ""


def test_rates_that_fit_are_proposed_for_all_by_the_same_factor() -> None:
    [budget] = budgets([asked("a", "bus", 1.0, "500ms", "5s"), asked("b", "bus", 0.5, "1s")], {})
    assert budget.fits == {("a", "500ms"): "1s", ("a", "5s"): "10s", ("b", "1s"): "2s"}
    assert str(budget) == "cannot keep up, 80% may be used; these rates fit: 500ms -> 1s, 5s -> 10s, 1s -> 2s"


def test_a_line_that_others_use_too_has_less_room() -> None:
    [free, shared] = budgets([asked("a", "x", 0.7, "1s"), asked("b", "y", 0.7, "1s")], {"y": 0.6})
    assert free.fits == {}
    assert shared.fits == {("b", "1s"): "2s"}
    assert str(shared).startswith("nearly full")


def test_hours_are_whole() -> None:
    [budget] = budgets([asked("a", "x", 8.0, "1h")], {})
    assert budget.fits == {("a", "1h"): "10h"}


LINES = (
    "url: 'rtu+tcp://10.0.0.1:4001', baudrate: 9600, max_load: 60 %",
    "url: 'serial:///dev/ttyS1', baudrate: 2400, parity: E, pause: 50 ms",
    "url: 'tcp://10.0.0.2', pause: 5 ms",
    "url: 'listen://0.0.0.0:4001', baudrate: 19200",
)
INTERVALS = ("20 ms", "100 ms", "1 s", "2 s", "3 s", "1 min")


def loaded(line: str, devices: list[list[tuple[int, str]]], answer_time: str) -> AgentConfig:
    text = f"site: s\ngateway: g1\nmqtt: {{url: 'mqtts://b'}}\nlines: {{bus: {{{line}}}}}\ndevices:\n"
    for unit, tags in enumerate(devices, 1):
        text += f"  - name: d{unit}\n    type: modbus\n    line: bus\n    unit_id: {unit}\n"
        text += f"    answer_time: {answer_time}\n    tags:\n"
        for index, (offset, interval) in enumerate(tags):
            text += f"      - {{name: t{index}, address: 'holding:{offset}', type: int16, interval: {interval}}}\n"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "agent.yaml")
        file.write_text(text, encoding="utf-8")
        found = load(file)
    assert not found.mistakes, found.mistakes
    assert found.config is not None
    return found.config


@given(
    st.sampled_from(LINES),
    st.lists(
        st.lists(st.tuples(st.integers(0, 400), st.sampled_from(INTERVALS)), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["5 ms", "20 ms", "300 ms"]),
)
@settings(max_examples=15)
def test_what_is_proposed_fits_when_it_is_asked_for(
    line: str, devices: list[list[tuple[int, str]]], answer_time: str
) -> None:
    config = loaded(line, devices, answer_time)
    [budget] = lines(config, costs(config))
    assert bool(budget.fits) == (budget.busy > budget.room)
    names = {"20 ms": "20ms", "100 ms": "100ms", "1 s": "1s", "2 s": "2s", "3 s": "3s", "1 min": "1min"}
    slower = [
        [(offset, budget.fits.get((f"d{unit}", names[interval]), interval)) for offset, interval in tags]
        for unit, tags in enumerate(devices, 1)
    ]
    config = loaded(line, slower, answer_time)
    [again] = lines(config, costs(config))
    assert again.fits == {}, (budget, again)
    assert again.busy <= again.room


def test_slow_answers_take_more_of_the_line() -> None:
    fast, slow = (
        lines(config, costs(config))[0].busy
        for config in (loaded(LINES[0], [[(0, "1 s")]], time) for time in ("20 ms", "300 ms"))
    )
    assert round(slow - fast, 6) == 0.28
