"""Read YAML into nodes that know their line and column: YAML 1.2 core scalars, and nothing that surprises.

Promises: no object is ever built from the text but str, int, float, bool, None, list and dict; aliases, tags, duplicate
keys, more than 1 MB, nesting deeper than 20 and any encoding but UTF-8 are mistakes; a mistake that can be stepped over
(a tab, a `%` without quotes, an alias) does not hide those behind it. The text of a scalar is kept, so that an address
never goes through a number. `no`, `on`, `12:30`, `012` and dates stay text.

The events of libyaml's parser are used instead of PyYAML's composer: the composer resolves aliases before anybody
sees them and recurses in C. May import: PyYAML, `agent.mistakes`.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from agent.mistakes import Mistake
from agent.yaml_hints import hint_for, misprint

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
_MAX_REPAIRS = 50

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,32}")
_OCTAL = re.compile(r"0o[0-7]{1,32}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Plain: TypeAlias = "str | int | float | bool | None"


@dataclass(slots=True)
class Scalar:
    """A value without parts.

    Attributes:
        text: as written (without quotes, lines joined).
        plain: written without quotes, so it may be a number.
        broken: a mistake is told already; whatever follows from it need not be.
        file: where it stands, as the person named it; "" = in the file that is being checked.
        note: what a mistake here must say too, such as who uses a template.
    """

    line: int
    column: int
    text: str
    plain: bool = True
    broken: bool = False
    file: str = ""
    note: str = ""

    def value(self) -> Plain:
        """What YAML 1.2's core schema makes of it; a number that is not finite stays text."""
        return core_value(self.text) if self.plain else self.text


@dataclass(slots=True)
class Mapping:
    """`key: value` pairs in the order of the file; keys are unique."""

    line: int
    column: int
    items: list[tuple[Scalar, Node]] = field(default_factory=list)
    broken: bool = False
    file: str = ""
    note: str = ""

    def get(self, key: str) -> Node | None:
        """The value of this key, or None."""
        for name, value in self.items:
            if name.text == key:
                return value
        return None

    def key(self, key: str) -> Scalar | None:
        """The key itself, for its position."""
        for name, _ in self.items:
            if name.text == key:
                return name
        return None


@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    column: int
    items: list[Node] = field(default_factory=list)
    broken: bool = False
    file: str = ""
    note: str = ""


Node: TypeAlias = Scalar | Mapping | Sequence


class FileRefused(Exception):
    """The file could not be read at all; `mistake` says why."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


def core_value(text: str) -> Plain:
    """Resolve a plain scalar by YAML 1.2's core schema; leading zeros, infinities and NaN stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if not text[:1].isascii() or text[:1].isalpha():
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text


