"""Two ways to look at the demo: a table that stays in place, or lines that go by.

May import: the standard library, `agent.columns`, `agent.demo.*` but `show` and `plant`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from agent.columns import clean, cut
from agent.demo.board import Board, DeviceView
from agent.demo.cells import Paint
from agent.demo.ledger import Ledger
from agent.demo.subscriber import TOPICS
from agent.demo.table import Table, for_people
from agent.demo.terminal import Screen
from agent.demo.texts import Texts

_RATE_S = 5.0
_LINE_COLUMNS = 120
_LINE_EVERY_S = 1.0
_COUNTERS_EVERY_S = 10.0
_LOG_FROM_LINES = 30
_LOG_LINES = 3


@dataclass(slots=True)
class Scene:
    """What there is to see.

    Attributes:
        broker: name of the program.
        connected: whether our subscriber is connected.
        started: monotonic seconds when readings began to be awaited.
    """

    board: Board
    ledger: Ledger
    broker: str
    port: int
    configuration_file: str
    agent_log: Callable[[int], Sequence[str]]
    started: float
    connected: bool = True
    _rates: deque[tuple[float, int]] = field(default_factory=deque)

    def rate(self, now: float) -> float:
        """Readings a second over the last seconds."""
        self._rates.append((now, self.ledger.values))
        while len(self._rates) > 2 and now - self._rates[1][0] > _RATE_S:
            self._rates.popleft()
        then, values = self._rates[0]
        return (self.ledger.values - values) / (now - then) if now > then else 0.0


def listen_command(port: int) -> tuple[str, str]:
    """What to type to listen along, in two parts."""
    return f"mosquitto_sub -h 127.0.0.1 -p {port}", f"-t '{TOPICS}' -v"


def counters(scene: Scene, texts: Texts, now: float) -> list[str]:
    """Messages, readings, rate, losses, who is connected."""
    ledger = scene.ledger
    state = texts("connected" if scene.connected else "disconnected")
    return [
        texts("messages", n=ledger.messages),
        texts("values", n=ledger.values),
        texts("rate", n=f"{scene.rate(now):.0f}"),
        texts("lost", n=ledger.lost),
        texts("duplicates", n=ledger.duplicates),
        texts("broker_state", name=scene.broker, where=f"127.0.0.1:{scene.port}", state=state),
        texts("agent_state", state=texts.state(scene.board.agent_state or "-")),
    ]


def clock_text(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class View(Protocol):
    """How the demo is shown."""

    interval: float

    def update(self, scene: Scene) -> None:
        """Show what is new."""


class TableView:
    """The table that stays in place."""

    interval = 0.25

    def __init__(self, screen: Screen, texts: Texts, paint: Paint, *, trends: bool) -> None:
        self._screen = screen
        self._texts = texts
        self._table = Table(texts, paint, trends=trends)

    def update(self, scene: Scene) -> None:
        """Draw the window anew."""
        texts, now = self._texts, time.monotonic()
        size = columns, lines = self._screen.size()
        right = f"{texts('leave')}   {time.strftime('%H:%M:%S')}   {clock_text(now - scene.started)}"
        footer = [
            (counters(scene, texts, now), "   "),
            ([texts("listen"), *listen_command(scene.port)], " "),
        ]
        if lines >= _LOG_FROM_LINES:
            more = [texts("file", path=scene.configuration_file), "", *scene.agent_log(_LOG_LINES)]
            footer += [([clean(line)], "") for line in more]
        devices = list(scene.board.devices.values())
        now_ms = time.time_ns() // 1_000_000
        self._screen.draw(self._table.window((texts("title"), right), devices, footer, size, now_ms), columns)


class LineView:
    """One line per device and second, for logs and pipes."""

    interval = _LINE_EVERY_S

    def __init__(self, stream: TextIO, texts: Texts) -> None:
        self._stream = stream
        self._texts = texts
        self._told: dict[str, int] = {}
        self._next_counters = 0.0

    def update(self, scene: Scene) -> None:
        """Write a line for each device that has news; the counters now and then."""
        now = time.monotonic()
        for device in scene.board.devices.values():
            if device.heard > self._told.get(device.name, 0):
                self._told[device.name] = device.heard
                self._write(device_line(device, self._texts))
        if now >= self._next_counters and scene.ledger.messages:
            self._next_counters = now + _COUNTERS_EVERY_S
            self._write("   ".join(counters(scene, self._texts, now)))

    def _write(self, line: str) -> None:
        self._stream.write(f"{cut(line, _LINE_COLUMNS)}\n")
        self._stream.flush()


def device_line(device: DeviceView, texts: Texts) -> str:
    """Time, device and as many tags as there are; a tag that is not good with its quality."""
    clock = time.strftime("%H:%M:%S", time.localtime(device.last_ts / 1000))
    parts = []
    for name, tag in device.tags.items():
        if tag.at:
            value, unit = for_people(tag.value, tag.unit, texts)
            unit = f" {unit}" if unit and tag.value is not None else ""
            quality = f" ({tag.quality})" if tag.quality else ""
            parts.append(f"{name} {value}{unit}{quality}")
    return clean(f"{clock}  {device.name} {device.label}".rstrip() + "  " + "  ".join(parts))
