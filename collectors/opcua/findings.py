"""What people should know of a device beside its values: each finding is told once a process.

May import: `collectors.opcua.{config,news,roster,state}`, structlog.
"""

from __future__ import annotations

from typing import Any

import structlog

from collectors.opcua.config import OpcuaConfig
from collectors.opcua.news import News
from collectors.opcua.roster import Roster
from collectors.opcua.state import Kept

log = structlog.get_logger("shopfloor.device")


def tell(config: OpcuaConfig, kept: Kept, news: News, roster: Roster) -> None:
    """Log what was found since the last call and was not told before."""
    if news.skew_s is not None and not kept.skew_reported:
        kept.skew_reported = True
        log.warning("device_clock_skew", device=config.name, label=config.label, offset_s=round(news.skew_s, 1))
    while news.undecodable:
        tag, what = news.undecodable.pop(0)
        log.warning("tag_unreadable", device=config.name, label=config.label, tag=tag, what=what)
    while news.silent:
        _once(config, kept, "tag_silent", news.silent.pop(0), {})
    while roster.findings:
        event, tag, fields = roster.findings.pop(0)
        _once(config, kept, event, tag, fields)
    if not kept.ranges_checked:
        kept.ranges_checked = True
        for one in roster:
            # The first that shows what is wrong is enough.
            if one.percent is not None and one.info.rules.deadband is None and one.node is not None:
                _once(config, kept, "deadband_without_range", one.info.name, {})
                break


def _once(config: OpcuaConfig, kept: Kept, event: str, tag: str, fields: dict[str, Any]) -> None:
    if (event, tag) not in kept.told:
        kept.told.add((event, tag))
        log.warning(event, device=config.name, label=config.label, tag=tag, **fields)
