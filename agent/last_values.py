"""The last values of a device, tag by tag, for people. Pure.

May import: `agent.control` (the shape of the reply), `agent.normaliser`, `agent.units`, `collectors.api`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.control import TagValue
from agent.normaliser import Normaliser
from agent.units import ucum
from collectors.api import ALL_TAGS, TagInfo, Value


def last_values(tags: Sequence[TagInfo], normaliser: Normaliser, now: float) -> list[TagValue]:
    """Return what each tag was last seen to be, published or not; ages against the monotonic time `now`."""
    latest = normaliser.latest()
    rows: list[TagValue] = []
    for tag in tags:
        at, values, quality = latest.get(tag.group, (None, {}, {}))
        rows.append(
            {
                "name": tag.name,
                "label": tag.label,
                "value": values.get(tag.name),
                "unit": ucum(tag.unit) if tag.unit is not None else None,
                "quality": _quality(tag.name, values, quality),
                "age_s": round(now - at, 1) if at is not None else None,
            }
        )
    return rows


def _quality(tag: str, values: Mapping[str, Value], quality: Mapping[str, str]) -> str | None:
    if tag in quality:
        return quality[tag]
    return quality.get(ALL_TAGS) if tag not in values else None
