"""Installing below a directory from wheels, upgrading, being killed half-way, removing."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, Popen, run

import pytest

from tests.systemd.bundle import REPOSITORY, change, make_bundle

SCRIPTS = REPOSITORY / "systemd"
CONFIG = """\
site: plant
gateway: gw-test
mqtt: {url: mqtt://127.0.0.1:1883}
devices:
  - {name: box, type: host}
"""
pytestmark = pytest.mark.timeout(120)


@dataclass
class Place:
    """A root to install into."""

    root: Path

    @property
    def venv(self) -> Path:
        return self.root / "opt/shopfloor-agent/venv"

    @property
    def config(self) -> Path:
        return self.root / "etc/shopfloor-agent/agent.yaml"

    @property
    def drop_ins(self) -> Path:
        return self.root / "etc/systemd/system/shopfloor-agent.service.d"

    def install(self, bundle: Path, *more: str) -> CompletedProcess[str]:
        return _script("install.sh", "--wheels", str(bundle), "--root", str(self.root), *more)

    def version(self) -> str:
        command = [str(self.venv / "bin/python"), "-I", "-m", "agent", "--version"]
        return run(command, check=True, capture_output=True, text=True).stdout

    def files(self) -> set[str]:
        return {str(file.relative_to(self.root)) for file in self.root.rglob("*") if not file.is_dir()}


def _environment() -> dict[str, str]:
    return {**os.environ, "PIP_NO_COMPILE": "1"}


def _script(name: str, *arguments: str) -> CompletedProcess[str]:
    command = ["sh", str(SCRIPTS / name), *arguments]
    return run(command, check=False, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, text=True, env=_environment())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "wheels")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "root")


def test_the_life_of_an_installation(place: Place, bundle: Path) -> None:
    # the first time: an example to edit, nothing that could not run
    done = place.install(bundle)
    assert done.returncode == 0, done.stdout
    assert place.version() in done.stdout.replace(" is installed.", "")
    assert place.config.read_text() == (REPOSITORY / "config/agent.yaml").read_text()
    assert stat.S_IMODE((place.config.parent / "secrets").stat().st_mode) == 0o750
    assert not list(place.drop_ins.iterdir())

    # what people write is kept by an upgrade, drop-ins they asked for are there
    place.config.write_text(CONFIG)
    secret = place.config.parent / "secrets/mqtt-password"
    secret.write_text("s3cret")
    (place.drop_ins / "mine.conf").write_text("[Service]\nNice=5\n")
    first = place.venv.resolve()
    done = place.install(bundle, "--serial", "--addresses")
    assert done.returncode == 0, done.stdout
    assert place.config.read_text() == CONFIG
    assert place.venv.resolve() != first
    assert first.exists(), "the version before is kept"
    assert {file.name for file in place.drop_ins.iterdir()} == {"addresses.conf", "mine.conf", "serial.conf"}
    assert "IPAddressDeny=any" in (place.drop_ins / "addresses.conf").read_text()

    # removed: what people wrote is left, and readings that nobody has received
    (place.root / "var/lib/shopfloor-agent").mkdir(parents=True)
    (place.root / "var/lib/shopfloor-agent/outbox.db").write_text("readings")
    done = _script("uninstall.sh", "--root", str(place.root))
    assert done.returncode == 0, done.stdout
    written = {
        "etc/shopfloor-agent/agent.yaml",
        "etc/shopfloor-agent/secrets/mqtt-password",
        "etc/systemd/system/shopfloor-agent.service.d/mine.conf",
    }
    assert place.files() == written | {"var/lib/shopfloor-agent/outbox.db"}
    assert "Kept:" in done.stdout
    assert _script("uninstall.sh", "--root", str(place.root), "--purge").returncode == 0
    assert place.files() == written


def test_an_installer_killed_half_way_leaves_the_old_version(place: Place, bundle: Path) -> None:
    assert place.install(bundle).returncode == 0
    before, old = place.version(), place.venv.resolve()
    command = ["sh", str(SCRIPTS / "install.sh"), "--wheels", str(bundle), "--root", str(place.root)]
    with Popen(command, stdout=PIPE, text=True, start_new_session=True, env=_environment()) as half:
        assert half.stdout is not None
        assert half.stdout.readline().startswith("Installing into ")
        os.killpg(half.pid, signal.SIGKILL)
    assert place.venv.resolve() == old
    assert place.version() == before
    # the next run clears up; a version that refuses a configuration the old one accepts changes nothing
    place.config.write_text(CONFIG)
    refusing = "def check(*_, **__):\n    print('agent.yaml:1:1: site: no longer so')\n    return 2\n"
    newer = change(bundle, place.root.parent / "newer", "agent/commission/check.py", refusing)
    done = place.install(newer)
    assert done.returncode == 1
    assert "no longer so" in done.stdout
    assert "nothing was changed" in done.stdout
    assert place.venv.resolve() == old
    assert [directory.name for directory in old.parent.iterdir()] == [old.name]
    # nobody edited nothing: the example goes with the rest
    shutil.copy(REPOSITORY / "config/agent.yaml", place.config)
    assert _script("uninstall.sh", "--root", str(place.root)).returncode == 0
    assert place.files() == set()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "--wheels DIR"),
        (["--wheels"], 2, "needs a value"),
        (["--colour"], 2, "unknown option --colour"),
        (["--wheels", "/nonexistent"], 1, "there is no directory"),
        (["--python", "/nonexistent/python"], 1, "Python 3.11 or newer is needed"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    done = _script("install.sh", "--root", str(tmp_path / "root"), *arguments)
    assert done.returncode == code
    assert text in done.stdout


def test_a_directory_without_the_agent_is_refused_before_anything_is_touched(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = place.install(tmp_path / "empty")
    assert done.returncode == 1
    assert "no shopfloor_agent-*.whl" in done.stdout
    assert place.files() == set()
