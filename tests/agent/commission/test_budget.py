from __future__ import annotations

from agent.commission.budget import Asked, budgets
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
