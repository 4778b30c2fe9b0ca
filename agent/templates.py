"""Templates: a YAML file with the keys and tags of a kind of device, and variables that each device fills in.

`${ct}` in a value of the template is replaced by the device's `vars: {ct: 40}`, or by the default that the template
declares. Promises: what is wrong in a template is told there, with who uses it; what is wrong in a variable is told at
the device that fills it in. May import: `agent.config_document`, `agent.mistakes`, `agent.yaml_source`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.config_document import Document, Loc
from agent.mistakes import Mistake, did_you_mean, quote
from agent.yaml_source import FileRefused, Mapping, Node, Scalar, Sequence, parse, read_text

ABOUT = ("source", "manual", "tested", "vars")
"""Keys of a template that are no keys of the device."""
_REFUSED = {
    "name": "a template has no name: each device gives its own",
    "template": "a template cannot use another template: copy what is needed of it",
}
_PLACE = re.compile(r"\$\{([^}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")


@dataclass(slots=True)
class Template:
    """A template as read.

    Attributes:
        file: as shown to people.
        path: absolute.
        digest: of its content.
        root: its keys; None if it cannot be used.
    """

    file: str
    path: Path
    digest: str
    root: Mapping | None


@dataclass(slots=True)
class Templates:
    """The templates that a configuration uses, each read once; `mistakes` are those of their notation."""

    mistakes: list[Mistake] = field(default_factory=list)
    _known: dict[Path, Template] = field(default_factory=dict)

    def load(self, path: Path, shown: str) -> Template:
        """Read a template; raises FileRefused when it cannot be read."""
        path = path.absolute()
        if path not in self._known:
            text, data = read_text(path, shown)
            root, mistakes = parse(text, shown)
            self.mistakes += mistakes
            usable = root if isinstance(root, Mapping) else None
            if usable is None and not mistakes:
                self.mistakes.append(Mistake(shown, 1, 1, "file", "expected keys such as type:, tags:, vars:"))
            self._known[path] = Template(shown, path, hashlib.sha256(data).hexdigest(), usable)
        return self._known[path]


def shipped_directory() -> Path:
    """Where the templates are that come with the program: in the wheel, or in the work tree."""
    here = Path(__file__).resolve().parent
    packed = here / "_config" / "devices"
    return packed if packed.is_dir() else here.parent / "config" / "devices"


def find_template(name: str, directory: Path) -> Path | str:
    """Return the file of a template, or why there is none.

    Args:
        name: a path (`./meter.yaml`), or the name of a template: in `devices/` beside the configuration, else shipped.
        directory: of the file that names it.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = directory / name
        return path if path.exists() else f"there is no file {quote(name)} in {directory}"
    own = directory / "devices"
    for place in (own, shipped_directory()):
        if (path := place / f"{name}.yaml").is_file():
            return path
    known = sorted({path.stem for place in (own, shipped_directory()) for path in place.glob("*.yaml")})
    return f"there is no template {quote(name)}{did_you_mean(name, known, listed=30)}"


def fill_in(document: Document, loc: Loc, device: Mapping, template: Template) -> Mapping | None:
    """Return the template's device keys with the device's variables put in; None when it cannot be used.

    Args:
        document: where mistakes go.
        loc: of the device.
        device: its nodes.
        template: what it names.
    """
    root = template.root
    if root is None:
        return None
    user = document.find((*loc, "template"))
    note = f"used at {user.node.file or document.file}:{user.node.line}:{user.node.column}"
    for key, text in _REFUSED.items():
        if (name := root.key(key)) is not None:
            document.tell_at(_noted(name, note), f"{user.path}.{key}", text)
            return None
    values = _values(document, loc, device, template, note)
    if values is None:
        return None
    filler = _Filler(document, user.path, values, note)
    filled = Mapping(root.line, root.column, file=root.file, note=note)
    for name, value in root.items:
        if name.text not in ABOUT:
            filled.items.append((_noted(name, note), filler.fill(value)))
    return filled


