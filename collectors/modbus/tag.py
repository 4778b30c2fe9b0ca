"""One tag of a Modbus device: its address, how its registers are read, what fits together.

Promises: what passes here can be decoded: the address is known and the value ends within its area (and within the
stretch of the maker's map), every register has a type, every `invalid` fits its type. May import: pydantic,
`collectors.api`, `collectors.fields`, the pure modules of this package.
"""

from __future__ import annotations

import codecs
import math
import re
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from collectors.api import JsonType
from collectors.fields import Duration, TagConfig
from collectors.modbus.address import LAST_OFFSET, Address, AddressError, NotSupportedYet
from collectors.modbus.datatypes import FLOATS, NUMBERS, WIDE, DataType, WordOrder, fits, number_of, width
from collectors.modbus.notation import Place, contact, locate

MAX_REGISTERS = 125
"""What one request of the standard can carry."""
SHORTEST_INTERVAL_S = 0.01
"""Below it the answer time of any device is longer, and mostly seconds were meant (`0.001`)."""

ENCODINGS = {
    "utf-8": "utf-8", "ascii": "ascii", "iso8859-1": "latin-1", "cp1252": "cp1252", "gbk": "gbk", "gb18030": "gb18030",
    "gb2312": "gb2312", "big5": "big5", "shift_jis": "shift_jis", "euc_kr": "euc_kr", "utf-16-be": "utf-16-be",
    "utf-16-le": "utf-16-le",
}  # fmt: skip
"""Name of the codec -> name as documented. Written out: looking codecs up loads them."""

_PATTERN = re.compile(r"^0[xX][0-9A-Fa-f]+$")


@dataclass(frozen=True, slots=True)
class Notation:
    """How addresses of the device that is being validated are read: tags cannot see their device."""

    brand: str | None = None
    hold_start: int = 0
    broken: bool = False
    """`brand` itself is a mistake: what follows from it is not told."""


NOTATION: ContextVar[Notation] = ContextVar("NOTATION", default=Notation())  # noqa: B039 # frozen


def wrong(kind: str, text: str) -> PydanticCustomError:
    """A mistake with this text."""
    return PydanticCustomError(kind, "{text}", {"text": text})


def _no_number_as_text(value: object) -> object:
    if isinstance(value, float):
        raise wrong("address", 'put the address in quotes: a number loses its last zero ("40010.10" is bit 10)')
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_address(value: str) -> str:
    notation = NOTATION.get()
    if notation.broken:
        return value
    try:
        locate(value, notation.brand, notation.hold_start)
    except NotSupportedYet as error:
        raise wrong("not_supported", str(error)) from None
    except AddressError as error:
        raise wrong("address", str(error)) from None
    return value


def _check_encoding(value: str) -> str:
    try:
        name = codecs.lookup(value).name
    except LookupError:
        name = ""
    if name not in ENCODINGS:
        raise wrong("encoding", f"unknown encoding; known are {', '.join(ENCODINGS.values())}")
    return value


def _as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True, slots=True)
class Invalid:
    """One item of `invalid`: a bit pattern (`0x8000`) or a decoded number (`-1`)."""

    pattern: int | None = None
    number: float | None = None


def parse_invalid(item: str | float) -> Invalid:
    """Return what an item of `invalid` means: hex after `0x` is a bit pattern, all else a number.

    Raises:
        ValueError: neither.
    """
    if isinstance(item, str):
        text = item.strip()
        if _PATTERN.match(text):
            return Invalid(pattern=int(text, 16))
        item = int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else float(text)
    if isinstance(item, bool) or not math.isfinite(item):
        raise ValueError(f"neither a bit pattern nor a number: {item}")
    return Invalid(number=item)


def _check_invalid_item(value: object) -> object:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            parse_invalid(value)
        except ValueError:
            pass
        else:
            return value
    raise wrong("invalid", "expected a bit pattern in hex such as 0x8000, or a number such as -1")


