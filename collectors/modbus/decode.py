"""Reply bytes -> values, compiled once per request: one gather, one `struct`, extra steps only where a tag needs them.

Promises: a reply that did not change costs one comparison; a value that did not change keeps its object; what is no
usable value (NaN, infinity, a declared invalid value, broken BCD or text) is None with a reason, never a number.

Pure. May import: the standard library, the pure modules of this package.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from operator import itemgetter
from typing import Any, Literal, Protocol, TypeAlias

from collectors.api import Value
from collectors.modbus.datatypes import BCD, FLOATS, NUMBERS, WordOrder, arrival, number_of

Reason: TypeAlias = Literal["bad:invalid", "bad:decode"]
INVALID: Reason = "bad:invalid"
DECODE: Reason = "bad:decode"

Result: TypeAlias = tuple[Value, Reason | None]
Step: TypeAlias = Callable[[Any], Result]
"""What `struct` returned for a tag -> its value, or None and why."""

_REPLY_MAX = 256
"""A reply's data never exceeds 250 bytes, so byte indices fit into bytes and `bytes.translate` can gather."""
_BITS_OF_BYTE = tuple(tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256))
_KEPT_CONTROLS = frozenset("\t\n\r\x1c\x1d\x1e\x1f")
"""Line ends, and the separators that scanners put into barcodes."""
_PADDING = "\x00 \t\r\n"


@dataclass(frozen=True, slots=True)
class Field:
    """One tag within a request of registers.

    Attributes:
        name: of the tag, for its quality.
        at: first register, counted from the request's first.
        type: as in the configuration; None with `bit`.
        bit: 0..15 of the register, or None.
        length, encoding: of a string.
        patterns, numbers: declared invalid: bits of the assembled value; decoded numbers.
        shortest: float32 is wanted in its shortest form.
    """

    name: str
    at: int
    type: str | None
    order: WordOrder = "ABCD"
    bit: int | None = None
    length: int | None = None
    encoding: str = "utf-8"
    patterns: frozenset[int] = frozenset()
    numbers: frozenset[float] = frozenset()
    shortest: bool = False


class Decoder(Protocol):
    """Decodes the replies to one request; keeps the last one."""

    names: Sequence[str]
    """The tags, in the order of the values."""

    def decode(self, data: bytes) -> tuple[Sequence[Value], Mapping[str, str]]:
        """Return the values in the order of `names`, and the quality of those that are None. Neither is the caller's.

        `data` is the reply without its headers, of exactly the length asked for.
        """


class BitDecoder:
    """Coils or discrete inputs: name -> position of its bit in the request."""

    def __init__(self, bits: Sequence[tuple[str, int]]) -> None:
        self.names: Sequence[str] = tuple(name for name, _ in bits)
        positions = [at for _, at in bits]
        # One index would make itemgetter return the item instead of a tuple.
        self._pick = itemgetter(*positions, positions[0])
        self._count = len(positions)
        self._data: bytes | None = None
        self._values: Sequence[Value] = ()

    def decode(self, data: bytes) -> tuple[Sequence[Value], Mapping[str, str]]:
        """See `Decoder`."""
        if data != self._data:
            self._values = self._pick(tuple(chain.from_iterable(map(_BITS_OF_BYTE.__getitem__, data))))[: self._count]
            self._data = data
        return self._values, {}


