"""The daemon as a whole: a child process, a real broker, real device servers, and one trouble after the other.

What a reading costs to lose is proved on the broker side, by the ledger (`tests/ledger.py`).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from tests.daemon import (
    AGENT_TOPIC,
    GATEWAY,
    SITE,
    STATUS_TOPIC,
    TELL_MODULES,
    Daemon,
    eventually,
    fill_backlog,
    meta_topic,
    modbus,
    opcua,
    site,
)
from tests.servers.modbus import ModbusServer
from tests.servers.mosquitto import needs_mosquitto
from tests.servers.opcua import OpcuaServer
from tests.witness import Witness

pytestmark = [needs_mosquitto, pytest.mark.timeout(40)]

HOST = {"name": "box", "type": "host", "interval": "1 s", "sets": ["memory", "cpu"]}
PATIENT = {"replay_rate": 0}


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path)
    yield witness
    witness.close()


@pytest.fixture(scope="module")
def _modbus_server() -> Iterator[ModbusServer]:
    with ModbusServer(units=(1, 2)) as server:
        yield server


@pytest.fixture
def plc(_modbus_server: ModbusServer) -> ModbusServer:
    _modbus_server.reset()
    for unit in (1, 2):
        _modbus_server.set("holding", 0, range(unit * 100, unit * 100 + 50), unit)
    return _modbus_server


@pytest.fixture(scope="module")
def _opcua_server() -> Iterator[OpcuaServer]:
    with OpcuaServer({"speed": 1.5, "load": 7.0}) as server:
        yield server


@pytest.fixture
def cnc(_opcua_server: OpcuaServer) -> OpcuaServer:
    _opcua_server.restart()
    return _opcua_server


def press(plc: ModbusServer, **keys: Any) -> dict[str, Any]:
    return modbus("press", plc.url, **keys)


def mill(cnc: OpcuaServer, **keys: Any) -> dict[str, Any]:
    return opcua("mill", cnc.url, {"speed": cnc.node("speed"), "load": cnc.node("load")}, **keys)


def test_starts_alone_and_picks_up_what_comes(
    tmp_path: Path, witness: Witness, plc: ModbusServer, cnc: OpcuaServer
) -> None:
    plc.stop()
    cnc.stop()
    witness.broker.stop()
    config = site(witness.broker.url, [press(plc), mill(cnc), HOST], buffer=PATIENT)
    with Daemon(tmp_path, config) as daemon:
        daemon.wait_for("device_ok", device="box")
        daemon.wait_for("broker_unreachable", cause="refused")
        witness.broker.start()
        for device, start in (("press", plc.start), ("mill", cnc.start_again)):
            daemon.wait_for("device_lost", device=device, cause="refused")
            start()
            daemon.wait_for("device_back", device=device)
        daemon.wait_for("broker_connected")
        for device in ("press", "mill", "box"):
            witness.until(device)
        assert witness.good("press")[0]["values"] == {"t0": 100, "t1": 101, "t2": 102}
        assert witness.good("mill")[0]["values"] == {"speed": 1.5, "load": 7.0}
        # The devices were reported bad from the start, not only silently absent.
        # Fresh messages may overtake what waited for the broker: the first is the one with the lowest number.
        witness.until("press", "bad:not-connected")
        first = min(witness.data("press"), key=lambda message: message["seq"])
        assert first["quality"] == {"*": "bad:not-connected"}
        status = witness.until_retained(STATUS_TOPIC)
        assert status["state"] == "online"
        eventually(
            lambda: set((witness.retained(STATUS_TOPIC) or {})["devices"].values()) == {"ok"}, "every device ok", 3
        )
        assert daemon.stop() == 0
        witness.settle_all(daemon.status())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "kill"])
def test_broker_goes_and_comes_in_mid_stream(
    tmp_path: Path, witness: Witness, plc: ModbusServer, number: signal.Signals
) -> None:
    devices = [modbus(f"press-{at}", plc.url, unit_id=1 + at % 2, interval="50 ms") for at in range(4)]
    with Daemon(tmp_path, site(witness.broker.url, devices, buffer=PATIENT)) as daemon:
        witness.until("press-0", count=10)
        for outage in (1, 2):
            witness.broker.stop(number)
            daemon.wait_for("broker_lost", count=outage)
            seen = len(witness.data("press-0"))
            time.sleep(0.3)  # more than a message of each device
            witness.broker.start()
            daemon.wait_for("broker_connected", count=outage + 1)
            witness.until("press-0", since=seen, count=20)
        eventually(lambda: witness.settle().missing == 0, "no hole left", 5)
        assert daemon.stop() == 0
        account = witness.settle_all(daemon.status())
    assert account.messages > 100
    assert (account.told, account.needless, account.runs, account.crashes) == (0, 0, 1, 0)
    assert account.agent_messages >= 3


def test_device_goes_and_comes(tmp_path: Path, witness: Witness, plc: ModbusServer, cnc: OpcuaServer) -> None:
    with Daemon(tmp_path, site(witness.broker.url, [press(plc), mill(cnc)])) as daemon:
        for device, server in (("press", plc), ("mill", cnc)):
            witness.until(device)
            seen, stopped = len(witness.data(device)), time.monotonic()
            server.stop()
            witness.until(device, "bad:not-connected", since=seen)
            assert time.monotonic() - stopped < 2.0, "not at once"
            assert daemon.wait_for("device_lost", device=device)["cause"] in ("closed_by_peer", "refused")
            # While it lasts it is told once, not every interval.
            at = len(witness.data(device))
            time.sleep(0.4)
            assert len(witness.data(device)) == at
            if device == "press":
                server.start()
            else:
                cnc.start_again()
            daemon.wait_for("device_back", device=device)
            witness.until(device, since=at)
        assert daemon.stop() == 0
        witness.settle_all(daemon.status())


def test_reload_leaves_alone_what_did_not_change(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    kept, gone = modbus("press", plc.url, interval="500 ms"), modbus("saw", plc.url, unit_id=2)
    changed = modbus("oven", plc.url, unit_id=2, interval="200 ms")
    with Daemon(tmp_path, site(witness.broker.url, [kept, gone, changed])) as daemon:
        for device in ("press", "saw", "oven"):
            witness.until(device)
        assert plc.seen().connections == 1
        changed = modbus("oven", plc.url, 5, unit_id=2, interval="100 ms")
        daemon.reload(site(witness.broker.url, [kept, changed, HOST]))
        done = daemon.wait_for("config_reloaded")
        saw = len(witness.data("saw"))
        assert (done["added"], done["removed"], done["changed"], done["kept"]) == (1, 1, 1, 1)
        witness.until("box")
        eventually(lambda: "t4" in witness.good("oven")[-1]["values"], "the changed device")

        # Then a file with a mistake: refused, and everything goes on.
        daemon.reload('{"site": "test"\n"gateway": 7}')
        refused = daemon.wait_for("config_refused")
        assert str(daemon.path) in refused["first"]
        before = len(witness.data("press"))
        witness.until("press", since=before, count=5)
        assert daemon.events("config_reloaded") == [done]
        assert len(witness.data("saw")) <= saw + 2
        eventually(lambda: witness.retained(meta_topic("saw")) is None, "the description of a removed device cleared")

        assert plc.seen().connections == 1, "the connection of a device that did not change was opened anew"
        times = [message["ts"] for message in witness.data("press")]
        assert max(after - then for then, after in itertools.pairwise(times)) < 1000, "polls were missed"
        eventually(lambda: daemon.status()["agent"]["config_refused"], "the refusal in the status", 6)
        assert daemon.status()["devices"]["press"]["missed"] == 0
        assert daemon.stop() == 0
        witness.settle_all(daemon.status())


def test_kill_in_an_outage_costs_the_commit_interval_at_most(
    tmp_path: Path, witness: Witness, plc: ModbusServer
) -> None:
    config = site(witness.broker.url, [press(plc, interval="50 ms")], buffer=PATIENT)
    with Daemon(tmp_path, config) as first:
        witness.until("press", count=5)
        witness.broker.stop()
        first.wait_for("broker_lost")
        time.sleep(2.5)  # so many readings that some are committed and some are not
        killed_ms = time.time() * 1000
        first.kill()
    run = first.events("agent_started")[0]["run"]
    with Daemon(tmp_path) as second:
        witness.broker.start()
        assert second.wait_for("previous_run_lost")["run"] == run
        second.wait_for("broker_connected")
        eventually(lambda: [m for m in witness.data("press") if m["run"] != run], "readings of the next run")
        eventually(lambda: _crashed(witness, run), "the crash told as a gap")
        eventually(lambda: witness.settle().missing == 0, "no hole left", 5)
        status = witness.retained(STATUS_TOPIC)
        assert status is not None
        assert (status["previous"]["run"], status["previous"]["ended"]) == (run, "lost")
        assert second.stop() == 0
        account = witness.settle_all(second.status())
    assert (account.runs, account.crashes, account.told) == (2, 1, 0)
    assert account.replayed > 20
    assert killed_ms - witness.ledger.runs[run].last_ts < 1200, "more than a commit interval is missing"


def _crashed(witness: Witness, run: str) -> bool:
    witness.settle()
    return (run, None, None, "crash") in witness.ledger.gaps


BACKLOG = 10_000


def test_stop_with_a_long_backlog(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    run = fill_backlog(tmp_path / "data", BACKLOG)
    config = site(witness.broker.url, [press(plc)])
    with Daemon(tmp_path, config) as first:
        first.wait_for("backlog_replay")
        witness.until("press")
        began = time.monotonic()
        assert first.stop() == 0
        assert time.monotonic() - began < 5
        assert first.wait_for("agent_stopped")["clean"] is True
        assert first.status()["counters"]["buffered"] > BACKLOG * 0.8
        status = witness.retained(STATUS_TOPIC)
        assert status is not None
        assert status["state"] == "stopped"
    with Daemon(tmp_path, site(witness.broker.url, [press(plc)], buffer=PATIENT)) as second:
        second.wait_for("backlog_done")
        assert second.stop() == 0
        account = witness.settle_all(second.status(), {run: BACKLOG})
    assert account.runs == 3
    assert account.messages > BACKLOG
    assert account.duplicates <= 100  # a window that was under way at the stop


def test_stop_with_a_frozen_broker_lets_the_will_speak(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    with Daemon(tmp_path, site(witness.broker.url, [press(plc)])) as daemon:
        witness.until("press")
        witness.broker.freeze()
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        assert daemon.wait_for("agent_stopped")["clean"] is False
        witness.broker.thaw()
        eventually(lambda: (witness.retained(STATUS_TOPIC) or {}).get("state") == "lost", "the last will")


def test_second_owner_of_a_data_directory_is_refused(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    with Daemon(tmp_path, site(witness.broker.url, [press(plc)])) as first:
        witness.until("press")
        second = Daemon(tmp_path, environment={"RUNTIME_DIRECTORY": str(tmp_path / "run-2")})
        second.launch()
        assert second.process is not None
        assert second.process.wait(10) == 1
        (error,) = second.events("data_directory_in_use")
        assert f"{tmp_path / 'data'} is in use by process {first.pid}" in error["text"]
        seen = len(witness.data("press"))
        witness.until("press", since=seen, count=4)
        assert first.command("status").returncode == 0
        assert first.stop() == 0
        witness.settle_all(first.status())


def test_modbus_alone_loads_nothing_of_the_others(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    with Daemon(tmp_path, site(witness.broker.url, [press(plc)]), launcher=("-c", TELL_MODULES)) as daemon:
        witness.until("press")
        assert daemon.stop() == 0
        names = set(daemon.wait_for("modules")["names"])
    assert {"pymodbus", "paho", "orjson", "pydantic"} <= names
    assert not names & {"asyncua", "amqtt", "psutil", "serial", "numpy", "cryptography", "tests"}


def test_commands_of_an_operator(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    with Daemon(tmp_path, site(witness.broker.url, [press(plc), modbus("saw", plc.url, unit_id=2)])) as daemon:
        for device in ("press", "saw"):
            witness.until(device)
        eventually(daemon.status, "a status file", 0.5)
        values = json.loads(daemon.command("status", "--values", "--json").stdout)["devices"]
        assert [tag["value"] for tag in values["saw"]["tags"]] == [200, 201, 202]
        shown = daemon.command("status", "--values", "press").stdout
        assert "t1" in shown
        assert "101" in shown

        paused = daemon.command("pause", "press", "--for", "30m")
        assert (paused.returncode, paused.stderr) == (0, "")
        daemon.wait_for("device_paused", device="press")
        witness.until("press", "bad:paused")
        at, other = len(witness.data("press")), len(witness.data("saw"))
        witness.until("saw", since=other, count=4)
        assert len(witness.data("press")) == at
        assert daemon.command("resume", "press").returncode == 0
        witness.until("press", since=at)
        unknown = daemon.command("pause", "pres", "--for", "30m")
        assert unknown.returncode == 1
        assert "press" in unknown.stderr
        assert daemon.stop() == 0
        assert daemon.command("status").returncode == 1


BROKEN = {
    "empty": ("", 1),
    "no devices": ("site: test\ngateway: gw\nmqtt: {url: mqtt://127.0.0.1}\n", 1),
    "not YAML": ("site: [test\n", 2),
    "a tab": ("site: test\nmqtt:\n\turl: mqtt://127.0.0.1\n", 3),
    "unknown key": ("site: test\ngatewey: gw\n", 2),
    "twice": ("site: test\nsite: test\n", 2),
    "alias": ("site: &a test\ngateway: *a\n", 2),
    "bad name": ("site: plant 2\n", 1),
    "stock name": ("site: test\ngateway: localhost\n", 2),
    "plaintext": ("site: test\ngateway: gw\nmqtt: {url: mqtt://broker.example.com}\n", 3),
    "bad address": (
        "site: test\ngateway: gw\nmqtt: {url: mqtt://127.0.0.1}\ndevices:\n"
        "  - {name: a, type: modbus, url: tcp://127.0.0.1, tags: [{name: t, address: 70001, type: int16}]}\n",
        5,
    ),
    "type of device": (
        "site: test\ngateway: gw\nmqtt: {url: mqtt://127.0.0.1}\ndevices:\n- {name: a, type: mdbus}\n",
        5,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_configurations_name_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    text, line = BROKEN[name]
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    assert main(["run", "-c", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    places = [text.split(": ")[0] for text in err.splitlines()]
    assert all(place.startswith(f"{path}:") and place.count(":") == 2 for place in places), err
    assert f"{path}:{line}:" in err


def test_a_missing_configuration_ends_the_process(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait(10) == 2
    assert str(daemon.path) in daemon.text()
    assert not daemon.data.exists()
    assert not daemon.run_dir.exists()


def test_tells_the_service_manager_and_the_machine(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    address = tmp_path / "notify"
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(address))
    manager.settimeout(8)
    heard: list[str] = []

    def hear(wanted: str) -> None:
        while not any(line.startswith(wanted) for line in heard):
            heard.extend(manager.recv(4096).decode().split("\n"))

    environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "4000000"}
    umask = os.umask(0o077)
    try:
        daemon = Daemon(tmp_path, site(witness.broker.url, [press(plc)]), environment=environment)
        daemon.launch()
    finally:
        os.umask(umask)
    with manager:
        try:
            hear("READY=1")
            hear("WATCHDOG=1")
            hear("STATUS=1 of 1 devices ok, broker connected")
            heard.clear()
            daemon.signal(signal.SIGHUP)
            hear("RELOADING=1")
            hear("MONOTONIC_USEC=")
            hear("READY=1")
            assert heard.index("READY=1") > heard.index("RELOADING=1")
            eventually(daemon.status, "a status file", 0.5)
            for name, mode in (("status.json", 0o644), ("metrics.prom", 0o644), ("control.sock", 0o660)):
                assert stat.S_IMODE((daemon.run_dir / name).stat().st_mode) == mode, name
            assert stat.S_IMODE(daemon.run_dir.stat().st_mode) & 0o055 == 0o055, "others cannot enter the directory"
            written = daemon.status()["written"]["ts"]
            eventually(lambda: daemon.status()["written"]["ts"] > written, "a fresh status", 6)
            assert "shopfloor_messages_delivered_total" in (daemon.run_dir / "metrics.prom").read_text()
            assert daemon.stop() == 0
            hear("STOPPING=1")
        finally:
            daemon.kill()


def test_retained_topics_of_removed_devices_are_cleared(tmp_path: Path, witness: Witness, plc: ModbusServer) -> None:
    devices = [press(plc), modbus("saw", plc.url, unit_id=2), modbus("oven", plc.url, unit_id=2)]
    with Daemon(tmp_path, site(witness.broker.url, devices)) as daemon:
        for device in ("press", "saw", "oven"):
            witness.until_retained(meta_topic(device))
        meta = witness.retained(meta_topic("press")) or {}
        assert meta["rev"] == witness.good("press")[0]["rev"]
        assert meta["tags"]["t0"]["source"]
        daemon.reload(site(witness.broker.url, devices[:2]))
        eventually(lambda: witness.retained(meta_topic("oven")) is None, "cleared by the reload")
        eventually(lambda: "oven" not in (witness.retained(STATUS_TOPIC) or {})["devices"], "gone from the status")
        assert daemon.stop() == 0
    # Renamed while the agent did not run; and the status moves to another topic.
    renamed = [press(plc), modbus("saw-2", plc.url, unit_id=2)]
    mqtt = {"status_topic": "shopfloor/{site}/{gateway}/state"}
    with Daemon(tmp_path, site(witness.broker.url, renamed, mqtt=mqtt)):
        witness.until_retained(meta_topic("saw-2"))
        eventually(lambda: witness.retained(meta_topic("saw")) is None, "the old description cleared")
        eventually(lambda: witness.retained(STATUS_TOPIC) is None, "the old status cleared")
        assert (witness.retained(f"shopfloor/{SITE}/{GATEWAY}/state") or {})["state"] == "online"
    assert [message for message in witness.messages if message.topic == AGENT_TOPIC]
