"""When a lost device is told again."""

from __future__ import annotations

from structlog.testing import capture_logs

from agent.device_state import RELOG_S, DeviceState
from collectors.api import ActionNeeded, Unavailable

GONE = Unavailable("not-connected", "closed_by_peer", "t")
OFF = Unavailable("not-connected", "no_route", "t")
CHANGED = ActionNeeded("not-connected", "certificate_changed", "t")


class Time:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_a_person_has_to_do_is_told_at_once_and_once() -> None:
    """A server that comes back with another certificate: the connection ends first, and its reason shows later."""
    state = DeviceState("cnc", None, Time())
    with capture_logs() as logs:
        for error in (GONE, CHANGED, CHANGED, OFF, CHANGED):
            state.lost(error)
    assert [line["cause"] for line in logs] == ["closed_by_peer", "certificate_changed"]


def test_another_cause_that_lasts_is_told_though_it_began_soon_after_the_first() -> None:
    clock = Time()
    state = DeviceState("cnc", None, clock)
    with capture_logs() as logs:
        state.lost(GONE)
        state.lost(OFF)
        clock.now = RELOG_S
        state.lost(OFF)
        state.lost(OFF)
    assert [line["cause"] for line in logs] == ["closed_by_peer", "no_route"]