class RegisterDecoder:
    """Registers: numbers, bits, text."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.names: Sequence[str] = tuple(field.name for field in fields)
        self._struct = struct.Struct(">" + "".join(_code(field) for field in fields))
        self._gather = _gather(fields)
        self._steps = [(index, step) for index, field in enumerate(fields) if (step := _step(field)) is not None]
        self._shorten = _Shortener(
            [i for i, field in enumerate(fields) if field.shortest and not field.patterns | field.numbers]
        )
        self._floats = tuple(i for i, field in enumerate(fields) if _needs_only_a_look(field))
        self._data: bytes | None = None
        self._raw: tuple[Any, ...] = ()
        self._values: Sequence[Value] = ()
        self._bad: dict[str, str] = {}

    def decode(self, data: bytes) -> tuple[Sequence[Value], Mapping[str, str]]:
        """See `Decoder`."""
        if data == self._data:
            return self._values, self._bad
        raw = self._struct.unpack(self._gather(data))
        if self._steps or self._shorten.indices or self._floats:
            self._values, self._bad = self._refine(raw)
        else:
            self._values = raw
        self._data, self._raw = data, raw
        return self._values, self._bad

    def _refine(self, raw: tuple[Any, ...]) -> tuple[Sequence[Value], dict[str, str]]:
        values: list[Value] = list(raw)
        bad: dict[str, str] = {}
        names, old_values, old_bad = self.names, self._values, self._bad
        old_raw = self._raw or (None,) * len(raw)
        for index, step in self._steps:
            item = raw[index]
            if item == old_raw[index] and item != 0:
                values[index] = value = old_values[index]
                reason = old_bad.get(names[index]) if value is None else None
            else:
                values[index], reason = step(item)
            if reason is not None:
                bad[names[index]] = reason
        if not all(map(isfinite, [raw[index] for index in self._floats])):
            for index in self._floats:
                if not isfinite(raw[index]):
                    values[index], bad[names[index]] = None, INVALID
        for index in self._shorten.into(values, raw, old_raw, old_values):
            bad[names[index]] = INVALID
        return values, bad


class _Shortener:
    """Gives many float32 their shortest form at once: formatting, parsing and packing each run as one call in C."""

    def __init__(self, indices: Sequence[int]) -> None:
        self.indices = tuple(indices)

    def into(
        self, values: list[Value], raw: Sequence[Any], old_raw: Sequence[Any], old_values: Sequence[Value]
    ) -> list[int]:
        """Put the shortest forms into `values`; return where there is none, because the float is not finite."""
        changed = [index for index in self.indices if raw[index] != old_raw[index]]
        floats = [raw[index] for index in changed]
        unusable: list[int] = []
        if len(changed) < len(self.indices):
            for index in self.indices:
                values[index] = old_values[index]
            # An infinity that stayed equals itself: it is none of those that changed, and as unusable as before.
            if None in old_values:
                unusable = [index for index in self.indices if values[index] is None and raw[index] == old_raw[index]]
        if not all(map(isfinite, floats)):
            unusable += [index for index in changed if not isfinite(raw[index])]
            for index in unusable:
                values[index] = None
            changed = [index for index in changed if isfinite(raw[index])]
            floats = [raw[index] for index in changed]
        if floats:
            for index, value in zip(changed, shortest_floats(floats), strict=True):
                values[index] = value
        return unusable


def shortest_floats(floats: Sequence[float]) -> list[float]:
    """For each float32 the shortest decimal, of 6 digits or more, that is read back as the same float32.

    Args:
        floats: finite, each exactly a float32.
    """
    result = list(floats)
    left = list(range(len(result)))
    for digits in (6, 7, 8):
        wanted = [floats[index] for index in left]
        tries = list(map(float, (f"%.{digits}g " * len(wanted) % tuple(wanted)).split()))
        layout = struct.Struct(f">{len(wanted)}f")
        try:
            read_back = layout.unpack(layout.pack(*tries))
        except OverflowError:  # rounded up past the largest float32
            read_back = tuple(map(_as_float32, tries))
        still = []
        for index, candidate, value, target in zip(left, tries, read_back, wanted, strict=True):
            if value == target:
                result[index] = candidate
            else:
                still.append(index)
        if not still:
            return result
        left = still
    for index in left:
        result[index] = float(f"{floats[index]:.9g}")
    return result


def _as_float32(value: float) -> float:
    try:
        rounded: float = struct.unpack(">f", struct.pack(">f", value))[0]
    except OverflowError:
        return float("inf")
    return rounded


def _code(field: Field) -> str:
    if field.bit is not None:
        return "H"
    if field.type == "string":
        return f"{2 * (field.length or 1)}s"
    return NUMBERS[field.type or "uint16"].code


def _gather(fields: Sequence[Field]) -> Callable[[bytes], bytes]:
    """Return the function that puts the bytes of a reply into the order of the fields, each assembled big-endian."""
    wanted: list[int] = []
    for field in fields:
        text = field.type == "string"
        registers = (field.length or 1) if text else 1 if field.bit is not None else NUMBERS[field.type or ""].registers
        wanted.extend(2 * field.at + byte for byte in arrival(field.order, registers, text=text))
    if wanted == list(range(len(wanted))):
        size = len(wanted)
        return lambda data: data if len(data) == size else data[:size]
    picks = bytes(wanted)
    # translate() maps each byte through a table of 256: with the reply as the table it picks bytes by index, in C.
    return lambda data: picks.translate(data.ljust(_REPLY_MAX, b"\0"))


def _step(field: Field) -> Step | None:
    """Return what is still to be done to what `struct` returned, or None."""
    if field.bit is not None:
        return _bit_step(field.bit)
    if field.type == "bool":
        return lambda word: (word != 0, None)
    if field.type == "string":
        return _text_step(field.encoding)
    if field.type in BCD:
        return _bcd_step(field)
    if field.type in FLOATS:
        return _float_step(field)
    if field.patterns or field.numbers:
        return _integer_step(field)
    return None


def _needs_only_a_look(field: Field) -> bool:
    """A float that is published as it came, if only it is finite."""
    return field.bit is None and field.type in FLOATS and not (field.shortest or field.patterns or field.numbers)


def _bit_step(bit: int) -> Step:
    mask = 1 << bit
    return lambda word: (word & mask != 0, None)


def _integer_step(field: Field) -> Step:
    invalid = field.numbers | {number_of(field.type or "", pattern) for pattern in field.patterns}
    return lambda number: (None, INVALID) if number in invalid else (number, None)


def _float_step(field: Field) -> Step | None:
    """Checks one float; None for those that are done all at once: the shortest form, and whether it is finite."""
    if not (field.patterns or field.numbers):
        return None
    code = ">" + NUMBERS[field.type or ""].code
    numbers = {struct.unpack(code, struct.pack(code, number))[0] for number in field.numbers}
    patterns = {pattern.to_bytes(struct.calcsize(code), "big") for pattern in field.patterns}
    shortest = field.shortest

    def check(number: float) -> Result:
        if not isfinite(number) or number in numbers or (patterns and struct.pack(code, number) in patterns):
            return None, INVALID
        return (shortest_floats([number])[0] if shortest else number), None

    return check


def _bcd_step(field: Field) -> Step:
    patterns, numbers = field.patterns, field.numbers
    digits = NUMBERS[field.type or ""].bits // 4

    def decode(bits: int) -> Result:
        if bits in patterns:
            return None, INVALID
        text = f"{bits:0{digits}x}"
        if not text.isdecimal():
            return None, DECODE
        number = int(text)
        return (None, INVALID) if number in numbers else (number, None)

    return decode


def _text_step(encoding: str) -> Step:
    def decode(data: bytes) -> Result:
        try:
            text = data.decode(encoding)
            text.encode()
        except UnicodeError:
            # What follows the end mark is left over from a longer text, and may be half a character.
            end = data.find(b"\0")
            if end < 1 or encoding.startswith("utf-16"):
                return None, DECODE
            try:
                text = data[:end].decode(encoding)
            except UnicodeError:
                return None, DECODE
        return clean_text(text)

    return decode


def clean_text(text: str) -> Result:
    """Return the text of a PLC's string without padding, or None if it is no text.

    NUL, blanks and line ends at the end are padding, and so is all behind a NUL within (left over from a longer text).
    A NUL before the text is another layout (one character a register, a length word): no text. Line ends and the
    separators of barcodes may stand within; other control characters show that these registers hold no text.
    """
    text = text.rstrip(_PADDING).lstrip(" ")
    before, _, rest = text.partition("\0")
    if rest and not before:
        return None, DECODE
    text = before.rstrip(_PADDING)
    if any(unicodedata.category(char) == "Cc" and char not in _KEPT_CONTROLS for char in text):
        return None, DECODE
    return text, None
