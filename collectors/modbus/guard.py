"""Sees that addresses still mean what the tag list says: a program download moves them, and nonsense looks plausible.

Promises: after each new connection nothing is handed out before what is expected was read and found; looked at again
every hour. May import: the standard library, `collectors.api`, the other modules of this package but `collector`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from collectors.api import Unavailable
from collectors.modbus.config import ModbusConfig
from collectors.modbus.expect import Expectation
from collectors.modbus.link import read_request
from collectors.modbus.plan import Block
from collectors.modbus.reading import Reading, decoder_of

AGAIN_S = 3600.0
ADDRESS_CODES = frozenset({2, 3})


class Guard:
    """Reads what one device is expected to hold."""

    def __init__(self, config: ModbusConfig, expected: Sequence[Expectation]) -> None:
        self._config = config
        self._readings = [(one, _reading(config, one)) for one in expected]
        self._connects: int | None = None
        self._next = 0.0

    def is_due(self, now: float, connects: int) -> bool:
        """Whether to look, at this monotonic time, on the line's so many-th connection."""
        return bool(self._readings) and (connects != self._connects or now >= self._next)

    async def check(self, ask: Callable[[Reading], Awaitable[None]], now: float, connects: int) -> None:
        """Read and compare. What cannot be read after a new connection is as bad as what differs; later it is not.

        Raises:
            Unavailable: something else is there, or it could not be read.
        """
        for expected, reading in self._readings:
            await ask(reading)
            if reading.data is not None:
                [value], _ = reading.decoders[""].decode(reading.data)
                if value != expected.value or isinstance(value, bool) != isinstance(expected.value, bool):
                    raise self._differs(expected, "nothing usable" if value is None else repr(value))
            elif reading.code in ADDRESS_CODES:
                raise self._differs(expected, f"exception {reading.code}")
            elif connects != self._connects:
                where, unit = self._config.where, self._config.unit_id
                text = f"{where} unit {unit}: {expected.address}, which tells the program, could not be read"
                raise Unavailable(reading.quality.removeprefix("bad:"), "no_answer", text, where=where, unit_id=unit)
            else:
                return
        self._connects, self._next = connects, now + AGAIN_S

    def _differs(self, expected: Expectation, found: str) -> Unavailable:
        text = (
            f"{expected.address} is expected to be {expected.value!r} and is {found}: most likely a new program moved"
            " the addresses"
        )
        return Unavailable(
            "layout", "bad_layout", text,
            where=self._config.where, address=expected.address, expected=str(expected.value), found=found,
        )  # fmt: skip


def _reading(config: ModbusConfig, expected: Expectation) -> Reading:
    tag = expected.tag
    block = Block(tag.where.area, tag.where.offset, tag.registers, ())
    return Reading(block, read_request(block), {"": decoder_of(config, block, [(tag, 0)])})
