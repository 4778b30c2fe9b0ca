"""The retained documents of CONTRACT 4: `meta` of each device, `status` of the gateway. Pure.

May import: `agent.units`, `collectors.api`, orjson.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from agent.units import ucum
from collectors.api import TagInfo


def meta(
    *,
    site: str,
    gateway: str,
    device: str,
    label: str | None,
    description: str | None,
    groups: Mapping[str, float],
    tags: Sequence[TagInfo],
) -> tuple[str, bytes]:
    """Return the revision and the document that explains a device's messages; equal tags give an equal revision."""
    described = {tag.name: _tag(tag, groups.get(tag.group)) for tag in tags}
    body: dict[str, Any] = {"label": label, "description": description, "tags": described}
    rev = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]
    head = {"v": 1, "site": site, "gateway": gateway, "device": device, "rev": rev}
    return rev, orjson.dumps(head | {key: value for key, value in body.items() if value is not None})


def _tag(tag: TagInfo, interval_s: float | None) -> dict[str, Any]:
    entry = {
        "label": tag.label,
        "description": tag.description,
        "unit": ucum(tag.unit) if tag.unit is not None else None,
        "type": tag.type,
        "source": tag.source,
        "group": tag.group,
        "interval": interval_s,
    }
    return {key: value for key, value in entry.items() if value is not None}


def status(
    state: str,
    *,
    ts: int,
    run: str,
    version: str,
    config: str,
    since: int,
    store: str,
    plaintext: bool,
    previous: Mapping[str, Any] | None,
    devices: Mapping[str, str] | None = None,
) -> bytes:
    """Return the gateway's status document.

    Args:
        state: online, stopped or lost (the last will, which tells no devices).
        ts: ms UTC; of the last will: when its MQTT session began.
        since: ms UTC, start of the run.
        store: ok, degraded or full.
    """
    document: dict[str, Any] = {
        "v": 1,
        "state": state,
        "ts": ts,
        "run": run,
        "version": version,
        "config": config,
        "since": since,
        "store": store,
        "plaintext": plaintext,
    }
    if devices is not None:
        document["devices"] = dict(devices)
    if previous is not None:
        document["previous"] = dict(previous)
    return orjson.dumps(document)
