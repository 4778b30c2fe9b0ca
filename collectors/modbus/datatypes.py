"""The data types of registers: width, `struct` code, limits, and the word orders as byte permutations.

`word_order` names the bytes of a 32-bit value, A the most significant, as they arrive. Pure. May import: the standard
library.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

DataType: TypeAlias = Literal[
    "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16", "bcd32", "string"
]
WordOrder: TypeAlias = Literal["ABCD", "CDAB", "BADC", "DCBA"]


@dataclass(frozen=True, slots=True)
class NumberType:
    """A type of fixed width.

    Attributes:
        code: big-endian `struct` code of the assembled value (for BCD of its bits).
        registers: how many it takes.
    """

    code: str
    registers: int

    @property
    def bits(self) -> int:
        """Width in bits."""
        return self.registers * 16


NUMBERS: dict[str, NumberType] = {
    "bool": NumberType("H", 1),
    "int16": NumberType("h", 1),
    "uint16": NumberType("H", 1),
    "int32": NumberType("i", 2),
    "uint32": NumberType("I", 2),
    "int64": NumberType("q", 4),
    "uint64": NumberType("Q", 4),
    "float32": NumberType("f", 2),
    "float64": NumberType("d", 4),
    "bcd16": NumberType("H", 1),
    "bcd32": NumberType("I", 2),
}
WIDE = frozenset({"int64", "uint64"})
FLOATS = frozenset({"float32", "float64"})
BCD = frozenset({"bcd16", "bcd32"})


def width(type_: str, length: int | None = None) -> int:
    """Registers that a value of the type takes; `length` is that of a string."""
    return length or 1 if type_ == "string" else NUMBERS[type_].registers


@cache
def arrival(order: WordOrder, registers: int, *, text: bool = False) -> tuple[int, ...]:
    """For each byte of the assembled big-endian value: which byte of the reply it is.

    Words are swapped in numbers only; single registers and strings know only the byte swap.
    """
    words = list(range(registers))
    if order in {"CDAB", "DCBA"} and not text:
        words.reverse()
    first = 1 if order in {"BADC", "DCBA"} else 0
    return tuple(2 * word + byte for word in words for byte in (first, 1 - first))


def number_of(type_: str, pattern: int) -> float:
    """The number that a bit pattern of the assembled value stands for; not for BCD.

    Raises:
        OverflowError: the pattern is wider than the type.
    """
    kind = NUMBERS[type_]
    value: float = struct.unpack(">" + kind.code, pattern.to_bytes(kind.bits // 8, "big"))[0]
    return value


def fits(type_: str, number: float) -> bool:
    """Whether a value of the type can be this number (a float32: the float32 next to it)."""
    if type_ in FLOATS:
        try:
            struct.pack(">" + NUMBERS[type_].code, number)
        except OverflowError:
            return False
        return True
    if number != int(number):
        return False
    if type_ in BCD:
        return 0 <= number <= int("9" * (NUMBERS[type_].bits // 4))
    try:
        struct.pack(">" + NUMBERS[type_].code, int(number))
    except struct.error:
        return False
    return True
