"""The latest value of every tag, as a subscriber knows it from `data`, `meta` and `status` messages. Pure.

Time comes in with each message (ms UTC). Live messages come in order, though not always in that of their times (one
notification of an OPC UA server makes several); replayed ones never change what is shown.
May import: the standard library.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = bool | int | float | str | None

_TREND_SAMPLES = 64
_ALL_TAGS = "*"


@dataclass(slots=True)
class TagView:
    """One tag.

    Attributes:
        at: ms UTC of the message that last named it.
        changed_at: ms UTC when its value last became another one; 0 = never since the first.
        trend: its last numeric values, oldest first.
    """

    label: str = ""
    unit: str = ""
    group: str = ""
    value: Value = None
    quality: str = ""
    at: int = 0
    changed_at: int = 0
    trend: deque[float] = field(default_factory=lambda: deque(maxlen=_TREND_SAMPLES))

    def show(self, value: Value, quality: str, at: int) -> None:
        """Take over a newer value."""
        if self.at and value != self.value:
            self.changed_at = at
        self.value, self.quality, self.at = value, quality, at
        if isinstance(value, int | float):
            self.trend.append(float(value))


@dataclass(slots=True)
class DeviceView:
    """One device.

    Attributes:
        state: the gateway's word for it (ok, degraded, bad ...).
        tags: in the order of its `meta`.
        heard: live messages so far; `last_ts` is the time of the last one, ms UTC.
    """

    name: str
    label: str = ""
    state: str = ""
    tags: dict[str, TagView] = field(default_factory=dict)
    heard: int = 0
    last_ts: int = 0


class Board:
    """What is known of all devices.

    Args:
        devices: names of those that are expected, in the order in which they are shown.
    """

    def __init__(self, devices: tuple[str, ...] = ()) -> None:
        self.devices = {name: DeviceView(name) for name in devices}
        self.agent_state = ""

    def _device(self, name: str) -> DeviceView:
        return self.devices.setdefault(name, DeviceView(name))

    def data(self, message: Mapping[str, Any]) -> None:
        """Take over a data message."""
        device = self._device(message["device"])
        group, at = message["group"], message["ts"]
        if message.get("replayed"):
            return
        device.heard += 1
        device.last_ts = at
        quality: Mapping[str, str] = message.get("quality", {})
        for name, value in message["values"].items():
            tag = device.tags.setdefault(name, TagView())
            tag.group = group
            tag.show(value, quality.get(name, ""), at - message.get("age_ms", {}).get(name, 0))
        if _ALL_TAGS in quality:
            for name, tag in device.tags.items():
                if tag.group == group and name not in message["values"] and name not in quality:
                    tag.show(None, quality[_ALL_TAGS], at)

    def meta(self, device: str, document: Mapping[str, Any]) -> None:
        """Take over what explains a device; tags it no longer has disappear."""
        view = self._device(device)
        view.label = document.get("label", "")
        known = view.tags
        view.tags = {}
        for name, explained in document.get("tags", {}).items():
            tag = view.tags[name] = known.get(name) or TagView()
            tag.label = explained.get("label", "")
            tag.unit = explained.get("unit", "")
            tag.group = explained.get("group", tag.group)

    def status(self, document: Mapping[str, Any]) -> None:
        """Take over the gateway's status."""
        self.agent_state = document["state"]
        for name, state in document.get("devices", {}).items():
            self._device(name).state = state
