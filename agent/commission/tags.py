"""`shopfloor tags export`: a device's tags as a table that `tags_file` reads back as the same tags.

Promises: writes nothing but the file that is named; UTF-8 with the mark that spreadsheets know it by; import(export(x))
is x. May import: `agent.config`, `agent.config_reader`, `agent.tag_cells`, `collectors.fields`.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from agent.config import load
from agent.config_reader import Shape, shapes_of
from agent.config_wording import shown_number
from agent.mistakes import did_you_mean
from agent.tag_cells import format_list, format_map
from collectors.fields import DeviceConfig, parse_duration

_FIRST = ("name", "label", "address", "node", "type", "word_order", "interval", "unit", "scale", "offset", "decimals",
          "min", "max", "map", "invalid", "deadband", "length", "encoding", "as", "description")  # fmt: skip
_LOSES_ZEROS = re.compile(r"0\d+|\d+\.\d*0")
"""What a spreadsheet takes for a number when it opens the file, and writes without its zeros: `40010.10`, `00001`. An
apostrophe in front keeps it a text; tag lists are read without it."""
_ALWAYS = frozenset({"name", "address", "node", "type"})


def export(path: Path, device: str, *, csv_file: Path | None = None) -> int:
    """Print a device's tags as CSV, or write them into a file.

    Args:
        path: the configuration.
        device: its name.
        csv_file: where to; None = standard output.

    Returns:
        Exit code: 0 fine, 1 the file cannot be written, 2 the configuration has mistakes or no such device.
    """
    loaded = load(path)
    if loaded.config is None:
        for mistake in loaded.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    found = next((one for one in loaded.config.devices if one.name == device), None)
    if found is None:
        names = [one.name for one in loaded.config.devices]
        print(f"{path}: no device is named '{device}'{did_you_mean(device, names)}", file=sys.stderr)
        return 2
    text = as_csv(found)
    if text is None:
        print(f"{device} has no tags: its type is {found.type}", file=sys.stderr)
        return 2
    if csv_file is None:
        sys.stdout.write(text.replace("\r\n", "\n"))
        return 0
    try:
        csv_file.write_bytes(text.encode("utf-8-sig"))
    except OSError as error:
        print(f"{csv_file} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(
        f"{len(_tags(found))} tags of {device} -> {csv_file}; name it in the configuration: tags_file: {csv_file.name}"
    )
    return 0


def as_csv(device: DeviceConfig) -> str | None:
    """The table of a device's tags, lines ended as spreadsheets do; None for a device without tags."""
    tags = _tags(device)
    if not tags:
        return None
    shapes = shapes_of(type(tags[0]))
    rows = [_row(tag, shapes) for tag in tags]
    used = {key for row in rows for key in row} | _ALWAYS
    columns = [key for key in (*_FIRST, *(key for key in shapes if key not in _FIRST)) if key in used and key in shapes]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([row.get(key, "") for key in columns] for row in rows)
    return out.getvalue()


def _tags(device: DeviceConfig) -> Sequence[BaseModel]:
    found: Sequence[BaseModel] = getattr(device, "tags", ())
    return found


def _row(tag: BaseModel, shapes: Mapping[str, Shape]) -> dict[str, str]:
    row = {}
    for name, info in type(tag).model_fields.items():
        key, value = info.alias or name, getattr(tag, name)
        if value is not None and value != info.default:
            row[key] = _cell(value, shapes[key])
    for key in ("name", "address"):
        if _LOSES_ZEROS.fullmatch(row.get(key, "")):
            row[key] = f"'{row[key]}"
    return row


def _cell(value: object, shape: Shape) -> str:
    if isinstance(value, Mapping):
        return format_map(value)
    if isinstance(value, list | tuple):
        return format_list(value)
    if isinstance(value, bool):
        return str(value).lower()
    if shape.unit == "duration" and isinstance(value, int | float):
        shown = shown_number(value, "duration")
        return shown if parse_duration(shown) == value else f"{value!r} s"
    return str(value)
