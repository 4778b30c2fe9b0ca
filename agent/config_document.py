"""A configuration file while it is being checked: finds the place of a setting and collects mistakes.

A place is found by its `loc`: keys and list indices from the root, as pydantic tells them. May import:
`agent.grid`, `agent.mistakes`, `agent.yaml_source`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agent.grid import Cell, Row, letters
from agent.mistakes import Mistake, redact
from agent.yaml_source import Mapping, Node, Scalar, Sequence

Loc: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a setting stands.

    Attributes:
        node: its value, or the innermost part above it that exists.
        key: its key; None for list items and for what does not exist.
        path: for people: `devices[press-3].tags[temperature].address`.
        complete: the setting itself exists.
        broken: a mistake was told about it, or about a part around it, already.
        loc: the keys and indices that were found.
    """

    node: Node
    key: Scalar | None
    path: str
    complete: bool
    broken: bool
    loc: Loc


class Document:
    """The nodes of one file, with those of tables and templates put into it, and the mistakes found so far."""

    def __init__(self, file: str, directory: Path, root: Mapping) -> None:
        self.file = file
        self.directory = directory
        self.root = root
        self.mistakes: list[Mistake] = []
        self._told: set[Loc] = set()
        self._told_of_shared: set[tuple[str, int, int, str]] = set()

    def find(self, loc: Loc) -> Found:
        """Walk down; parts that stand for no place in the file (branches of a union, `[key]`) are skipped."""
        node: Node = self.root
        key: Scalar | None = None
        path = ""
        walked: list[str | int] = []
        broken = node.broken
        missing = ""
        for part in loc:
            if isinstance(node, Mapping) and (name := node.key(str(part))) is not None:
                value = node.get(str(part))
                assert value is not None
                node, key = value, name
                path = f"{path}.{part}" if path else str(part)
            elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
                node, key = node.items[part], None
                path = f"{path}[{_item_name(node, part)}]"
            else:
                if isinstance(node, Mapping) and isinstance(part, str) and part.isidentifier() and not missing:
                    missing = part
                continue
            walked.append(part)
            broken = broken or node.broken
        if missing:
            return Found(node, None, f"{path}.{missing}" if path else missing, False, broken, tuple(walked))
        return Found(node, key, path or "file", len(walked) == len(loc), broken, tuple(walked))

    def tell(self, loc: Loc, message: str, *, at_key: bool = False) -> None:
        """Add a mistake at a setting (or at its key), unless one was told about it or around it already."""
        found = self.find(loc)
        if found.broken or self.was_told(loc):
            return
        self._told.add(loc)
        self.tell_at(found.key if at_key and found.key is not None else found.node, found.path, message)

    def tell_at(self, place: Node, path: str, message: str) -> None:
        """Add a mistake at a node, in the file it stands in; what a template says wrong is told of its first user."""
        file = place.file or self.file
        if place.note:
            shared = (file, place.line, place.column, message)
            if shared in self._told_of_shared:
                return
            self._told_of_shared.add(shared)
            message = f"{message} ({place.note})"
        if isinstance(place, Cell):
            message = f"cell {letters(place.column)}{place.line}: {message}"
        elif isinstance(place, Row):
            message = f"row {place.line}: {message}"
        self.mistakes.append(Mistake(file, place.line, place.column, path, redact(message)))

    def directory_of(self, node: Node) -> Path:
        """The directory of the file that a node stands in: paths in it are relative to it."""
        return Path(node.file).absolute().parent if node.file not in {"", self.file} else self.directory

    def place_of(self, node: Node) -> str:
        """Where a node stands, for a mistake elsewhere: `line 12`, `row 7 of press.csv`, `line 3 of meter.yaml`."""
        kind = "row" if isinstance(node, Cell | Row) else "line"
        other = f" of {node.file}" if node.file not in {"", self.file} else ""
        return f"{kind} {node.line}{other}"

    def was_told(self, loc: Loc) -> bool:
        """Whether a mistake was told about this setting or a part around it."""
        return any(loc[:end] in self._told for end in range(1, len(loc) + 1))

    def told_within(self, loc: Loc) -> bool:
        """Whether a mistake was told about a part of this setting."""
        return any(told[: len(loc)] == loc for told in self._told)


def _item_name(node: Node, index: int) -> str:
    name = node.get("name") if isinstance(node, Mapping) else None
    if isinstance(name, Scalar) and name.text and name.text.isprintable() and len(name.text) <= 64:
        return name.text
    return f"#{index + 1}"
