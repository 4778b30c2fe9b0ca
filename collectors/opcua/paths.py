r"""Browse paths as people write them: `/Objects/2:Line/2:Speed`, or by names alone, `/Objects/Line/Speed`.

`&` before a character takes its meaning away (`/Objects/a&/b` is the child `a/b`). A pattern (`browse:`) has `*` and
`?` within a name, and `**` for any number of levels. Promises: a path that could be read in two ways is refused; tag
names made from the tree are the same on every connection, whatever order the server tells its nodes in. Pure.

May import: the standard library.
Source: OPC UA Part 4, A.2 (BNF of RelativePath, of which `/` and `&` are taken).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_NAME = 64
_ROOTS = ("Objects", "Types", "Views")
_EXAMPLE = "/Objects/2:Line/2:Press/2:Speed or, by names alone, /Objects/Line/Press/Speed"
_QUALIFIED = re.compile(r"(?P<ns>\d{1,5}):(?P<name>.+)", re.DOTALL)
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]")


class BadPath(ValueError):
    """The text is no browse path; says what was expected."""


@dataclass(frozen=True, slots=True)
class Step:
    """One name of a path.

    Attributes:
        name: browse name without its namespace; of a pattern as written.
        namespace: index; None = any.
        pattern: what a name must match; None = equal to `name`.
        deep: `**`, any number of levels.
    """

    name: str
    namespace: int | None = None
    pattern: re.Pattern[str] | None = None
    deep: bool = False

    def fits(self, namespace: int, name: str) -> bool:
        """Whether a child of this browse name is meant."""
        if self.namespace is not None and namespace != self.namespace:
            return False
        return self.pattern.fullmatch(name) is not None if self.pattern is not None else name == self.name


@dataclass(frozen=True, slots=True)
class BrowsePath:
    """A path from the Root folder.

    Attributes:
        text: as the person wrote it.
        steps: from the children of Root on.
    """

    text: str
    steps: tuple[Step, ...]

    @property
    def qualified(self) -> bool:
        """Whether every name has its namespace, so that the server itself can follow the path."""
        return all(step.namespace is not None for step in self.steps)

    @property
    def first_pattern(self) -> int:
        """How many steps lead to where the pattern begins; all of them if there is none."""
        for number, step in enumerate(self.steps):
            if step.deep or step.pattern is not None:
                return number
        return len(self.steps)


def parse_path(text: str, *, pattern: bool = False) -> BrowsePath:
    """Read a path, or with `pattern` one with `*`, `?` and `**`.

    Raises:
        BadPath: the text is none; the message is for people.
    """
    stripped = text.strip()
    if not stripped.startswith("/"):
        raise BadPath(f"expected a path from the root such as {_EXAMPLE}")
    steps = [_step(part, pattern) for part in _split(stripped[1:])]
    if steps and steps[0].name == "Root" and steps[0].namespace in (None, 0):
        steps = steps[1:]
    if not steps or steps[0].name not in _ROOTS or steps[0].namespace not in (None, 0):
        raise BadPath(f"a path begins with /Objects: {_EXAMPLE}")
    if len(steps) == 1:
        raise BadPath(f"the path ends at the folder {steps[0].name}: name the variable below it")
    steps[0] = Step(steps[0].name, 0)
    found = BrowsePath(stripped, tuple(steps))
    if pattern and found.first_pattern == len(steps):
        raise BadPath("a pattern has * or ? in it; for a single variable write path:")
    return found


def tag_name(prefix: str, names: Sequence[str]) -> str:
    """Name of a tag that a pattern found: prefix and names with dots; what a tag's name cannot hold becomes `_` and,
    so that two texts never become one name, six digits of their hash. Without prefix: of a tag in a list.
    """
    whole = ".".join([prefix, *names] if prefix else names)
    name = _NO_NAME.sub("_", whole)
    if name[0] in ".-":
        name = f"_{name}"
    if name == whole and len(name) <= LONGEST_NAME and not any("." in part for part in names):
        return name
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{name[: LONGEST_NAME - 7]}_{digest}"


def written(names: Sequence[tuple[int, str]]) -> str:
    """The path of these namespaces and names as it is written in a configuration."""
    return "".join(f"/{namespace}:{_escaped(name)}" if namespace else f"/{_escaped(name)}" for namespace, name in names)


def _escaped(name: str) -> str:
    return re.sub(r"([&/*?])", r"&\1", name)


def _split(text: str) -> list[list[tuple[str, bool]]]:
    """Characters and whether each is escaped, for every part between slashes."""
    parts: list[list[tuple[str, bool]]] = [[]]
    characters = iter(text)
    for character in characters:
        if character == "&":
            escaped = next(characters, None)
            if escaped is None:
                raise BadPath("& at the end of a path: it takes the meaning of the character after it (&/ &* &&)")
            parts[-1].append((escaped, True))
        elif character == "/":
            parts.append([])
        else:
            parts[-1].append((character, False))
    if not all(parts):
        raise BadPath("a path has a name between every two slashes, and none at its end")
    return parts


def _step(part: list[tuple[str, bool]], pattern: bool) -> Step:
    text = "".join(character for character, _ in part)
    namespace: int | None = None
    match = _QUALIFIED.fullmatch(text)
    if match is not None and not any(escaped for _, escaped in part[: match.start("name")]):
        namespace = int(match["ns"])
        if namespace > 0xFFFF:
            raise BadPath("a namespace index is 0 to 65535")
        part, text = part[match.start("name") :], match["name"]
    special = any(character in "*?" and not escaped for character, escaped in part)
    if not special:
        return Step(text, namespace)
    if not pattern:
        raise BadPath("* and ? stand for many variables: write browse: instead of path: (&* is the character itself)")
    if text == "**":
        return Step(text, namespace, None, deep=True)
    wild = {"*": ".*", "?": "."}
    source = "".join(
        wild[character] if character in wild and not escaped else re.escape(character) for character, escaped in part
    )
    return Step(text, namespace, re.compile(source, re.DOTALL))
