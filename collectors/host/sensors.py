"""Temperatures from sysfs, read directly: names that survive a reboot, and only the files that are published.

Psutil reads every input of every chip (slow ones included) and numbers equal chips in the order of their discovery.
May import: the standard library, this package.
"""

from __future__ import annotations

import re
from pathlib import Path

from collectors.host.config import MAX_TEMPERATURES
from collectors.host.sources import Names, Reading, natural

_WHOLE_CHIP = re.compile(r"package|tctl|tdie|composite|^cpu", re.IGNORECASE)
_PLAUSIBLE = range(-60, 250)


class Temperatures:
    """One input of each chip: the one for the whole package where it is labelled, else the first."""

    def __init__(self, sys: Path) -> None:
        self._sys = sys / "class"
        self._names = Names(MAX_TEMPERATURES)

    def __call__(self) -> list[Reading]:
        """Read; chips come back under the names they had."""
        inputs = self._hwmon() or self._zones()
        readings = []
        for chip, name in self._names.choose(inputs).items():
            file = inputs[chip]
            try:
                degrees = int(file.read_text()) / 1000
            except (OSError, ValueError):  # one sensor asleep or gone is not all of them
                continue
            if int(degrees) in _PLAUSIBLE:
                text = f"temperature of {chip}"
                readings.append(Reading(f"temp_{name}", round(degrees, 1), f"sysfs {chip}", "Cel", text))
        return readings

    def _hwmon(self) -> dict[str, Path]:
        """Chip -> file; equal chips in the order of their places on the bus, which does not change."""
        chips: list[tuple[str, str, Path]] = []
        for directory in self._sys.glob("hwmon/hwmon*"):
            found = sorted(directory.glob("temp*_input"), key=lambda file: natural(file.name))
            if found:
                best = next((file for file in found if _WHOLE_CHIP.search(_label(file))), found[0])
                place = directory / "device"
                chips.append((_text(directory / "name") or "sensor", str(place.resolve()), best))
        return _numbered(chips)

    def _zones(self) -> dict[str, Path]:
        """Thermal zones, for boards without hardware monitors."""
        zones = sorted(self._sys.glob("thermal/thermal_zone*"), key=lambda zone: natural(zone.name))
        return _numbered([(_text(zone / "type") or "zone", zone.name, zone / "temp") for zone in zones])


def _numbered(chips: list[tuple[str, str, Path]]) -> dict[str, Path]:
    inputs: dict[str, Path] = {}
    # processors first: they are what overheats
    for name, _, file in sorted(chips, key=lambda chip: (not re.search("cpu|core|k10temp|soc", chip[0]), chip[:2])):
        key, number = name, 1
        while key in inputs:
            number += 1
            key = f"{name}_{number}"
        inputs[key] = file
    return inputs


def _label(file: Path) -> str:
    return _text(file.with_name(file.name.replace("_input", "_label")))


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
