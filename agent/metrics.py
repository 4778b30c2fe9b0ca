"""The status as `metrics.prom`, the text format that node_exporter's textfile collector reads.

Pure: no clock, no I/O. Promises: one HELP and TYPE per family, every label value escaped, missing figures are left
out. Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).

May import: the standard library, the types of `agent.status`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from agent.status import Snapshot

_Kind: TypeAlias = Literal["gauge", "counter"]

_DEVICE_STATES = ("starting", "ok", "degraded", "bad", "misconfigured", "paused", "off")
_DEVICE_FIGURES: tuple[tuple[str, str, _Kind, str, float], ...] = (
    # key in DeviceStatus, metric, kind, help, factor to the unit in the name
    ("last_read_age_s", "device_last_read_age_seconds", "gauge", "Seconds since the device was last read", 1),
    ("tags", "device_tags", "gauge", "Configured tags", 1),
    ("bad_tags", "device_bad_tags", "gauge", "Tags without a usable value", 1),
    ("polls", "device_polls_total", "counter", "Polls done", 1),
    ("missed", "device_missed_polls_total", "counter", "Polls that were due and not done", 1),
    ("late_p99_ms", "device_late_p99_seconds", "gauge", "Lateness of polls, 99th percentile", 0.001),
    ("reconnects", "device_reconnects_total", "counter", "Connections made after the first", 1),
    ("requests", "device_requests_total", "counter", "Requests sent", 1),
    ("values_per_s", "device_values_per_second", "gauge", "Values read a second, last minute", 1),
)
_LINE_FIGURES: tuple[tuple[str, str, _Kind, str], ...] = (
    ("busy", "line_busy_ratio", "gauge", "Share of the line's time that is used, last minute"),
    ("requests", "line_requests_total", "counter", "Requests sent on the line"),
    ("late", "line_late_polls_total", "counter", "Polls that waited notably for their turn on the line"),
    ("reconnects", "line_reconnects_total", "counter", "Connections of the line made after the first"),
)
_COUNTERS = (
    ("produced", "messages_produced_total", "Messages made or carried over from an earlier run"),
    ("carried_over", "messages_carried_over_total", "Messages found in the store at the start"),
    ("delivered", "messages_delivered_total", "Messages that the broker acknowledged"),
    ("values", "values_total", "Values read"),
    ("missed_polls", "missed_polls_total", "Polls that were due and not done"),
    ("samples_lost", "samples_lost_total", "Samples lost before they became messages"),
    ("bytes_written", "store_written_bytes_total", "Bytes written to the store"),
)


def render_metrics(snapshot: Snapshot) -> str:
    """Return the whole file."""
    page = _Page()
    _agent(page, snapshot)
    _broker(page, snapshot["broker"])
    _buffer(page, snapshot["buffer"])
    _counters(page, snapshot["counters"])
    _devices(page, snapshot["devices"])
    for name, line in snapshot["lines"].items():
        for key, metric, kind, text in _LINE_FIGURES:
            page.add(metric, kind, text, line.get(key), line=name)
    return page.text()


class _Page:
    """Samples gathered by family, since a family must stand together."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, name: str, kind: _Kind, text: str, value: object, **labels: object) -> None:
        """Add one sample; a value that is not a number is left out."""
        if isinstance(value, bool):
            value = int(value)
        if not isinstance(value, int | float) or math.isnan(value):
            return
        name = f"shopfloor_{name}"
        family = self._families.setdefault(name, [f"# HELP {name} {text}", f"# TYPE {name} {kind}"])
        inner = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items() if label is not None)
        family.append(f"{name}{{{inner}}} {_number(value)}" if inner else f"{name} {_number(value)}")

    def text(self) -> str:
        return "".join(line + "\n" for family in self._families.values() for line in family)


def _agent(page: _Page, snapshot: Snapshot) -> None:
    agent = snapshot["agent"]
    page.add(
        "agent_info",
        "gauge",
        "What is running",
        1,
        version=agent["version"],
        run=agent["run"],
        site=agent["site"],
        gateway=agent["gateway"],
        config=agent["config"],
    )
    page.add("agent_running", "gauge", "1 while it works", agent["state"] == "running")
    page.add("agent_uptime_seconds", "gauge", "Seconds since the start", agent["since_s"])
    page.add("clock_synced", "gauge", "1 if the clock is synchronised", snapshot["clock"]["synced"])
    page.add(
        "loop_lag_seconds", "gauge", "Largest delay of the event loop since the last look", _ms(snapshot["loop_lag_ms"])
    )
    page.add("resident_memory_bytes", "gauge", "Memory in use", snapshot["rss"])
    for severity in ("warn", "crit"):
        count = sum(finding["severity"] == severity for finding in snapshot["findings"])
        page.add("findings", "gauge", "Findings of the check-up", count, severity=severity)


def _broker(page: _Page, broker: Mapping[str, Any]) -> None:
    for state in ("connected", "connecting", "refused", "unreachable"):
        page.add("broker_state", "gauge", "1 for the state of the moment", broker["state"] == state, state=state)
    page.add("broker_in_flight_messages", "gauge", "Messages that wait for an acknowledgement", broker["in_flight"])
    page.add("broker_window_messages", "gauge", "How many may wait", broker["window"])


def _buffer(page: _Page, buffer: Mapping[str, Any]) -> None:
    for state in ("ok", "degraded", "full"):
        page.add("buffer_state", "gauge", "1 for the state of the moment", buffer["state"] == state, state=state)
    page.add("buffer_messages", "gauge", "Messages that wait to be sent", buffer["backlog"])
    page.add("buffer_bytes", "gauge", "Bytes on disk", buffer["bytes"])
    page.add("buffer_cap_bytes", "gauge", "Largest size on disk", buffer["cap"])
    page.add("buffer_oldest_age_seconds", "gauge", "Age of the oldest message that waits", buffer["oldest_s"])
    page.add("buffer_fills_in_seconds", "gauge", "Seconds until the cap at this rate", buffer["fills_in_s"])


def _counters(page: _Page, counters: Mapping[str, Any]) -> None:
    for key, name, text in _COUNTERS:
        page.add(name, "counter", text, counters.get(key))
    for reason, count in counters.get("dropped", {}).items():
        page.add("messages_dropped_total", "counter", "Messages given up", count, reason=reason)


def _devices(page: _Page, devices: Mapping[str, Mapping[str, Any]]) -> None:
    for name, device in devices.items():
        for state in _DEVICE_STATES:
            page.add(
                "device_state",
                "gauge",
                "1 for the state of the moment",
                device["state"] == state,
                device=name,
                type=device["type"],
                state=state,
            )
        for key, metric, kind, text, factor in _DEVICE_FIGURES:
            value = device.get(key)
            page.add(metric, kind, text, value * factor if isinstance(value, int | float) else None, device=name)


def _ms(value: float) -> float:
    return value / 1000


def _escape(label: object) -> str:
    return str(label).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: int | float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3f}"
