"""The address maps of PLC makers, as data: which symbol lies where on the wire, how it is counted, in which word order.

A row is `(symbol, first, last, area, offset, ...)`: the element `first` lies at `offset`, `last` is the last that the
maker names. A maker's elements that are not in the table are refused, never guessed.

Sources. No code or table was copied; each row says how sure it is:
    "maker": the communication chapter of the maker's manual as widely reproduced, and two independent public
        address converters agree (Inovance H3U/H5U/AM, Delta DVP: the bases of the rows; Xinje XC: the table of the
        operating manuals of the XP and XMP panels with an XC inside, registers and coils; Xinje XD: registers, X and Y
        of the XD series user manual, other coils by two converters that agree with the manual in all the rest).
    "rule": follows from the rule that the maker publishes (%MWn is holding register n; V memory from HoldStart).
    "check": general knowledge without a second source: compare one value with the machine's display first. `check
        --explain` shows this beside each tag. (Mitsubishi FX5: that X, Y, M, SM, D and SD are assigned, and that the
        project may change where, is public; the initial places are not confirmed.)

Pure. May import: the standard library, `collectors.modbus.address`, `collectors.modbus.datatypes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from collectors.modbus.address import Area
from collectors.modbus.datatypes import WordOrder

BrandName: TypeAlias = Literal[
    "inovance-h3u",
    "inovance-h5u",
    "inovance-am",
    "xinje-xd",
    "xinje-xc",
    "delta-dvp",
    "siemens-s7-200-smart",
    "schneider",
    "mitsubishi-fx5",
]
BRAND_NAMES: tuple[str, ...] = get_args(BrandName)
Source: TypeAlias = Literal["maker", "rule", "check"]


@dataclass(frozen=True, slots=True)
class Range:
    """Elements of one symbol that lie in a row on the wire.

    Attributes:
        symbol: letters before the number, capital.
        first, last: numbers of the first and last element, as counted (an octal 17 is 15 here).
        area, offset: where `first` lies.
        registers: of one element; 2 for 32-bit counters, 0 for a bit of a bit area.
        octal: people write the number in base 8.
        source: how sure the row is; see the module.
    """

    symbol: str
    first: int
    last: int
    area: Area
    offset: int
    registers: int = 0
    octal: bool = False
    source: Source = "maker"

    @property
    def end(self) -> int:
        """First offset behind the range."""
        return self.offset + (self.last - self.first + 1) * max(1, self.registers)

    def shown(self, number: int) -> str:
        """The element's name as people write it."""
        return f"{self.symbol}{number:o}" if self.octal else f"{self.symbol}{number}"


@dataclass(frozen=True, slots=True)
class Brand:
    """One family of PLCs.

    Attributes:
        title: for people.
        ranges: none for families whose notation is a rule (see `notation.py`).
        word_order: of 32-bit values, unless the device or the tag says otherwise.
        max_registers: most that the maker allows in one request.
        example: addresses in the maker's notation.
        note: what a person must know before trusting it.
    """

    title: str
    ranges: tuple[Range, ...]
    word_order: WordOrder
    example: str
    max_registers: int = 125
    note: str = ""


def _bits(symbol: str, first: int, last: int, offset: int, *, area: Area = "coil", source: Source = "maker") -> Range:
    return Range(symbol, first, last, area, offset, source=source)


def _octal(symbol: str, last: int, offset: int, *, area: Area = "coil", source: Source = "maker") -> Range:
    return Range(symbol, 0, last, area, offset, octal=True, source=source)


def _words(symbol: str, first: int, last: int, offset: int, *, registers: int = 1, source: Source = "maker") -> Range:
    return Range(symbol, first, last, "holding", offset, registers, source=source)


