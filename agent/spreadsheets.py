"""XLSX workbooks -> grids of texts as the spreadsheet shows them.

Promises: see `agent.tables`, which calls this. openpyxl belongs to this module and is imported only when a workbook is
read. May import: openpyxl, `agent.grid`.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from agent.grid import MAX_COLUMNS, MAX_ROWS, Grid, TableRefused

if TYPE_CHECKING:
    from openpyxl.workbook.workbook import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

_MAX_UNPACKED = 64_000_000
_DAMAGED = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, EOFError, struct.error,
    zlib.error, zipfile.BadZipFile, ParseError,
)  # fmt: skip
"""What openpyxl raises for files that it does not understand."""
_DECIMALS = re.compile(r"^0(?:\.(0+))?(?:_[ )])?$")
_ZEROS = re.compile(r"^0{2,}$")
_DATED = "the spreadsheet has made a date or time of what was typed: format the column as text and type it again"


def read_workbook(data: bytes, shown: str, sheet: str | None) -> Grid:
    """Read one sheet.

    Args:
        data: the file's content.
        shown: the file for people.
        sheet: its name; None if there is only one that is not empty.

    Raises:
        TableRefused: it is damaged or too large, the sheet is not there or not chosen, or openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise TableRefused(
            "needs the package openpyxl to be read: pip install 'shopfloor-agent[xlsx]', or save it as CSV UTF-8"
        ) from None
    book = _open(data)
    try:
        table = _choose(book, sheet)
        grid = Grid(f"{shown}#{table.title}")
        if table.max_row > MAX_ROWS:
            raise TableRefused(f"has more than {MAX_ROWS:,} rows in sheet '{table.title}'")
        if table.max_column > MAX_COLUMNS:
            raise TableRefused(f"has more than {MAX_COLUMNS} columns in sheet '{table.title}'")
        computed = _Computed(data, table.title)
        for row in table.iter_rows():
            at = len(grid.rows)
            grid.rows.append([_text(grid, cell, at, column, computed) for column, cell in enumerate(row)])
        _unfold_merged(grid, table)
    except _DAMAGED as error:
        raise TableRefused(f"cannot be read ({type(error).__name__}: {error}): save it as CSV UTF-8") from None
    finally:
        book.close()
    assert openpyxl is not None
    return grid


def _open(data: bytes, *, values: bool = False) -> Workbook:
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_UNPACKED:
                raise TableRefused("is larger than 64 MB when unpacked: is it the right file?")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of decorations that it does not keep
            return openpyxl.load_workbook(io.BytesIO(data), data_only=values)
    except _DAMAGED as error:
        raise TableRefused(f"is damaged or no workbook ({error}): open it, and save it as .xlsx again") from None


def _choose(book: Workbook, sheet: str | None) -> Worksheet:
    names = [table.title for table in book.worksheets]
    if sheet is not None:
        for table in book.worksheets:
            if table.title.strip() == sheet.strip():
                return table
        raise TableRefused(f"has no sheet '{sheet}'; it has {', '.join(names)}")
    filled = [table for table in book.worksheets if table.max_row > 1 or table["A1"].value is not None]
    if len(filled) != 1:
        if not filled:
            raise TableRefused("holds nothing")
        named = ", ".join(table.title for table in filled)
        raise TableRefused(f"has several sheets ({named}): choose one, as in {{file: ..., sheet: {filled[0].title}}}")
    return filled[0]


class _Computed:
    """The values of formulas as the spreadsheet stored them; the workbook is read again only if there are any."""

    def __init__(self, data: bytes, sheet: str) -> None:
        self._data = data
        self._sheet = sheet
        self._table: Any = None

    def value(self, row: int, column: int) -> Any:
        """The stored value, None if nobody calculated it."""
        if self._table is None:
            self._table = _open(self._data, values=True)[self._sheet]
        return self._table.cell(row + 1, column + 1).value


def _text(grid: Grid, cell: Any, row: int, column: int, computed: _Computed) -> str:
    value = cell.value
    if cell.data_type == "f":
        value = computed.value(row, column)
        if value is None:
            grid.doubts[row, column] = "holds a formula that was never calculated: open the file, save it again"
            return "?"
    if value is None:
        return ""
    if isinstance(value, str):
        if cell.data_type == "e" or (value.startswith("#") and value.endswith(("!", "?", "/A"))):
            grid.doubts[row, column] = f"holds the error {value}"
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | datetime | time | timedelta):
        grid.doubts[row, column] = _DATED
        return str(value)
    return _number(grid, float(value) if not isinstance(value, int) else value, cell.number_format, row, column)


def _number(grid: Grid, value: int | float, form: str, row: int, column: int) -> str:
    """The number; how it is shown is noted, for trailing and leading zeros count in addresses."""
    exact = str(int(value)) if value == int(value) else repr(value)
    match = _DECIMALS.match(form)
    if isinstance(value, int) and _ZEROS.match(form):
        grid.formatted[row, column] = exact.zfill(len(form))
    elif match is not None and match[1] and float(shown := f"{value:.{len(match[1])}f}") == value:
        grid.formatted[row, column] = shown
    else:
        grid.numbers.add((row, column))
    return exact


def _unfold_merged(grid: Grid, table: Worksheet) -> None:
    """Repeat the text of a merged cell in all that it covers; a row that is one wide cell is a banner."""
    for merged in table.merged_cells.ranges:
        top, left = merged.min_row - 1, merged.min_col - 1
        if top >= len(grid.rows):
            continue
        text = grid.text(top, left)
        for row, column in _cells(merged.min_row, merged.max_row, merged.min_col, merged.max_col):
            if row < len(grid.rows):
                cells = grid.rows[row]
                cells.extend("" for _ in range(column + 1 - len(cells)))
                cells[column] = text
                if (top, left) in grid.doubts:
                    grid.doubts[row, column] = grid.doubts[top, left]
                if (top, left) in grid.numbers:
                    grid.numbers.add((row, column))
        wide = merged.max_col - merged.min_col + 1
        if wide >= 3 and merged.min_row == merged.max_row:
            others = [
                cell for index, cell in enumerate(grid.rows[top]) if cell.strip() and not left <= index < left + wide
            ]
            if not others:
                grid.banners.add(top)


def _cells(first_row: int, last_row: int, first: int, last: int) -> Iterator[tuple[int, int]]:
    for row in range(first_row - 1, last_row):
        for column in range(first - 1, last):
            yield row, column
