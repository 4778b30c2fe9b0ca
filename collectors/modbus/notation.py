"""Addresses in a maker's notation -> where they lie on the wire: `D100`, `X17`, `VW100`, `%MD10`.

Promises: what is understood lies in a range that the maker names; a value never reaches past the end of its range,
because the next element lies elsewhere; a notation with two meanings is refused with both. Classic and area addresses
mean the same with and without a brand. Pure. May import: the standard library, `collectors.modbus.address`,
`collectors.modbus.brands`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from collectors.modbus.address import LAST_OFFSET, Address, AddressError, Area, NotSupportedYet, parse_address
from collectors.modbus.brands import BRAND_NAMES, BRANDS, Brand, Range, Source

_ELEMENT = re.compile(r"^(?P<symbol>[A-Z]+)\s*(?P<number>[0-9]+)(?:\.(?P<bit>[0-9]{1,2}|[A-F]))?$")
_IEC_WORD = re.compile(r"^%M(?P<size>[BWDL])(?P<number>[0-9]{1,6})(?:[.:]X?(?P<bit>[0-9]{1,2}))?$")
_IEC_BIT = re.compile(r"^%(?P<area>[MQI])X(?P<byte>[0-9]{1,6})\.(?P<bit>[0-9])$")
_IEC_COIL = re.compile(r"^%M(?P<number>[0-9]{1,6})$")
_V_WORD = re.compile(r"^V(?P<size>[BWD])(?P<number>[0-9]{1,5})(?:\.(?P<bit>[0-9]{1,2}))?$")
_V_BIT = re.compile(r"^V(?P<byte>[0-9]{1,5})\.(?P<bit>[0-9])$")
_S7_BIT = re.compile(r"^(?P<area>[IQ])(?P<byte>[0-9]{1,3})\.(?P<bit>[0-9])$")
_S7_ANALOG = re.compile(r"^AIW(?P<number>[0-9]{1,3})$")
_MAKERS = re.compile(r"^%?[A-Za-z]{1,4}\s*[0-9]")
_LAST_VB = 20_479
"""V memory of the largest SMART CPU (ST60) ends here."""
_WIDTHS = {"B": 8, "W": 16, "D": 32, "L": 64}


@dataclass(frozen=True, slots=True)
class Place:
    """What an address means.

    Attributes:
        address: area, offset and bit.
        bits: natural width of the element: 1, 8, 16, 32 or 64; 0 where the notation has none (40001).
        end: first offset that no longer belongs to the elements in a row.
        region: number of the stretch of the map it lies in; a request never crosses from one to another.
        source: how sure the map is.
    """

    address: Address
    bits: int = 0
    end: int = LAST_OFFSET + 1
    region: int = 0
    source: Source = "rule"


@lru_cache(maxsize=4096)
def locate(text: str, brand: str | None = None, hold_start: int = 0) -> Place:
    """Return where the address lies.

    Args:
        text: as the person wrote it.
        brand: one of `BRANDS`, whose notation is understood beside the general ones.
        hold_start: of a Siemens brand, the byte of V memory that is the first holding register.

    Raises:
        AddressError: no address, an ambiguous one, or one outside of the maker's ranges.
    """
    try:
        address = parse_address(text)
    except NotSupportedYet:
        if brand is None:
            raise NotSupportedYet(
                f"{text.strip()} is a maker's notation: name the maker with brand: on the device "
                f"({', '.join(BRAND_NAMES)}), or write the Modbus address such as 40001 or holding:0"
            ) from None
    except AddressError:
        if brand is None or not _MAKERS.match(text.strip()):
            raise
    else:
        return Place(address, region=_region(brand, address) if brand is not None else 0)
    assert brand is not None
    found = _READERS.get(brand, _element)(text.strip().upper(), BRANDS[brand], hold_start)
    if brand in _READERS:
        return found
    return Place(found.address, found.bits, found.end, _region(brand, found.address), found.source)


def _region(brand: str, address: Address) -> int:
    for area, first, end, number in _regions(brand):
        if area == address.area and first <= address.offset < end:
            return number
    return 0


@cache
def _regions(brand: str) -> Sequence[tuple[Area, int, int, int]]:
    """The stretches of each area without a hole, numbered from 1; what lies in none of them is region 0."""
    merged: list[tuple[Area, int, int]] = []
    for one in sorted(BRANDS[brand].ranges, key=lambda range_: (range_.area, range_.offset)):
        if merged and merged[-1][0] == one.area and merged[-1][2] >= one.offset:
            merged[-1] = (one.area, merged[-1][1], max(merged[-1][2], one.end))
        else:
            merged.append((one.area, one.offset, one.end))
    return [(*stretch, number) for number, stretch in enumerate(merged, 1)]


def _element(text: str, brand: Brand, _hold_start: int) -> Place:
    match = _ELEMENT.match(text)
    ranges = [one for one in brand.ranges if match is not None and one.symbol == match["symbol"]]
    if match is None or not ranges:
        symbols = ", ".join(dict.fromkeys(one.symbol for one in brand.ranges))
        raise AddressError(f"not understood for {brand.title}: it has {symbols}; such as {brand.example}")
    digits = match["number"]
    if ranges[0].octal and re.search("[89]", digits):
        raise AddressError(
            f"{ranges[0].symbol} counts in octal on {brand.title}: there is no {digits}; after "
            f"{ranges[0].symbol}7 comes {ranges[0].symbol}10"
        )
    number = int(digits, 8 if ranges[0].octal else 10)
    inside = [one for one in ranges if one.first <= number <= one.last]
    if not inside:
        named = " and ".join(dict.fromkeys(f"{one.shown(one.first)} to {one.shown(one.last)}" for one in ranges))
        raise AddressError(f"out of range: {brand.title} has {named}")
    return _in_range(text, inside, number, _bit_of(match["bit"], brand))


def _in_range(text: str, inside: Sequence[Range], number: int, bit: int | None) -> Place:
    # T and C are a contact (bit) and a value (register) of the same name: the value is meant.
    one = max(inside, key=lambda range_: range_.registers)
    if bit is not None and one.registers != 1:
        why = "is one bit already" if not one.registers else "is 32 bits wide: read it whole"
        raise AddressError(f"{text.partition('.')[0]} {why}, it has no .{bit}")
    offset = one.offset + (number - one.first) * max(1, one.registers)
    width = 1 if not one.registers else 16 * one.registers
    return Place(Address(one.area, offset, bit), 1 if bit is not None else width, one.end, source=one.source)


def contact(text: str, brand: str) -> Place | None:
    """Where the contact of a timer or counter lies (`T0` with `type: bool`), None for what has no contact."""
    match = _ELEMENT.match(text.strip().upper())
    if match is None or match["bit"] is not None:
        return None
    number = int(match["number"])
    for one in BRANDS[brand].ranges:
        if one.symbol == match["symbol"] in {"T", "C"} and not one.registers and one.first <= number <= one.last:
            address = Address(one.area, one.offset + number - one.first)
            return Place(address, 1, one.end, _region(brand, address), one.source)
    return None


def _bit_of(digits: str | None, brand: Brand) -> int | None:
    if digits is None:
        return None
    if digits.isalpha():
        if not brand.title.startswith("Mitsubishi"):
            raise AddressError(f"bits are written 0 to 15 here, not {digits}")
        return int(digits, 16)
    if int(digits) > 15:
        raise AddressError(f"a register has the bits 0 to 15, not {digits}")
    return int(digits)


def _inovance_am(text: str, brand: Brand, _hold_start: int) -> Place:
    if match := _IEC_BIT.match(text):
        byte, bit = int(match["byte"]), _bit_in_byte(match["bit"])
        if match["area"] == "M":
            return _word_bit(text, byte // 2, 8 * (byte % 2) + bit)
        area: Area = "coil" if match["area"] == "Q" else "discrete"
        return _bit_place(text, area, 8 * byte + bit, "maker" if area == "coil" else "check")
    if match := _IEC_WORD.match(text):
        size, number = match["size"], int(match["number"])
        if size == "B":
            return _half(text, f"%MW{number // 2}", "high" if number % 2 else "low", number // 2, odd=bool(number % 2))
        return _iec_word(text, match, number * (_WIDTHS[size] // 16), size)
    raise AddressError(f"not understood for {brand.title}: expected {brand.example}")


def _schneider(text: str, brand: Brand, _hold_start: int) -> Place:
    if match := _IEC_BIT.match(text):
        if match["area"] == "M":
            byte = int(match["byte"])
            return _word_bit(text, byte // 2, 8 * (byte % 2) + _bit_in_byte(match["bit"]))
    elif match := _IEC_COIL.match(text):
        return _bit_place(text, "coil", int(match["number"]), "rule")
    elif match := _IEC_WORD.match(text):
        number = int(match["number"])
        if match["size"] == "W":
            return _iec_word(text, match, number, "W")
        if match["size"] == "D":
            raise AddressError(
                f"{text} is {_pair(number)} in M221, M340 and M580, and {_pair(2 * number)} in M241, M251 and M262: "
                f"write %MW{number} or %MW{2 * number} with type: int32, uint32 or float32"
            )
    raise AddressError(f"not understood for {brand.title}: expected {brand.example}")


def _pair(number: int) -> str:
    return f"%MW{number} and %MW{number + 1}"


def _siemens(text: str, brand: Brand, hold_start: int) -> Place:
    if match := _S7_ANALOG.match(text):
        number = int(match["number"])
        if number % 2:
            raise AddressError(f"analog inputs have even numbers: AIW{number - 1} or AIW{number + 1}")
        if number > 110:
            raise AddressError(f"out of range: {brand.title} has AIW0 to AIW110")
        return Place(Address("input", number // 2), 16, 56)
    if match := _S7_BIT.match(text):
        byte, bit = int(match["byte"]), _bit_in_byte(match["bit"])
        if byte > 31:
            raise AddressError(f"out of range: {brand.title} has {match['area']}0.0 to {match['area']}31.7")
        return Place(Address("coil" if match["area"] == "Q" else "discrete", 8 * byte + bit), 1, 256)
    if match := _V_BIT.match(text):
        byte = int(match["byte"])
        register, odd = _v_register(text, byte, hold_start)
        return Place(Address("holding", register, _bit_in_byte(match["bit"]) + (0 if odd else 8)), 1)
    if match := _V_WORD.match(text):
        return _v_word(text, match, hold_start)
    raise AddressError(f"not understood for {brand.title}: expected {brand.example}")


def _v_word(text: str, match: re.Match[str], hold_start: int) -> Place:
    number, size = int(match["number"]), match["size"]
    register, odd = _v_register(text, number, hold_start)
    end = (_LAST_VB + 1 - hold_start) // 2
    if size == "B":
        if match["bit"] is not None:
            raise AddressError(f"a bit of V memory is written V{number}.{match['bit']}")
        return _half(text, f"VW{number - odd}", "low" if odd else "high", register, odd=odd)
    if odd:
        raise AddressError(
            f"{text} begins in the middle of a register: Modbus carries two bytes from VB{hold_start} on, "
            f"so VW{number - 1} or VW{number + 1} can be read"
        )
    if match["bit"] is not None:
        raise AddressError(f"a bit of V memory is written V{number}.{match['bit']} (byte and bit 0 to 7)")
    return Place(Address("holding", register), _WIDTHS[size], end)


def _v_register(text: str, byte: int, hold_start: int) -> tuple[int, bool]:
    if not hold_start <= byte <= _LAST_VB:
        raise AddressError(f"{text} is out of range: the PLC shows VB{hold_start} (hold_start) to VB{_LAST_VB} at most")
    return (byte - hold_start) // 2, bool((byte - hold_start) % 2)


def _half(text: str, word: str, half: str, register: int, *, odd: bool) -> Place:
    if odd:
        raise AddressError(f"{text} is the {half} byte of {word}: read {word}, or its bits")
    return Place(_register(text, register, None), 8)


def _iec_word(text: str, match: re.Match[str], register: int, size: str) -> Place:
    if match["bit"] is None:
        return Place(_register(text, register, None), _WIDTHS[size])
    if size != "W" or int(match["bit"]) > 15:
        raise AddressError(f"a bit is written %MW{register}.0 to %MW{register}.15")
    return Place(_register(text, register, int(match["bit"])), 1)


def _word_bit(text: str, register: int, bit: int) -> Place:
    return Place(_register(text, register, bit), 1)


def _register(text: str, register: int, bit: int | None) -> Address:
    if register > LAST_OFFSET:
        raise AddressError(f"{text} is out of range: the last register is %MW{LAST_OFFSET}")
    return Address("holding", register, bit)


def _bit_place(text: str, area: Area, offset: int, source: Source) -> Place:
    if offset > LAST_OFFSET:
        raise AddressError(f"{text} is out of range: Modbus reaches the first {LAST_OFFSET + 1} bits")
    return Place(Address(area, offset), 1, source=source)


def _bit_in_byte(digit: str) -> int:
    if int(digit) > 7:
        raise AddressError(f"a byte has the bits 0 to 7, not {digit}")
    return int(digit)


_READERS = {"inovance-am": _inovance_am, "schneider": _schneider, "siemens-s7-200-smart": _siemens}
