"""The life of the daemon, without a broker: start where little works, reload, stop while things hang."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import ROOT, Daemon, eventually, modbus, opcua, site
from tests.servers.mosquitto import free_port

HOST = {"name": "box", "type": "host", "interval": "500 ms", "sets": ["memory"]}


@pytest.fixture
def nowhere() -> str:
    """The address of a broker that is not there."""
    return f"mqtt://127.0.0.1:{free_port()}"


@pytest.fixture
def mute() -> Iterator[str]:
    """host:port of something that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def full() -> Iterator[str]:
    """host:port of something that drops every attempt to connect."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        for client in waiting:
            client.close()


def test_stop_while_devices_and_broker_hang(tmp_path: Path, mute: str, full: str) -> None:
    hanging = [
        modbus("silent", f"tcp://{mute}", timeout="60 s"),
        modbus("gone", f"tcp://{full}", timeout="60 s"),
        opcua("mute", f"opc.tcp://{mute}", {"x": "ns=2;i=1"}, timeout="60 s"),
        opcua("dropped", f"opc.tcp://{full}", {"x": "ns=2;i=1"}, timeout="60 s"),
    ]
    with Daemon(tmp_path, site(f"mqtt://{mute}", [*hanging, HOST])) as daemon:
        daemon.wait_for("device_ok", device="box")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        (stopped,) = daemon.events("agent_stopped")
        assert not stopped["clean"]
        assert daemon.status()["agent"]["state"] == "stopped"
    with Daemon(tmp_path, site(f"mqtt://{mute}", [HOST])) as again:
        assert not again.events("previous_run_lost")


@pytest.mark.parametrize("where", ["not_a_directory", "too_long"])
def test_run_time_files_that_cannot_be_written_stop_no_reading(tmp_path: Path, nowhere: str, where: str) -> None:
    (tmp_path / "file").touch()
    run_dir = tmp_path / ("file/run" if where == "not_a_directory" else "x" * 100)
    environment = {"RUNTIME_DIRECTORY": str(run_dir)}
    with Daemon(tmp_path, site(nowhere, [HOST]), environment=environment) as daemon:
        daemon.wait_for("control_socket_unusable")
        daemon.wait_for("device_ok", device="box")
        assert len(daemon.events("status_not_written")) == (where == "not_a_directory")
        assert daemon.stop() == 0


def test_data_directory_that_cannot_be_made_leaves_memory(tmp_path: Path, nowhere: str) -> None:
    (tmp_path / "file").touch()
    with Daemon(tmp_path, site(nowhere, [HOST], buffer={"directory": "file/data"})) as daemon:
        daemon.wait_for("store_degraded")
        daemon.wait_for("device_ok", device="box")
        assert daemon.stop() == 0
        assert daemon.status()["buffer"]["state"] == "degraded"
        assert daemon.status()["counters"]["produced"] > 0


def test_status_stands_when_ready_is_said(tmp_path: Path, nowhere: str) -> None:
    with Daemon(tmp_path, site(nowhere, [HOST])) as daemon:
        assert daemon.status()["agent"]["state"] == "running"


TOLD_WHILE_LOADING = """
import os, signal, sys
from agent.cli import main
class Teller:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))
sys.meta_path.insert(0, Teller())
sys.exit(main(sys.argv[3:]))
"""
"""A launcher (`-c`): a signal at the moment when the module named first is about to be loaded."""


@pytest.mark.parametrize("module", ["agent.app", "agent.config_model", "pydantic", "agent.buffer.store"])
def test_a_stop_while_the_daemon_is_still_being_loaded_ends_well(tmp_path: Path, nowhere: str, module: str) -> None:
    daemon = Daemon(
        tmp_path, site(nowhere, [HOST]), launcher=("-c", TOLD_WHILE_LOADING, module, str(signal.SIGTERM.value))
    )
    daemon.launch()
    assert daemon.process is not None
    try:
        assert daemon.process.wait(10) == 0
    finally:
        daemon.kill()
    assert daemon.text() == ""
    assert not daemon.data.exists(), "nothing had begun"


def test_a_reload_while_the_daemon_is_still_being_loaded_is_done_when_it_can_be(tmp_path: Path, nowhere: str) -> None:
    launcher = ("-c", TOLD_WHILE_LOADING, "agent.buffer.store", str(signal.SIGHUP.value))
    with Daemon(tmp_path, site(nowhere, [HOST]), launcher=launcher) as daemon:
        daemon.wait_for("config_reloaded")
        assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["service manager", "Ctrl-C"])
def test_a_stop_while_the_configuration_is_read_ends_all_processes_without_a_word(tmp_path: Path, number: int) -> None:
    file = tmp_path / "agent.yaml"
    os.mkfifo(file)  # it does not answer
    shell = subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "-c", str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with shell as daemon:
        children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
        reader = int(eventually(children.read_text, "a process that reads"))
        eventually(lambda: b"config_apart" in Path(f"/proc/{reader}/cmdline").read_bytes(), "its program")
        time.sleep(0.2)  # a stop in the very moment of its start leaves it to end by itself
        os.killpg(daemon.pid, number)  # as a terminal does, and a service manager
        text, _ = daemon.communicate(timeout=10)
    assert (daemon.returncode, text) == (0, b"")
    eventually(lambda: not Path(f"/proc/{reader}").exists(), "the end of the other process")


def test_second_signal_ends_at_once(tmp_path: Path, mute: str) -> None:
    with Daemon(tmp_path, site(f"mqtt://{mute}", [modbus("silent", f"tcp://{mute}", timeout="60 s")])) as daemon:
        assert daemon.process is not None
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("agent_stopping")
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(5) == -signal.SIGTERM
        assert time.monotonic() - began < 0.5


def test_reload_in_the_middle_of_a_stop_is_called_off(tmp_path: Path, mute: str) -> None:
    config = site(f"mqtt://{mute}", [modbus("silent", f"tcp://{mute}", timeout="60 s"), HOST])
    with Daemon(tmp_path, config) as daemon:
        daemon.wait_for("device_ok", device="box")
        config["devices"] = [modbus("silent", f"tcp://{mute}", timeout="50 s"), {**HOST, "interval": "1 s"}]
        daemon.reload(config)
        time.sleep(0.3)  # the reload waits for the poll that hangs
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        assert not daemon.events("agent_failed")


def test_device_that_hangs_does_not_hold_up_a_reload(tmp_path: Path, mute: str, nowhere: str) -> None:
    def config(timeout: str) -> dict[str, Any]:
        return site(nowhere, [modbus("silent", f"tcp://{mute}", timeout=timeout), {**HOST, "label": timeout}])

    with Daemon(tmp_path, config("60 s")) as daemon:
        daemon.wait_for("device_ok", device="box")
        daemon.reload(config("50 s"))
        daemon.wait_for("device_ok", device="box", label="50 s")
        assert daemon.stop() == 0


def test_another_meta_topic_restarts_no_device(tmp_path: Path, nowhere: str) -> None:
    with Daemon(tmp_path, site(nowhere, [HOST])) as daemon:
        daemon.wait_for("device_ok")
        daemon.reload(site(nowhere, [HOST], mqtt={"meta_topic": "other/{device}"}))
        assert daemon.wait_for("config_reloaded")["kept"] == 1
        assert daemon.stop() == 0


def test_what_needs_a_restart_is_named_at_every_reload_until_then(tmp_path: Path, nowhere: str) -> None:
    with Daemon(tmp_path, site(nowhere, [HOST])) as daemon:
        changed = site(nowhere, [HOST], mqtt={"max_payload": "50 KB"}, buffer={"replay_rate": 7}) | {"site": "other"}
        for count in (1, 2):
            daemon.reload(changed)
            named = daemon.wait_for("restart_needed", count=count)["keys"]
            assert named == "site, buffer, mqtt.max_payload"
            daemon.wait_for("config_reloaded", count=count)
        assert daemon.stop() == 0


def test_broken_configuration_changes_nothing(tmp_path: Path, nowhere: str) -> None:
    with Daemon(tmp_path, site(nowhere, [HOST])) as daemon:
        daemon.wait_for("device_ok")
        daemon.reload("site: [")
        daemon.wait_for("config_refused")
        daemon.path.unlink()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("config_refused", count=2)
        assert daemon.stop() == 0
        assert daemon.status()["devices"]["box"]["state"] == "ok"
        assert "agent.yaml" in daemon.status()["agent"]["config_refused"]


def test_pause_outlives_a_reload_and_a_stop_ends_it(tmp_path: Path, nowhere: str) -> None:
    with Daemon(tmp_path, site(nowhere, [HOST])) as daemon:
        daemon.wait_for("device_ok")
        assert daemon.command("pause", "box", "--for", "10m").returncode == 0
        daemon.wait_for("device_paused")
        daemon.reload(site(nowhere, [{**HOST, "label": "box of the hall"}]))
        assert daemon.wait_for("device_paused", count=2)["for_s"] > 500
        assert daemon.stop() == 0
        assert not daemon.events("device_resumed")
        assert daemon.status()["devices"]["box"]["state"] == "paused"


def test_last_resort_ends_a_process_that_python_would_wait_for() -> None:
    code = (
        "import threading, time\n"
        "from agent.last_resort import LastResort\n"
        "last = LastResort(lambda: print('bye', flush=True))\n"
        "last.code = 7\n"
        "last.arm(0.2); last.arm(100)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (7, b"bye\n")


def test_ends_though_a_name_server_is_silent(tmp_path: Path, mute: str) -> None:
    """A look-up that hangs sits in a thread that nothing interrupts."""
    sitecustomize = tmp_path / "sitecustomize.py"
    sitecustomize.write_text(
        "import socket, time\n"
        "look = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda host, *a, **k: time.sleep(60) if host == 'plc.example' else look(host, *a, **k)\n"
    )
    devices = [modbus("a", "tcp://plc.example:502"), opcua("b", "opc.tcp://plc.example:4840", {"x": "i=1"}), HOST]
    environment = {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}
    with Daemon(tmp_path, site(f"mqtt://{mute}", devices), environment=environment) as daemon:
        daemon.wait_for("device_ok", device="box")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
