"""Configuration of a `type: host` device, and what can be said of it without looking at a machine.

May import: pydantic, `collectors.api`, `collectors.fields`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from collectors.api import Estimate, Explanation, TagExplanation, group_name
from collectors.fields import DeviceConfig, Duration

SetName: TypeAlias = Literal["cpu", "memory", "disk", "network", "temperature", "system", "clock"]
ALL_SETS: tuple[SetName, ...] = get_args(SetName)

MAX_CORES = 4
"""Up to so many cores each has a tag of its own; a machine with more tells its busiest core instead."""
MAX_MOUNTS = 3
MAX_DISKS = 2
MAX_INTERFACES = 3
MAX_TEMPERATURES = 4

# Per set: name, type, unit, what it is. `<...>` stands for what the machine has; the note says how many at most.
_TAGS: dict[SetName, tuple[tuple[str, str, str], ...]] = {
    "cpu": (
        ("cpu_percent", "number", "busy share of all cores over the interval, %"),
        ("cpu_iowait_percent", "number", "share of time in which cores waited for storage, %"),
        ("cpu_core<N>_percent", "number", f"per core on machines of up to {MAX_CORES} cores, %"),
        ("cpu_busiest_core_percent", "number", f"instead of them on machines of more than {MAX_CORES} cores, %"),
        ("load_1m", "number", "load average"),
        ("load_5m", "number", "load average"),
        ("load_15m", "number", "load average"),
    ),
    "memory": (
        ("memory_percent", "number", "memory that is not available, %"),
        ("memory_used_bytes", "number", "By"),
        ("memory_available_bytes", "number", "By"),
        ("swap_percent", "number", "only when there is swap, %"),
        ("swap_used_bytes", "number", "only when there is swap, By"),
    ),
    "disk": (
        ("disk_<mount>_percent", "number", f"used space of up to {MAX_MOUNTS} local file systems, `/` is root, %"),
        ("disk_<mount>_free_bytes", "number", "what a program without privileges can still write, By"),
        ("disk_<mount>_inodes_percent", "number", "used inodes, where the file system counts them, %"),
        ("io_<disk>_read_bytes", "number", f"total since boot, of up to {MAX_DISKS} disks, By"),
        ("io_<disk>_write_bytes", "number", "total since boot, By"),
        ("io_<disk>_busy_percent", "number", "share of the interval with requests in work, %"),
    ),
    "network": (
        (
            "net_<interface>_up",
            "boolean",
            f"link up, of up to {MAX_INTERFACES} interfaces; the rest once it carried data",
        ),
        ("net_<interface>_rx_bytes", "number", "total since boot, By"),
        ("net_<interface>_tx_bytes", "number", "total since boot, By"),
        ("net_<interface>_rx_packets", "number", "total since boot"),
        ("net_<interface>_tx_packets", "number", "total since boot"),
        ("net_<interface>_errors", "number", "received and sent, total since boot"),
        ("net_<interface>_drops", "number", "received and sent, total since boot"),
        ("net_<interface>_speed", "number", "where the driver tells it, Mbit/s"),
    ),
    "temperature": (("temp_<sensor>", "number", f"one sensor of up to {MAX_TEMPERATURES} chips, Cel"),),
    "system": (
        ("uptime", "number", "since boot, s"),
        ("process_count", "number", "processes and threads the kernel schedules"),
        ("open_files", "number", "open file handles of the whole system"),
    ),
    "clock": (("clock_synchronised", "boolean", "whether the system clock follows a time server; absent if unknown"),),
}
# How many values a set has on a small gateway: four cores, one disk, one interface in use, one sensor.
_TYPICAL: dict[SetName, int] = {
    "cpu": 9,
    "memory": 3,
    "disk": 6,
    "network": 8,
    "temperature": 1,
    "system": 3,
    "clock": 1,
}


def _each_once(names: list[SetName]) -> list[SetName]:
    if len(set(names)) != len(names):
        raise PydanticCustomError("sets", "a set is named twice")
    return names


class HostConfig(DeviceConfig):
    """This machine. Counters are published as totals since boot, percentages as the mean over the interval."""

    type: Literal["host"]
    interval: Duration = Field(10.0, description="how often the machine is read")
    sets: Annotated[list[SetName], AfterValidator(_each_once), Field(min_length=1)] = Field(
        list(ALL_SETS), description="groups of tags to read"
    )


def estimate(config: HostConfig) -> Estimate:
    """Cost on a small gateway; with `report` only the heartbeats are counted."""
    every = config.report.heartbeat if config.report is not None else config.interval
    return Estimate(
        requests_per_s=1 / config.interval,
        wire_s_per_s=0.0,
        line=None,
        messages_per_s=1 / every,
        values_per_message=float(sum(_TYPICAL[name] for name in config.sets)),
    )


def explain(config: HostConfig) -> Explanation:
    """The tags a machine may have; which of them depends on its disks, interfaces and sensors."""
    group = group_name(config.interval)
    return Explanation(
        tags=[
            TagExplanation(tag=tag, source=name, group=group, type=type_, note=note)
            for name in ALL_SETS
            if name in config.sets
            for tag, type_, note in _TAGS[name]
        ],
        requests=[f"{name} of this machine every {group}" for name in ALL_SETS if name in config.sets],
    )
