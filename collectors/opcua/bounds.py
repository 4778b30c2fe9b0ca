"""What asyncua's decoder makes of a message is bounded by the message.

Two things in a variant are not: an array of nulls, whose elements take no bytes, and dimensions that promise more
elements than there are, which the library fills up. Thirty bytes could keep the whole agent busy for minutes, and fill
its memory. Neither is OPC UA, and both are refused like other bytes that are none.

May import: the standard library. Source: OPC UA Part 6, 5.2.2.16 (a decoder stops at dimensions that do not fit).
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any


@cache
def bind(binary: Any) -> None:
    """Put the bounds into `asyncua.ua.ua_binary`, whose functions find each other by name. Once is enough."""
    unpack, reshape = binary.unpack_uatype_array, binary._reshape  # noqa: SLF001  # it has no public bound
    null = binary.ua.VariantType.Null

    def bounded_unpack(kind: Any, data: Any) -> Any:
        if kind is not null:
            return unpack(kind, data)
        length = binary.Primitives.Int32.unpack(data)
        if length > 0:
            raise ValueError(f"an array of {length} nulls")
        return None if length < 0 else []

    def bounded_reshape(flat: list[Any], dimensions: list[int]) -> Any:
        declared = dimensions[0] * prod(size or 1 for size in dimensions[1:])
        if declared > len(flat):
            raise ValueError(f"{len(flat)} elements, and dimensions for {declared}")
        return reshape(flat, dimensions)

    binary.unpack_uatype_array, binary._reshape = bounded_unpack, bounded_reshape  # noqa: SLF001  # as above
