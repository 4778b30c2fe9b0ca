"""`shopfloor read`: one real read of each device, shown as a table; publishes nothing, needs no running agent.

May import: `agent.config`, `agent.last_values`, `agent.logs`, `agent.normaliser`, `agent.sentences`, `agent.status`,
`agent.status_text`, `collectors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent import logs
from agent.config import load
from agent.last_values import last_values
from agent.normaliser import Normaliser
from agent.sentences import why
from agent.status import find_run_dir, is_running, read_status
from agent.status_text import render_values
from collectors.api import ALL_TAGS, Batch, Collector, CollectorError, Context
from collectors.fields import DeviceConfig
from collectors.line_lock import LineLocks
from collectors.registry import collector_type

WAIT_S = 10.0
"""How long a device that reports by itself has time to send every tag once."""

CLOSE_S = 2.0
"""How long a device may take to be let go."""


def read(path: Path, devices: Sequence[str], *, as_json: bool = False) -> int:
    """Read devices once and print their values.

    Args:
        path: the configuration.
        devices: names of devices; none = all.
        as_json: print one JSON object instead of tables.

    Returns:
        0 every tag is good, 1 some are not, 2 usage or configuration.
    """
    loaded = load(path)
    config = loaded.config
    if config is None:
        for mistake in loaded.mistakes:
            sys.stderr.write(f"{mistake}\n")
        return 2
    known = {device.name: device for device in config.devices}
    unknown = [name for name in devices if name not in known]
    if unknown:
        sys.stderr.write(f"no device is named {', '.join(unknown)}; there are: {', '.join(known)}\n")
        return 2
    logs.configure(logs.Settings(level="error"), config.language, config.timezone)
    chosen = [known[name] for name in devices] if devices else list(config.devices)
    _warn_if_running(Path(config.buffer.directory))
    state_dir = Path(config.buffer.directory)
    locks = LineLocks(find_run_dir(state_dir))
    reports = asyncio.run(_read_all(chosen, config.plugins, config.language, state_dir, locks))
    if as_json:
        print(json.dumps({"devices": reports}, ensure_ascii=False))
    else:
        _show(reports, config.language)
    fine = all(report["state"] == "ok" for report in reports.values())
    return 0 if fine else 1


def _warn_if_running(data_dir: Path) -> None:
    run_dir = find_run_dir(data_dir)
    status = read_status(run_dir) if run_dir is not None else None
    if status is not None and run_dir is not None and is_running(status, run_dir):
        sys.stderr.write(
            "the agent is running and holds its connections: many PLCs take only one. If this fails, use"
            " `shopfloor status --values`, or `shopfloor pause DEVICE --for 5m` first\n"
        )


async def _read_all(
    devices: Sequence[DeviceConfig],
    plugins: Sequence[str],
    language: str,
    state_dir: Path | None = None,
    locks: LineLocks | None = None,
) -> dict[str, Any]:
    context = Context(state_dir, locks)
    found = await asyncio.gather(
        *(_read_one(device, plugins, context, language) for device in devices), return_exceptions=True
    )
    await context.unpark(device.name for device in devices)
    reports: dict[str, Any] = {}
    for device, result in zip(devices, found, strict=True):
        if isinstance(result, Exception):
            reports[device.name] = _failed(device, result, language)
        elif isinstance(result, BaseException):
            raise result
        else:
            reports[device.name] = result
    return reports


def _failed(device: DeviceConfig, error: Exception, language: str) -> dict[str, Any]:
    """The report of a device whose collector has a bug: the others are read all the same."""
    detail = f"{type(error).__name__}: {error}"
    text = f"the agent itself failed on this device: {detail}"
    facts = {"detail": detail, "device": device.name}
    return {
        "label": device.label,
        "state": "bad",
        "seconds": 0.0,
        "tags": [],
        "cause": "bug",
        "text": why("bug", text, facts, language),
    }


async def _read_one(device: DeviceConfig, plugins: Sequence[str], context: Context, language: str) -> dict[str, Any]:
    collector = collector_type(device.type, plugins).create(device, context)
    normaliser = Normaliser(device.name, collector.groups, heartbeat=None, pushes=collector.pushes)
    began = time.monotonic()
    trouble: CollectorError | None = None
    try:
        await collector.open()
        normaliser.learn(collector.tags())
        await _collect(collector, normaliser)
    except CollectorError as error:
        trouble = error
        normaliser.lost(getattr(error, "reason", "config"), time.monotonic())
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await collector.close()
    tags = last_values(collector.tags(), normaliser, time.monotonic())
    good = [tag for tag in tags if tag["quality"] is None and tag["age_s"] is not None]
    report: dict[str, Any] = {
        "label": device.label,
        "state": "bad" if trouble is not None or not good else "ok" if len(good) == len(tags) else "degraded",
        "seconds": round(time.monotonic() - began, 3),
        "tags": tags,
    }
    if trouble is not None:
        report |= {
            "cause": trouble.cause,
            "text": why(trouble.cause, trouble.text, {**trouble.facts, "device": device.name}, language),
        }
    return report


async def _collect(collector: Collector, normaliser: Normaliser) -> None:
    if not collector.pushes:
        _take(normaliser, await collector.collect(frozenset(collector.groups)))
        return
    wanted = {tag.name for tag in collector.tags()}
    loop = asyncio.get_running_loop()
    until = loop.time() + WAIT_S
    while wanted and loop.time() < until:
        scope = asyncio.timeout_at(until)
        try:
            async with scope:
                batches = await collector.collect(frozenset())
        except TimeoutError:
            if not scope.expired():
                raise
            return
        for batch in batches:
            wanted.difference_update(batch.values)
            if ALL_TAGS in batch.quality:
                wanted.clear()
        _take(normaliser, batches)
        normaliser.learn(collector.tags())


def _take(normaliser: Normaliser, batches: Sequence[Batch]) -> None:
    for batch in batches:
        normaliser.take(batch)


def _show(reports: dict[str, Any], language: str) -> None:
    for name, report in reports.items():
        print("\n".join(render_values({name: report}, language)))
        if "text" in report:
            print(f"  {report['text']}")
        print(f"  {report['seconds']} s\n")
