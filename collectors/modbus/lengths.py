"""How long requests one device takes: searched when one was too long, and tried anew when it may be another device.

Promises: a question is never longer than a request of the plan, and a device that takes no more than before is asked
once for more than that: after a new connection, and once a day. Of one that is silent to long requests, or closes the
connection, only once a day.

Pure; the clock is handed in. May import: the standard library, `collectors.modbus.address`, `collectors.modbus.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from collectors.modbus.address import AREAS, BIT_AREAS, Area
from collectors.modbus.plan import Block, Limits, Rules, Span, plan

TRY_AGAIN_S = 86_400.0
PAIRS = 3
"""So many pairs of neighbours that are refused, where nothing as long was ever read, are too long: no device has so
many holes and no two neighbours without one."""
SILENCES = 2
"""So often in a row no answer to a question means that it was too long, of a device that refuses others."""


@dataclass(slots=True)
class _Search:
    """The longest request that is answered; `lengths` are those between one that was and one that was not."""

    block: Block
    lengths: list[int]
    mute: bool
    """Silence counts as refusal: that is how the block was refused."""
    upwards: bool = False
    """The shortest is asked first: most likely nothing has changed."""
    silences: int = 0


@dataclass(slots=True)
class _Limit:
    """What one request may read; asked for more from `again_at` on."""

    count: int
    mute: bool
    again_at: float


class Lengths:
    """What is known of one device. One limit for registers and one for bits: devices count the bytes of their buffer.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limits: dict[bool, _Limit] = {}
        self._search: _Search | None = None
        self._longest = {True: 0, False: 0}
        self._pairs: dict[bool, set[Block]] = {True: set(), False: set()}

    @property
    def limits(self) -> dict[Area, int]:
        """What one request of an area may read, of areas where that is known."""
        return {area: limit.count for area in AREAS if (limit := self._limits.get(area in BIT_AREAS)) is not None}

    @property
    def is_searching(self) -> bool:
        """Whether there is a question."""
        return self._search is not None

    @property
    def wants_more(self) -> bool:
        """Whether it is time to try whether a limit still holds."""
        now = self._clock()
        return any(now >= limit.again_at for limit in self._limits.values())

    def forget_tags(self) -> None:
        """Other tags are read from now on: a search among the old ones ends; limits stay."""
        self._search = None
        for pairs in self._pairs.values():
            pairs.clear()

    def reconnected(self) -> None:
        """The device may be another."""
        for limit in self._limits.values():
            if not limit.mute:  # it might close the connection again for that
                limit.again_at = min(limit.again_at, self._clock())

    def was_read(self, block: Block) -> None:
        """A block was read."""
        if block.count > self._longest[block.is_bits]:
            self._longest[block.is_bits] = block.count
            self._pairs[block.is_bits].clear()

    def refused_pair(self, pair: Block) -> bool:
        """Two neighbours were read, and not together; returns whether that is because it is too long."""
        longest, pairs = self._longest[pair.is_bits], self._pairs[pair.is_bits]
        if not longest or pair.count <= longest:
            return False
        pairs.add(pair)
        if len(pairs) < PAIRS:
            return False
        pairs.clear()
        self._set(pair, longest, mute=False)
        return True

    def too_long(self, block: Block, taken: int, *, mute: bool) -> None:
        """A block was not read, though it holds nothing that is refused; one of `taken` was."""
        self._set(block, taken, mute=mute)
        lengths = [length for length in _ends(block) if taken < length < block.count]
        self._search = _Search(block, lengths, mute) if lengths else None

    def try_more(self, spans: Iterable[Span], limits: Limits, rules: Rules) -> None:
        """Begin to ask for more than was taken before, if that is due and requests would be longer then."""
        now = self._clock()
        for is_bits, limit in self._limits.items():
            if now >= limit.again_at and self._search is None:
                limit.again_at = now + TRY_AGAIN_S
                free = Rules({}, rules.refused, rules.cuts)
                found = [block for block in plan(spans, limits, free) if block.is_bits == is_bits]
                block = max(found, key=lambda block: block.count, default=None)
                if block is not None and block.count > limit.count:
                    lengths = [length for length in _ends(block) if length > limit.count]
                    self._search = _Search(block, lengths, limit.mute, upwards=True)

    def question(self) -> Block | None:
        """What to ask next."""
        if self._search is None:
            return None
        block, lengths = self._search.block, self._search.lengths
        return Block(block.area, block.offset, lengths[0 if self._search.upwards else len(lengths) // 2], ())

    def answered(self, length: int, *, was_read: bool, was_silent: bool) -> None:
        """Take note of the answer to `question`, or that there was none."""
        search = self._search
        if search is None:
            return
        if was_silent and not search.mute:
            search.silences += 1
            if search.silences < SILENCES:
                return
        search.silences = 0
        if was_read:
            self._longest[search.block.is_bits] = max(length, self._longest[search.block.is_bits])
            if length == search.block.count:
                del self._limits[search.block.is_bits]
            else:
                self._set(search.block, length, mute=search.mute)
            search.lengths = [other for other in search.lengths if other > length]
            search.upwards = False  # it is another device, and any length as likely
        else:
            search.lengths = [other for other in search.lengths if other < length]
        if not search.lengths:
            self._search = None

    def _set(self, block: Block, count: int, *, mute: bool) -> None:
        self._limits[block.is_bits] = _Limit(count, mute, self._clock() + TRY_AGAIN_S)


def _ends(block: Block) -> list[int]:
    """The lengths at which one of its tags ends, from its beginning."""
    ends = set()
    reached = 0
    for span in sorted(block.spans, key=lambda span: span.offset):
        reached = max(reached, span.end - block.offset)
        ends.add(reached)
    return sorted(ends)
