"""`shopfloor browse`: what a server offers, as a tree or as a list of tags that the configuration takes (`tags_file:`).

Reads only, and not fast: a pause lies between two questions, so that a PLC has time for its work. May import:
`agent.columns`, `agent.config`, `agent.logs`, `agent.sentences`, `collectors.api`, `collectors.registry`.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections.abc import Container, Iterable
from contextlib import aclosing
from dataclasses import asdict
from itertools import count
from pathlib import Path

from pydantic import ValidationError

from agent import logs
from agent.columns import clean
from agent.config import load
from agent.sentences import why
from collectors.api import BrowseEntry, BrowseWish, CollectorError, Context
from collectors.fields import DeviceConfig
from collectors.registry import collector_type

COLUMNS = ("name", "label", "node", "unit", "description")
LONGEST_NAME = 64
"""Of a tag."""


def browse(
    target: str,
    path: Path,
    wish: BrowseWish,
    *,
    csv_file: Path | None = None,
    as_csv: bool = False,
    as_json: bool = False,
) -> int:
    """Show what a server offers.

    Args:
        target: `opc.tcp://host:port` (connected without encryption, as nobody), or a device of the configuration.
        path: the configuration.
        wish: what of it.
        csv_file: where a list of tags is written; None = standard output, if `as_csv`.
        as_csv: a list of tags instead of a tree; variables that no tag can be made of are left out.
        as_json: one JSON object a line.

    Returns:
        0 something was found, 1 nothing, or the server cannot be read, 2 usage or configuration.
    """
    found = _find(target, path)
    if found is None:
        return 2
    device, language, state_dir = found
    kind = collector_type(device.type)
    if kind.browse is None:
        sys.stderr.write(f"{target}: a device of type {device.type} cannot tell what it offers\n")
        return 2
    logs.configure(logs.Settings(level="error"), language, None)

    async def collect() -> list[BrowseEntry]:
        assert kind.browse is not None
        shown: list[BrowseEntry] = []
        async with aclosing(kind.browse(device, Context(state_dir), wish)) as entries:  # type: ignore[type-var]  # it is a generator
            async for entry in entries:
                shown.append(entry)
                if not (as_csv or csv_file):
                    print(_as_json(entry) if as_json else _as_line(entry), flush=True)
        return shown

    try:
        entries = asyncio.run(collect())
    except CollectorError as error:
        sys.stderr.write(f"{why(error.cause, error.text, {**error.facts, 'device': device.name}, language)}\n")
        return 1
    if as_csv or csv_file:
        _write(entries, csv_file)
    if len(entries) >= wish.most:
        sys.stderr.write(f"ended after {wish.most} entries: use --under, --find or --max\n")
    return 0 if entries else 1


def _find(target: str, path: Path) -> tuple[DeviceConfig, str, Path | None] | None:
    """The device, the language and where certificates are; None = told why not."""
    if "://" in target:
        device = _of_url(target)
        return (device, "en", None) if device is not None else None
    loaded = load(path)
    if loaded.config is None:
        for mistake in loaded.mistakes:
            sys.stderr.write(f"{mistake}\n")
        return None
    device = next((one for one in loaded.config.devices if one.name == target), None)
    if device is None:
        known = ", ".join(one.name for one in loaded.config.devices)
        sys.stderr.write(f"no device is named {target}; there are: {known}\n")
        return None
    return device, loaded.config.language, Path(loaded.config.buffer.directory)


def _of_url(url: str) -> DeviceConfig | None:
    try:
        device: DeviceConfig = collector_type("opcua").config_model.model_validate(
            {
                "name": "browse",
                "type": "opcua",
                "url": url,
                "security": {"policy": "None"},
                "tags": [{"name": "state", "node": "i=2259"}],
            }
        )
    except ValidationError as error:
        sys.stderr.write(f"{url}: {error.errors()[0]['msg']}\n")
        return None
    return device


def _as_line(entry: BrowseEntry) -> str:
    name = clean(entry.names[-1]) if entry.level == len(entry.names) - 1 else clean("/".join(entry.names))
    label = f" ({clean(entry.label)})" if entry.label else ""
    head = f"{'  ' * entry.level}{name}{label}"
    if not entry.variable:
        return f"{head}/  {clean(entry.source)}"
    value = json.dumps(entry.value, ensure_ascii=False) if entry.quality is None else entry.quality
    facts = [value, clean(entry.unit or ""), entry.type, entry.access, clean(entry.source)]
    return f"{head} = {'  '.join(fact for fact in facts if fact)}"


def _as_json(entry: BrowseEntry) -> str:
    return json.dumps(
        {key: value for key, value in asdict(entry).items() if value not in (None, "")}, ensure_ascii=False
    )


def _name(name: str, taken: Container[str]) -> str:
    """This name, or for namesakes (equal paths in several namespaces) the same with a number behind."""
    if name not in taken:
        return name
    for number in count(2):
        suffix = f"-{number}"
        if (other := name[: LONGEST_NAME - len(suffix)] + suffix) not in taken:
            return other
    raise AssertionError


def _write(entries: Iterable[BrowseEntry], file: Path | None) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n" if file is not None else "\n")
    table.writerow(COLUMNS)
    taken: set[str] = set()
    left_out = 0
    for entry in entries:
        if entry.tag is None or entry.access == "w":
            left_out += entry.variable
            continue
        name = _name(entry.tag, taken)
        taken.add(name)
        row = (name, entry.label, entry.source, entry.unit, entry.description)
        table.writerow([clean(cell) if cell else "" for cell in row])
    if left_out:
        sys.stderr.write(
            f"left out: {left_out} variables that no tag can be made of as they are (arrays: name an element with"
            " index; structures, raw bytes, write-only)\n"
        )
    if file is None:
        sys.stdout.write(text.getvalue())
    else:
        # A spreadsheet takes a file without this mark for one in the local code page.
        file.write_bytes(text.getvalue().encode("utf-8-sig"))
        print(f"{file}: {len(taken)} tags")
