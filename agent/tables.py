"""A table read from a file into a grid of texts.

`read_table` takes CSV (comma, semicolon or tab; UTF-8, UTF-16, GB18030) and XLSX (openpyxl, loaded only for it).
Promises: raises nothing but `TableRefused` for what a file holds; how a spreadsheet shows a
number is kept beside it; what was calculated, turned into a date or is an error there is told, never guessed. May
import: the standard library, `agent.grid`, `agent.spreadsheets`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.grid import MAX_COLUMNS, MAX_ROWS, Grid, TableRefused

MAX_BYTES = 8_000_000
_DELIMITERS = ",;\t"
_LOOKED_AT = 30
"""Rows at the beginning in which headings are looked for."""


def read_table(
    data: bytes, path: Path, shown: str, sheet: str | None, count_headings: Callable[[Sequence[str]], int]
) -> Grid:
    """Read a table.

    Args:
        data: the file's content.
        path, shown: for its ending, and for people.
        sheet: of a workbook; None if it has only one.
        count_headings: how many texts of a row are known headings, to find the delimiter by.

    Raises:
        TableRefused: it is no table, too large, or openpyxl is missing.
    """
    if len(data) > MAX_BYTES:
        raise TableRefused("is larger than 8 MB: is it the right file?")
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise TableRefused(
            "is an old .xls workbook, or one with a password: save it as .xlsx without a password, or as CSV UTF-8"
        )
    if data.startswith(b"PK\x03\x04"):
        from agent.spreadsheets import read_workbook  # zipfile and XML, 1 MB: few lists are workbooks

        return read_workbook(data, shown, sheet)
    if path.suffix.lower() in {".xlsx", ".xlsm"}:
        raise TableRefused("is named like a workbook and is none: it is damaged, or a CSV file of the wrong name")
    if sheet is not None:
        raise TableRefused("is a CSV file and has no sheets: leave the sheet out")
    return _read_csv(_decode(data), shown, count_headings)


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        codecs: tuple[str, ...] = ("utf-16",)
    elif b"\x00" in data[:200]:
        little = data[1:200:2].count(0) >= data[0:200:2].count(0)
        codecs = ("utf-16-le",) if little else ("utf-16-be",)
    else:
        codecs = ("utf-8-sig", "gb18030")
    for codec in codecs:
        try:
            text = data.decode(codec)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise TableRefused("is no text in UTF-8, GB18030 or UTF-16: save it as 'CSV UTF-8' (or is it no table at all?)")


def _read_csv(text: str, shown: str, count_headings: Callable[[Sequence[str]], int]) -> Grid:
    def parsed(delimiter: str, limit: int) -> list[list[str]]:
        rows: list[list[str]] = []
        try:
            for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
                if len(rows) == limit:
                    break
                rows.append(cells)
        except csv.Error as error:
            raise TableRefused(f"cannot be read as CSV: {error}, in row {len(rows) + 1}") from None
        return rows

    def fitness(delimiter: str) -> tuple[int, int]:
        rows = parsed(delimiter, _LOOKED_AT)
        return max(map(count_headings, rows), default=0), max(map(len, rows), default=0)

    rows = parsed(max(_DELIMITERS, key=fitness), MAX_ROWS + 1)
    if len(rows) > MAX_ROWS:
        raise TableRefused(f"has more than {MAX_ROWS:,} rows")
    if max(map(len, rows), default=0) > MAX_COLUMNS:
        raise TableRefused(f"has more than {MAX_COLUMNS} columns")
    return Grid(shown, rows)
