"""Sees that addresses still mean what the tag list says: a program download moves them, and nonsense looks plausible.

Promises: after each new connection nothing is handed out before what is expected was read and found. It is compared at
every poll that reads its address anyway; else it is looked at every hour, and once a request failed, which is how a new
program shows. May import: the standard library, `collectors.api`, the other modules of this package but `collector`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from collectors.api import Unavailable, Value
from collectors.modbus.config import ModbusConfig
from collectors.modbus.expect import Expectation
from collectors.modbus.link import read_request
from collectors.modbus.plan import Block
from collectors.modbus.reading import Reading, decoder_of

AGAIN_S = 3600.0
SOON_S = 60.0
"""Requests that fail at every poll are no reason to look more often than this."""
ADDRESS_CODES = frozenset({2, 3})


class Guard:
    """Reads what one device is expected to hold."""

    def __init__(self, config: ModbusConfig, expected: Sequence[Expectation]) -> None:
        self._config = config
        self._readings = [(one, _reading(config, one)) for one in expected]
        self._connects: int | None = None
        self._looked = 0.0
        self._failed = False

    async def look(
        self, polled: Iterable[Reading], ask: Callable[[Reading], Awaitable[None]], now: float, connects: int
    ) -> None:
        """Compare what a poll brought, and read what it did not, if it is time.

        What cannot be read after a new connection is as bad as what differs; later it is not.

        Args:
            polled: the requests of the poll, with their outcomes.
            ask: sends a further request, and notes the outcome in its reading.
            now: monotonic seconds.
            connects: on which of the line's connections.

        Raises:
            Unavailable: something else is there, or it could not be read.
        """
        if not self._readings:
            return
        polled = list(polled)
        missing = []
        for expected, reading in self._readings:
            data = _part(polled, reading.block)
            if data is None:
                missing.append((expected, reading))
            else:
                self._compare(expected, reading, data)
        failed = any(reading.data is None for reading in polled)
        wait = AGAIN_S if not failed else SOON_S if self._failed else 0.0
        self._failed = failed
        if missing and connects == self._connects and now < self._looked + wait:
            return
        for expected, reading in missing:
            await ask(reading)
            if reading.data is not None:
                self._compare(expected, reading, reading.data)
            elif reading.code in ADDRESS_CODES:
                raise self._differs(expected, f"exception {reading.code}")
            elif connects != self._connects:
                where, unit = self._config.where, self._config.unit_id
                text = f"{where} unit {unit}: {expected.address}, which tells the program, could not be read"
                raise Unavailable(reading.quality.removeprefix("bad:"), "no_answer", text, where=where, unit_id=unit)
            else:
                return
        self._connects, self._looked = connects, now

    def _compare(self, expected: Expectation, reading: Reading, data: bytes) -> None:
        value: Value
        [value], _ = reading.decoders[""].decode(data)
        if value != expected.value or isinstance(value, bool) != isinstance(expected.value, bool):
            raise self._differs(expected, "nothing usable" if value is None else repr(value))

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


def _part(polled: Iterable[Reading], wanted: Block) -> bytes | None:
    """The bytes of a block within what was polled; None if they are in none that was answered."""
    for reading in polled:
        block, data = reading.block, reading.data
        if data is None or block.area != wanted.area or wanted.offset < block.offset or wanted.end > block.end:
            continue
        first = wanted.offset - block.offset
        if wanted.is_bits:
            return bytes([data[first // 8] >> first % 8 & 1])
        return data[2 * first : 2 * (first + wanted.count)]
    return None
