"""`shopfloor check`: every mistake of a configuration at once, and what it will cost before anything is connected.

Promises: opens no connection and no device; results on standard output. May import: `agent.config`, `agent.columns`,
`collectors.registry`.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import topics
from agent.buffer.room import default_max_size
from agent.columns import table
from agent.commission.budget import Asked, Budget, budgets
from agent.config import AgentConfig, Loaded, load
from agent.config_wording import shown_number
from collectors.api import CollectorType, Estimate, Explanation
from collectors.fields import DeviceConfig, TagConfig
from collectors.registry import collector_type

_DAY_S = 86_400.0
_HEADERS = 130
"""Bytes around a message on the way: MQTT, TLS, TCP and IP headers of it and of its acknowledgement."""
_ROW = 60
"""Bytes a stored message takes beside its compressed content."""


@dataclass(frozen=True, slots=True)
class DeviceCost:
    """What one device costs, estimated.

    Attributes:
        messages_a_day, bytes_a_day: to the broker, headers included.
        stored_bytes_a_day: in the buffer while the broker is away.
        at_least: only changes are published: what is counted are the heartbeats.
    """

    name: str
    type: str
    tags: int
    groups: Sequence[str]
    estimate: Estimate
    messages_a_day: float
    bytes_a_day: float
    stored_bytes_a_day: float
    at_least: bool


def check(path: Path, *, as_json: bool = False, explain: bool = False) -> int:
    """Check a configuration file and print the result.

    Args:
        path: the file.
        as_json: print one JSON object instead of text.
        explain: print each tag as it was understood and every request too.

    Returns:
        Exit code: 0 fine, 2 the configuration has mistakes.
    """
    loaded = load(path)
    if as_json:
        print(json.dumps(_as_object(path, loaded, explain), ensure_ascii=False, indent=2))
    elif loaded.config is None:
        for mistake in loaded.mistakes:
            print(mistake)
        count = len(loaded.mistakes)
        print(f"{count} mistake{'s' if count != 1 else ''}. Nothing was changed; the running agent keeps what it has.")
    else:
        for line in _text(path, loaded.config, explain):
            print(line)
    return 0 if loaded.config is not None else 2


def costs(config: AgentConfig) -> list[DeviceCost]:
    """Estimate each device."""
    return [_cost(config, device, collector_type(device.type, config.plugins)) for device in config.devices]


def lines(config: AgentConfig, found: Sequence[DeviceCost]) -> list[Budget]:
    """What is asked of each line, whether that fits, and what would."""
    asked = [Asked(cost.name, cost.estimate, cost.groups) for cost in found]
    return budgets(asked, _room(config))


def _room(config: AgentConfig) -> dict[str, float]:
    """Share of a named line's time that may be used, where the configuration limits it."""
    return {name: line.max_load for name, line in getattr(config, "lines", {}).items()}


def _cost(config: AgentConfig, device: DeviceConfig, kind: CollectorType) -> DeviceCost:
    estimate = kind.estimate(device)
    explained = kind.explain(device).tags
    tags = [tag.tag for tag in explained]
    body = _sample(config, device.name, tags, max(1, round(estimate.values_per_message)))
    topic = topics.expand(config.mqtt.topic, site=config.site, gateway=config.gateway, device=device.name, group="1s")
    a_day = estimate.messages_per_s * _DAY_S
    return DeviceCost(
        name=device.name,
        type=device.type,
        tags=len(tags),
        groups=list(dict.fromkeys(tag.group for tag in explained)),
        estimate=estimate,
        messages_a_day=a_day,
        bytes_a_day=a_day * (len(body) + len(topic) + _HEADERS),
        stored_bytes_a_day=a_day * (len(zlib.compress(body, 1)) + _ROW),
        at_least=device.always_reports or device.report is not None,
    )