def read_text(path: Path, name: str | None = None) -> tuple[str, bytes]:
    """Read a small UTF-8 file.

    Args:
        path: the file.
        name: how to call it in mistakes; the path by default.

    Returns:
        Its text (without byte order mark) and its bytes.

    Raises:
        FileRefused: it is missing, unreadable, no file, empty, too large, or not UTF-8.
    """
    shown = name or str(path)

    def refused(message: str, line: int = 1, column: int = 1) -> FileRefused:
        return FileRefused(Mistake(shown, line, column, "file", message))

    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise refused("is no ordinary file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise refused("there is no such file; check the path, or name another with -c FILE") from None
    except IsADirectoryError:
        raise refused("is a directory; name the file in it") from None
    except PermissionError:
        raise refused(
            "may not be read by this user; run the command as the service's user "
            "(sudo -u shopfloor shopfloor ...) or allow its group: chgrp shopfloor FILE, chmod 640 FILE"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise refused(f"cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise refused("is larger than 1 MB; no configuration of a gateway is: is it the right file?")
    text = _decode(data, refused)
    if not text.strip():
        raise refused("is empty; config/agent.yaml is an annotated example to start from")
    return text, data


def _decode(data: bytes, refused: object) -> str:
    assert callable(refused)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in data[:64]:
        raise refused("is saved as UTF-16 ('Unicode' in Windows editors); save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        try:
            data.decode("gb18030")
            guess = "; it looks like GBK ('ANSI' in Windows editors)"
        except UnicodeDecodeError:
            guess = ""
        raise refused(f"is not UTF-8{guess}: save it as UTF-8", line, column) from None


def parse(text: str, file: str) -> tuple[Node | None, list[Mistake]]:
    """Parse one document.

    Returns:
        Its root (None when the notation is broken beyond repair, or nothing but comments) and every mistake in the
        notation that was found, in the order of the file.
    """
    mistakes: list[Mistake] = []

    def told(line: int, column: int, message: str) -> None:
        mistakes.append(Mistake(file, line, column, "yaml", message))

    found = _UNPRINTABLE.search(text)
    if found is not None:
        before = text[: found.start()]
        told(
            before.count("\n") + 1,
            len(before) - before.rfind("\n"),
            f"control character \\x{ord(found[0]):02x}; delete it (copied from another program?)",
        )
        return None, mistakes
    for _ in range(_MAX_REPAIRS):
        builder = _Builder(file)
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                builder.take(event)
        except yaml.MarkedYAMLError as error:
            lines = text.split("\n")
            line, column, repair = misprint(lines, error)
            told(line + 1, column + 1, hint_for(lines, error, line, column))
            if repair is None:
                return None, sorted(mistakes)
            lines[line] = lines[line][:column] + repair + lines[line][column + len(repair) :]
            text = "\n".join(lines)
            continue
        except _TooDeep:
            builder.mistakes.append(builder.too_deep)
            builder.root = None
        return builder.root, sorted(mistakes + builder.mistakes)
    return None, sorted(mistakes)


class _TooDeep(Exception):
    pass


class _Builder:
    """Builds nodes from libyaml's events and collects what is not allowed in them."""

    def __init__(self, file: str) -> None:
        self.root: Node | None = None
        self.mistakes: list[Mistake] = []
        self.too_deep = Mistake(file, 1, 1, "yaml", "")
        self._file = file
        self._stack: list[tuple[Mapping | Sequence, dict[str, Scalar]]] = []
        self._key: Scalar | None = None
        self._keys: list[Scalar | None] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        assert mark is not None
        line, column = mark.line + 1, mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(line, column, event.value, not event.style, False, self._file)
            if event.tag is not None:
                self._no_tag(node)
            self._add(node)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            kind = Mapping if isinstance(event, yaml.MappingStartEvent) else Sequence
            branch = kind(line, column, file=self._file)
            if event.tag is not None:
                self._no_tag(branch)
            self._open(branch)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._stack.pop()
            self._key = self._keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            node = Scalar(line, column, "", broken=True, file=self._file)
            self._told(node, f"aliases (*{event.anchor}) are not supported: write the values out")
            self._add(node)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents == 2:
                self._told(Scalar(line, column, ""), "a second document begins: remove the '---'")

    def _told(self, node: Node, message: str) -> None:
        self.mistakes.append(Mistake(self._file, node.line, node.column, "yaml", message))

    def _no_tag(self, node: Node) -> None:
        self._told(node, "tags (!...) are not supported; a text that begins with ! needs quotes")
        node.broken = True

    def _open(self, branch: Mapping | Sequence) -> None:
        if self._stack and isinstance(self._stack[-1][0], Mapping) and self._key is None:
            self._told(branch, "a key must be a text; a value that begins with { or [ needs quotes")
            key = Scalar(branch.line, branch.column, "", broken=True)
            branch.broken = True
            self._keys.append(key)  # what follows is taken as the value of a broken key
        else:
            self._add(branch)
            self._keys.append(None)
        self._key = None
        self._stack.append((branch, {}))
        if len(self._stack) > MAX_DEPTH:
            self.too_deep = Mistake(
                self._file, branch.line, branch.column, "yaml", f"nested deeper than {MAX_DEPTH} levels"
            )
            raise _TooDeep

    def _add(self, node: Node) -> None:
        if not self._stack:
            if self._documents == 1:
                self.root = node
            return
        branch, seen = self._stack[-1]
        if isinstance(branch, Sequence):
            branch.items.append(node)
        elif self._key is None:
            assert isinstance(node, Scalar)
            self._key = node
        else:
            key, self._key = self._key, None
            first = seen.setdefault(key.text, key)
            if key.broken:
                return
            if first is not key:
                self._told(key, f"the key '{key.text}' stands here twice; the first is in line {first.line}")
                return
            branch.items.append((key, node))
