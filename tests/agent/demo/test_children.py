import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.demo import broker
from agent.demo.broker import BrokerName, NoBroker, choose, installed
from agent.demo.children import Child, ChildFailed, Server, environment, free_port, listens
from agent.demo.configuration import configuration
from agent.demo.subscriber import Subscriber

# A parent that starts a child and waits for its end.
_PARENT = """
import sys
from pathlib import Path
from agent.demo.children import Child, environment
child = Child("sleeper", ["sleep", "60"], Path(sys.argv[1]), environment(), tied=False)
print(child._process.pid, flush=True)
child._process.wait()
"""


def eventually(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    """Whether the process lives; one that nobody has reaped yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(") ")[2][0] != "Z"


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Tied only once the leash has become the command.
        assert eventually(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])
        parent.kill()
    assert eventually(lambda: not runs(pid))


def test_a_child_that_ends_shows_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such plant')"]
    child = Child("failing", command, tmp_path / "log", environment(), tied=True)
    with pytest.raises(ChildFailed) as failure:
        child.wait_ready(None, 20)
    child.stop(1)
    assert (failure.value.name, failure.value.code, failure.value.log) == ("failing", 1, "no such plant")


def test_a_child_that_is_silent_is_not_ready(tmp_path: Path) -> None:
    child = Child("silent", ["sleep", "60"], tmp_path / "log", environment(), tied=True)
    with pytest.raises(ChildFailed) as failure:
        child.wait_ready(None, 0.2)
    assert failure.value.code is None
    assert child.stop(5) == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)"
    command = [sys.executable, "-c", f"{stubborn}; time.sleep(60)"]
    child = Child("stubborn", command, tmp_path / "log", environment(), tied=True)
    child.wait_ready(None, 20)
    assert child.stop(0.1) == -signal.SIGKILL


def test_a_port_that_was_taken_meanwhile_is_left_for_another(tmp_path: Path) -> None:
    taken: list[int] = []

    def start(port: int) -> Child:
        first = not taken
        taken.append(port)
        command = [sys.executable, "-c", "import sys; sys.exit('port in use')" if first else "print('ready')"]
        return Child("server", command, tmp_path / "log", environment(), tied=True)

    server = Server(start)
    server.wait_ready(20)
    server.child.stop(1)
    assert len(taken) == 2
    assert server.port == taken[-1]


def test_nobody_listens_on_a_free_port() -> None:
    assert not listens(free_port())


def test_children_do_not_talk_to_our_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert "NOTIFY_SOCKET" not in environment()
    assert environment()["PYTHONPATH"].endswith(f"{os.pathsep}/somewhere")


def test_the_best_broker_is_chosen() -> None:
    assert choose(["mosquitto", "amqtt"]) == "mosquitto"
    assert choose(["amqtt"]) == "amqtt"
    assert choose(["mosquitto", "amqtt"], "amqtt") == "amqtt"
    with pytest.raises(NoBroker):
        choose([])
    with pytest.raises(NoBroker):
        choose(["amqtt"], "mosquitto")


@pytest.mark.parametrize("name", ["mosquitto", "amqtt"])
def test_a_broker_delivers_to_the_subscriber(name: BrokerName, tmp_path: Path) -> None:
    from queue import SimpleQueue

    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    from agent.demo.subscriber import Heard

    if name not in installed():
        pytest.skip(f"{name} is not installed")
    inbox: SimpleQueue[Heard | None] = SimpleQueue()
    subscriber = Subscriber(inbox, "demo", "gw")
    publisher = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
    server = broker.start(name, tmp_path, environment())
    try:
        server.wait_ready(20)
        subscriber.start(server.port, 10)
        publisher.connect("127.0.0.1", server.port)
        publisher.loop_start()
        publisher.publish("shopfloor/demo/other/press-3/data", b"{", qos=1)
        publisher.publish("shopfloor/demo/gw/press-3/data", "", qos=1)
        publisher.publish("shopfloor/demo/gw/press-3/data", b'{"seq":1}', qos=1)
        publisher.publish("shopfloor/demo/gw/status", b'{"state":"online"}', qos=1, retain=True)
        assert inbox.get(timeout=10) == Heard("data", "press-3", {"seq": 1})
        assert inbox.get(timeout=10) == Heard("status", "gw", {"state": "online"})
        assert subscriber.connected
    finally:
        publisher.disconnect()
        publisher.loop_stop()
        subscriber.stop()
        server.child.stop(2)
    assert subscriber.interruptions == 0


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_configuration_is_one_the_agent_takes(language: str, tmp_path: Path) -> None:
    from agent.config import load

    file = tmp_path / "agent.yaml"
    text = configuration(
        language="zh" if language == "zh" else "en", broker_port=1, protocol="auto", press_port=2, cnc_port=3
    )
    file.write_text(text, encoding="utf-8")
    loaded = load(file)
    assert loaded.mistakes == []
    assert loaded.config is not None
    assert [device.name for device in loaded.config.devices] == ["press-3", "cnc-7", "this-host"]
