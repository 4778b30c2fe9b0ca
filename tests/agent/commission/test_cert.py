"""`shopfloor cert` as a person calls it, beside an agent that runs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from collectors.opcua.certificate import describe
from collectors.opcua.trust import TrustStore
from tests.daemon import ROOT, Daemon, opcua, site
from tests.servers.opcua import OpcuaServer, free_port
from tests.servers.opcua_secure import Pair, SecureServer, pair


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("plc"), "plc")


@pytest.fixture(scope="module")
def _server() -> Iterator[SecureServer]:
    with SecureServer({"speed": 1.5}) as running:
        yield running


@pytest.fixture
def server(_server: SecureServer, own: Pair) -> SecureServer:
    _server.secure(own)
    return _server


def secured(name: str, url: str, **keys: Any) -> dict[str, Any]:
    return opcua(name, url, {"speed": OpcuaServer.node("speed")}, security={}, **keys)


def write(directory: Path, *devices: dict[str, Any], language: str = "en") -> str:
    path = directory / "agent.yaml"
    path.write_text(json.dumps({**site("mqtt://127.0.0.1:1", devices), "language": language}))
    return str(path)


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def test_show_makes_the_certificate_and_says_what_to_copy_where(
    tmp_path: Path, own: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    store = TrustStore(tmp_path / "data")
    store.trust("cnc-2", describe(own.der))
    store.reject("cnc-3", describe(own.der))
    names = ("cnc-1", "cnc-2", "cnc-3")
    path = write(tmp_path, *(secured(name, "opc.tcp://127.0.0.1:9") for name in names))
    assert main(["cert", "show", "-c", path]) == 1
    shown = capsys.readouterr().out
    mine = store.own().certificate
    assert mine.thumbprint in shown
    assert str(store.file) in shown
    assert f"{mine.not_after:%Y-%m-%d}" in shown
    assert "cnc-1  not trusted: shopfloor cert trust cnc-1" in shown
    assert f"cnc-2  trusted  {describe(own.der).thumbprint}" in shown
    assert f"cnc-3  not trusted  {describe(own.der).thumbprint}: shopfloor cert trust cnc-3" in shown
    assert main(["cert", "show", "--json", "-c", path]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["own"]["thumbprint"], told["own"]["days_left"]) == (mine.thumbprint, 3649)
    assert {name: one["state"] for name, one in told["servers"].items()} == {
        "cnc-1": "unknown",
        "cnc-2": "trusted",
        "cnc-3": "unknown",
    }
    assert "本网关的证书" in _said(
        ["cert", "show", "-c", write(tmp_path, secured("a", "opc.tcp://b"), language="zh")], capsys
    )


def _said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(arguments)
    return "".join(capsys.readouterr())


def test_trust_asks_a_person_and_compares_thumbprints(
    tmp_path: Path, server: SecureServer, own: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store, plc = write(tmp_path, secured("cnc", server.url)), TrustStore(tmp_path / "data"), describe(own.der)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["cert", "trust", "cnc", "-c", path]) == 2
    assert "--thumbprint" in capsys.readouterr().err
    assert main(["cert", "trust", "cnc", "-c", path, "--thumbprint", "AB12"]) == 1
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert main(["cert", "trust", "cnc", "-c", path]) == 1
    assert store.trusted("cnc") is None
    shown = capsys.readouterr().out
    for fact in (plc.thumbprint, plc.sha256, "CN=plc", f"{plc.not_after:%Y-%m-%d}", "127.0.0.1"):
        assert fact in shown
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["cert", "trust", "cnc", "-c", path]) == 0
    assert store.trusted("cnc") == plc
    assert main(["cert", "trust", "cnc", "-c", path]) == 0
    assert "already" in capsys.readouterr().out
    spaced = " ".join(plc.sha256[at : at + 2].lower() for at in range(0, 64, 2))
    assert main(["cert", "trust", "cnc", "-c", path, "--thumbprint", spaced]) == 0


def test_trust_takes_what_was_refused_or_a_file_when_the_server_cannot_be_asked(
    tmp_path: Path, own: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    store, plc = TrustStore(tmp_path / "data"), describe(own.der)
    path = write(tmp_path, secured("cnc", f"opc.tcp://127.0.0.1:{free_port()}"))
    arguments = ["cert", "trust", "cnc", "-c", path, "--thumbprint", plc.thumbprint]
    assert main(arguments) == 1
    assert "nothing listens" in capsys.readouterr().err
    assert main([*arguments, "--file", str(own.certificate)]) == 0
    assert store.trusted("cnc") == plc
    (tmp_path / "data/opcua/trusted/cnc.der").unlink()
    store.reject("cnc", plc)
    assert main(arguments) == 0
    assert (store.trusted("cnc"), store.rejected("cnc")) == (plc, None)
    assert main([*arguments, "--file", str(own.key)]) == 1
    assert "PRIVATE" not in "".join(capsys.readouterr())


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, opcua("open", "opc.tcp://127.0.0.1:9", {"x": "i=1"}), {"name": "box", "type": "host"})
    for arguments in (["trust", "open"], ["trust", "box"], ["trust", "nobody"], ["show"], ["renew"]):
        assert main(["cert", *arguments, "-c", path]) == 2
    assert "there are:" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_renew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, store = write(tmp_path, secured("cnc", "opc.tcp://127.0.0.1:9")), TrustStore(tmp_path / "data")
    before = store.own().certificate
    assert main(["cert", "renew", "-c", path]) == 0
    assert store.own().certificate.thumbprint != before.thumbprint
    assert store.own().certificate.thumbprint in capsys.readouterr().out


def test_the_running_agent_reads_a_server_soon_after_it_was_trusted(
    tmp_path: Path, server: SecureServer, own: Pair
) -> None:
    """The log names the thumbprint and the command; the command is all it takes."""
    thumbprint = describe(own.der).thumbprint
    with Daemon(tmp_path, site("mqtt://127.0.0.1:1", [secured("cnc", server.url)])) as daemon:
        lost = daemon.wait_for("device_lost", device="cnc")
        assert (lost["cause"], lost["thumbprint"]) == ("untrusted", thumbprint)
        trust = ["cert", "trust", "cnc", "-c", str(daemon.path), "--thumbprint", thumbprint]
        done = subprocess.run([sys.executable, "-m", "agent", *trust], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        began = time.monotonic()
        daemon.wait_for("device_back", device="cnc", within=12.0)
        assert time.monotonic() - began <= 10.0
        server.secure(pair(tmp_path, "renewed"))
        changed = daemon.wait_for("device_lost", device="cnc", cause="certificate_changed", within=12.0)
        assert changed["trusted"] == thumbprint
