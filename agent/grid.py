"""A table as a grid of texts, with what is known of cells that are more than text; and nodes that stand in cells.

Pure. May import: the standard library, `agent.yaml_source`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.yaml_source import Mapping, Scalar

MAX_ROWS = 20_000
MAX_COLUMNS = 100

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


class Cell(Scalar):
    """A scalar that stands in a cell: `line` is its row, `column` its column, both from 1."""

    __slots__ = ()


class Row(Mapping):
    """A mapping that is a row of a table."""

    __slots__ = ()


class TableRefused(Exception):
    """The file is no table that can be read; the text says why and what to do."""


@dataclass(slots=True)
class Grid:
    """The cells of a table.

    Attributes:
        shown: the file as the person named it, with `#sheet` for a workbook.
        rows: texts; rows may differ in length. Indices count from 0, rows and columns for people from 1.
        numbers: (row, column) of cells that hold a number whose trailing zeros the spreadsheet does not show.
        formatted: (row, column) of numbers that are shown with a fixed number of digits -> the shown text.
        doubts: (row, column) of cells whose text cannot be trusted -> why, and what to do.
        banners: rows that are one wide cell: titles and section headings.
    """

    shown: str
    rows: list[list[str]] = field(default_factory=list)
    numbers: set[tuple[int, int]] = field(default_factory=set)
    formatted: dict[tuple[int, int], str] = field(default_factory=dict)
    doubts: dict[tuple[int, int], str] = field(default_factory=dict)
    banners: set[int] = field(default_factory=set)

    def text(self, row: int, column: int) -> str:
        """The text of a cell, "" where there is none."""
        cells = self.rows[row]
        return cells[column] if column < len(cells) else ""


def letters(column: int) -> str:
    """A column's letters in a spreadsheet: 1 -> A, 27 -> AA."""
    found = ""
    while column > 0:
        column, rest = divmod(column - 1, 26)
        found = chr(65 + rest) + found
    return found


def fold(text: str) -> str:
    """Full-width letters, digits, colons, commas and blanks as plain ones; all else as it is."""
    return text if text.isascii() else text.translate(_FULL_WIDTH)
