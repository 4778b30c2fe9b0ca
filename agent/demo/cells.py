"""Cells and colours of the demo's table. Pure; may import: the standard library, `agent.columns`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from agent.columns import clean, cut, pad, width

Colour = Literal["bold", "dim", "reverse", "red", "green", "yellow", "cyan"]

_SGR = {"bold": "1", "dim": "2", "reverse": "7", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def fit(text: str, columns: int, *, right: bool = False) -> str:
    """The text, made safe for a terminal, in exactly `columns` (at least 1): cut, or padded with blanks."""
    return pad(cut(clean(text), columns), columns, right=right)


def wrap(parts: Sequence[str], columns: int, gap: str = "   ") -> list[str]:
    """The parts in as few lines as fit; a part wider than a line is cut."""
    lines: list[str] = []
    for part in parts:
        if lines and width(lines[-1]) + len(gap) + width(part) <= columns:
            lines[-1] += gap + part
        else:
            lines.append(cut(part, columns))
    return lines


class Paint:
    """Colours where they are allowed; without, the text as it is."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, text: str, *colours: Colour) -> str:
        """The text in these colours."""
        if not self.enabled or not colours:
            return text
        return f"\x1b[{';'.join(_SGR[colour] for colour in colours)}m{text}\x1b[0m"


def bare(text: str) -> str:
    """The text without its colours."""
    return _ESCAPES.sub("", text)
