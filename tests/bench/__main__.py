"""`python -m tests.bench`: see the package."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

from tests.bench import report
from tests.bench.agents import AGENTS, DEFAULT, PYTHON, ROOT
from tests.bench.rig import NotMeasured, Options
from tests.bench.rows import ROWS, Figures, Row

RUNS, WINDOW_S = 3, 15.0
QUICK_RUNS, QUICK_WINDOW_S = 1, 5.0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what the agent costs.")
    keys = [row.key for row in ROWS]
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"default all: {' '.join(keys)}")
    parser.add_argument("--quick", action="store_true", help="one short run of each: for a look, not for a table")
    parser.add_argument("--runs", type=int, help=f"of each row, the median counts (default {RUNS})")
    parser.add_argument("--window", type=float, help=f"seconds of a run that are counted (default {WINDOW_S:g})")
    parser.add_argument("--agent", choices=list(AGENTS), default=DEFAULT)
    parser.add_argument("--python", default=PYTHON, help="interpreter that the agent runs in")
    parser.add_argument("--save", action="store_true", help="make these figures the baseline")
    parsed = parser.parse_args(arguments)
    unknown = [key for key in parsed.rows if key not in keys]
    if unknown:
        parser.error(f"no such row: {' '.join(unknown)}; there are {' '.join(keys)}")
    return parsed


def _measure(row: Row, options: Options, runs: int) -> list[Figures]:
    found: list[Figures] = []
    for _ in range(runs):
        try:
            found.append(row.measure(options))
        except NotMeasured as error:
            print(f"{row.key}: not measured: {error}", file=sys.stderr, flush=True)
            break
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure the rows and print the table; 1 when a row has no figure."""
    wanted = _arguments(arguments)
    runs = wanted.runs or (QUICK_RUNS if wanted.quick else RUNS)
    window = wanted.window or (QUICK_WINDOW_S if wanted.quick else WINDOW_S)
    # As an installed agent is: whose source is compiled at its first start measures the compiler at every other.
    subprocess.run([wanted.python, "-m", "compileall", "-q", "agent", "collectors"], cwd=ROOT, check=True)
    options = Options(wanted.agent, wanted.python, window, wanted.quick)
    where = report.machine(options)
    print(f"{where}; {runs} run{'s' if runs > 1 else ''} of {window:g} s\n\n{report.HEAD}", flush=True)
    baseline = report.load_baseline()
    measured: dict[str, Any] = {}
    rows = [row for row in ROWS if not wanted.rows or row.key in wanted.rows]
    for row in rows:
        figures = _measure(row, options, runs)
        if figures:
            measured[row.key] = report.merged(figures)
            print("\n".join(report.lines_of(row, measured[row.key], baseline["rows"].get(row.key, {}))), flush=True)
    if wanted.save:
        report.save_baseline(where, runs, measured)
    elif baseline["rows"]:
        print(f"\nBaseline: {baseline['machine']}; {baseline['runs']} runs")
    return 0 if len(measured) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