_H3U = (
    _bits("M", 0, 7679, 0x0000),
    _bits("M", 8000, 8511, 0x1F40),
    _bits("SM", 0, 1023, 0x2400),
    _bits("S", 0, 4095, 0xE000),
    _bits("T", 0, 511, 0xF000),
    _bits("C", 0, 255, 0xF400),
    _octal("X", 0o377, 0xF800),
    _octal("Y", 0o377, 0xFC00),
    _words("D", 0, 8511, 0x0000),
    _words("SD", 0, 1023, 0x2400),
    _words("R", 0, 32767, 0x3000),
    _words("T", 0, 511, 0xF000),
    _words("C", 0, 199, 0xF400),
    _words("C", 200, 255, 0xF700, registers=2),
)
_H5U = (
    _bits("M", 0, 7999, 0x0000),
    _bits("B", 0, 32767, 0x3000),
    _bits("S", 0, 4095, 0xE000),
    _octal("X", 0o1777, 0xF800),
    _octal("Y", 0o1777, 0xFC00),
    _words("D", 0, 7999, 0x0000),
    _words("R", 0, 32767, 0x3000),
)
# Extension modules (X10000, ID10000, ...) lie elsewhere: only the basic unit's inputs and outputs are here.
_XD = (
    _bits("M", 0, 20479, 0x0000),
    _octal("X", 0o77, 0x5000),
    _octal("Y", 0o77, 0x6000),
    _bits("S", 0, 7999, 0x7000),
    _bits("SM", 0, 4095, 0x9000),
    _bits("T", 0, 4095, 0xA000),
    _bits("C", 0, 4095, 0xB000),
    _bits("HM", 0, 6143, 0xC100),
    _words("D", 0, 20479, 0x0000),
    _words("SD", 0, 4095, 0x7000),
    _words("TD", 0, 4095, 0x8000),
    _words("CD", 0, 4095, 0x9000),
    _words("HD", 0, 6143, 0xA080),
    _words("HSD", 0, 1023, 0xB880),
    _words("FD", 0, 8191, 0xC4C0),
)
_XC = (
    _bits("M", 0, 7999, 0x0000),
    _octal("X", 0o1037, 0x4000),
    _octal("Y", 0o1037, 0x4800),
    _bits("S", 0, 1023, 0x5000),
    _bits("M", 8000, 8511, 0x6000),
    _bits("T", 0, 618, 0x6400),
    _bits("C", 0, 634, 0x6C00),
    _words("D", 0, 7999, 0x0000),
    _words("TD", 0, 618, 0x3000),
    _words("CD", 0, 634, 0x3800),
    _words("D", 8000, 8511, 0x4000),
    _words("FD", 0, 5000, 0x4800),
    _words("FD", 8000, 8511, 0x6800),
)
_DVP = (
    _bits("S", 0, 1023, 0x0000),
    _octal("X", 0o377, 0x0400, area="discrete"),
    _octal("Y", 0o377, 0x0500),
    _bits("T", 0, 255, 0x0600),
    _bits("M", 0, 1535, 0x0800),
    _bits("C", 0, 255, 0x0E00),
    _bits("M", 1536, 4095, 0xB000),
    _words("T", 0, 255, 0x0600),
    _words("C", 200, 255, 0x0700, registers=2),
    _words("C", 0, 199, 0x0E00),
    _words("D", 0, 4095, 0x1000),
    _words("D", 4096, 11999, 0x9000),
)
_FX5 = (
    _octal("X", 0o1777, 0x0000, area="discrete", source="check"),
    _octal("Y", 0o1777, 0x0000, source="check"),
    _bits("M", 0, 7679, 0x2000, source="check"),
    _bits("SM", 0, 2047, 0x5000, source="check"),
    _words("D", 0, 7999, 0x0000, source="check"),
    _words("SD", 0, 1999, 0x5000, source="check"),
)

BRANDS: dict[str, Brand] = {
    "inovance-h3u": Brand("Inovance H3U", _H3U, "CDAB", "D100, SD0, R10, C200, M8, S0, X17, Y7"),
    "inovance-h5u": Brand("Inovance H5U and Easy", _H5U, "CDAB", "D100, R10, M8, B20, S0, X17, Y7"),
    "inovance-am": Brand(
        "Inovance AM and AC", (), "CDAB", "%MW10, %MD10, %MX20.3, %QX0.1",
        note="bytes and bits count as in CODESYS: %MW10 is %MB20 and %MB21",
    ),
    "xinje-xd": Brand(
        "Xinje XD and XL", _XD, "CDAB", "D100, HD0, HSD0, SD0, TD0, CD0, FD0, M8, HM0, X17, Y7",
        note="sources disagree on the word order (CDAB or ABCD): compare one 32-bit value with the display",
    ),
    "xinje-xc": Brand(
        "Xinje XC", _XC, "CDAB", "D100, D8000, TD0, CD0, FD0, M8, X17, Y7",
        note="sources disagree on the word order (CDAB or ABCD): compare one 32-bit value with the display",
    ),
    "delta-dvp": Brand("Delta DVP", _DVP, "CDAB", "D100, D4096, M8, M1536, C200, T0, S0, X17, Y7"),
    "siemens-s7-200-smart": Brand(
        "Siemens S7-200 and SMART", (), "ABCD", "VW100, VD100, V100.3, AIW2, I0.1, Q0.1", max_registers=120,
        note="V memory counts from HoldStart of the program's MBUS_INIT call, &VB0 unless hold_start says otherwise",
    ),
    "schneider": Brand("Schneider M221, M241, M251, M262, M340, M580", (), "CDAB", "%MW10, %MW10.3, %M5, %MX20.3"),
    "mitsubishi-fx5": Brand(
        "Mitsubishi FX5", _FX5, "CDAB", "D100, SD0, M8, SM0, X17, Y7",
        note="the assignment is a parameter of the PLC project; this is its initial value",
    ),
}  # fmt: skip
