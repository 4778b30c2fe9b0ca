"""Writes config/schema.json and config/reference.md from the models: `python -m agent.reference`.

Both are generated so that they cannot say anything else than what `check` does; a test holds them current. May import:
pydantic, `agent.config_model`, `agent.config_reader`, `agent.config_wording`, `agent.yaml_source`, `collectors`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agent.config_model import AgentConfig
from agent.config_reader import Shape, shapes_of, unsupported_of
from agent.config_wording import shown_number
from agent.tag_headings import AMBIGUOUS_DECIMALS, SYNONYMS
from agent.yaml_source import Mapping, Scalar, core_value, parse
from collectors.fields import DeviceConfig, NamedFile, OutputPath, Report, Section, TagConfig, TagsFile
from collectors.line_config import LineConfig, OnLine
from collectors.registry import BUILT_IN, collector_type

DIRECTORY = Path(__file__).resolve().parent.parent / "config"
_NUMBERLIKE = ["string", "number", "boolean"]
_NO_KEYWORDS = {"ge", "gt", "le", "lt"}
"""What pydantic leaves in a schema where a limit has no keyword: limits of durations and sizes."""

_INTRODUCTION = """\
# Configuration reference

Generated from the code by `python -m agent.reference`; do not edit. `agent.yaml` beside it is an annotated example,
`schema.json` makes editors complete and check what is typed (first line of the file:
`# yaml-language-server: $schema=/path/to/schema.json`), and `shopfloor check -c FILE` tells every mistake at once.

The file is YAML, UTF-8, at most 1 MB. `no`, `on`, `12:30` and `012` are text; addresses, names and versions are taken
as they are written. Aliases, tags, duplicate keys and unknown keys are mistakes.

- **name**: 1 to 64 of `A-Z a-z 0-9 _ . -`, first a letter, a digit or `_`. Texts in any language go into `label`.
- **duration**: `500 ms`, `1 s`, `5 min` or `5m`, `1 h`, `7 d`, or a number of seconds.
- **size**: `60 KB`, `64 MB`, `1 GB` (powers of 1000), `512 MiB` (of 1024), or a number of bytes.
- **file**: an absolute path, or a name that is looked up in `$CREDENTIALS_DIRECTORY`, in
  `/etc/shopfloor-agent/secrets/`, and beside the configuration. Files that hold **secrets** must not be readable by
  others (`chown root:shopfloor`, `chmod 640`).
"""

_DEVICES = """\
## `devices`

A list. Every device has the keys `name`, `label`, `description`, `type`, `interval`, `timeout` and `report`; the rest
depends on its `type`.
"""

_TAG_LISTS = """\
#### Tag lists

`tags_file: press-3.csv` or `tags_file: list.xlsx#Sheet2` names a table with a row of headings and a row for each tag;
tags beside it (`tags:`) are added. `shopfloor tags export -c FILE DEVICE --csv OUT` writes a device's tags like this.

- CSV: comma, semicolon or tab; UTF-8, GB18030 (GBK) or UTF-16. XLSX needs the extra `xlsx` (openpyxl). With several
  sheets one must be chosen. Formulas count as the spreadsheet stored them; dates and errors are refused.
- Headings may stand below a title and take two rows (`量程` over `下限`, `上限`; a group of other words is passed over,
  but not above a scale, a limit or a map: `报警` over `下限` is another limit). What stands in brackets is passed over:
  `量程(下限)`, `地址(十进制)`; not so `倍率(除以)`. Rows that are empty, begin with `#`, are one merged cell or hold
  one text and nothing else are left out; so are columns whose heading begins with `#`. An unknown heading is a mistake.
- `address`: as in the configuration. Or a column of function codes or areas ({area}: 03, 0x04, 03/06, holding,
  保持寄存器, ...) beside one of bare numbers, in hex if the heading says so (`地址(HEX)`) or the cell does (`0x2006`,
  `2006H`); `count_from: 0` or `1` must say where they begin, and `area: holding` serves for a list without such a
  column.
- Cells that say nothing: empty, or a dash, `/`, `无` where no free text stands. Full-width letters, digits, colons and
  commas are read as plain ones.
- `map`: `0=idle;1=running` or `0:停止，1:运行`; a text with `;` stands in `"..."`. `invalid`: `0x8000;-1`.
- `type`: also the names of IEC 61131 (REAL, INT = int16, WORD, DINT, ...) and 无符号16位整数 and the like; 整型, which
  may be 16 or 32 bits wide, is refused. `word_order`: also 1234, 3412, 2143, 4321.
