"""From the configuration to the requests that read it.

Pure. May import: `collectors.api`, the pure modules of this package.
"""

from __future__ import annotations

from collections.abc import Sequence

from collectors.api import group_name
from collectors.modbus.config import ModbusConfig, ModbusTag
from collectors.modbus.plan import ANYTHING, Block, Limits, Rules, Span, plan
from collectors.modbus.wire import ANSWER_S, TCP, Wire, serial_wire


def spans_of(
    config: ModbusConfig, due: frozenset[str], region: int | None = None, *, tags: Sequence[ModbusTag] | None = None
) -> list[Span]:
    """What the tags of the due groups (and of one region) take, with their index in the configuration.

    Args:
        tags: the configuration's, where they are at hand: to unpack them takes time.
    """
    return [
        Span(tag.where.area, tag.where.offset, tag.registers, index)
        for index, tag in enumerate(config.tags if tags is None else tags)
        if group_name(config.interval_of(tag)) in due and (region is None or tag.place.region == region)
    ]


def limits_of(config: ModbusConfig) -> Limits:
    """What the configuration allows one request to read."""
    return Limits(config.max_registers, config.max_coils, config.max_gap, wire_of(config))


def wire_of(config: ModbusConfig) -> Wire:
    """What requests cost on the device's line, at the answer time given or usual there."""
    line, answer_s = config.settings, answer_time(config)
    if line.is_rtu:
        bits = round(line.character_s * line.baudrate)
        return serial_wire(line.baudrate, bits=bits, pause=line.pause, answer_s=answer_s)
    return Wire(answer_s + line.pause, TCP.byte_s)


def answer_time(config: ModbusConfig) -> float:
    """Seconds from the end of a request to the first byte of the answer."""
    return config.answer_time if config.answer_time is not None else ANSWER_S[config.endpoint.kind]


def blocks_of(
    config: ModbusConfig, due: frozenset[str], rules: Rules = ANYTHING, *, tags: Sequence[ModbusTag] | None = None
) -> list[Block]:
    """The requests that read the due groups together, as far as the device takes them.

    Regions are planned apart: between two stretches of a maker's map lies nothing that could be read along.
    """
    limits = limits_of(config)
    tags = config.tags if tags is None else tags
    return [
        block
        for region in sorted({tag.place.region for tag in tags})
        for block in plan(spans_of(config, due, region, tags=tags), limits, rules)
    ]
