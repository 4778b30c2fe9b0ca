"""The collector on this machine, and with sources that are missing, hang, come and go."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.api import Batch, Context
from collectors.fields import NAME_PATTERN
from collectors.host import TYPE
from collectors.host.collector import MAX_TAGS, HostCollector
from collectors.host.config import ALL_SETS, HostConfig
from collectors.host.metrics import Machine
from collectors.host.sources import Reading, Source
from collectors.host.thread import CallThread, StuckCalls

DUE = frozenset({"10s"})


def _config(**more: object) -> HostConfig:
    return HostConfig.model_validate({"name": "box", "type": "host", **more})


def _collector(*sources: Source, timeout: float = 0.05) -> HostCollector:
    return HostCollector(_config(timeout=timeout), lambda: sources, CallThread(StuckCalls(), patience_s=0.01))


async def _collect(collector: HostCollector) -> Batch:
    (batch,) = await collector.collect(DUE)
    return batch


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_this_machine() -> None:
    collector = TYPE.create(_config(), Context())
    await collector.open()
    tags = {tag.name: tag for tag in collector.tags()}
    version = collector.tags_version
    started = time.monotonic()
    (batch,) = await collector.collect(DUE)
    assert started <= batch.at <= time.monotonic()
    assert (batch.device, batch.group) == ("box", "10s")
    assert list(batch.values) == list(tags)
    assert collector.tags_version == version
    assert not {name for name, quality in batch.quality.items() if quality == "bad:timeout"}
    for name in ("cpu_percent", "cpu_iowait_percent", "load_1m", "memory_percent", "disk_root_percent", "uptime"):
        value = batch.values[name]
        assert isinstance(value, int | float)
        assert value >= 0
    assert batch.values["memory_available_bytes"] <= 2**50  # type: ignore[operator]  # checked above to be a number
    assert (tags["cpu_percent"].unit, tags["uptime"].unit) == ("%", "s")
    assert tags["disk_root_free_bytes"].unit == "By"
    for name, tag in tags.items():
        value = batch.values[name]
        assert value is None or isinstance(value, bool) == (tag.type == "boolean")
    assert collector.stats().requests > 0
    await collector.close()
    await collector.close()


async def test_the_default_is_about_thirty_tags_at_most_eighty() -> None:
    collector = TYPE.create(_config(), Context())
    await collector.open()
    assert 15 <= len(collector.tags()) <= 80
    await collector.close()


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("cpu", ("cpu_", "load_")),
        ("memory", ("memory_", "swap_")),
        ("disk", ("disk_", "io_")),
        ("network", ("net_",)),
        ("temperature", ("temp_",)),
        ("system", ("uptime", "process_count", "open_files")),
        ("clock", ("clock_synchronised",)),
    ],
)
async def test_each_set_alone(name: str, prefixes: tuple[str, ...]) -> None:
    collector = TYPE.create(_config(sets=[name]), Context())
    await collector.open()
    names = [tag.name for tag in collector.tags()]
    assert all(tag.startswith(prefixes) for tag in names)
    assert not any(tag.startswith("net_lo_") for tag in names)
    await collector.close()


async def test_close_without_open_and_a_group_that_is_not_due() -> None:
    collector = TYPE.create(_config(interval="500 ms"), Context())
    assert collector.groups == {"500ms": 0.5}
    assert not collector.tags()
    assert not await collector.collect(frozenset())
    await collector.close()


async def test_a_hanging_source_is_a_timeout_of_its_own_tags_only(gate: threading.Event) -> None:
    hang = False

    def share() -> list[Reading]:
        if hang:
            gate.wait()
        return [Reading("disk_share_percent", 40.0, "statvfs /share", "%")]

    collector = _collector(
        Source("mount /share", share, may_block=True), Source("cpu", lambda: [Reading("cpu_percent", 1.5, "cpu")])
    )
    await collector.open()
    assert (await _collect(collector)).quality == {}
    hang = True
    for _ in range(2):
        batch = await _collect(collector)
        assert batch.values == {"disk_share_percent": None, "cpu_percent": 1.5}
        assert batch.quality == {"disk_share_percent": "bad:timeout"}
    hang = False
    gate.set()
    deadline = time.monotonic() + 2
    while (await _collect(collector)).quality:
        assert time.monotonic() < deadline
    await collector.close()


async def test_a_source_that_hangs_from_the_start_has_the_tags_it_declares(gate: threading.Event) -> None:
    def hang() -> list[Reading]:
        gate.wait()
        return []

    declared = (Reading("disk_nas_percent", None, "statvfs /nas", "%"),)
    collector = _collector(Source("mount /nas", hang, True, declared))
    await collector.open()
    assert [tag.name for tag in collector.tags()] == ["disk_nas_percent"]
    assert (await _collect(collector)).quality == {"disk_nas_percent": "bad:timeout"}
    await collector.close()


async def test_a_missing_source_has_no_tags(tmp_path: Path) -> None:
    collector = _collector(
        Source("swap", list),
        Source("files", lambda: [Reading("x", int((tmp_path / "file-nr").read_text()), "file-nr")]),
        Source("uptime", lambda: [Reading("uptime", 5, "clock")]),
    )
    await collector.open()
    assert [tag.name for tag in collector.tags()] == ["uptime"]
    await collector.close()


async def test_parts_that_come_and_go() -> None:
    parts = {"eth0": 1}
    collector = _collector(Source("net", lambda: [Reading(f"net_{nic}", n, nic) for nic, n in parts.items()]))
    await collector.open()
    version = collector.tags_version
    parts["wwan0"] = 2
    assert (await _collect(collector)).values == {"net_eth0": 1, "net_wwan0": 2}
    assert collector.tags_version == version + 1
    assert [tag.name for tag in collector.tags()] == ["net_eth0", "net_wwan0"]
    del parts["eth0"]
    batch = await _collect(collector)
    assert batch.values == {"net_eth0": None, "net_wwan0": 2}
    assert batch.quality == {"net_eth0": "bad:not-connected"}
    assert collector.tags_version == version + 1
    await collector.close()


async def test_tags_are_capped() -> None:
    numbers = iter(range(100_000))
    collector = _collector(Source("churn", lambda: [Reading(f"usb{next(numbers)}", 1, "usb") for _ in range(90)]))
    await collector.open()
    for _ in range(4):
        await _collect(collector)
    assert len(collector.tags()) == MAX_TAGS
    await collector.close()


async def test_names_are_names_and_do_not_depend_on_the_moment() -> None:
    seen = []
    for _ in range(2):
        collector = HostCollector(_config(), Machine(ALL_SETS).sources)
        await collector.open()
        seen.append([tag.name for tag in collector.tags()])
        await collector.close()
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == len(seen[0])
    assert all(re.fullmatch(NAME_PATTERN, name) for name in seen[0])
