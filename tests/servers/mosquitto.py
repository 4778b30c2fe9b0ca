"""A real mosquitto on a free loopback port, and a subscriber that collects what arrives.

    with Mosquitto(tmp_path, "allow_anonymous true") as broker, Subscriber(broker) as seen: ...

The port stays the same over `restart`. Tests that need it are skipped, naming mosquitto, where it is not installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pytest

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

START_S = 10.0


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def remembering(directory: Path) -> tuple[str, ...]:
    """Lines for a broker that keeps subscriptions in this directory and hands on at once, without bound."""
    return (
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {directory}/",
        "max_inflight_messages 0",
        "max_queued_messages 0",
    )


class Mosquitto:
    """A broker process.

    Args:
        directory: for its configuration and log.
        lines: configuration lines of its only listener and of the broker; without any, anonymous clients may do all.
    """

    def __init__(self, directory: Path, *lines: str) -> None:
        self.port = free_port()
        self.directory = directory
        self.lines = lines or ("allow_anonymous true",)
        self.process: subprocess.Popen[bytes] | None = None
        self._log = directory / f"mosquitto-{self.port}.log"

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it listens."""
        if MOSQUITTO is None:
            pytest.skip("mosquitto is not installed")
        config = self.directory / f"mosquitto-{self.port}.conf"
        user = ("user root",) if os.geteuid() == 0 else ()
        config.write_text("\n".join([f"listener {self.port} 127.0.0.1", *user, *self.lines, ""]))
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [MOSQUITTO, "-c", str(config), "-v"], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mosquitto does not start:\n{self.log()}")
            time.sleep(0.01)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the process (SIGKILL: without a word to its clients)."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal_number)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def restart(self, signal_number: int = signal.SIGTERM) -> None:
        """Stop and start on the same port."""
        self.stop(signal_number)
        self.start()

    @staticmethod
    def write_password(file: Path, user: str, password: str) -> None:
        """Make a `password_file` of one user."""
        file.write_text("")
        file.chmod(0o600)
        tool = shutil.which("mosquitto_passwd")
        if tool is None:
            pytest.skip("mosquitto_passwd is not installed")
        subprocess.run([tool, "-b", str(file), user, password], check=True, capture_output=True)

    def freeze(self) -> None:
        """Stop answering while every connection stays."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def write_down(self) -> None:
        """Let it write what it keeps, subscriptions too, to `mosquitto.db` now."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)

    def log(self) -> str:
        """All it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Received:
    """A message as a subscriber got it; `at` monotonic seconds."""

    topic: str
    payload: bytes
    retain: bool
    at: float


class Subscriber:
    """Collects what arrives, in a thread; connects again by itself after a restart of the broker.

    A bare MQTT 3.1.1 client with a lasting session: what the broker had written when it was killed is read to the end,
    where a library gives up as soon as an acknowledgement cannot be sent.

    Args:
        broker: where.
        topic: filter.
        username, password: as the broker wants them.
    """

    def __init__(
        self, broker: Mosquitto, topic: str = "#", *, username: str | None = None, password: str | None = None
    ) -> None:
        self.messages: list[Received] = []
        self._broker = broker
        flags = (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
        texts = [f"subscriber-{id(self)}", *(text for text in (username, password) if text is not None)]
        body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x00" + b"".join(map(_text, texts))
        self._hello = _packet(0x10, body) + _packet(0x82, b"\x00\x01" + _text(topic) + b"\x01")
        self._subscribed = threading.Event()
        self._done = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="subscriber", daemon=True)

    def __enter__(self) -> Subscriber:
        self._thread.start()
        if not self._subscribed.wait(5):
            raise RuntimeError(f"no subscription:\n{self._broker.log()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def on(self, topic: str) -> list[Received]:
        """What arrived on this topic so far."""
        return [message for message in self.messages if message.topic == topic]

    def payloads(self, topic: str) -> list[bytes]:
        """The payloads that arrived on this topic so far."""
        return [message.payload for message in self.messages if message.topic == topic]

    def _run(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._broker.port), 1) as sock:
                sock.settimeout(None)
                self._socket = sock
                sock.sendall(self._hello)
                with sock.makefile("rb") as stream:
                    while not self._done.is_set():
                        self._take(stream, sock)
            self._done.wait(0.02)

    def _take(self, stream: BinaryIO, sock: socket.socket) -> None:
        head, length, shift = _exactly(stream, 1)[0], 0, 0
        while True:
            byte = _exactly(stream, 1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        body = _exactly(stream, length)
        if head >> 4 == 9 and body[2] < 0x80:
            self._subscribed.set()
        if head >> 4 != 3:
            return
        at = 2 + int.from_bytes(body[:2])
        topic, mid = body[2:at].decode(), b""
        if head & 0x06:
            mid, at = body[at : at + 2], at + 2
        self.messages.append(Received(topic, body[at:], bool(head & 1), time.monotonic()))
        if mid:
            with contextlib.suppress(OSError):  # the broker is gone, but not yet all that it wrote
                sock.sendall(_packet(0x40, mid))


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise ConnectionResetError
    return data


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2) + text.encode()


def _packet(head: int, body: bytes) -> bytes:
    assert len(body) < 16_384
    length = len(body)
    return bytes([head, length] if length < 128 else [head, length & 0x7F | 0x80, length >> 7]) + body
