"""Address text -> area, offset and bit. Never via a number: `40010.10` is bit 10.

Forms: classic `40001` / `400001` (first digit = area, the rest = 1-based number), or `coil:N`, `discrete:N`,
`input:N`, `holding:N` with the 0-based offset N as it goes over the wire, decimal or hex after `0x`; both with `.B` for
bit B of a register, 0 the least. Hex may also end in `H`. What counts from 0 in some documents and from 1 in others (a
bare number, `4x0100`) is refused with all its readings; the notations of makers are left to `notation.py`.

Pure. May import: the standard library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Area: TypeAlias = Literal["coil", "discrete", "input", "holding"]

AREAS: tuple[Area, ...] = ("coil", "discrete", "input", "holding")
BIT_AREAS: frozenset[Area] = frozenset({"coil", "discrete"})
LAST_OFFSET = 65_535

_CLASSIC_AREAS: dict[str, Area] = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
_NUMBER = r"0[xX][0-9A-Fa-f]+|[0-9][0-9A-Fa-f]*[hH]|[0-9]+"
_BY_AREA = re.compile(rf"^(?P<area>[A-Za-z]+)\s*:\s*(?P<number>{_NUMBER})(?:\.(?P<bit>[0-9]+))?$")
_CLASSIC = re.compile(r"^(?P<area>[0134])(?P<number>[0-9]{4,5})(?:\.(?P<bit>[0-9]+))?$")
_BARE = re.compile(rf"^(?P<number>{_NUMBER}|[0-9A-Fa-f]{{1,5}}[hH]|&?[hH][0-9A-Fa-f]{{3,5}})(?P<bit>\.[0-9]+)?$")
_PANEL = re.compile(r"^(?P<area>[134])[xX]\s*(?P<number>[0-9]{1,6})(?P<bit>\.[0-9]+)?$")
_RANGE = re.compile(
    r"^(?P<first>[A-Za-z:]{0,9}[0-9][0-9A-Fa-fxXhH]*)\s*(?:[-~～—]|\.\.|至|到)\s*[A-Za-z:]{0,9}[0-9][0-9A-Fa-fxXhH]*$"
)
_BRAND = re.compile(r"^(%[A-Za-z]{1,3}|[A-Za-z]{1,4})[0-9A-Fa-f]*[0-9][0-9A-Fa-f]*([.,][A-Za-z0-9.]+)?$")
_EXPECTED = "expected an address such as 40001, 40010.3, holding:0, input:0x1F, coil:0 or discrete:7"
_NEAR_AREAS: dict[str, Area] = {
    "coils": "coil", "c": "coil", "discretes": "discrete", "di": "discrete", "inputs": "input", "ir": "input",
    "holdings": "holding", "hr": "holding", "register": "holding", "reg": "holding",
}  # fmt: skip


class AddressError(ValueError):
    """The text is no address of this version; the message says what would be one."""


class NotSupportedYet(AddressError):
    """The text is a maker's notation."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a tag lives.

    Attributes:
        area: which of the four tables, and thereby the function code.
        offset: 0..65535, as it goes over the wire.
        bit: 0..15 of a register, 0 the least; None = the whole register, or a coil or discrete input.
    """

    area: Area
    offset: int
    bit: int | None = None

    @property
    def is_register(self) -> bool:
        """Whether it lies among the 16-bit registers."""
        return self.area not in BIT_AREAS

    def __str__(self) -> str:
        return f"{self.area}:{self.offset}" + (f".{self.bit}" if self.bit is not None else "")


def parse_address(text: str) -> Address:
    """Return what the text means.

    Raises:
        NotSupportedYet: a maker's notation (`D100`, `%MW10`).
        AddressError: no address, an ambiguous one, or one past 65,535; the message is for the person who wrote it.
    """
    text = text.strip()
    if match := _CLASSIC.match(text):
        return _classic(text, match)
    if match := _BY_AREA.match(text):
        return _by_area(text, match)
    if match := _BARE.match(text):
        raise AddressError(_both_readings(text, match))
    if match := _PANEL.match(text):
        raise AddressError(_readings_of_panels(text, match))
    if match := _RANGE.match(text):
        raise AddressError(f"is a range: write the first register, {match['first']}; the type tells how many follow")
    if _BRAND.match(text):
        raise NotSupportedYet(
            f"addresses in the maker's notation such as {text} are not supported yet: "
            "write the Modbus address that the PLC's manual gives for it, such as 40001 or holding:0"
        )
    raise AddressError(_EXPECTED)


def _classic(text: str, match: re.Match[str]) -> Address:
    number = int(match["number"])
    if number == 0:
        first = match["area"] + match["number"][:-1] + "1"
        raise AddressError(f"classic addresses count from 1: the first is {first}")
    if number - 1 > LAST_OFFSET:
        raise AddressError(f"past the last address of the area, {match['area']}65536")
    return Address(area := _CLASSIC_AREAS[match["area"]], number - 1, _bit(text, area, match["bit"]))


def _by_area(text: str, match: re.Match[str]) -> Address:
    written = match["area"].lower()
    area = next((known for known in AREAS if known == written), None)
    if area is None:
        near = _NEAR_AREAS.get(written)
        hint = f"; did you mean {near}:{match['number']}?" if near else ""
        raise AddressError(f"unknown area {match['area']}: expected coil, discrete, input or holding{hint}")
    offset = _number(match["number"])
    if offset > LAST_OFFSET:
        raise AddressError(f"past the last offset of the area, {area}:{LAST_OFFSET}")
    return Address(area, offset, _bit(text, area, match["bit"]))


def _bit(text: str, area: Area, digits: str | None) -> int | None:
    if digits is None:
        return None
    if area in BIT_AREAS:
        raise AddressError(f"{text}: a {area} is one bit already, it has no bit {digits}")
    if int(digits) > 15 or len(digits) > 2:
        raise AddressError(f"a register has the bits 0 to 15, not {digits}")
    return int(digits)


def _both_readings(text: str, match: re.Match[str]) -> str:
    number, bit = _number(match["number"]), match["bit"] or ""
    if number > LAST_OFFSET + 1:
        return f"past the last address, {LAST_OFFSET}; {_EXPECTED}"
    readings = []
    if number <= LAST_OFFSET:
        readings.append(f"the offset {number} counted from 0 (write holding:{_plain(match['number'])}{bit})")
    if number:
        written = _classic_text("4", number)
        readings.append(f"the register number {number} counted from 1 (write {written}{bit}, the same as"
                        f" holding:{number - 1}{bit})")  # fmt: skip
    coil = match["number"][2:]
    if match["number"][:2] in {"0x", "0X"} and coil.isdecimal() and int(coil) and not bit:
        readings.append(f"the coil {int(coil)} of a panel (write {_classic_text('0', int(coil))}, the same as"
                        f" coil:{int(coil) - 1}, or coil:{int(coil)})")  # fmt: skip
    return f"{text} alone can be {' or '.join(readings)}; for other areas write input:, discrete: or coil:"


def _readings_of_panels(text: str, match: re.Match[str]) -> str:
    number, bit, area = int(match["number"]), match["bit"] or "", _CLASSIC_AREAS[match["area"]]
    if len(match["number"]) > 4 and match["number"][0] == match["area"]:
        return f"write {match['number']}{bit} without the {match['area']}x"
    if number > LAST_OFFSET:
        return f"past the last address, {LAST_OFFSET}; {_EXPECTED}"
    from_0 = f"the offset {number} counted from 0 (write {area}:{number}{bit})"
    if not number:
        return f"{text} is {from_0}"
    from_1 = f"number {number} counted from 1, as most panels do (write {_classic_text(match['area'], number)}{bit},"
    return f"{text} can be {from_1} the same as {area}:{number - 1}{bit}) or {from_0}"


def _classic_text(area: str, number: int) -> str:
    return f"{area}{number:04d}" if number <= 9999 else f"{area}{number:05d}"


def _plain(digits: str) -> str:
    """Hex the way this program writes it; all else as it is."""
    bare = digits.lstrip("&")
    if bare[:1] in {"h", "H"}:
        return f"0x{bare[1:]}"
    return f"0x{bare[:-1]}" if bare[-1] in {"h", "H"} else bare


def _number(digits: str) -> int:
    plain = _plain(digits)
    return int(plain, 16) if plain[:2] in {"0x", "0X"} else int(plain)
