"""Text in the columns of a terminal: Chinese is two columns wide, and what a device sends cannot steer the terminal.

Pure. May import: the standard library.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# C0 and C1 controls, DEL, line separators, direction overrides and lone surrogates: nothing that a device sends may
# break a line, move the cursor or reorder what a person reads.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_WIDE = frozenset("WF")
_ZERO_WIDTH = frozenset({"Mn", "Me", "Cf"})


def clean(text: str) -> str:
    r"""Return the text on one line with control characters shown as `\x1b` or `\u202e`."""
    return _UNSAFE.sub(lambda match: _escape(ord(match[0])), text)


def escape_json(text: str) -> str:
    r"""Return JSON text in which the unsafe characters that JSON allows stand as `\u0085`."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(code: int) -> str:
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def width(text: str) -> int:
    """How many columns the text takes; Chinese, Japanese and full-width characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(char) in _WIDE else 0 if unicodedata.category(char) in _ZERO_WIDTH else 1
        for char in text
    )


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Return the text filled with blanks to at least `columns`; `right` aligns it to the right."""
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks


def cut(text: str, columns: int) -> str:
    """Return the text, cut to at most `columns` with an ellipsis at the end if it was longer."""
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for char in text:
        used += width(char)
        if used > columns - 1:
            break
        kept.append(char)
    return "".join(kept) + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: frozenset[int] = frozenset()) -> list[str]:
    """Return the lines of an aligned table, two blanks between columns.

    Args:
        head: one heading per column.
        rows: as many cells each; cells are made safe for a terminal here.
        numbers: indexes of the columns that are aligned to the right.
    """
    safe = [[clean(cell) for cell in row] for row in (head, *rows)]
    widths = [max(width(row[column]) for row in safe) for column in range(len(head))]
    return ["  ".join(pad(cell, widths[i], right=i in numbers) for i, cell in enumerate(row)).rstrip() for row in safe]
