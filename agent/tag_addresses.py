"""Addresses that a tag list gives in two columns, a function code or area and a number -> one text: `holding:0x2006`.

Whether such numbers count from 0 or from 1 no list says: that must be told (`count_from`). Pure. May import: the
standard library, `agent.grid`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent.grid import fold

Area: TypeAlias = Literal["coil", "discrete", "input", "holding"]

AREAS: tuple[Area, ...] = ("coil", "discrete", "input", "holding")
_WORDS: dict[Area, tuple[str, ...]] = {
    "coil": ("1", "0x", "coil", "coils", "线圈", "线圈状态", "do"),
    "discrete": (
        "2", "1x", "discrete", "discrete input", "discrete inputs", "离散输入", "离散量输入", "输入状态", "离散量",
    ),
    "holding": (
        "3", "4x", "holding", "holding register", "holding registers", "保持寄存器", "保持型寄存器", "输出寄存器",
    ),
    "input": ("4", "3x", "input", "input register", "input registers", "输入寄存器"),
}  # fmt: skip
_BY_WORD: dict[str, Area] = {word: area for area, words in _WORDS.items() for word in words}
_CODE = re.compile(r"^(?:fc|func)?\s*(?:0x)?0*([0-9a-f]+)h?$")
_CODES = re.compile(r"[/,、;&+]|和|或")
_FIRST_DIGIT: dict[str, Area] = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
_CLASSIC = re.compile(r"([0134])[0-9]{4,5}(\.[0-9]+)?")
_BARE = re.compile(r"(?P<hex>0[xX])?(?P<digits>[0-9A-Fa-f]+?)(?P<h>[hH])?(?P<bit>\.[0-9]+)?")
HEX_HEADING = re.compile(r"[(\[【]\s*(?:hex|h|16\s*进制|十六进制)\s*[)\]】]|十六进制|16进制|\bhex\b", re.IGNORECASE)


class AddressCellError(ValueError):
    """The cell cannot be read; the text says why, and what to do."""


class CountUnknown(Exception):
    """The number may count from 0 or from 1; holds both addresses."""

    def __init__(self, from_0: str, from_1: str) -> None:
        super().__init__(from_0, from_1)
        self.from_0 = from_0
        self.from_1 = from_1


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was said of a list's bare numbers.

    Attributes:
        count_from: the number of the first register; None = not said.
        area: where no column says it.
    """

    count_from: int | None = None
    area: Area | None = None


def area_of(text: str) -> Area | None:
    """The area that a cell names, by its word or by the function code that reads it (`03`, `0x04`, `03/06/10`)."""
    plain = re.sub(r"\s+", " ", fold(text)).strip().casefold()
    if plain in _BY_WORD and not plain.isdecimal():
        return _BY_WORD[plain]
    areas = set()
    for part in _CODES.split(plain):
        code = _CODE.match(part.strip())
        if code is None:
            return None
        if code[1] in {"1", "2", "3", "4"}:
            areas.add(_BY_WORD[code[1]])  # the others write
    return areas.pop() if len(areas) == 1 else None


def by_area(text: str, area: Area, numbers: Numbers, *, is_hex: bool) -> str:
    """Return the address in full; what is no bare number is returned as it is.

    Args:
        text: of the address cell, folded and stripped.
        area: of the row.
        numbers: what was said.
        is_hex: the heading says that the column is in hex.

    Raises:
        AddressCellError: it contradicts the area, or cannot be told from another form.
        CountUnknown: nobody said where counting begins.
    """
    classic = None if is_hex else _CLASSIC.fullmatch(text)
    if classic is not None:
        if numbers.count_from is None and _FIRST_DIGIT[classic[1]] == area:
            return text
        written, dot, bits = text.partition(".")
        offset = int(written) - (numbers.count_from or 0)
        raise AddressCellError(
            f"{text} is an address of the area {_FIRST_DIGIT[classic[1]]} by its first digit, or the number {written}"
            f" in the area {area}: write {area}:{offset}{dot}{bits} if that is meant"
        )
    match = _BARE.fullmatch(text)
    if match is None:
        return text
    marked = is_hex or match["hex"] is not None or match["h"] is not None
    if not marked and not match["digits"].isdecimal():
        if not match["digits"][0].isdecimal():
            return text  # a maker's `D100`, most likely
        raise AddressCellError(f"{text} is in hex: write 0x{text}, or (HEX) into the heading if all are")
    number = int(match["digits"], 16 if marked else 10)
    bit = match["bit"] or ""

    def shown(offset: int) -> str:
        return f"{area}:{f'0x{offset:04X}' if marked else offset}{bit}"

    if number == 0 and numbers.count_from == 1:
        raise AddressCellError("0 is no number of a list that counts from 1")
    if numbers.count_from is None:
        raise CountUnknown(shown(number), shown(number - 1) if number else "none")
    return shown(number - numbers.count_from)
