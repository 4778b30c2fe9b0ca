"""Whether the clock is synchronised: the kernel, a marker file, and a bus that answers, refuses, hangs or babbles."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collectors.host import clock

Answer = Callable[[socket.socket], None]


def test_the_answer_is_yes_no_or_unknown() -> None:
    assert clock.clock_synchronised() in (True, False, None)
    assert clock.from_kernel() in (True, False, None)


def test_timesyncd(tmp_path: Path) -> None:
    assert clock.from_timesyncd(tmp_path) is None
    (tmp_path / "systemd" / "timesync").mkdir(parents=True)
    assert clock.from_timesyncd(tmp_path) is False
    (tmp_path / "systemd" / "timesync" / "synchronized").touch()
    assert clock.from_timesyncd(tmp_path) is True


def _message(kind: int, reply_to: int, signature: bytes, body: bytes) -> bytes:
    fields = b"\x05\x01u\0" + struct.pack("<I", reply_to)
    fields += b"\x08\x01g\0" + bytes((len(signature),)) + signature + b"\0"
    head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), 7, len(fields)) + fields
    return head + b"\0" * (-len(head) % 8) + body


HELLO = _message(2, 1, b"s", struct.pack("<I", 4) + b":1.1\0")
SIGNAL = _message(4, 0, b"s", struct.pack("<I", 4) + b":1.1\0")


def _bus(answer: bytes) -> Answer:
    def serve(link: socket.socket) -> None:
        assert link.recv(256).startswith(b"\0AUTH EXTERNAL ")
        link.sendall(b"OK 0123456789abcdef\r\n")
        asked = b""
        while b"NTPSynchronized" not in asked:
            asked += link.recv(4096)
        assert asked.startswith(b"BEGIN\r\nl\x01")
        link.sendall(answer)

    return serve


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Callable[[Answer], Path]]:
    threads = []
    listener = socket.socket(socket.AF_UNIX)
    path = tmp_path / "bus"

    def start(answer: Answer) -> Path:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                answer(link)

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return path

    yield start
    for thread in threads:
        thread.join(5)
    listener.close()


@pytest.mark.parametrize("synchronised", [True, False])
def test_timedated_answers(bus: Callable[[Answer], Path], synchronised: bool) -> None:
    reply = _message(2, 2, b"v", b"\x01b\0\0" + struct.pack("<I", synchronised))
    assert clock.from_timedated(bus(_bus(HELLO + SIGNAL + reply))) is synchronised


@pytest.mark.parametrize(
    "answer",
    [
        HELLO + _message(3, 2, b"s", struct.pack("<I", 3) + b"no!\0"),
        HELLO,
        HELLO + _message(2, 2, b"v", b"\x01s\0\0" + struct.pack("<I", 0) + b"\0"),
        HELLO + _message(2, 2, b"v", b"\x01b"),
        b"l\x02\0\x01\xff\xff\xff\x7f" + b"\0" * 40,
        b"B" * 64,
    ],
    ids=["error", "hangs up", "no boolean", "cut", "huge", "other byte order"],
)
def test_a_bus_that_does_not_know(bus: Callable[[Answer], Path], answer: bytes) -> None:
    assert clock.from_timedated(bus(_bus(answer))) is None


def test_a_bus_that_refuses_or_hangs_or_is_not_there(
    bus: Callable[[Answer], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clock.from_timedated(tmp_path / "nothing") is None
    monkeypatch.setattr(clock, "_BUS_TIMEOUT_S", 0.05)
    done = threading.Event()
    assert clock.from_timedated(bus(lambda _: (done.wait(5), None)[1])) is None
    done.set()
