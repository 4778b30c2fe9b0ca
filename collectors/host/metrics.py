"""What is read of a Linux machine: a table of plain calls, each bringing the readings of one source.

Promises: nothing is written, no program is started; names depend on the machine's parts, not on the order in which
they were found; a part that is not there brings no reading. Psutil is imported by the calls, so that they decide the
thread. May import: the standard library, psutil inside functions, this package.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from collectors.host import config
from collectors.host.clock import clock_synchronised
from collectors.host.sensors import Temperatures
from collectors.host.sources import Names, Reading, Source, natural

if TYPE_CHECKING:
    from psutil._pslinux import scputimes

    from collectors.host.config import SetName

_DEVICELESS_TYPES = frozenset({"zfs", "ubifs", "jffs2"})
"""Local file systems whose device is no path under /dev."""
_IMAGE_TYPES = frozenset({"squashfs", "erofs", "iso9660", "udf", "cramfs", "romfs"})
_PSEUDO_DISKS = re.compile(r"^(loop|ram|zram|dm-|md|sr|fd|nbd|mtdblock|drbd|mmcblk\d+(boot|rpmb))")
_PSEUDO_INTERFACES = re.compile(
    r"^(lo$|veth|docker|br-[0-9a-f]{12}$|virbr|vnet|tap|ifb|dummy|cni|flannel|cali|cilium|sit\d|ip6tnl|tunl\d|gre|erspan|teql)"
)


class Cpu:
    """Shares of time between two calls."""

    def __init__(self) -> None:
        self._before: list[scputimes] = []

    def __call__(self) -> list[Reading]:
        """Read; at the first call the shares are not known yet."""
        import psutil

        now = psutil.cpu_times(percpu=True)
        before, self._before = self._before, now
        if len(before) != len(now):  # the first call, or a core was switched on or off
            before = now
        pairs = list(zip(before, now, strict=True))
        spans = [_cpu_total(new) - _cpu_total(old) for old, new in pairs]
        waits = [max(0.0, new.iowait - old.iowait) for old, new in pairs]
        idles = [max(0.0, new.idle - old.idle) + wait for (old, new), wait in zip(pairs, waits, strict=True)]
        cores = [_percent(span - idle, span) for span, idle in zip(spans, idles, strict=True)]
        readings = [
            Reading("cpu_percent", _percent(sum(spans) - sum(idles), sum(spans)), "cpu.busy", "%", "busy, all cores"),
            Reading("cpu_iowait_percent", _percent(sum(waits), sum(spans)), "cpu.iowait", "%", "waiting for storage"),
        ]
        if len(cores) > config.MAX_CORES:
            busiest = max((core for core in cores if core is not None), default=None)
            readings.append(Reading("cpu_busiest_core_percent", busiest, "cpu.max", "%", "busy, the busiest core"))
        else:
            readings += [
                Reading(f"cpu_core{number}_percent", core, f"cpu{number}.busy", "%", f"busy, core {number}")
                for number, core in enumerate(cores)
            ]
        return readings


def load() -> list[Reading]:
    """Load averages."""
    return [
        Reading(f"load_{span}", round(value, 2), "loadavg", None, f"load average over {span}")
        for span, value in zip(("1m", "5m", "15m"), os.getloadavg(), strict=True)
    ]


def _cpu_total(times: scputimes) -> float:
    # guest time is counted in user time too; which fields there are depends on the kernel
    return sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)


def _percent(part: float, whole: float) -> float | None:
    return round(min(max(part / whole, 0.0), 1.0) * 100, 1) if whole > 0 else None


def memory() -> list[Reading]:
    """Memory and, where there is any, swap."""
    import psutil

    now = psutil.virtual_memory()
    return [
        Reading("memory_percent", now.percent, "meminfo", "%", "memory that is not available"),
        Reading("memory_used_bytes", now.used, "meminfo", "By", "memory in use"),
        Reading("memory_available_bytes", now.available, "meminfo", "By", "memory that programs can still get"),
    ]


def swap() -> list[Reading]:
    """Swap space, where there is any."""
    import psutil

    now = psutil.swap_memory()
    if not now.total:
        return []
    return [
        Reading("swap_percent", now.percent, "meminfo.swap", "%", "swap space in use"),
        Reading("swap_used_bytes", now.used, "meminfo.swap", "By", "swap space in use"),
    ]


class Mounts:
    """The local file systems; each is a source of its own, because asking one can hang."""

    def __init__(self, proc: Path) -> None:
        self._file = proc / "self" / "mounts"
        self._names = Names(config.MAX_MOUNTS)
        self._chosen: dict[str, str] = {}

    def read_list(self) -> list[Reading]:
        """Read which there are; brings no readings."""
        self._chosen = self._names.choose(local_mounts(self._file.read_text(errors="surrogateescape")))
        return []

    def sources(self) -> list[Source]:
        """One for each file system found by the last `read_list`."""
        return [
            Source(f"mount {path}", partial(_file_system, path, name), True, _mount_tags(path, name))
            for path, name in self._chosen.items()
        ]


def local_mounts(table: str) -> list[str]:
    """Mount points worth watching, of the text of /proc/self/mounts: `/` first, those of /boot last.

    One for each device (a hardened unit sees many bind mounts of one); no images, memory or network file systems.
    """
    uppermost: dict[str, tuple[str, str]] = {}
    for line in table.splitlines():
        device, point, kind = line.split(" ")[:3]
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        uppermost[point] = device, kind  # a later mount hides an earlier one at the same place
    best: dict[str, str] = {}
    for point, (device, kind) in uppermost.items():
        on_disk = (device.startswith("/dev/") and not device.startswith(("/dev/loop", "/dev/fuse"))) or (
            kind in _DEVICELESS_TYPES
        )
        if point != "/" and (not on_disk or kind in _IMAGE_TYPES):
            continue
        if device not in best or (len(point), point) < (len(best[device]), best[device]):
            best[device] = point
    return sorted(best.values(), key=lambda point: (point != "/", point.startswith("/boot"), natural(point)))


def _mount_tags(path: str, name: str) -> tuple[Reading, ...]:
    where = f"statvfs {path}"
    return (
        Reading(f"disk_{name}_percent", None, where, "%", f"used space of {path}"),
        Reading(f"disk_{name}_free_bytes", None, where, "By", f"free space of {path} for ordinary users"),
        Reading(f"disk_{name}_inodes_percent", None, where, "%", f"used inodes of {path}"),
    )


def _file_system(path: str, name: str) -> list[Reading]:
    now = os.statvfs(path)
    used = now.f_blocks - now.f_bfree
    values = {
        f"disk_{name}_percent": _percent(used, used + now.f_bavail),
        f"disk_{name}_free_bytes": now.f_bavail * now.f_frsize,
    }
    if now.f_files:  # vfat and btrfs do not count them
        values[f"disk_{name}_inodes_percent"] = _percent(now.f_files - now.f_ffree, now.f_files)
    return [
        Reading(tag.name, values[tag.name], tag.source, tag.unit, tag.description)
        for tag in _mount_tags(path, name)
        if tag.name in values
    ]


class Disks:
    """Traffic of whole disks."""

    def __init__(self, sys: Path) -> None:
        self._block = sys / "block"
        self._names = Names(config.MAX_DISKS)
        self._before: dict[str, int] = {}
        self._at = 0.0

    def __call__(self) -> list[Reading]:
        """Read; at the first call the busy share is not known yet."""
        import psutil

        found = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
        whole = {
            name: counts
            for name, counts in found.items()
            if not _PSEUDO_DISKS.match(name) and counts.read_count and (self._block / name).exists()
        }
        now = time.monotonic()
        span_ms, self._at = (now - self._at) * 1000, now
        before, self._before = self._before, {name: counts.busy_time for name, counts in whole.items()}
        readings = []
        for disk, name in self._names.choose(sorted(whole, key=natural)).items():
            counts, where = whole[disk], f"diskstats {disk}"
            readings += [
                Reading(f"io_{name}_read_bytes", counts.read_bytes, where, "By", f"read from {disk} since boot", True),
                Reading(
                    f"io_{name}_write_bytes", counts.write_bytes, where, "By", f"written to {disk} since boot", True
                ),
            ]
            share = _percent(counts.busy_time - before[disk], span_ms) if disk in before else None
            readings.append(Reading(f"io_{name}_busy_percent", share, where, "%", f"time {disk} was at work"))
        return readings


class Interfaces:
    """Traffic and links of the network interfaces."""

    def __init__(self, sys: Path) -> None:
        self._net = sys / "class" / "net"
        self._names = Names(config.MAX_INTERFACES)

    def __call__(self) -> list[Reading]:
        """Read; an interface that never carried anything brings only its link."""
        import psutil

        traffic = psutil.net_io_counters(pernic=True, nowrap=False)
        links = psutil.net_if_stats()
        found = [name for name in traffic if name in links and not _PSEUDO_INTERFACES.match(name)]
        found.sort(key=lambda name: (not (self._net / name / "device").exists(), natural(name)))
        readings = []
        for nic, name in self._names.choose(found).items():
            counts, link, where = traffic[nic], links[nic], f"net {nic}"
            readings.append(Reading(f"net_{name}_up", link.isup, where, None, f"{nic} has a link"))
            if not link.isup and not counts.packets_recv and not counts.packets_sent:
                continue
            errors, drops = counts.errin + counts.errout, counts.dropin + counts.dropout
            for what, value, unit, text in (
                ("rx_bytes", counts.bytes_recv, "By", "received since boot"),
                ("tx_bytes", counts.bytes_sent, "By", "sent since boot"),
                ("rx_packets", counts.packets_recv, None, "packets received since boot"),
                ("tx_packets", counts.packets_sent, None, "packets sent since boot"),
                ("errors", errors, None, "errors, received and sent, since boot"),
                ("drops", drops, None, "packets dropped, received and sent, since boot"),
            ):
                readings.append(Reading(f"net_{name}_{what}", value, where, unit, f"{nic}: {text}", True))
            if link.speed:
                readings.append(Reading(f"net_{name}_speed", link.speed, where, "Mbit/s", f"{nic}: speed of the link"))
        return readings


def uptime() -> list[Reading]:
    """Seconds since boot, sleep included."""
    return [Reading("uptime", round(time.clock_gettime(time.CLOCK_BOOTTIME)), "CLOCK_BOOTTIME", "s", "since boot")]


def clock() -> list[Reading]:
    """Whether the clock follows a time server, where anybody knows."""
    known = clock_synchronised()
    text = "the system clock follows a time server"
    return [] if known is None else [Reading("clock_synchronised", known, "clock", None, text)]


class Machine:
    """The table of sources of this machine.

    Args:
        sets: which sets of tags are wanted.
        proc, sys: where the kernel's files are (psutil reads its own).
    """

    def __init__(self, sets: Sequence[SetName], proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> None:
        self._mounts = Mounts(proc)
        table: Mapping[SetName, Sequence[Source]] = {
            "cpu": [Source("cpu", Cpu()), Source("load", load)],
            "memory": [Source("memory", memory), Source("swap", swap)],
            "disk": [Source("disks", Disks(sys)), Source("mounts", self._mounts.read_list)],
            "network": [Source("network", Interfaces(sys))],
            "system": [
                Source("uptime", uptime),
                Source("processes", lambda: _processes(proc)),
                Source("files", lambda: _open_files(proc)),
            ],
            "clock": [Source("clock", clock, may_block=True)],
            "temperature": [Source("temperatures", Temperatures(sys), may_block=True)],
        }
        self._fixed = [source for name, sources in table.items() if name in sets for source in sources]

    def sources(self) -> Iterator[Source]:
        """What to call, in order; the file systems last, as found by the call before them."""
        yield from self._fixed
        yield from self._mounts.sources()


def _processes(proc: Path) -> list[Reading]:
    # a hardened unit does not see other processes; the kernel counts their threads too
    number = (proc / "loadavg").read_text().split()[3].split("/")[1]
    return [Reading("process_count", int(number), "loadavg", None, "processes and threads the kernel schedules")]


def _open_files(proc: Path) -> list[Reading]:
    number = (proc / "sys" / "fs" / "file-nr").read_text().split()[0]
    return [Reading("open_files", int(number), "file-nr", None, "open file handles of the whole system")]
