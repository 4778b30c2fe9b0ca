"""A configuration file while it is being checked: finds the place of a setting and collects mistakes.

A place is found by its `loc`: keys and list indices from the root, as pydantic tells them. May import:
`agent.mistakes`, `agent.yaml_source`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

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
    """The nodes of one file and the mistakes found in it so far."""

    def __init__(self, file: str, directory: Path, root: Mapping) -> None:
        self.file = file
        self.directory = directory
        self.root = root
        self.mistakes: list[Mistake] = []
        self._told: set[Loc] = set()

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
        place: Node = found.key if at_key and found.key is not None else found.node
        self.mistakes.append(Mistake(self.file, place.line, place.column, found.path, redact(message)))

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
