"""What a server sent -> what a tag can be: JSON values, qualities, milliseconds. Pure.

Promises: a status that is bad, a value that is no number (NaN, infinity), a text that is no text, an array, a structure
or raw bytes is null with a quality, never something that looks like a reading; an uncertain status keeps its value and
says so. Works on the numbers of OPC UA Part 6 (built-in types 1..25), not on classes of the library.

May import: the standard library, `collectors.api`, `collectors.opcua.sample`.
Source: OPC UA Part 4, 7.39 (StatusCode); Part 6, 5.1.2 (built-in types).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Final

from collectors.api import JsonType, Value
from collectors.opcua.sample import LAST_TICKS

BAD_DECODE = "bad:decode"
BAD_INVALID = "bad:invalid"
BAD_RANGE = "bad:range"
BAD_ELEMENT = "bad:status-0x80370000"
"""BadIndexRangeNoData: what came has no such element."""

LONGEST_TEXT = 4096
"""Bytes of UTF-8 in a text; a longer one is null with `bad:range` (a cut one would be a wrong value)."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
TICKS_1970: Final = 116_444_736_000_000_000
"""1970 in ticks of 100 ns since 1601."""
NO_TICKS: Final = 864_000_000_000
"""Fewer are no time: `_NO_TIME`."""
_NO_TIME: Final = datetime(1601, 1, 2, tzinfo=UTC)
"""Zero (1601-01-01) is how OPC UA writes "no time"."""

_BOOLEAN, _FLOAT, _DOUBLE, _DATE_TIME, _STATUS = 1, 10, 11, 13, 19
_WIDE = frozenset({8, 9})
DIRECT: Final[Mapping[JsonType, frozenset[int]]] = {
    "number": frozenset({2, 3, 4, 5, 6, 7, _DOUBLE}),
    "boolean": frozenset({_BOOLEAN}),
    "string": frozenset(),
}
"""Built-in types whose finite values `decode` gives back as they are, by the JSON type they have."""
FLOATS: Final = DIRECT["number"] | {_FLOAT}
"""The same for numbers that are not wanted in their shortest form."""
SCALARS: Final[frozenset[Any]] = frozenset({int, float, bool})
"""Classes of such values; a node that sent numbers may send an array of them, or none, of the same type."""
_TEXTS = frozenset({12, 14, 16, 17, 18, 20, 21})
_TYPE_NAMES = {
    12: "a text that is not UTF-8",
    15: "ByteString",
    22: "a structure: name one of its parts, if the server shows them as nodes (shopfloor browse)",
    23: "DataValue",
    24: "Variant",
    25: "DiagnosticInfo",
}

_pack_float = struct.Struct("<f").pack

_SEVERITY_AND_CODE: Final = 0xFFFF_0000
_OVERFLOW_MASK: Final = 0x0C80
_OVERFLOW: Final = 0x0480


def quality_of(status: int) -> str | None:
    """`bad:status-0xNNNNNNNN`, `uncertain:status-0x...`, or None if good; the info bits are left out."""
    severity = status >> 30
    if severity == 0:
        return None
    word = "uncertain" if severity == 1 else "bad"
    return f"{word}:status-0x{status & _SEVERITY_AND_CODE:08X}"


def overflowed(status: int) -> bool:
    """Whether the server says that its queue of this node ran over and values were thrown away."""
    return status & _OVERFLOW_MASK == _OVERFLOW


def to_ms(time: datetime | None) -> int | None:
    """Milliseconds UTC; None if there is no time."""
    if time is None or time < _NO_TIME:
        return None
    return (time - EPOCH) // _MILLISECOND


def ticks_to_ms(ticks: int | None) -> int | None:
    """Milliseconds UTC of ticks of 100 ns since 1601; None if there is no time."""
    if ticks is None or ticks < NO_TICKS:
        return None
    return (min(ticks, LAST_TICKS) - TICKS_1970) // 10_000


def ms_to_ticks(ms: int) -> int:
    """The last tick of a millisecond."""
    return ms * 10_000 + TICKS_1970 + 9_999


def decode(type_id: int, value: Any, shortest: bool) -> tuple[Value, JsonType | None, str | None]:
    """Return value, its JSON type and None, or None, None and why there is no value.

    Args:
        type_id: built-in type 1..25; 0 = null.
        value: as in a sample; a list for arrays.
        shortest: publish a Float as 23.4, not as the double next to it (23.399999618530273).
    """
    if isinstance(value, list | tuple):
        return None, None, BAD_DECODE
    if 2 <= type_id <= 9:
        return (value, "number", None) if value is not None else (None, None, BAD_INVALID)
    if type_id in (_FLOAT, _DOUBLE):
        if value is None or not isfinite(value):
            return None, None, BAD_INVALID
        return (shortest_float(value) if shortest and type_id == _FLOAT else value), "number", None
    if type_id == _BOOLEAN:
        return (value, "boolean", None) if value is not None else (None, None, BAD_INVALID)
    if type_id in _TEXTS:
        return _text(value if value is not None else "")
    if type_id == _DATE_TIME:
        return _date_time(value)
    if type_id == _STATUS and value is not None:
        return f"0x{value:08X}", "string", None
    return None, None, BAD_INVALID if type_id == 0 or value is None else BAD_DECODE


def element_of(value: Any, element: tuple[int, ...]) -> tuple[Any, str | None]:
    """Return the element of an array or of nested arrays and None, or None and why there is none."""
    for index in element:
        if not isinstance(value, list | tuple) or index >= len(value):
            return None, BAD_ELEMENT
        value = value[index]
    return value, None


def undecodable(type_id: int, value: Any) -> str:
    """What a value is that no tag can be; for people."""
    if isinstance(value, list | tuple):
        return "an array: name the element with index"
    return _TYPE_NAMES.get(type_id, f"type {type_id}")


def is_wide(type_id: int) -> bool:
    """Whether the type is a 64-bit integer."""
    return type_id in _WIDE


def shortest_float(value: float) -> float:
    """The shortest decimal that is the same 32-bit float."""
    packed = _pack_float(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        try:
            if _pack_float(short) == packed:
                return short
        except OverflowError:
            # Rounded up beyond the largest float32.
            continue
    return float(f"{value:.9g}")


def _text(text: str) -> tuple[Value, JsonType | None, str | None]:
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        # The server sent bytes that are no UTF-8 (the library keeps them as lone surrogates).
        return None, None, BAD_DECODE
    if size > LONGEST_TEXT:
        return None, None, BAD_RANGE
    return text, "string", None


def _date_time(value: datetime | None) -> tuple[Value, JsonType | None, str | None]:
    if value is None or value < _NO_TIME:
        return None, None, BAD_INVALID
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z", "string", None