def _sample(config: AgentConfig, device: str, tags: Sequence[str], count: int) -> bytes:
    """A message as it may look: plausible numbers, so that its compressed size is plausible too."""
    dice = random.Random(device)  # the same at every check
    values = {
        tags[index] if index < len(tags) else f"tag_{index}": round(dice.uniform(0, 10_000), dice.choice((0, 1, 2)))
        for index in range(count)
    }
    message = {
        "v": 1,
        "ts": 1_700_000_000_123,
        "site": config.site,
        "gateway": config.gateway,
        "device": device,
        "group": "1s",
        "run": "9f3c1a7be2d04c55",
        "seq": 1_234_567,
        "rev": "5be1c09a",
        "values": values,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _as_object(path: Path, loaded: Loaded, explain: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "file": str(path),
        "digest": loaded.digest,
        "mistakes": [
            {
                "file": mistake.file,
                "line": mistake.line,
                "column": mistake.column,
                "path": mistake.path,
                "message": mistake.message,
            }
            for mistake in loaded.mistakes
        ],
    }
    config = loaded.config
    if config is None:
        return found
    devices = costs(config)
    found["estimates"] = {
        "devices": [
            {
                "device": cost.name,
                "type": cost.type,
                "tags": cost.tags,
                "requests_per_s": round(cost.estimate.requests_per_s, 3),
                "messages_a_day": round(cost.messages_a_day),
                "bytes_a_day": round(cost.bytes_a_day),
                "at_least": cost.at_least,
            }
            for cost in devices
        ],
        "lines": {
            budget.line: {
                "busy": round(budget.busy, 3),
                "room": round(budget.room, 3),
                "devices": list(budget.devices),
                "fits": [
                    {"device": device, "group": group, "instead": slower}
                    for (device, group), slower in budget.fits.items()
                ],
            }
            for budget in lines(config, devices)
        },
        "messages_a_day": round(sum(cost.messages_a_day for cost in devices)),
        "bytes_a_day": round(sum(cost.bytes_a_day for cost in devices)),
        "buffer": {
            "directory": config.buffer.directory,
            "max_size": _buffer_size(config),
            "lasts_s": round(_lasts_s(config, devices)),
        },
    }
    if explain:
        found["explain"] = {device.name: _explained(device, one) for device, one in _explanations(config)}
    return found


def _lasts_s(config: AgentConfig, devices: Sequence[DeviceCost]) -> float:
    a_day = sum(cost.stored_bytes_a_day for cost in devices)
    return _buffer_size(config) / a_day * _DAY_S if a_day else 0.0


def _explanations(config: AgentConfig) -> list[tuple[DeviceConfig, Explanation]]:
    return [(one, collector_type(one.type, config.plugins).explain(one)) for one in config.devices]


def _tags(device: DeviceConfig) -> dict[str, TagConfig]:
    return {tag.name: tag for tag in getattr(device, "tags", ()) if isinstance(tag, TagConfig)}


def _becomes(tag: TagConfig | None) -> str:
    """What is made of the raw value: `x 0.1 - 10 ℃`."""
    if tag is None:
        return ""
    if tag.map is not None:
        return ", ".join(f"{number}={text}" for number, text in list(tag.map.items())[:2]) + (
            ", ..." if len(tag.map) > 2 else ""
        )
    scale = f"x {tag.scale:.12g}" if tag.scale not in {None, 1.0} else ""
    offset = f"{'-' if tag.offset < 0 else '+'} {abs(tag.offset):.12g}" if tag.offset else ""
    return " ".join(part for part in (scale, offset, tag.unit or "") if part)


def _explained(device: DeviceConfig, explanation: Explanation) -> dict[str, Any]:
    own = _tags(device)
    return {
        "tags": [
            {
                "tag": tag.tag,
                "label": own[tag.tag].label if tag.tag in own else None,
                "source": tag.source,
                "group": tag.group,
                "type": tag.type,
                "value": _becomes(own.get(tag.tag)),
                "area": tag.area,
                "offset": tag.offset,
                "bit": tag.bit,
                "order": tag.order,
                "note": tag.note,
            }
            for tag in explanation.tags
        ],
        "requests": list(explanation.requests),
        "notes": list(explanation.notes),
    }


def _text(path: Path, config: AgentConfig, explain: bool) -> list[str]:
    devices = costs(config)
    out = [f"{path}: no mistakes. Site {config.site}, gateway {config.gateway}.", ""]
    out += table(
        ["device", "type", "tags", "requests/s", "messages/day", "bytes/day"],
        [
            [
                cost.name,
                cost.type,
                str(cost.tags),
                f"{cost.estimate.requests_per_s:.3g}",
                _at_least(cost.at_least) + f"{cost.messages_a_day:,.0f}",
                _at_least(cost.at_least) + _size(cost.bytes_a_day),
            ]
            for cost in devices
        ],
        numbers=frozenset({2, 3, 4, 5}),
    )
    shared = lines(config, devices)
    if shared:
        out.append("")
        out += table(
            ["line", "busy", "devices", ""],
            [
                [one.line, f"{one.busy:.0%}" if one.busy >= 0.01 else "<1%", ", ".join(one.devices), str(one)]
                for one in shared
            ],
            numbers=frozenset({1}),
        )
        out += _assumed(devices)
    out += ["", *_summary(config, devices)]
    if explain:
        alike: dict[tuple[str, ...], list[str]] = {}
        for device, explanation in _explanations(config):
            alike.setdefault(tuple(_explain_text(device, explanation)), []).append(device.name)
        for text, names in alike.items():
            out += ["", f"{', '.join(names)}:", *text]
    return out


def _assumed(devices: Sequence[DeviceCost]) -> list[str]:
    """The answer times that the table of lines was computed with."""
    times = {cost.estimate.answer_s for cost in devices if cost.estimate.line is not None} - {None}
    shown = [f"{1000 * (time or 0):.3g} ms" for time in sorted(time for time in times if time is not None)]
    if not shown:
        return []
    return [
        f"Counted with answers after {' to '.join(dict.fromkeys((shown[0], shown[-1])))}; for slower devices give their"
        " answer_time. How busy a line really is, `shopfloor status` shows."
    ]


def _summary(config: AgentConfig, devices: Sequence[DeviceCost]) -> list[str]:
    some = any(cost.at_least for cost in devices)
    least = _at_least(some)
    out = [
        f"To {config.mqtt.url}: {least}{sum(cost.messages_a_day for cost in devices):,.0f} messages and "
        f"{least}{_size(sum(cost.bytes_a_day for cost in devices))} a day (estimated, headers included).",
        f"Without a broker {config.buffer.directory} ({_size(_buffer_size(config))}) lasts "
        f"{'at most ' if some else ''}about {_span(_lasts_s(config, devices))}, then the oldest go first.",
    ]
    if some:
        out.append(">= : changed values come on top; these devices publish changes, and everything every heartbeat.")
    if config.mqtt.plaintext:
        out.append("Note: allow_plaintext is on: readings and password cross the network unencrypted.")
    return out


def _explain_text(device: DeviceConfig, explanation: Explanation) -> list[str]:
    own = _tags(device)
    columns = ["tag", "label", "source", "every", "type", "value", "area", "offset", "bit", "order", "note"]
    rows = [
        [
            tag.tag,
            (own[tag.tag].label if tag.tag in own else None) or "",
            tag.source,
            tag.group,
            tag.type,
            _becomes(own.get(tag.tag)),
            tag.area or "",
            "" if tag.offset is None else str(tag.offset),
            "" if tag.bit is None else str(tag.bit),
            tag.order or "",
            tag.note,
        ]
        for tag in explanation.tags
    ]
    always = {"tag", "source", "every", "type"}
    used = [index for index, title in enumerate(columns) if title in always or any(row[index] for row in rows)]
    out = table([columns[i] for i in used], [[row[i] for i in used] for row in rows])
    out += [f"  reads {request}" for request in explanation.requests]
    return [*out, *(f"  note: {note}" for note in explanation.notes)]


def _at_least(some: bool) -> str:
    return ">= " if some else ""


def _buffer_size(config: AgentConfig) -> int:
    return config.buffer.max_size or default_max_size(Path(config.buffer.directory))


def _size(count: float) -> str:
    return shown_number(float(f"{count:.3g}"), "size")


def _span(seconds: float) -> str:
    for length, name in ((365 * _DAY_S, "year"), (_DAY_S, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= length:
            count = round(seconds / length)
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "less than a minute"
