"""The table, and the baseline it is compared with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.rig import MOSQUITTO, Options
from tests.bench.rows import Figures, Row

BASELINE = Path(__file__).with_name("baseline.json")
_ABOUT_PYTHON = """
import json, sys, time, importlib.util as u
def loop():
    began = time.process_time()
    for i in range(1_000_000): i * i
    return time.process_time() - began
found = [n for n in ("uvloop", "rich") if u.find_spec(n)]
compiler = sys.version.split("[")[1].rstrip("]")
print(json.dumps([sys.version.split()[0], compiler, round(1000 * min(loop() for _ in range(7)), 1), found]))
"""


def machine(options: Options) -> str:
    """What was measured on, in one paragraph."""
    answer = subprocess.run([options.python, "-c", _ABOUT_PYTHON], capture_output=True, check=True, text=True).stdout
    version, compiler, loop_ms, packages = json.loads(answer)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    broker = "no mosquitto: nothing that needs a broker was measured"
    if MOSQUITTO is not None:
        said = subprocess.run([MOSQUITTO, "-h"], capture_output=True, check=False, text=True).stdout
        broker = said.splitlines()[0] if said else "mosquitto"
    return (
        f"{os.cpu_count()} cores {platform.machine()} {model}, {memory:.0f} GB, Linux {platform.release()}, {broker}; "
        f"{options.agent} on Python {version} ({compiler}), {loop_ms} ms for a million turns of a loop, "
        f"{'with ' + ', '.join(packages) if packages else 'neither uvloop nor rich'}"
    )


def merged(runs: Sequence[Figures]) -> dict[str, tuple[float, float, float]]:
    """Of each figure: median, least, most."""
    keys = dict.fromkeys(key for run in runs for key in run)
    found = {key: [run[key] for run in runs if key in run] for key in keys}
    return {key: (median(values), min(values), max(values)) for key, values in found.items()}


def lines_of(row: Row, figures: Mapping[str, tuple[float, float, float]], baseline: Mapping[str, float]) -> list[str]:
    """The row's lines of the table."""
    lines = []
    for metric in row.metrics:
        if metric.key not in figures:
            continue
        middle, least, most = figures[metric.key]
        goal = "" if metric.goal is None else f"{'<=' if metric.better == 'less' else '>='} {metric.goal:g}"
        verdict = "" if metric.goal is None else "yes" if metric.reached(middle) else "NO"
        old = baseline.get(metric.key)
        ratio = f"{middle / old:.2f}" if old else ""
        spread = f"{number(least)}..{number(most)}" if least != most else ""
        figure = f"{number(middle)} {metric.unit}"
        lines.append(f"| {' | '.join((row.key, row.title, metric.text, figure, spread, goal, verdict, ratio))} |")
    return lines


HEAD = (
    "| row | work | figure | measured | spread | goal | reached | to baseline |\n"
    "| --- | --- | --- | --: | --- | --- | --- | --: |"
)


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def load_baseline(path: Path = BASELINE) -> dict[str, Any]:
    """Row -> figure -> median; empty without a file."""
    loaded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"machine": "", "rows": {}}
    return loaded


def save_baseline(
    where: str, runs: int, rows: Mapping[str, Mapping[str, tuple[float, float, float]]], path: Path = BASELINE
) -> None:
    """Put these figures in place of those of the same rows."""
    old = load_baseline(path)["rows"]
    new = {key: {name: float(f"{values[0]:.4g}") for name, values in row.items()} for key, row in rows.items()}
    document = {"machine": where, "runs": runs, "rows": {**old, **new}}
    path.write_text(json.dumps(document, indent=2) + "\n")
