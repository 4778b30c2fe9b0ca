"""The rules of the house (agent/DESIGN.md) that no linter holds: where broad handlers stand, what loads, sizes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES, FUNCTION_LINES = 400, 60

BROAD = {
    "agent/runner.py": "devices are isolated",
    "agent/buffer/worker.py": "carries what a job raised from the store's thread to the loop",
    "agent/buffer/condition.py": "what a job raised ends commit_loop, and with it the core",
}
"""Handlers that catch everything and do not raise it again."""

LARGE = {
    "agent/sentences_table.py": "a table: a sentence for each event, in two languages",
    "agent/buffer/lanes.py": "counts, order and lanes of messages change together, in one place",
    "collectors/modbus/rtu.py": "what one serial connection heard, owes and may say; a little over",
}
"""Files over the guide, and why."""

HEAVY = {"pymodbus", "asyncua", "psutil", "paho", "amqtt"}


def _sources(*folders: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def _caught(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return {"BaseException"}
    return {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}


def _swallowing(name: str) -> Iterator[int]:
    """Lines of the handlers that catch everything and do not end with raising it again."""
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.ExceptHandler) and _caught(node) & {"Exception", "BaseException"}:
            last = node.body[-1]
            if not (isinstance(last, ast.Raise) and last.exc is None):
                yield node.lineno


def test_broad_handlers_stand_where_the_design_puts_them() -> None:
    found = {name: lines for name in _sources("agent", "collectors") if (lines := list(_swallowing(name)))}
    assert {name: lines for name, lines in found.items() if name not in BROAD} == {}
    assert BROAD.keys() - found.keys() == set(), "no longer needed: take them off the list"


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
    files = [
        path for folder in ("agent", "collectors", "config", "systemd", "tests") for path in (ROOT / folder).rglob("*")
    ]
    assert [
        str(path.relative_to(ROOT))
        for path in files
        if path.suffix in {".py", ".yaml", ".md", ".sh", ".service", ".conf"} and marks.search(path.read_text("utf-8"))
    ] == []


def test_every_module_says_what_it_is() -> None:
    assert [name for name in _sources("agent", "collectors") if not ast.get_docstring(_tree(name))] == []


@pytest.mark.parametrize("module", ["agent.cli", "agent.config", "agent.app", "collectors.registry"])
def test_heavy_libraries_load_only_when_configured(module: str) -> None:
    code = f"import sys, {module}; print(*{HEAVY!r} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == ""


def test_files_are_of_a_size_to_read() -> None:
    lines = {
        name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in _sources("agent", "collectors")
    }
    large = {name: count for name, count in lines.items() if count > FILE_LINES}
    assert {name: count for name, count in large.items() if name not in LARGE} == {}
    assert LARGE.keys() - large.keys() == set(), "no longer needed: take them off the list"


def test_functions_are_of_a_size_to_read() -> None:
    assert {
        f"{name}:{node.lineno} {node.name}": size
        for name in _sources("agent", "collectors")
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    } == {}
