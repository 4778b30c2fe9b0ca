"""What is chosen of a machine and under which names; file trees in place of /proc and /sys."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.fields import NAME_PATTERN
from collectors.host.config import MAX_MOUNTS
from collectors.host.metrics import Machine, Mounts, local_mounts
from collectors.host.sensors import Temperatures
from collectors.host.sources import Names, natural, slug

HARDENED_GATEWAY = """\
/dev/mmcblk0p2 / ext4 ro,relatime 0 0
proc /proc proc rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/mmcblk0p1 /boot/firmware vfat rw 0 0
/dev/loop3 /snap/core/1 squashfs ro 0 0
/dev/sda1 /data ext4 rw 0 0
/dev/sda2 /home ext4 rw 0 0
tmpfs /home tmpfs ro 0 0
/dev/mmcblk0p2 /tmp ext4 rw 0 0
/dev/mmcblk0p2 /var/lib/shopfloor-agent ext4 rw 0 0
nas:/export /mnt/nas nfs4 rw 0 0
//srv/share /mnt/srv cifs rw 0 0
overlay /var/lib/docker/overlay2/0a/merged overlay rw 0 0
/dev/sdb1 /media/USB\\040Stick vfat rw 0 0
"""


def test_mounts_of_a_hardened_gateway() -> None:
    assert local_mounts(HARDENED_GATEWAY) == ["/", "/data", "/media/USB Stick", "/boot/firmware"]


def test_the_root_is_kept_whatever_it_is() -> None:
    assert local_mounts("overlay / overlay rw 0 0\n/dev/mmcblk0p3 /overlay ext4 rw 0 0\n") == ["/", "/overlay"]
    assert local_mounts("ubi0:rootfs / ubifs rw 0 0\nubi0:data /data ubifs rw 0 0\n") == ["/", "/data"]


def test_names_of_parts() -> None:
    assert slug("/") == "root"
    assert slug("/mnt/data") == "mnt_data"
    assert slug("eth0.100") == "eth0.100"
    assert slug("br-lan") == "br-lan"
    assert slug("/数据") != slug("/备份")
    assert sorted(["eth10", "eth2", "eth1"], key=natural) == ["eth1", "eth2", "eth10"]


@settings(max_examples=150)
@given(st.lists(st.text(min_size=1, max_size=80), max_size=8, unique=True))
def test_any_part_gets_a_name_of_its_own(parts: list[str]) -> None:
    chosen = Names(8).choose(parts)
    assert list(chosen) == parts
    for name in chosen.values():
        assert re.fullmatch(NAME_PATTERN, f"disk_{name}_inodes_percent")


def test_names_that_would_collide_are_told_apart_and_stay() -> None:
    names = Names(3)
    first = names.choose(["/data/1", "/data_1"])
    assert first["/data/1"] == "data_1"
    assert first["/data_1"].startswith("data_1_")
    assert names.choose(["/data_1"]) == {"/data_1": first["/data_1"]}
    assert names.choose(["/a", "/b", "/data_1"]) == {"/a": "a", "/data_1": first["/data_1"]}


def test_each_mount_is_a_source_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    lines = [f"/dev/sd{letter}1 /disk{number} ext4 rw 0 0\n" for number, letter in enumerate("abcdef")]
    (tmp_path / "self" / "mounts").write_text("/dev/vda / ext4 rw 0 0\n" + "".join(lines))
    mounts = Mounts(tmp_path)
    assert mounts.sources() == []
    assert mounts.read_list() == []
    sources = mounts.sources()
    assert [source.key for source in sources] == ["mount /", "mount /disk0", "mount /disk1"]
    assert len(sources) == MAX_MOUNTS
    assert all(source.may_block for source in sources)
    assert [reading.name for reading in sources[0].read()][:2] == ["disk_root_percent", "disk_root_free_bytes"]


def test_a_machine_without_proc_and_sys(tmp_path: Path) -> None:
    machine = Machine(["system", "temperature"], proc=tmp_path, sys=tmp_path)
    outcomes = {}
    for source in machine.sources():
        try:
            outcomes[source.key] = len(source.read())
        except OSError:
            outcomes[source.key] = -1
    assert outcomes == {"uptime": 1, "processes": -1, "files": -1, "temperatures": 0}


def test_counts_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "sys" / "fs").mkdir(parents=True)
    (tmp_path / "sys" / "fs" / "file-nr").write_text("592\t0\t2466193\n")
    (tmp_path / "loadavg").write_text("0.00 0.02 0.02 2/94 5710\n")
    readings = [reading for source in Machine(["system"], proc=tmp_path).sources() for reading in source.read()]
    assert {reading.name: reading.value for reading in readings[1:]} == {"process_count": 94, "open_files": 592}


def _chip(root: Path, number: int, name: str, place: str, **inputs: str) -> None:
    chip = root / "class" / "hwmon" / f"hwmon{number}"
    device = root / "devices" / place
    device.mkdir(parents=True)
    chip.mkdir(parents=True)
    (chip / "device").symlink_to(device)
    (chip / "name").write_text(f"{name}\n")
    for file, text in inputs.items():
        (chip / file).write_text(f"{text}\n")


def _temperatures(root: Path) -> dict[str, object]:
    return {reading.name: reading.value for reading in Temperatures(root)()}


def test_temperatures_keep_their_names_when_chips_are_found_in_another_order(tmp_path: Path) -> None:
    for boot, (first, second, cpu) in enumerate(((0, 1, 2), (2, 0, 1))):
        root = tmp_path / str(boot)
        _chip(root, first, "nvme", "pci-01", temp1_input="41850", temp1_label="Composite", temp2_input="60000")
        _chip(root, second, "nvme", "pci-02", temp1_input="52000")
        _chip(root, cpu, "coretemp", "isa", temp2_input="70000", temp1_input="55000", temp1_label="Package id 0")
        assert _temperatures(root) == {"temp_coretemp": 55.0, "temp_nvme": 41.9, "temp_nvme_2": 52.0}


def test_a_sensor_that_cannot_be_read_or_is_absurd_is_absent(tmp_path: Path) -> None:
    _chip(tmp_path, 0, "cpu_thermal", "soc", temp1_input="48312")
    _chip(tmp_path, 1, "wifi", "pci", temp1_input="not now")
    _chip(tmp_path, 2, "acpitz", "acpi", temp1_input="-273200")
    assert _temperatures(tmp_path) == {"temp_cpu_thermal": 48.3}


def test_thermal_zones_where_there_are_no_monitors(tmp_path: Path) -> None:
    for number, kind in enumerate(("gpu-thermal", "cpu-thermal")):
        zone = tmp_path / "class" / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text("45000\n")
    assert _temperatures(tmp_path) == {"temp_cpu-thermal": 45.0, "temp_gpu-thermal": 45.0}
    assert _temperatures(tmp_path / "nothing") == {}
