"""What a configured device will cost, and what will be read of it; offline.

May import: the standard library, `collectors.api`, the pure modules of this package.
"""

from __future__ import annotations

from collections.abc import Iterator

from collectors.api import Estimate, Explanation, TagExplanation, group_name
from collectors.modbus.brands import BRANDS
from collectors.modbus.config import ModbusConfig, ModbusTag
from collectors.modbus.expect import Expectation, is_polled
from collectors.modbus.layout import answer_time, blocks_of, wire_of


def estimate(config: ModbusConfig) -> Estimate:
    """See `collectors.api.Estimate`. Groups that fall due together share requests: the figures are upper limits."""
    groups = config.groups()
    wire = wire_of(config)
    requests_per_s = wire_s_per_s = 0.0
    for group, interval in groups.items():
        blocks = blocks_of(config, frozenset({group}))
        requests_per_s += len(blocks) / interval
        wire_s_per_s += sum(wire.seconds(block.payload) for block in blocks) / interval
    messages: dict[str, float] = {
        group: 1 / (config.report.heartbeat if config.report is not None else interval)
        for group, interval in groups.items()
    }
    total = sum(messages.values())
    values_per_s = sum(messages[group_name(config.interval_of(tag))] for tag in config.tags)
    return Estimate(
        requests_per_s=requests_per_s,
        wire_s_per_s=wire_s_per_s,
        line=config.line_label,
        messages_per_s=total,
        values_per_message=values_per_s / total,
        answer_s=answer_time(config),
    )


def explain(config: ModbusConfig) -> Explanation:
    """See `collectors.api.Explanation`."""
    requests = [
        f"{block} every {group}" for group in config.groups() for block in blocks_of(config, frozenset({group}))
    ]
    brand = BRANDS[config.brand_name] if config.brand_name is not None else None
    notes = [f"{brand.title}: {brand.note}"] if brand is not None and brand.note else []
    notes += [_guarded(config, expected) for expected in config.expect]
    return Explanation([_tag(config, tag, other) for tag, other in _with_overlaps(config)], requests, notes)


def _guarded(config: ModbusConfig, expected: Expectation) -> str:
    """How soon another program would be noticed."""
    polled = [group for group in config.groups() if is_polled(expected, blocks_of(config, frozenset({group})))]
    if polled:
        return f"{expected.address} must be {expected.value}: compared every {polled[0]}, with what is read anyway"
    return (
        f"{expected.address} must be {expected.value}: read at each connect, every hour and after failed requests;"
        " make it a tag too, and it is compared at every poll"
    )


def _with_overlaps(config: ModbusConfig) -> Iterator[tuple[ModbusTag, ModbusTag | None]]:
    """Each tag, and another that begins elsewhere and takes some of the same registers: most likely a mistake."""
    values = [tag for tag in config.tags if tag.where.is_register and tag.where.bit is None]
    found: dict[str, ModbusTag] = {}
    widest: ModbusTag | None = None
    for tag in sorted(values, key=lambda tag: (tag.where.area, tag.where.offset, -tag.registers)):
        if widest is not None and widest.where.area == tag.where.area:
            end = widest.where.offset + widest.registers
            if widest.where.offset < tag.where.offset < end:
                found.setdefault(tag.name, widest)
                found.setdefault(widest.name, tag)
            if tag.where.offset + tag.registers <= end:
                continue
        widest = tag
    for tag in config.tags:
        yield tag, found.get(tag.name)


def _tag(config: ModbusConfig, tag: ModbusTag, overlapped: ModbusTag | None) -> TagExplanation:
    where = tag.where
    is_bit = where.bit is not None or not where.is_register
    notes = []
    if tag.registers > 1:
        notes.append(f"{tag.registers} registers, to {where.offset + tag.registers - 1}")
    if tag.type == "string":
        notes.append(tag.encoding or "utf-8")
    if overlapped is not None:
        notes.append(f"shares registers with {overlapped.name}")
    if tag.place.source == "check":
        notes.append("map from general knowledge: compare with the machine's display")
    return TagExplanation(
        tag=tag.name,
        source=tag.address,
        group=group_name(config.interval_of(tag)),
        type="bool" if is_bit else str(tag.type),
        area=where.area,
        offset=where.offset,
        bit=where.bit,
        order=config.order_of(tag) if where.is_register else None,
        note=", ".join(notes),
    )
