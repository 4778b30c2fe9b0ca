"""Puts templates and tag lists into a device, before it is checked: what follows sees only keys and tags.

Order: the template's keys, over them the device's own (a key as a whole); the template's tags in their order, over each
of them the keys of the device's tag of the same name; then the device's further tags, those of `tags_file` last. A
template may have a `tags_file` too. May import: `agent.config_document`, `agent.config_reader`, `agent.mistakes`,
`agent.grid`, `agent.tables`, `agent.tag_table`, `agent.templates`, `agent.yaml_source`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from agent.config_document import Document, Loc
from agent.config_reader import shapes_of
from agent.grid import Grid, TableRefused
from agent.mistakes import quote
from agent.tables import MAX_BYTES, read_table
from agent.tag_addresses import AREAS, Numbers
from agent.tag_headings import count_known
from agent.tag_table import Decimals, TagTable
from agent.templates import FileRefused, Templates, fill_in, find_template
from agent.yaml_source import Mapping, Node, Scalar, Sequence

ModelOf = Callable[[Loc, Mapping], type[BaseModel] | None]


@dataclass(slots=True)
class Expander:
    """Works on one document; `files` are the digests of what each device (by index) brought in."""

    document: Document
    model_of: ModelOf
    templates: Templates = field(default_factory=Templates)
    files: dict[int, dict[str, str]] = field(default_factory=dict)

    def expand(self, index: int, device: Mapping) -> Mapping:
        """Return the device with its template and tag lists put in."""
        loc: Loc = ("devices", index)
        self.files[index] = {}
        if device.get("template") is None and device.get("vars") is not None:
            self.document.tell((*loc, "vars"), "has no meaning without template:", at_key=True)
        base = self._template(loc, device)
        if base is None and device.get("tags_file") is None:
            return device
        base = base or Mapping(device.line, device.column)
        merged = Mapping(device.line, device.column, list(device.items), device.broken, device.file, device.note)
        own = {name.text for name, _ in device.items}
        merged.items += [item for item in base.items if item[0].text not in own]
        model = self.model_of(loc, merged)
        tags_model = _tags_model(model) if model is not None else None
        if tags_model is None:
            if model is not None and device.get("tags_file") is not None:
                self.document.tell((*loc, "tags_file"), "devices of this type have no tags", at_key=True)
            return merged
        self._merge_tags(loc, device, base, merged, tags_model)
        return merged

    def _merge_tags(
        self, loc: Loc, device: Mapping, base: Mapping, merged: Mapping, tags_model: type[BaseModel]
    ) -> None:
        written, below = device.get("tags"), base.get("tags")
        tables = [
            (one.get("tags_file"), self._table(loc, one, tags_model)) for one in (base, device) if one.get("tags_file")
        ]
        if any(one is not None and not isinstance(one, Sequence) for one in (written, below)):
            return  # told as a mistake when it is read
        own = list(written.items) if isinstance(written, Sequence) else []
        inherited = list(below.items) if isinstance(below, Sequence) else []
        broken = False
        for node, table in tables:
            broken = broken or table is None
            if table is not None:
                (inherited if node is base.get("tags_file") else own).extend(table.items)
        at = next(node for node in (written, below, device.get("tags_file"), base.get("tags_file"), device) if node)
        tags = Sequence(at.line, at.column, _override(inherited, own), broken, at.file, at.note)
        merged.items = [item for item in merged.items if item[0].text != "tags"]
        key = device.key("tags") or base.key("tags") or Scalar(at.line, at.column, "tags", file=at.file, note=at.note)
        merged.items.append((key, tags))

    def _template(self, loc: Loc, device: Mapping) -> Mapping | None:
        node = device.get("template")
        if not isinstance(node, Scalar) or not node.text:
            return None  # of another kind: told when it is read
        found = find_template(node.text, self.document.directory_of(node))
        if isinstance(found, str):
            self.document.tell((*loc, "template"), found)
            return self._unknown(device)
        shown = _shown(found, node, self.document)
        try:
            template = self.templates.load(found, shown)
        except FileRefused as refused:
            self.document.tell((*loc, "template"), f"{shown} {refused.mistake.message}")
            return self._unknown(device)
        self.files[loc_index(loc)][str(template.path)] = template.digest
        base = fill_in(self.document, loc, device, template)
        if base is None:
            return self._unknown(device)
        kind, own = base.get("type"), device.get("type")
        if isinstance(kind, Scalar) and isinstance(own, Scalar) and kind.text != own.text:
            self.document.tell((*loc, "type"), f"the template is for type: {kind.text}, got {quote(own.text)}")
            return self._unknown(device)
        return base

    def _unknown(self, device: Mapping) -> Mapping:
        """A template that cannot be used: what is missing without it need not be told."""
        device.broken = True
        return Mapping(device.line, device.column, broken=True)

    def _table(self, loc: Loc, holder: Mapping, tags_model: type[BaseModel]) -> Sequence | None:
        node = holder.get("tags_file")
        assert node is not None
        name, sheet, decimals, numbers = _reference(node)
        if not name:
            return None  # told when it is read
        path = self.document.directory_of(node) / name
        shown = _shown(path, node, self.document)
        setting = self.document.find((*loc, "tags_file")).path
        shapes = shapes_of(tags_model)
        try:
            data = _read(path)
            digest = hashlib.sha256(data).hexdigest()
            self.files[loc_index(loc)][str(path.absolute())] = digest
            grid = read_table(data, path, shown, sheet, lambda texts: count_known(texts, shapes.keys()))
        except TableRefused as refused:
            self.document.tell_at(node, setting, f"{shown} {refused}")
            return None
        return self._tags(grid, setting, node.note, decimals, numbers, tags_model)

    def _tags(
        self,
        grid: Grid,
        setting: str,
        note: str,
        decimals: Decimals | None,
        numbers: Numbers,
        tags_model: type[BaseModel],
    ) -> Sequence | None:
        table = TagTable(
            self.document, grid, shapes=shapes_of(tags_model), path=setting, note=note, decimals=decimals,
            numbers=numbers,
        )  # fmt: skip
        return table.read()


def loc_index(loc: Loc) -> int:
    """The index of the device in `devices`."""
    index = loc[1]
    assert isinstance(index, int)
    return index


def _tags_model(model: type[BaseModel]) -> type[BaseModel] | None:
    shape = shapes_of(model).get("tags")
    return shape.item.model if shape is not None and shape.item is not None else None


def _reference(node: Node) -> tuple[str, str | None, Decimals | None, Numbers]:
    """What `list.xlsx#Sheet2` or {file: ..., sheet: ..., count_from: ...} says; what is wrong in it is told later."""
    if isinstance(node, Scalar):
        name, _, sheet = node.text.partition("#")
        return name, sheet or None, None, Numbers()
    if not isinstance(node, Mapping):
        return "", None, None, Numbers()
    texts = {key.text: value.text for key, value in node.items if isinstance(value, Scalar)}
    name, _, sheet = texts.get("file", "").partition("#")
    decimals: Decimals | None = None
    if texts.get("decimals") == "rounds":
        decimals = "rounds"
    elif texts.get("decimals") == "scales":
        decimals = "scales"
    count_from = {"0": 0, "1": 1}.get(texts.get("count_from", ""))
    area = next((area for area in AREAS if area == texts.get("area")), None)
    return name, texts.get("sheet", sheet) or None, decimals, Numbers(count_from, area)


def _override(inherited: list[Node], own: list[Node]) -> list[Node]:
    """The template's tags, each with the keys of the device's tag of its name over its own; then the others."""
    below = {name: tag for tag in inherited if (name := _name(tag)) is not None}
    laid = [(_name(tag), _laid_over(tag, below.get(_name(tag) or ""))) for tag in own]
    first = {name: index for index, (name, _) in reversed(list(enumerate(laid))) if name in below}
    merged: list[Node] = [laid[first[name]][1] if (name := _name(tag)) in first else tag for tag in inherited]
    return merged + [tag for index, (name, tag) in enumerate(laid) if name not in first or index != first[name]]


def _name(tag: Node) -> str | None:
    name = tag.get("name") if isinstance(tag, Mapping) else None
    return name.text if isinstance(name, Scalar) and name.text else None


def _laid_over(tag: Node, below: Node | None) -> Node:
    if not isinstance(tag, Mapping) or not isinstance(below, Mapping):
        return tag
    keys = {key.text for key, _ in tag.items}
    items = [*tag.items, *(item for item in below.items if item[0].text not in keys)]
    return type(tag)(tag.line, tag.column, items, tag.broken, tag.file, tag.note)


def _shown(path: Path, node: Node, document: Document) -> str:
    """The path as people named it: beside the file that names it."""
    beside = Path(node.file or document.file).parent
    directory = document.directory_of(node)
    return str(beside / path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise TableRefused("is not there: check the name; paths are relative to the file that names them") from None
    except IsADirectoryError:
        raise TableRefused("is a directory; name the file in it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TableRefused(f"cannot be read: {reason}") from None
    if not data.strip():
        raise TableRefused("is empty")
    return data
