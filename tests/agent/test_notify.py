from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(2)
        yield listener


def test_states_reach_the_service_manager(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "30000000"})
    notifier.ready()
    notifier.status("3 台设备\n正常")
    notifier.status("3 台设备 正常")
    notifier.watchdog()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    notifier.stopping()
    notifier.give_up()
    got = [systemd.recv(1000).decode() for _ in range(6)]
    assert got[:3] == ["READY=1", "STATUS=3 台设备 正常", "WATCHDOG=1"]
    reloading, _, usec = got[3].partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert before <= int(usec) <= before + 5_000_000
    assert got[4:] == ["STOPPING=1", "WATCHDOG=trigger"]
    assert notifier.lost == 0


def test_abstract_sockets() -> None:
    name = f"shopfloor-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(b"\0" + name.encode())
        listener.settimeout(2)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/nowhere", **environ}).watchdog_interval == interval


def test_without_a_service_manager_nothing_happens() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "30000000"}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.watchdog()
        notifier.give_up()
        assert notifier.lost == 0
        assert notifier.watchdog_interval is None


def test_a_service_manager_that_is_gone_or_full_is_no_trouble(systemd: socket.socket, tmp_path: Path) -> None:
    gone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    gone.status("x")
    gone.status("x")  # not sent, so tried again
    assert gone.lost == 2
    full = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    for _ in range(2000):  # more than any queue takes; must not block
        full.ready()
    assert full.lost > 0
