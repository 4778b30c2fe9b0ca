"""A tag list in a table -> the nodes of `tags`, as if they had been written into the configuration.

Promises: every cell keeps its place, so that what is wrong in it is told with row and column; a value that a
spreadsheet may have changed (`40010.10` typed as a number, a formula, a date) is refused with the way out. May import:
`agent.config_document`, `agent.config_reader`, `agent.grid`, `agent.tag_addresses`, `agent.tag_cells`,
`agent.tag_headings`, `agent.yaml_source`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Literal

from agent import tag_cells
from agent.config_document import Document
from agent.config_reader import Shape
from agent.grid import Cell, Grid, Row, fold
from agent.tag_addresses import HEX_HEADING, AddressCellError, CountUnknown, Numbers, area_of, by_area
from agent.tag_headings import Heading, Headings, find_headings
from agent.yaml_source import Mapping, Node, Scalar, Sequence
from collectors.fields import NAME_PATTERN

Decimals = Literal["rounds", "scales"]
_FREE_TEXT = frozenset({"name", "label", "description", "address", "node", "map"})
_AS_WRITTEN = frozenset({"name", "label", "description", "unit", "node", "map"})
_BIT_CLASSIC = re.compile(r"[34][0-9]{4,5}(\.[0-9]+)?")
_SCALED_UNIT = re.compile(r"[x×*]?\s*(0\.\d*[1-9]|10+)\s*([^\d\s*^].*)")
_TYPED_AS_NUMBER = "format the column as text and type the address again, or write it by area (holding:9.10)"


@dataclass(slots=True)
class _Tag:
    """A row while it is read: key -> its cell."""

    row: int
    cells: dict[str, Cell] = field(default_factory=dict)
    named: bool = False
    area: Cell | None = None


class TagTable:
    """Reads one table."""

    def __init__(
        self,
        document: Document,
        grid: Grid,
        *,
        shapes: AbstractMapping[str, Shape],
        path: str,
        note: str,
        decimals: Decimals | None,
        numbers: Numbers = Numbers(),  # noqa: B008  # frozen
    ) -> None:
        """Prepare to read.

        Args:
            document: where mistakes go.
            grid: the table.
            shapes: of the tags' keys.
            path: of the setting that names the file, for mistakes of the table as a whole.
            note: what mistakes must say too; see `Scalar.note`.
            decimals: what a column of decimal places means, if that was said.
            numbers: what addresses mean that are bare numbers.
        """
        self._document = document
        self._grid = grid
        self._shapes = shapes
        self._path = path
        self._note = note
        self._decimals = decimals
        self._numbers = numbers
        self._uncounted: CountUnknown | None = None
        self._place = "node" if "node" in shapes else "address"
        self._failed = False

    def read(self) -> Sequence | None:
        """Return the tags; None when mistakes about the table as a whole were told."""
        headings = find_headings(self._grid, self._shapes.keys(), ("address", "node", "path", "browse"))
        if headings is None:
            self._tell(
                0, 0, f"no row of headings was found: one row must name the columns, at least 'name' and "
                f"'{self._place}' (名称 and {'节点' if self._place == 'node' else '地址'})"
            )  # fmt: skip
            return None
        for row, column, message in headings.mistakes:
            self._tell(row, column, message)
        self._check_decimals(headings)
        if self._failed:
            return None
        tags = self._rows(headings)
        self._check_zeros(tags)
        self._name(tags)
        items: list[Node] = [self._node(tag) for tag in tags]
        if not items and not self._failed:
            self._tell(headings.row, 0, "no tags stand below the headings")
        return None if not items else Sequence(1, 1, items, file=self._grid.shown, note=self._note)

    def _tell(self, row: int, column: int, message: str, path: str = "") -> None:
        self._failed = True
        self._document.tell_at(self._cell(row, column, ""), path or self._path, message)

    def _cell(self, row: int, column: int, text: str, *, plain: bool = False) -> Cell:
        return Cell(row + 1, column + 1, text, plain, False, self._grid.shown, self._note)

    def _check_decimals(self, headings: Headings) -> None:
        for column, one in headings.columns.items():
            if one.key == "decimals?" and self._decimals is None:
                self._tell(
                    headings.row, column,
                    f"'{one.text}' can mean two things: digits after rounding, or a decimal point to be put into the "
                    "number (2: 1234 is 12.34). Say which: tags_file: {file: ..., decimals: rounds} or "
                    "{file: ..., decimals: scales}",
                )  # fmt: skip

    def _rows(self, headings: Headings) -> list[_Tag]:
        tags = []
        head = [text.strip() for text in self._grid.rows[headings.row]]
        for row in range(headings.row + 1, len(self._grid.rows)):
            cells = self._grid.rows[row]
            begun = next((text.strip() for text in cells if text.strip()), "")
            if not begun or begun.startswith("#") or row in self._grid.banners:
                continue
            if [text.strip() for text in cells] == head:
                continue  # the headings again, at the top of a printed page
            tag = _Tag(row)
            for column, one in headings.columns.items():
                if one.key:
                    self._take(tag, column, one)
            if tag.cells and not self._is_note(tag) and not self._lacks_address(tag):
                self._complete(tag, headings)
                tags.append(tag)
        return tags

    def _lacks_address(self, tag: _Tag) -> bool:
        if self._place != "address" or "address" in tag.cells:
            return False
        shown = next(self._grid.text(tag.row, cell.column - 1).strip() for cell in tag.cells.values())
        self._tell(tag.row, 0, f"'{shown}' has no address: give it one, or begin the row with # to leave it out",
                   self._row_path(tag.row))  # fmt: skip
        return True

    def _complete(self, tag: _Tag, headings: Headings) -> None:
        """Put the area in front of an address that is a bare number."""
        cell = tag.cells.get("address")
        if cell is None or cell.broken or (tag.area is None and self._numbers.area is None):
            return
        path = self._row_path(tag.row)
        area = area_of(tag.area.text) if tag.area is not None else self._numbers.area
        if area is None:
            assert tag.area is not None
            self._tell(tag.row, tag.area.column - 1, "expected a function code that reads, 1 to 4, or an area such as"
                       f" holding or 保持寄存器; got '{tag.area.text}'", path)  # fmt: skip
            cell.broken = True
            return
        heading = headings.columns[cell.column - 1]
        try:
            cell.text = by_area(
                cell.text, area, self._numbers, is_hex=HEX_HEADING.search(fold(heading.text)) is not None
            )
        except AddressCellError as error:
            self._tell(tag.row, cell.column - 1, str(error), path)
            cell.broken = True
        except CountUnknown as unknown:
            cell.broken = True
            if self._uncounted is None:
                self._uncounted = unknown
                self._tell(
                    headings.row, cell.column - 1,
                    f"'{heading.text}': numbers may count from 0 or from 1, {cell.text} is {unknown.from_0} or"
                    f" {unknown.from_1}. Say which: tags_file: {{file: ..., count_from: 0}} or"
                    " {file: ..., count_from: 1}, and compare one value with the display (shopfloor read)",
                )  # fmt: skip

    def _is_note(self, tag: _Tag) -> bool:
        """Whether the row is one text and nothing else: a heading of the rows below, or a note under the table."""
        filled = sum(1 for text in self._grid.rows[tag.row] if text.strip())
        return filled == 1 and tag.cells.keys() <= {"name", "label", "description"}

    def _take(self, tag: _Tag, column: int, one: Heading) -> None:
        key, row = one.key, tag.row
        text = self._grid.text(row, column)
        if tag_cells.is_empty(text, free_text=key in _FREE_TEXT):
            return
        doubt = self._grid.doubts.get((row, column))
        broken = doubt is not None
        if doubt is not None:
            self._tell(row, column, doubt, self._row_path(row))
        if key == "access":
            if fold(text).strip().casefold() in {"w", "wo", "write", "write only", "只写", "写"}:
                self._tell(row, column, "can only be written, and this agent only reads: delete the row, or begin it"
                           " with #", self._row_path(row))  # fmt: skip
            return
        if key == "area?":
            tag.area = self._cell(row, column, text.strip())
            return
        if key == "decimals?":
            key = "decimals"
            if self._decimals == "scales":
                self._put_point(tag, row, column, text)
                return
        shape = self._shapes[key]
        text = self._converted(key, one, row, column, text)
        cell = self._cell(row, column, text, plain=not shape.text)
        cell.broken = broken
        if key == "scale" and "scale" in tag.cells:  # a decimal point came first
            cell.text = _product(text, tag.cells["scale"].text)
        tag.cells[key] = cell

    def _converted(self, key: str, one: Heading, row: int, column: int, text: str) -> str:
        if key in {"name", "address"}:
            text = text.strip().removeprefix("'")  # written so to keep a spreadsheet from taking it for a number
        if key == "unit" and (match := _SCALED_UNIT.fullmatch(fold(text).strip())):
            self._tell(row, column, f"'{text.strip()}' is a unit and a factor: write {match[2]} here, and {match[1]}"
                       " into the column scale (倍率)", self._row_path(row))  # fmt: skip
        if key in _AS_WRITTEN:
            return text.strip() if key in {"name", "unit", "node"} else text
        text = fold(text).strip()
        if key == "type":
            return tag_cells.type_name(text)
        if key == "word_order":
            return tag_cells.order_name(text)
        if key == "address":
            return self._address(row, column, text)
        if key == "interval" and re.fullmatch(r"\d+(\.\d+)?", text):
            if one.unit:
                return f"{text} {one.unit}"
            if not one.own:
                self._tell(row, column, f"{text} of what? Write {text} ms or {text} s, or the unit into the heading: "
                           f"{one.text}(ms)", self._row_path(row))  # fmt: skip
        return text

    def _address(self, row: int, column: int, text: str) -> str:
        """The address as the spreadsheet shows it; refused if it was typed as a number that may have lost a zero."""
        at = (row, column)
        if at in self._grid.formatted:
            return self._grid.formatted[at]
        if at in self._grid.numbers and re.fullmatch(r"\d+\.1", text):
            self._tell(row, column, f"is typed as a number, in which {text} and {text}0 are the same:"
                       f" {_TYPED_AS_NUMBER}", self._row_path(row))  # fmt: skip
        return text

    def _put_point(self, tag: _Tag, row: int, column: int, text: str) -> None:
        places = fold(text).strip()
        if not re.fullmatch(r"\d{1,2}(\.0+)?", places):
            self._tell(row, column, f"expected how many digits stand behind the decimal point, got '{places}'",
                       self._row_path(row))  # fmt: skip
            return
        factor = str(Decimal(1).scaleb(-int(float(places))))
        if "scale" in tag.cells:
            tag.cells["scale"].text = _product(tag.cells["scale"].text, factor)
        elif float(places):
            tag.cells["scale"] = self._cell(row, column, factor, plain=True)

    def _row_path(self, row: int) -> str:
        return f"{self._path}[row {row + 1}]"

    def _check_zeros(self, tags: list[_Tag]) -> None:
        """What a spreadsheet does to 40010.10 and 40010.0 when it takes them for numbers."""
        bits: Counter[str] = Counter()
        words: set[str] = set()
        for tag in tags:
            cell = tag.cells.get("address")
            if cell is not None and _BIT_CLASSIC.fullmatch(cell.text):
                bits[cell.text] += 1
                if "." in cell.text:
                    words.add(cell.text.partition(".")[0])
        for tag in tags:
            cell = tag.cells.get("address")
            if cell is None or not _BIT_CLASSIC.fullmatch(cell.text):
                continue
            at = (cell.line - 1, cell.column - 1)
            path = self._row_path(tag.row)
            kind = tag.cells.get("type")
            if cell.text.endswith(".1") and bits[cell.text] > 1:
                self._tell(*at, f"{cell.text} stands here {bits[cell.text]} times: a spreadsheet makes 40010.1 of "
                           f"40010.10; {_TYPED_AS_NUMBER}", path)  # fmt: skip
            elif (
                kind is not None
                and kind.text == "bool"
                and "." not in cell.text
                and (at in self._grid.numbers or cell.text in words)
            ):
                self._tell(*at, "bit 0 or the whole register? A spreadsheet makes 40010 of 40010.0: "
                           f"{_TYPED_AS_NUMBER}", path)  # fmt: skip

    def _name(self, tags: list[_Tag]) -> None:
        """Names of other languages become labels; a name is made of the address then."""
        taken = set()
        for tag in tags:
            cell = tag.cells.get("name")
            if cell is None:
                continue
            written = fold(cell.text).strip()
            if re.fullmatch(NAME_PATTERN, written):
                cell.text, tag.named = written, True
                taken.add(written)
            elif not written.isascii():
                del tag.cells["name"]
                keep = "label" if "label" not in tag.cells else "description"
                tag.cells.setdefault(keep, self._cell(cell.line - 1, cell.column - 1, cell.text.strip()))
            else:
                tag.named = True  # told as a mistake: it is meant as a name
        for tag in tags:
            place = tag.cells.get(self._place)
            if tag.named or place is None:
                continue
            made = _name_of(place.text)
            kind = tag.cells.get("type")
            if made in taken and kind is not None:
                made = f"{made}_{kind.text}"[:64]
            taken.add(made)
            tag.cells["name"] = self._cell(place.line - 1, place.column - 1, made)

    def _node(self, tag: _Tag) -> Row:
        row = Row(tag.row + 1, 1, file=self._grid.shown, note=self._note)
        kind = tag.cells.get("type")
        for key, cell in tag.cells.items():
            written = kind.text if kind is not None else ""
            if key == "length" and written != "string" and _needless(written, cell.text):
                continue
            name = Cell(cell.line, cell.column, key, True, False, cell.file, cell.note)
            row.items.append((name, self._value(key, cell, tag)))
        return row

    def _value(self, key: str, cell: Cell, tag: _Tag) -> Node:
        if key == "map":
            node = Mapping(cell.line, cell.column, file=cell.file, note=cell.note)
            try:
                entries = tag_cells.parse_map(cell.text)
            except tag_cells.CellError as error:
                self._tell(cell.line - 1, cell.column - 1, str(error), self._row_path(tag.row))
                return Scalar(cell.line, cell.column, "", broken=True)
            for number, text in entries:
                at = (cell.line, cell.column)
                node.items.append((
                    Cell(*at, number, True, False, cell.file, cell.note),
                    Cell(*at, text, False, False, cell.file, cell.note),
                ))  # fmt: skip
            return node
        if self._shapes[key].item is not None:
            items: list[Node] = [
                Cell(cell.line, cell.column, item, True, False, cell.file, cell.note)
                for item in tag_cells.parse_list(cell.text)
            ]
            return Sequence(cell.line, cell.column, items, file=cell.file, note=cell.note)
        return cell


def _needless(kind: str, length: str) -> bool:
    """Whether the length of a list only repeats what the type says."""
    match = re.search(r"(\d\d)$", kind)
    return length == (str(int(match[1]) // 16) if match is not None else "1")


def _product(first: str, second: str) -> str:
    try:
        return str(Decimal(first) * Decimal(second))
    except InvalidOperation:
        return first  # told as a mistake


def _name_of(address: str) -> str:
    """A name that depends on nothing but the address: `holding_100`, `D100`, `MW10`, `40010.10`."""
    made = re.sub(r"[^A-Za-z0-9_.-]+", "_", address.rpartition(";")[2].removeprefix("s=")).strip("_.-")
    if not address.isascii() or not made or len(made) > 64:
        made = f"{made[:50]}_{hashlib.sha256(address.encode()).hexdigest()[:8]}".strip("_.-")
    return made
