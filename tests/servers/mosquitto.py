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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")

START_S = 10.0


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


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
    """Collects what arrives, in a thread; subscribes again by itself after a restart of the broker.

    Args:
        broker: where.
        topic: filter.
        tls, username, password: as the broker wants them.
    """

    def __init__(
        self,
        broker: Mosquitto,
        topic: str = "#",
        *,
        username: str | None = None,
        password: str | None = None,
        tls: Callable[[Any], None] | None = None,
    ) -> None:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[Received] = []
        self._topic = topic
        self._subscribed = threading.Event()
        # A session that outlives the connection: what comes between a restart and the new subscription is kept.
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"subscriber-{id(self)}", protocol=MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        if username is not None:
            self._client.username_pw_set(username, password)
        if tls is not None:
            tls(self._client)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _userdata, message: self.messages.append(
            Received(message.topic, bytes(message.payload), message.retain, time.monotonic())
        )
        self._broker = broker

    def __enter__(self) -> Subscriber:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        lasting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho leaves it so
        lasting.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", self._broker.port, clean_start=False, properties=lasting)
        self._client.loop_start()
        if not self._subscribed.wait(5):
            raise RuntimeError(f"no subscription:\n{self._broker.log()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def on(self, topic: str) -> list[Received]:
        """What arrived on this topic so far."""
        return [message for message in self.messages if message.topic == topic]

    def payloads(self, topic: str) -> list[bytes]:
        """The payloads that arrived on this topic so far."""
        return [message.payload for message in self.messages if message.topic == topic]