- `interval`: with a unit (`5 s`), or the unit in the heading: `采集周期(ms)`.
- A name in another language becomes the label, and the name is made from the address (`D100`, `holding_100`).
- A number typed as a number loses its zeros: 40010.10 becomes 40010.1. Format the column as text, or with two decimals;
  what may have lost a zero is refused. In CSV an apostrophe in front (`'40010.10`) keeps a spreadsheet from doing it
  when it opens and saves the file; that is how such addresses are exported.
- {decimals}: can mean rounding or a decimal point in the number; refused until `decimals: rounds` or
  `decimals: scales` says which.

| key | other headings |
| --- | --- |
{rows}
"""

_TEMPLATES = """\
#### Templates

A template is a YAML file with the keys of a device but its `name`: `template: ./meter.yaml` (relative to the file that
names it), or `template: NAME` for `devices/NAME.yaml` beside the configuration, else for a shipped one. `vars:` in it
declares variables and their defaults (`ct: 1`, or `ct: {default: 1, description: ...}`; without a default the device
must fill it in), `${ct}` in a value stands for the variable, and `scale: [0.01, "${ct}"]` is a product. `source`,
`manual` and `tested` are notes. A template cannot use another.

A device's own keys replace those of the template as a whole. Tags are merged by name: in the order of the template, the
device's tag laying its keys over the template's of the same name (`unit: null` takes a key away), then the device's
further tags. A `tags_file` counts as tags of the file that names it.

| shipped | variables | source | tested |
| --- | --- | --- | --- |
{rows}
"""


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, for editors."""
    whole = AgentConfig.model_json_schema(by_alias=True)
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    whole["title"] = "Shopfloor Agent configuration"
    whole["required"] = [key for key in whole["required"] if key != "gateway"]
    definitions: dict[str, Any] = whole["$defs"]
    branches = []
    for name in BUILT_IN:
        device = collector_type(name).config_model.model_json_schema(by_alias=True)
        definitions.update(device.pop("$defs", {}))
        definitions[f"device_{name}"] = device
        definitions[f"templated_{name}"] = _beside_template(device, definitions)
        if "line" in device["properties"]:
            device["required"].remove("url")
            device["allOf"] = [{"anyOf": [{"required": ["url"]}, {"required": ["line"]}]}]
        if "tags" in device.get("required", ()):
            device["required"].remove("tags")
            device["anyOf"] = [{"required": ["tags"]}, {"required": ["tags_file"]}]
        branches.append(
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {
                    "if": {"required": ["template"]},
                    "then": {"$ref": f"#/$defs/templated_{name}"},
                    "else": {"$ref": f"#/$defs/device_{name}"},
                },
            },
        )
    definitions.pop("DeviceConfig", None)
    whole["properties"]["devices"] = {
        "type": "array",
        "minItems": 1,
        "description": "what is read",
        "items": {
            "type": "object",
            "required": ["name"],
            "anyOf": [{"required": ["type"]}, {"required": ["template"]}],
            "properties": {"type": {"description": f"one of {', '.join(BUILT_IN)}, or the name of a plugin"}},
            "allOf": branches,
        },
    }
    found: dict[str, Any] = _as_typed(whole)
    return found


