"""The configuration of a Modbus device.

Promises: what passes here can be planned and decoded: every address is known and ends within its area, every register
has a type, every `invalid` fits its type, no tag is longer than one request. Every mistake is told with the place it
was made at. May import: pydantic, `collectors.api`, `collectors.fields`, the pure modules of this package.
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from collectors.api import JsonType, TagInfo, group_name
from collectors.fields import DeviceConfig, Duration, TagConfig
from collectors.modbus.address import LAST_OFFSET, Address, AddressError, NotSupportedYet, parse_address
from collectors.modbus.datatypes import FLOATS, NUMBERS, WIDE, DataType, WordOrder, fits, number_of, width

DEFAULT_PORT = 502
MAX_REGISTERS = 125
MAX_COILS = 2000
"""What one request of the standard can carry."""
SHORTEST_INTERVAL_S = 0.01
"""Below it the answer time of any device is longer, and mostly seconds were meant (`0.001`)."""

ENCODINGS = {
    codecs.lookup(name).name: name
    for name in (
        "utf-8", "ascii", "latin-1", "cp1252", "gbk", "gb18030", "gb2312", "big5", "shift_jis", "euc_kr",
        "utf-16-be", "utf-16-le",
    )
}  # fmt: skip
"""Name of the codec -> name as documented."""

_LATER_SCHEMES = {
    "serial": "serial lines",
    "rtu+tcp": "serial servers (RTU over TCP)",
    "ascii+tcp": "Modbus ASCII",
    "listen": "devices that dial in",
    "tls": "Modbus over TLS",
    "tcps": "Modbus over TLS",
    "udp": "Modbus over UDP",
}
_PATTERN = re.compile(r"^0[xX][0-9A-Fa-f]+$")


def _wrong(kind: str, text: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{text}", {"text": text})


def _no_number_as_text(value: object) -> object:
    if isinstance(value, float):
        raise _wrong("address", 'put the address in quotes: a number loses its last zero ("40010.10" is bit 10)')
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_address(value: str) -> str:
    try:
        parse_address(value)
    except NotSupportedYet as error:
        raise _wrong("not_supported", str(error)) from None
    except AddressError as error:
        raise _wrong("address", str(error)) from None
    return value


def _check_encoding(value: str) -> str:
    try:
        name = codecs.lookup(value).name
    except LookupError:
        name = ""
    if name not in ENCODINGS:
        raise _wrong("encoding", f"unknown encoding; known are {', '.join(ENCODINGS.values())}")
    return value


def parse_url(url: str) -> tuple[str, int]:
    """Host and port of `tcp://HOST[:PORT]`.

    Raises:
        PydanticCustomError: another form, or one that later versions bring.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise _wrong("url", f"expected tcp://HOST or tcp://HOST:PORT; did you mean tcp://{url}?")
    if scheme.lower() in _LATER_SCHEMES:
        raise _wrong("not_supported", f"{_LATER_SCHEMES[scheme.lower()]} ({scheme}://) are not supported yet")
    try:
        parts = urlsplit(f"tcp://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _wrong("url", "expected tcp://HOST:PORT with a port from 1 to 65535") from None
    if scheme.lower() != "tcp":
        raise _wrong("url", f"expected tcp://HOST or tcp://HOST:PORT, not {scheme}://")
    if not host or port == 0 or "@" in rest or re.search(r"\s", rest):
        raise _wrong("url", "expected tcp://HOST or tcp://HOST:PORT")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise _wrong("url", "expected tcp://HOST:PORT and nothing after it; the unit goes into unit_id")
    return host, port or DEFAULT_PORT


def _check_url(value: str) -> str:
    parse_url(value)
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
    raise _wrong("invalid", "expected a bit pattern in hex such as 0x8000, or a number such as -1")


def _check_interval(value: float) -> float:
    if value < SHORTEST_INTERVAL_S:
        raise _wrong("interval", f"the shortest interval is {SHORTEST_INTERVAL_S * 1000:.0f} ms")
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


class _Mistakes:
    """Collects the mistakes of one model, each at its key, and raises them together."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._found: list[InitErrorDetails] = []

    def add(self, loc: tuple[str | int, ...], kind: str, text: str, value: object) -> None:
        self._found.append(InitErrorDetails(type=_wrong(kind, text), loc=loc, input=value))

    def raise_if_any(self) -> None:
        if self._found:
            raise ValidationError.from_exception_data(self._title, self._found)


class ModbusTag(TagConfig):
    """A register, some registers that make one value, a bit of a register, a coil or a discrete input."""

    address: AddressText = Field(
        description="classic 40001 / 400001 (1-based), or coil:N discrete:N input:N holding:N (0-based, hex after 0x);"
        " .B for bit B of a register"
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
    def where(self) -> Address:
        """The address as understood."""
        return parse_address(self.address)

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
        mistakes = _Mistakes("tag")
        where = self.where
        if not where.is_register or where.bit is not None:
            self._check_bit(where, mistakes)
        elif self.type is None:
            known = ", ".join(get_args(DataType))
            mistakes.add(("address",), "type", f"registers need a type: {known}; or .B for one bit", self.address)
        else:
            self._check_register(self.type, where, mistakes)
        mistakes.raise_if_any()
        return self

    def _check_bit(self, where: Address, mistakes: _Mistakes) -> None:
        what = f"a {where.area}" if where.bit is None else "a bit"
        if self.type not in {None, "bool"}:
            mistakes.add(("type",), "type", f"{what} is true or false: leave the type out", self.type)
        if not where.is_register and self.word_order is not None:
            mistakes.add(("word_order",), "word_order", f"{what} has no bytes to order", self.word_order)
        for key in ("length", "encoding", "invalid"):
            if getattr(self, key) is not None:
                mistakes.add((key,), key, f"{what} is true or false: it has no {key}", getattr(self, key))
        self._check_as(mistakes)

    def _check_register(self, type_: str, where: Address, mistakes: _Mistakes) -> None:
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
        last = where.offset + self.registers - 1
        if last > LAST_OFFSET:
            mistakes.add(("address",), "address", f"{type_} takes {self.registers} registers and ends at {last}, past"
                         f" the last offset {LAST_OFFSET}", self.address)  # fmt: skip

    def _check_as(self, mistakes: _Mistakes) -> None:
        if self.as_ is not None and self.type not in WIDE:
            mistakes.add(("as",), "as", "`as: string` is for int64 and uint64", self.as_)

    def _check_invalid(self, type_: str, mistakes: _Mistakes) -> None:
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


class ModbusConfig(DeviceConfig):
    """A device that is read over Modbus TCP: function codes 1 to 4, never a write."""

    type: Literal["modbus"]
    url: Annotated[str, AfterValidator(_check_url)] = Field(description="tcp://HOST or tcp://HOST:PORT (502)")
    interval: Interval = Field(1.0, description="how often tags are read that name no interval of their own")
    unit_id: int = Field(1, ge=0, le=255, description="which device behind the address")
    word_order: WordOrder = Field("ABCD", description="bytes of a 32-bit value as they arrive, A the most significant")
    max_registers: int = Field(MAX_REGISTERS, ge=1, le=MAX_REGISTERS, description="registers in one request at most")
    max_coils: int = Field(MAX_COILS, ge=1, le=MAX_COILS, description="coils or inputs in one request at most")
    max_gap: int = Field(
        8, ge=0, le=MAX_COILS, description="unnamed addresses read along to save a request; 0 = only what is named here"
    )
    tags: list[ModbusTag] = Field(min_length=1)

    @cached_property
    def endpoint(self) -> tuple[str, int]:
        """Host and port, defaults filled in: devices of equal endpoints share one connection."""
        return parse_url(self.url)

    @property
    def where(self) -> str:
        """The endpoint for people: `192.168.10.21:502`."""
        host, port = self.endpoint
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @model_validator(mode="after")
    def _tags_fit_requests(self) -> ModbusConfig:
        mistakes = _Mistakes("device")
        for index, tag in enumerate(self.tags):
            if tag.where.is_register and tag.registers > self.max_registers:
                mistakes.add(("tags", index, "length" if tag.type == "string" else "type"), "max_registers",
                             f"takes {tag.registers} registers, and max_registers allows {self.max_registers} in one"
                             " request; a value is never put together from two", tag.length or tag.type)  # fmt: skip
        mistakes.raise_if_any()
        return self

    def interval_of(self, tag: ModbusTag) -> float:
        """Seconds between two readings of the tag."""
        return tag.interval if tag.interval is not None else self.interval

    def order_of(self, tag: ModbusTag) -> WordOrder:
        """The tag's word order."""
        return tag.word_order or self.word_order

    def groups(self) -> dict[str, float]:
        """Group name -> interval in seconds, the shortest first."""
        found: dict[str, float] = {}
        for interval in sorted({self.interval_of(tag) for tag in self.tags}):
            found.setdefault(group_name(interval), interval)
        return found

    def tag_infos(self) -> list[TagInfo]:
        """The tags for `meta` and the agent."""
        return [
            TagInfo(
                name=tag.name,
                group=group_name(self.interval_of(tag)),
                source=tag.address,
                type=tag.json_type,
                label=tag.label,
                unit=tag.unit,
                description=tag.description,
                wide=tag.type in WIDE,
                rules=tag.rules(),
            )
            for tag in self.tags
        ]
