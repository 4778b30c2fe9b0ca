"""A planned request with all that belongs to it: what is sent, how each group's tags are decoded, what came last.

May import: the standard library, the other modules of this package but `collector`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from collectors.api import group_name
from collectors.modbus.config import ModbusConfig, ModbusTag, parse_invalid
from collectors.modbus.decode import BitDecoder, Decoder, Field, RegisterDecoder
from collectors.modbus.link import Request, read_request
from collectors.modbus.plan import Block


class Reading:
    """One request and its outcome.

    Attributes:
        block: what is read.
        request: what is sent.
        decoders: for each group with tags in the block.
        data: of the last reply; None if the last request failed.
        quality: why it failed.
        code: of the exception that the device answered instead, or 0.
        at: monotonic time of the last outcome.
        failures: requests without an answer since the last reply.
    """

    __slots__ = ("at", "block", "code", "data", "decoders", "failures", "quality", "request")

    def __init__(self, block: Block, request: Request, decoders: Mapping[str, Decoder]) -> None:
        self.block = block
        self.request = request
        self.decoders = decoders
        self.data: bytes | None = None
        self.quality = ""
        self.code = 0
        self.at = 0.0
        self.failures = 0

    def came(self, data: bytes, at: float) -> None:
        """Note the reply."""
        self.data, self.at, self.failures = data, at, 0

    def failed(self, quality: str, at: float, *, asked: bool = True, code: int = 0) -> None:
        """Note that there is none; `asked` False when the request was not even sent."""
        self.data, self.quality, self.at, self.code = None, quality, at, code
        if asked:
            self.failures = 0 if code else self.failures + 1  # an exception is an answer


def reading_of(config: ModbusConfig, block: Block, tags: Sequence[ModbusTag] = ()) -> Reading:
    """The request that reads a block, and its tags, compiled.

    Args:
        tags: the configuration's, to which the block's spans point.
    """
    return Reading(block, read_request(block), _decoders(config, block, tags) if block.spans else {})


def _decoders(config: ModbusConfig, block: Block, tags: Sequence[ModbusTag]) -> dict[str, Decoder]:
    members: dict[str, list[tuple[ModbusTag, int]]] = {}
    for span in block.spans:
        tag = tags[span.index]
        members.setdefault(group_name(config.interval_of(tag)), []).append((tag, span.offset - block.offset))
    return {group: decoder_of(config, block, found) for group, found in members.items()}


def decoder_of(config: ModbusConfig, block: Block, tags: Sequence[tuple[ModbusTag, int]]) -> Decoder:
    """Decodes tags, each at so many registers or bits behind the first of the block."""
    if block.is_bits:
        return BitDecoder([(tag.name, at) for tag, at in tags])
    return RegisterDecoder([_field(config, tag, at) for tag, at in tags])


def _field(config: ModbusConfig, tag: ModbusTag, at: int) -> Field:
    invalid = [parse_invalid(item) for item in tag.invalid or ()]
    return Field(
        name=sys.intern(tag.name),  # the same object as in the list of tags
        at=at,
        type=None if tag.where.bit is not None else tag.type,
        order=config.order_of(tag),
        bit=tag.where.bit,
        length=tag.length,
        encoding=tag.encoding or "utf-8",
        patterns=frozenset(item.pattern for item in invalid if item.pattern is not None),
        numbers=frozenset(item.number for item in invalid if item.number is not None),
        shortest=tag.type == "float32" and tag.scale is None and tag.offset is None,
    )