def _values(document: Document, loc: Loc, device: Mapping, template: Template, note: str) -> dict[str, Scalar] | None:
    assert template.root is not None
    declared = template.root.get("vars")
    if declared is not None and not isinstance(declared, Mapping):
        if not (isinstance(declared, Scalar) and declared.value() is None):
            place = Scalar(declared.line, declared.column, "", file=declared.file, note=note)
            document.tell_at(place, "vars", "expected variables and their defaults such as ct: 1")
            return None
        declared = None
    values: dict[str, Scalar] = {}
    required: list[str] = []
    for name, default in declared.items if declared is not None else ():
        if not _VARIABLE.fullmatch(name.text):
            document.tell_at(_noted(name, note), f"vars.{name.text}", "a variable is 1 to 32 of A-Z a-z 0-9 _")
            return None
        value = default.get("default") if isinstance(default, Mapping) else default
        if isinstance(value, Scalar) and (value.text or not value.plain) and value.value() is not None:
            values[name.text] = value
        else:
            required.append(name.text)
    given = device.get("vars")
    for name, value in given.items if isinstance(given, Mapping) else ():
        if name.text not in values and name.text not in required:
            known = [*values, *required]
            hint = did_you_mean(name.text, known) if known else "; it has none"
            document.tell((*loc, "vars", name.text), f"the template has no variable '{name.text}'{hint}", at_key=True)
        elif not isinstance(value, Scalar):
            document.tell((*loc, "vars", name.text), "expected one value")
            values.setdefault(name.text, Scalar(value.line, value.column, "", broken=True))
        else:
            values[name.text] = value
    missing = [name for name in required if name not in values]
    if missing:
        document.tell(
            (*loc, "template"), f"the template needs vars: {{{', '.join(f'{name}: ...' for name in missing)}}}"
        )
        return None
    return values


def _noted(node: Scalar, note: str) -> Scalar:
    return Scalar(node.line, node.column, node.text, node.plain, node.broken, node.file, note)


class _Filler:
    """Copies nodes and puts variables in."""

    def __init__(self, document: Document, path: str, values: AbstractMapping[str, Scalar], note: str) -> None:
        self._document = document
        self._path = path
        self._values = values
        self._note = note

    def fill(self, node: Node) -> Node:
        if isinstance(node, Scalar):
            return self.scalar(node)
        if isinstance(node, Sequence):
            items = [self.fill(child) for child in node.items]
            return Sequence(node.line, node.column, items, node.broken, node.file, self._note)
        pairs = [(_noted(name, self._note), self.fill(value)) for name, value in node.items]
        return Mapping(node.line, node.column, pairs, node.broken, node.file, self._note)

    def scalar(self, node: Scalar) -> Scalar:
        """The scalar with variables put in; one that is nothing but a variable stands where the device fills it in."""
        copy = _noted(node, self._note)
        if "${" not in node.text:
            return copy
        for name in _PLACE.findall(node.text):
            if name not in self._values:
                hint = did_you_mean(name, self._values)
                self._document.tell_at(copy, self._path, f"'${{{name}}}' is not declared under vars:{hint}")
                copy.broken = True
                return copy
        whole = _PLACE.fullmatch(node.text)
        if whole is not None:
            value = self._values[whole[1]]
            # A default stands in the template; a value of the device in the device's file, which is where it is wrong.
            own = value.file == node.file
            note = self._note if own else f"for ${{{whole[1]}}} at {node.file}:{node.line}:{node.column}"
            return Scalar(value.line, value.column, value.text, value.plain, value.broken, value.file, note)
        copy.text = _PLACE.sub(lambda match: self._values[match[1]].text, node.text)
        return copy


__all__ = ["ABOUT", "FileRefused", "Template", "Templates", "fill_in", "find_template", "shipped_directory"]
