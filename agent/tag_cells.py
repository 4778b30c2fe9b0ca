"""What stands in one cell of a tag list, both ways: `0=idle;1=running` <-> a map, `0x8000;-1` <-> a list.

Pure. May import: the standard library, `agent.grid`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from agent.grid import fold

TYPES = {
    "u16": "uint16", "u32": "uint32", "u64": "uint64", "s16": "int16", "i16": "int16", "s32": "int32", "i32": "int32",
    "s64": "int64", "i64": "int64",
    "real": "float32", "float": "float32", "single": "float32", "f32": "float32", "lreal": "float64",
    "double": "float64", "f64": "float64", "int": "int16", "short": "int16", "dint": "int32", "lint": "int64",
    "uint": "uint16", "ushort": "uint16", "word": "uint16", "udint": "uint32", "dword": "uint32", "ulint": "uint64",
    "lword": "uint64", "boolean": "bool", "bit": "bool", "浮点": "float32", "浮点数": "float32",
    "浮点型": "float32", "单精度": "float32", "单精度浮点": "float32", "单精度浮点数": "float32", "双精度": "float64",
    "双精度浮点": "float64", "双精度浮点数": "float64", "布尔": "bool", "布尔型": "bool", "布尔量": "bool",
    "开关量": "bool", "位": "bool", "字符串": "string",
}  # fmt: skip
"""Names of IEC 61131 and of lists -> this program's; what may be 16 or 32 bits wide (整型) is not among them."""
_INTEGER = re.compile(r"(?:(\d\d)位)?(有|无)符号(?:(\d\d)位)?(?:整数|整型|整形)?(?:(\d\d)位)?")
ORDERS = {"1234": "ABCD", "3412": "CDAB", "2143": "BADC", "4321": "DCBA"}
_ENTRY = re.compile(r"\s*([+-]?(?:0[xX][0-9A-Fa-f]+|[0-9]+))\s*(?:[=:：＝]|[-—－](?!\s*[0-9]))\s*")
_BITS = re.compile(r"\s*(?:bit|b|位|第)\s*[0-9]", re.IGNORECASE)
_PLACEHOLDERS = frozenset({"", "-", "--", "—", "——", "/", "\\", "无", "n/a", "na", "none"})
_SPECIAL = re.compile(r'[;；,，、=:：＝"\n\r]|^\s|\s$|^$')


class CellError(ValueError):
    """The cell does not say what its column needs; the text says what would."""


def is_empty(text: str, *, free_text: bool) -> bool:
    """Whether a cell says nothing; a dash does so where no free text stands."""
    return not text.strip() or (not free_text and fold(text).strip().casefold() in _PLACEHOLDERS)


def type_name(text: str) -> str:
    """The type in this program's words, or the text as it is if it is none of the known ones."""
    written = fold(text).strip()
    plain = re.sub(r"[\s_-]+", "", written).casefold()
    if match := _INTEGER.fullmatch(plain):
        widths = [group for group in (match[1], match[3], match[4]) if group]
        if len(widths) == 1:
            return f"{'u' if match[2] == '无' else ''}int{widths[0]}"
    return TYPES.get(
        plain, plain if re.fullmatch(r"u?int(16|32|64)|float(32|64)|bcd(16|32)|bool|string", plain) else written
    )


def order_name(text: str) -> str:
    """The word order in this program's letters (`AB CD`, `3412`), or the text as it is."""
    plain = re.sub(r"[\s_-]+", "", fold(text)).upper()
    return ORDERS.get(plain, plain)


def parse_map(text: str) -> list[tuple[str, str]]:
    """Return numbers and texts from `0=idle;1=running`, `0:停止，1:运行` or a line each; `"..."` quotes a text.

    Raises:
        CellError: an entry has no number, or no text.
    """
    entries = []
    for entry in _split(text):
        match = _ENTRY.match(entry)
        if _BITS.match(entry):
            raise CellError(
                "a list of bits, and a map is of numbers: give each bit a row of its own (40040.0, 40040.1)"
            )
        if match is None:
            raise CellError(f"expected number=text;number=text such as 0=idle;1=running, got '{entry.strip()}'")
        entries.append((match[1], _unquoted(entry[match.end() :])))
    if not entries:
        raise CellError("expected number=text;number=text such as 0=idle;1=running")
    return entries


def format_map(entries: Mapping[int, str]) -> str:
    """The cell that `parse_map` reads."""
    return ";".join(f"{number}={_quoted(text)}" for number, text in entries.items())


def parse_list(text: str) -> list[str]:
    """Return the items of `0x8000;-1`; full-width characters are folded."""
    return [fold(item).strip() for item in re.split(r"[;；,，、\n]", text) if item.strip()]


def format_list(items: Iterable[object]) -> str:
    """The cell that `parse_list` reads."""
    return ";".join(str(item) for item in items)


def _split(text: str) -> list[str]:
    """Entries; commas part them only where no semicolon or line end does, so that they may stand in texts."""
    parts = _parts(text, ";；\n\r")
    return parts if len(parts) > 1 else _parts(text, ",，、;；\n\r")


def _parts(text: str, separators: str) -> list[str]:
    parts, quoted, begun = [], False, ""
    index = 0
    while index < len(text):
        char = text[index]
        if char == '"' and quoted and text[index + 1 : index + 2] == '"':
            begun += '""'
            index += 2
            continue
        if char == '"' and (quoted or begun.rstrip().endswith(("=", ":", "：", "＝"))):
            quoted = not quoted
        if char in separators and not quoted:
            parts.append(begun)
            begun = ""
        else:
            begun += char
        index += 1
    parts.append(begun)
    return [part for part in parts if part.strip()]


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        return text[1:-1].replace('""', '"')
    if not text:
        raise CellError('a number without a text: write 0=idle, or 0="" for an empty text')
    return text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text
