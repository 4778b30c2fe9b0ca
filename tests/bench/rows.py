"""The rows of the table: each a work, what is measured of it, and the goal."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.bench.agents import ROOT
from tests.bench.rig import NotMeasured, Options, Rig
from tests.bench.works import Work

Figures: TypeAlias = dict[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a row; `goal` None: told, not judged."""

    key: str
    text: str
    unit: str
    goal: float | None = None
    better: Literal["less", "more"] = "less"

    def reached(self, value: float) -> bool:
        """Whether this meets the goal."""
        return self.goal is None or (value <= self.goal if self.better == "less" else value >= self.goal)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table, or some."""

    key: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Options], Figures]


def _cpu(goal: float | None) -> Metric:
    return Metric("cpu", "CPU per million values", "s/M", goal)


_DELIVERED = Metric("delivered", "delivered of what is offered", "%", 99.0, "more")


def _steady(work: Work) -> Callable[[Options], Figures]:
    """CPU, share delivered and age of values of a work that goes on and on."""

    def measure(options: Options) -> Figures:
        with Rig(work, options) as rig:
            tree = rig.start_all()
            # Whole intervals, so that the share delivered says something.
            window = rig.window(max(options.window_s, 5 * work.interval_s))
            figures = {
                "cpu": window.cpu_per_million,
                "delivered": 100 * window.values_per_s / work.values_per_s,
                "rate": window.values_per_s,
                "pss": tree.pss_mb(),
                "rss": tree.rss_mb(),
            }
            if window.came["age_p50"] is not None:
                figures["p50"] = 1000 * window.came["age_p50"]
                figures["p99"] = 1000 * window.came["age_p99"]
            return figures

    return measure


def _idle(options: Options) -> Figures:
    with Rig(Work(host=True, interval_s=10.0), options) as rig:
        rig.start_all()
        time.sleep(5)
        window = rig.window(20.0 if options.quick else 60.0)
        return {"share": 100 * window.cpu_s / window.seconds}


def _start(work: Work) -> Callable[[Options], Figures]:
    def measure(options: Options) -> Figures:
        with Rig(work, options) as rig:
            rig.start_broker()
            rig.start_devices()
            rig.start_subscriber()
            tree = rig.start_agent()
            first = rig.wait_for_values()
            return {"first": first, "cpu": tree.cpu_s()}

    return measure


_LOAD = """
import sys, time
from pathlib import Path
from agent.config import load
load(Path(sys.argv[1]))  # imports
began = time.process_time()
assert not load(Path(sys.argv[1])).mistakes
print(time.process_time() - began)
"""


def _load(options: Options) -> Figures:
    with Rig(Work(devices=1, tags=2000), options) as rig:
        file = rig.write_configuration()
        done = subprocess.run(
            [options.python, "-c", _LOAD, str(file)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotMeasured(done.stderr)
        return {"cpu": float(done.stdout)}


def _drain(messages: int, quick: int, size: int) -> Callable[[Options], Figures]:
    """A backlog goes out while 10,000 values a second are read."""

    def measure(options: Options) -> Figures:
        count = quick if options.quick else messages
        with Rig(Work(devices=10, tags=1000), options) as rig:
            rig.fill_backlog(count, size)
            rig.start_broker()
            rig.start_devices()
            rig.start_subscriber()
            rig.start_agent()
            rig.wait_for_values()
            time.sleep(2)
            window = rig.window()
            came = window.came
            if not came["resent"]:
                raise NotMeasured("no message of the backlog came in the window")
            # When the backlog was over before the window was, the last second of it does not count.
            if came["age_p99"] is None:
                raise NotMeasured("no live message came in the window")
            return {
                "rate": came["resent"] / window.seconds,
                "p50": 1000 * came["age_p50"],
                "p99": 1000 * came["age_p99"],
                "cpu": window.cpu_s / came["resent"] * 1e6,
            }

    return measure


def _disk(options: Options) -> Figures:
    """Bytes written at 1,000 values a second, with the broker up and with none."""
    seconds = 15.0 if options.quick else 60.0
    with Rig(Work(devices=1, tags=1000), options) as rig:
        tree = rig.start_all()
        time.sleep(3)
        before = tree.bytes_written()
        time.sleep(seconds)
        up = (tree.bytes_written() - before) / seconds
    with Rig(Work(devices=1, tags=1000), options) as rig:
        rig.start_devices()
        tree = rig.start_agent()
        time.sleep(5)
        before = tree.bytes_written()
        time.sleep(seconds)
        down = (tree.bytes_written() - before) / seconds
    return {"up": up * 86_400 / 1e9, "down": down * 86_400 / 1e9}


_SIZES = ((1, 1000), (10, 1000), (50, 1000), (10, 5000), (100, 10), (100, 500))


def _scale(options: Options) -> Figures:
    """CPU per value from 1,000 to 50,000 tags, and from 1 to 100 devices."""
    figures: Figures = {}
    for devices, tags in _SIZES:
        work = Work(devices=devices, tags=tags)
        figures[f"{devices}x{tags}"] = _steady(work)(options)["cpu"]
    figures["growth"] = max(figures["50x1000"], figures["10x5000"], figures["100x500"]) / figures["1x1000"]
    return figures


_LATENCY = (
    Metric("p50", "age of a value at the subscriber, median", "ms", 4.0),
    Metric("p99", "the same, 99th percentile", "ms", 15.0),
)

ROWS: tuple[Row, ...] = (
    Row("1k", "1 device x 1,000 registers, 1 s", (_cpu(3.0), _DELIVERED), _steady(Work(1, 1000))),
    Row("10k", "10 devices x 1,000 registers, 1 s", (_cpu(2.5), _DELIVERED, *_LATENCY), _steady(Work(10, 1000))),
    Row(
        "100k", "10 devices x 1,000 registers, 100 ms", (_cpu(2.0), _DELIVERED), _steady(Work(10, 1000, interval_s=0.1))
    ),
    Row(
        "max",
        "10 devices x 1,000 registers, as fast as it goes",
        (Metric("rate", "values delivered", "1/s", 700_000.0, "more"), _cpu(1.5)),
        _steady(Work(10, 1000, interval_s=0.01)),
    ),
    Row(
        "mixed",
        "10 devices x 1,000 mixed tags, 1 s",
        (_cpu(4.0), Metric("delivered", "delivered of what is offered (deadbands)", "%", None, "more")),
        _steady(Work(10, 1000, kind="mixed")),
    ),
    Row(
        "opcua",
        "OPC UA, 1,000 nodes changing each second",
        (_cpu(6.0), _DELIVERED, Metric("pss", "PSS", "MB", 80.0)),
        _steady(Work(nodes=1000)),
    ),
    Row("idle", "host metrics every 10 s, nothing else", (Metric("share", "CPU", "% of a core", 0.3),), _idle),
    Row(
        "memory",
        "Modbus + host, 10,000 tags",
        (Metric("pss", "PSS", "MB", 42.0), Metric("rss", "RSS", "MB")),
        _steady(Work(10, 1000, host=True)),
    ),
    Row(
        "start",
        "start to first publish, Modbus, 1,000 tags",
        (Metric("first", "seconds", "s", 0.6), Metric("cpu", "CPU", "s")),
        _start(Work(1, 1000)),
    ),
    Row(
        "start10k",
        "start to first publish, Modbus, 10,000 tags",
        (Metric("first", "seconds", "s", 2.0), Metric("cpu", "CPU", "s")),
        _start(Work(10, 1000)),
    ),
    Row("load", "read and check a file of 2,000 tags", (Metric("cpu", "CPU", "s", 0.5),), _load),
    Row(
        "replay",
        "10,000 values/s while a million messages of 300 bytes drain",
        (
            Metric("p99", "age of a live value, 99th percentile", "ms", 100.0),
            Metric("p50", "the same, median", "ms"),
            Metric("rate", "messages drained", "1/s", None, "more"),
        ),
        _drain(1_000_000, 150_000, 300),
    ),
    Row(
        "drain",
        "backlog of 1 KB messages, replay_rate 0, 10,000 values/s going on",
        (Metric("rate", "messages drained", "1/s", 3000.0, "more"), Metric("cpu", "CPU per message", "us")),
        _drain(200_000, 100_000, 1000),
    ),
    Row(
        "disk",
        "written at 1,000 values/s",
        (
            Metric("up", "broker up", "GB a day", 0.02),
            Metric("down", "broker down", "GB a day", 1.5),
        ),
        _disk,
    ),
    Row(
        "scale",
        "cost against size",
        (
            *(Metric(f"{devices}x{tags}", f"{devices} x {tags} registers", "s/M") for devices, tags in _SIZES),
            Metric("growth", "50,000 tags against 1,000, the worst of 10, 50 and 100 devices", "x", 1.0),
        ),
        _scale,
    ),
)