def _check_interval(value: float) -> float:
    if value < SHORTEST_INTERVAL_S:
        raise wrong("interval", f"the shortest interval is {SHORTEST_INTERVAL_S * 1000:.0f} ms")
    return value


AddressText = Annotated[
    str, BeforeValidator(_no_number_as_text, json_schema_input_type=str | int), AfterValidator(_check_address)
]
InvalidItem = Annotated[str | int | float, BeforeValidator(_check_invalid_item)]
InvalidItems = Annotated[
    list[InvalidItem], BeforeValidator(_as_list, json_schema_input_type=InvalidItem | list[InvalidItem])
]
Encoding = Annotated[str, AfterValidator(_check_encoding)]
Interval = Annotated[Duration, AfterValidator(_check_interval)]


class Mistakes:
    """Collects the mistakes of one model, each at its key, and raises them together."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._found: list[InitErrorDetails] = []

    def add(self, loc: tuple[str | int, ...], kind: str, text: str, value: object) -> None:
        """Note a mistake at `loc` below the model; `value` is what came."""
        self._found.append(InitErrorDetails(type=wrong(kind, text), loc=loc, input=value))

    def raise_if_any(self) -> None:
        """Raise ValidationError with all that was noted."""
        if self._found:
            raise ValidationError.from_exception_data(self._title, self._found)


class ModbusTag(TagConfig):
    """A register, some registers that make one value, a bit of a register, a coil or a discrete input."""

    address: AddressText = Field(
        description="classic 40001 / 400001 (1-based), or coil:N discrete:N input:N holding:N (0-based, hex after 0x"
        " or before H); .B for bit B of a register; with brand: also the maker's (D100, X17, VW100, %MW10)"
    )
    type: DataType | None = Field(None, description="how the registers are read; bits, coils and inputs need none")
    word_order: WordOrder | None = Field(None, description="the device's unless given")
    interval: Interval | None = Field(None, description="the device's unless given")
    length: int | None = Field(None, ge=1, le=MAX_REGISTERS, description="of a string, in registers")
    encoding: Encoding | None = Field(None, description=f"of a string (utf-8): {', '.join(ENCODINGS.values())}")
    invalid: InvalidItems | None = Field(
        None,
        description="values that mean `no value`: hex is the bit pattern in the order of the value's own bytes (after"
        " word_order), decimal is the decoded number before scale",
    )

    @cached_property
    def place(self) -> Place:
        """The address as understood; found while the device is validated, whose brand it takes."""
        notation = NOTATION.get()
        if notation.broken:
            return Place(Address("coil", 0))
        place = locate(self.address, notation.brand, notation.hold_start)
        if notation.brand is not None and self.type in {None, "bool"}:
            return contact(self.address, notation.brand) or place
        return place

    @cached_property
    def where(self) -> Address:
        """Area, offset and bit."""
        return self.place.address

    @property
    def registers(self) -> int:
        """How many registers (or bits of a bit area) it takes."""
        return width(self.type, self.length) if self.type is not None else 1

    @property
    def json_type(self) -> JsonType:
        """Type of what is published."""
        if self.map is not None or self.type == "string" or self.as_ == "string":
            return "string"
        if self.type in {None, "bool"} and self.scale is None and self.offset is None:
            return "boolean"
        return "number"

    @model_validator(mode="after")
    def _fits_together(self) -> ModbusTag:
        mistakes = Mistakes("tag")
        where = self.where
        if NOTATION.get().broken:
            return self
        if not where.is_register or where.bit is not None:
            self._check_bit(where, mistakes)
        elif self.type is None:
            known = ", ".join(get_args(DataType))
            mistakes.add(("address",), "type", f"registers need a type: {known}; or .B for one bit", self.address)
        else:
            self._check_register(self.type, where, mistakes)
        mistakes.raise_if_any()
        return self

    def _check_bit(self, where: Address, mistakes: Mistakes) -> None:
        what = f"a {where.area}" if where.bit is None else "a bit"
        if self.type not in {None, "bool"}:
            mistakes.add(("type",), "type", f"{what} is true or false: leave the type out", self.type)
        if not where.is_register and self.word_order is not None:
            mistakes.add(("word_order",), "word_order", f"{what} has no bytes to order", self.word_order)
        for key in ("length", "encoding", "invalid"):
            if getattr(self, key) is not None:
                mistakes.add((key,), key, f"{what} is true or false: it has no {key}", getattr(self, key))
        self._check_as(mistakes)

    def _check_register(self, type_: str, where: Address, mistakes: Mistakes) -> None:
        if type_ == "string":
            if self.length is None:
                mistakes.add(("type",), "length", "a string needs its length in registers (two characters each)", type_)
            for key in ("scale", "offset", "decimals", "min", "max", "map", "deadband", "invalid"):
                if getattr(self, key) is not None:
                    mistakes.add((key,), key, f"a string has no {key}", getattr(self, key))
        else:
            for key in ("length", "encoding"):
                if getattr(self, key) is not None:
                    mistakes.add((key,), key, f"only a string has a {key}; the width of {type_} is fixed",
                                 getattr(self, key))  # fmt: skip
            self._check_invalid(type_, mistakes)
        self._check_as(mistakes)
        self._check_width(type_, where, mistakes)

    def _check_width(self, type_: str, where: Address, mistakes: Mistakes) -> None:
        last = where.offset + self.registers - 1
        bits = self.place.bits
        if last > LAST_OFFSET:
            mistakes.add(("address",), "address", f"{type_} takes {self.registers} registers and ends at {last}, past"
                         f" the last offset {LAST_OFFSET}", self.address)  # fmt: skip
        elif last >= self.place.end:
            mistakes.add(("address",), "address", f"{type_} takes {self.registers} registers, and what follows"
                         f" {self.address} lies elsewhere in this PLC", self.address)  # fmt: skip
        elif bits == 8 and type_ != "string":
            mistakes.add(("address",), "address", f"{self.address} is one byte, and a register holds two: read the"
                         " word, or single bits; only a string can begin here", self.address)  # fmt: skip
        elif type_ != "string" and bits > 16 * self.registers:
            wide = [name for name, kind in NUMBERS.items() if kind.bits == bits and not name.startswith("bcd")]
            mistakes.add(("type",), "type", f"{self.address} is {bits} bits wide: {', '.join(wide)}", type_)

    def _check_as(self, mistakes: Mistakes) -> None:
        if self.as_ is not None and self.type not in WIDE:
            mistakes.add(("as",), "as", "`as: string` is for int64 and uint64", self.as_)

    def _check_invalid(self, type_: str, mistakes: Mistakes) -> None:
        for index, item in enumerate(self.invalid or ()):
            parsed = parse_invalid(item)
            if type_ == "bool":
                mistakes.add(("invalid", index), "invalid", "true and false have no invalid value", item)
            elif parsed.pattern is not None and parsed.pattern.bit_length() > NUMBERS[type_].bits:
                mistakes.add(
                    ("invalid", index), "invalid", f"wider than the {NUMBERS[type_].bits} bits of {type_}", item
                )
            elif parsed.number is not None and not fits(type_, parsed.number):
                hint = self._pattern_hint(type_, parsed.number)
                mistakes.add(("invalid", index), "invalid", f"{type_} never is this number{hint}", item)

    @staticmethod
    def _pattern_hint(type_: str, number: float) -> str:
        bits = NUMBERS[type_].bits
        if type_ in FLOATS or number != int(number) or not 0 <= number < 1 << bits:
            return ""
        meant = f"; the bit pattern is written 0x{int(number):0{bits // 4}X}"
        return f"{meant}, the number {number_of(type_, int(number))}" if NUMBERS[type_].code in "hiq" else meant
