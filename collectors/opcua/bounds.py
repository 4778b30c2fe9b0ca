"""What asyncua's decoder makes of a message is bounded by the message.

Two things in a variant are not: an array of nulls, whose elements take no bytes, and dimensions: they may promise more
elements than there are, which the library fills up, or be thousands, for each of which it takes all others in hand.
Thirty bytes could keep the whole agent busy for minutes, and fill its memory. None of it is OPC UA, nor are dimensions
that are negative or none, and all is read as no value: one odd node must not cost the others their connection.

And a length below -1 moves the library's buffer back: what was read is read again, in an array of texts two thousand
million times. Such a message ends the connection, as all does that is no message.

May import: the standard library. Source: OPC UA Part 6, 5.2.2.16 (dimensions must fit the elements).
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

_MOST_DIMENSIONS = 32


@cache
def bind(binary: Any) -> Any:
    """Put the bounds into `asyncua.ua.ua_binary`, whose functions find each other by name; return its decoder."""
    unpack, reshape = binary.unpack_uatype_array, binary._reshape  # noqa: SLF001  # it has no public bound
    null = binary.ua.VariantType.Null

    def bounded_unpack(kind: Any, data: Any) -> Any:
        if kind is not null:
            return unpack(kind, data)
        binary.Primitives.Int32.unpack(data)  # its length is all there is of it
        return None

    def bounded_reshape(flat: list[Any], dimensions: list[int] | None) -> Any:
        if not dimensions or len(dimensions) > _MOST_DIMENSIONS or min(dimensions) < 0:
            return None
        declared = dimensions[0] * prod(size or 1 for size in dimensions[1:])
        return reshape(flat, dimensions) if declared <= len(flat) else None

    read = binary.Buffer.read

    def bounded_read(self: Any, size: int) -> Any:
        if size < 0:
            raise ValueError(f"a length of {size}")
        return read(self, size)

    binary.Buffer.read = bounded_read
    binary.unpack_uatype_array, binary._reshape = bounded_unpack, bounded_reshape  # noqa: SLF001  # as above
    return binary.struct_from_binary
