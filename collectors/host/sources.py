"""What a source of readings is, and how parts of a machine get names that last.

Pure: nothing is read here. May import: the standard library, `collectors.api`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from collectors.api import Value


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one tag; `source` says in words of the system where it comes from."""

    name: str
    value: Value
    source: str
    unit: str | None = None
    description: str | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """One call. `tags`: what it brings, where that is known even if it never answers (their values are None)."""

    key: str
    read: Callable[[], list[Reading]]
    may_block: bool = False
    tags: tuple[Reading, ...] = ()


class Names:
    """Which of a machine's parts get tags, and their names in them. What was chosen once stays chosen."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._given: dict[str, str] = {}

    def choose(self, parts: Iterable[str]) -> dict[str, str]:
        """Part -> name, of the parts that have tags; `parts` in order of preference."""
        parts = list(parts)
        for part in parts:
            if part not in self._given and len(self._given) < self._limit:
                self._given[part] = self._free(part)
        return {part: self._given[part] for part in parts if part in self._given}

    def _free(self, part: str) -> str:
        name = slug(part)
        return name if name not in self._given.values() else f"{name}_{_mark(part)}"


def slug(part: str) -> str:
    """The part's name as it may stand in a tag: `/` is root, `/mnt/data` mnt_data; a mark where letters were lost."""
    text = part.strip("/").replace("/", "_").replace(" ", "_") or "root"
    clean = re.sub(r"[^A-Za-z0-9_.-]", "", text)
    if clean == text and len(clean) <= 40:
        return clean
    return f"{clean[:32]}_{_mark(part)}".lstrip("_.-")


def _mark(part: str) -> str:
    return f"{zlib.crc32(part.encode()) & 0xFFFF:04x}"


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sort key: eth2 before eth10."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name))
