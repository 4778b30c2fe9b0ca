"""A directory of wheels to install from without network: the agent's own, and one for each thing it needs.

The needed ones hold nothing but a path to the packages of the environment the tests run in: pip has everything to
resolve and install, and an installation takes two seconds instead of fifteen.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from subprocess import run

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[2]


def make_bundle(directory: Path) -> Path:
    """Fill the directory and return it."""
    directory.mkdir()
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*build, "--no-build-isolation", "-w", str(directory), str(REPOSITORY)], check=True)
    (own,) = directory.glob("shopfloor_agent-*.whl")
    with zipfile.ZipFile(own) as wheel:
        (record,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        needed = re.findall(r"^Requires-Dist: (.+)$", wheel.read(record).decode(), re.MULTILINE)
    for name in _with_their_needs(needed):
        _write_link(directory, metadata.distribution(name))
    _write_pip(directory)
    return directory


def change(bundle: Path, directory: Path, file: str, text: str) -> Path:
    """A copy of the bundle whose agent has another text in one file."""
    directory.mkdir()
    for wheel in bundle.glob("*.whl"):
        if not wheel.name.startswith("shopfloor_agent-"):
            (directory / wheel.name).symlink_to(wheel)
            continue
        with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(directory / wheel.name, "w") as new:
            for name in old.namelist():
                new.writestr(name, text if name == file else old.read(name))
    return directory


def _with_their_needs(requirements: list[str]) -> Iterator[str]:
    seen = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        if wanted.name in seen or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(wanted.name)
        yield wanted.name
        waiting += [Requirement(text) for text in metadata.requires(wanted.name) or ()]


def _write_link(directory: Path, installed: metadata.Distribution) -> None:
    name, version = re.sub(r"[-_.]+", "_", installed.name), installed.version
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {text}\n" for text in installed.requires or ())
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.pth", sysconfig.get_path("purelib") + "\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.pth,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def _write_pip(directory: Path) -> None:
    """Pip as it is installed here, so that no second one has to be unpacked first."""
    installed = metadata.distribution("pip")
    with zipfile.ZipFile(directory / f"pip-{installed.version}-py3-none-any.whl", "w") as wheel:
        for file in installed.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                wheel.write(str(installed.locate_file(file)), str(file))