def _beside_template(device: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a device whose template brings keys and tags: little is required of it itself."""
    loose = copy.deepcopy(device)
    loose["required"] = ["name"]
    tags = loose["properties"].get("tags")
    reference = tags["items"].get("$ref", "") if tags is not None else ""
    if tags is not None and reference:
        tag = copy.deepcopy(definitions[reference.rpartition("/")[2]])
        tag["required"] = ["name"]
        tags["items"] = tag
    return loose


def _as_typed(part: Any) -> Any:
    """Let text be written as YAML reads it: `address: 40001` is a number to an editor."""
    if isinstance(part, list):
        return [_as_typed(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    typed = {key: _as_typed(value) for key, value in part.items() if key not in _NO_KEYWORDS}
    valid = typed.get("enum")
    if isinstance(valid, list):
        also = [value for value in (core_value(str(word)) for word in valid) if not isinstance(value, str)]
        if also:
            typed["enum"] = [*valid, *also]
            typed.pop("type", None)
    elif typed.get("type") == "string" and "const" not in typed:
        typed["type"] = list(_NUMBERLIKE)
    return typed


def reference() -> str:
    """The reference for people, as Markdown."""
    parts = [_INTRODUCTION, _section("The file", AgentConfig)]
    for key in ("mqtt", "buffer", "log", "defaults"):
        section = shapes_of(AgentConfig)[key].model
        assert section is not None
        parts.append(_section(f"`{key}`", section))
    parts.append(_section("`lines`, by name", LineConfig))
    parts.append(_DEVICES)
    parts.append(_section("`report`", Report, level=3))
    parts += [_section("`tags_file`", TagsFile, level=3), _tag_lists(), _templates()]
    for name in BUILT_IN:
        model: type[BaseModel] = collector_type(name).config_model
        parts.append(_section(f"`type: {name}`", model, level=3))
        for key, shape in shapes_of(model).items():
            inner = _inner(shape)
            if inner is not None and inner not in {Report, TagsFile}:
                title = f"`{key}` of `type: {name}`" + (", each" if shape.item is not None else "")
                parts.append(_section(title, inner, level=4))
    return "\n".join(parts)


def _tag_lists() -> str:
    rows = "\n".join(f"| `{key}` | {', '.join(words)} |" for key, words in SYNONYMS.items())
    return (
        _TAG_LISTS.replace("{rows}", rows)
        .replace("{area}", "功能码, function code")
        .replace("{decimals}", ", ".join(sorted(AMBIGUOUS_DECIMALS)))
    )


def _templates() -> str:
    rows = []
    for file in sorted((DIRECTORY / "devices").glob("*.yaml")):
        root, _ = parse(file.read_text(encoding="utf-8"), file.name)
        assert isinstance(root, Mapping)
        about = {key.text: value for key, value in root.items}
        texts = {key: node.text for key, node in about.items() if isinstance(node, Scalar)}
        declared = about.get("vars")
        names = ", ".join(f"`{key.text}`" for key, _ in declared.items) if isinstance(declared, Mapping) else ""
        rows.append(f"| `{file.stem}` | {names} | {texts['source']} | {texts['tested']} |")
    return _TEMPLATES.replace("{rows}", "\n".join(rows))


def _inner(shape: Shape) -> type[BaseModel] | None:
    return shape.model or (shape.item.model if shape.item is not None else None)


def _section(title: str, model: type[BaseModel], *, level: int = 2) -> str:
    out = [f"{'#' * level} {title}", ""]
    doc = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    if doc and model not in {AgentConfig, Section, DeviceConfig, TagConfig}:
        out += [" ".join(doc.split()), ""]
    out += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name, info in model.model_fields.items():
        key = info.alias or name
        shape = shapes_of(model)[key]
        cells = [f"`{key}`", _values(info, shape), _default(model, info, shape), info.description or ""]
        if key == "url" and issubclass(model, OnLine):
            cells[2] = "this or `line`"
        out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    refused = unsupported_of(model)
    if refused:
        out += ["", "Not supported yet: " + ", ".join(f"`{key.replace('=', ': ')}`" for key in refused) + "."]
    return "\n".join(out) + "\n"


def _values(info: FieldInfo, shape: Shape) -> str:
    extra = info.json_schema_extra
    if isinstance(extra, dict) and isinstance(extra.get("enum"), list):
        return ", ".join(f"`{value}`" for value in extra["enum"])  # type: ignore[union-attr] # checked just above
    if isinstance(extra, dict) and "pattern" in extra:
        return "name"
    if isinstance(shape.file, NamedFile):
        return "file (secret)" if shape.file.secret else "file"
    if isinstance(shape.file, OutputPath):
        return "path"
    return shape.unit or _annotation(info.annotation)


def _annotation(annotation: Any) -> str:
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        extra = next((entry.json_schema_extra for entry in arguments[1:] if isinstance(entry, FieldInfo)), None)
        return "name" if isinstance(extra, dict) and "pattern" in extra else _annotation(arguments[0])
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(_annotation(entry) for entry in arguments if entry is not NoneType))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments if value is not None)
    if origin in {list, tuple}:
        return f"list of {_annotation(arguments[0])}"
    if origin is dict:
        return f"`{{{_annotation(arguments[0])}: {_annotation(arguments[1])}}}`"
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    if annotation in names:
        return names[annotation]
    return "key: value pairs" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else "value"


def _default(model: type[BaseModel], info: FieldInfo, shape: Shape) -> str:
    if info.is_required():
        return "" if model is AgentConfig and info.description and "default" in info.description else "**required**"
    if info.default_factory is not None or info.default is None:
        return ""
    value = info.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{shown_number(value, shape.unit)}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(str(entry) for entry in value)}]`"
    return f"`{value}`"


def main() -> None:
    """Write both files."""
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / "schema.json").write_text(json.dumps(schema(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (DIRECTORY / "reference.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
