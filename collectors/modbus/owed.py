"""What the units of a serial line were asked and have not answered: late replies that must not be taken for others.

RTU replies carry no transaction; of those of one unit only function and size tell one from another. A unit answers in
the order in which it was asked. From that follows, and this module promises: a reply whose shape is not owed belongs
to the request that is on; when it came, whatever was owed before has come or never will. An exception, which has no
size, settles the oldest of what is owed and no more. What was not answered for `FORGET_S` after it was given up never
will be.

Pure: no clock, times are monotonic seconds. May import: the standard library, `collectors.modbus.link`.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from collectors.modbus.link import Request

FORGET_S = 60.0
"""Longer than devices, radio modems and serial servers keep a request. Without an end, a unit that answers nothing but
the very request it owes could never be asked again."""
MOST = 64
"""Of one unit; beyond that the oldest is forgotten."""

Shape: TypeAlias = tuple[int, int]
"""Function and size of a reply: all that tells replies of one unit apart."""


class Owed:
    """Of one line; outlives its connections."""

    def __init__(self) -> None:
        self._units: dict[int, dict[Shape, float]] = {}

    def any(self, now: float) -> bool:
        """Whether anything is owed by anybody."""
        return any(self._of(unit, now) for unit in list(self._units))

    def owes(self, unit: int, request: Request, now: float) -> bool:
        """Whether a reply to this request could not be told from a late one."""
        return (request.function, request.size) in self._of(unit, now)

    def given_up(self, unit: int, request: Request, now: float) -> None:
        """The request was not answered, and may still be."""
        shapes = self._of(unit, now)
        shapes.pop((request.function, request.size), None)
        shapes[request.function, request.size] = now
        if len(shapes) > MOST:
            del shapes[next(iter(shapes))]
        self._units[unit] = shapes

    def answered(self, unit: int) -> None:
        """A reply to a request came whose shape was not owed."""
        self._units.pop(unit, None)

    def refused(self, unit: int, request: Request, now: float) -> None:
        """An exception came while this request was on; it may be the answer to any that is owed."""
        shapes = self._of(unit, now)
        if shapes:
            del shapes[next(iter(shapes))]
            self.given_up(unit, request, now)

    def may_have_sent(self, unit: int, function: int, size: int | None, now: float) -> bool:
        """Whether a reply of this function and size may be a late one; `size` None = an exception."""
        shapes = self._of(unit, now)
        return any(function == one for one, _ in shapes) if size is None else (function, size) in shapes

    def unlike(self, unit: int, request: Request, now: float) -> Request:
        """A read of the same place, as short as can be, whose reply cannot be taken for any that is owed."""
        function, offset, count = struct.unpack(">BHH", request.pdu)
        shapes = self._of(unit, now)
        step, width = (1, 8) if function <= 2 else (2, 1)
        size = next(size for size in range(step, 251, step) if (function, size) not in shapes)
        most = size // step * width
        fewer = most if size > request.size else min(count, most)
        return Request(function, struct.pack(">BHH", function, offset, fewer), size)

    def _of(self, unit: int, now: float) -> dict[Shape, float]:
        """What the unit owes, the oldest first."""
        shapes = self._units.get(unit)
        if shapes is None:
            return {}
        while shapes and now - next(iter(shapes.values())) >= FORGET_S:
            del shapes[next(iter(shapes))]
        if not shapes:
            del self._units[unit]
        return shapes
