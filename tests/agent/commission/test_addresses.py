"""The list of addresses the service may talk to."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.commission.addresses import Peer, Unresolved, drop_in, main, name_servers, peers, resolve_name
from agent.config import AgentConfig, load

CONFIG = """\
site: plant
gateway: gw-1
mqtt: {url: "mqtts://broker.plant:8883"}
log: {file: /data/logs/agent.log}
buffer: {directory: "/data/my buffer"}
devices:
  - {name: box, type: host}
  - name: cnc
    type: opcua
    url: "opc.tcp://192.168.10.50:4840"
    security: {policy: None}
    tags: [{name: a, node: "ns=2;s=A"}]
  - name: six
    type: opcua
    url: "opc.tcp://[fd00::7]:4840"
    security: {policy: None}
    tags: [{name: a, node: "ns=2;s=A"}]
  - name: own
    type: opcua
    url: "opc.tcp://127.0.0.1:4840"
    security: {policy: None}
    tags: [{name: a, node: "ns=2;s=A"}]
"""


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    file = tmp_path / "agent.yaml"
    file.write_text(CONFIG)
    loaded = load(file)
    assert loaded.config is not None, loaded.mistakes
    return loaded.config


def test_peers_are_the_broker_and_the_devices_beyond_this_machine(config: AgentConfig) -> None:
    assert peers(config) == [
        Peer("the broker", "broker.plant"),
        Peer("cnc", "192.168.10.50"),
        Peer("six", "fd00::7"),
    ]


def test_the_drop_in(config: AgentConfig) -> None:
    text, notes = drop_in(
        config, ["10.0.0.53"], lambda host: ["10.0.0.2", "10.0.0.3"] if host == "broker.plant" else []
    )
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "[Service]",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
        "IPAddressAllow=10.0.0.2",
        "IPAddressAllow=10.0.0.3",
        "IPAddressAllow=192.168.10.50",
        "IPAddressAllow=fd00::7",
        "IPAddressAllow=10.0.0.53",
        'ReadWritePaths=-"/data/my buffer"',
        "ReadWritePaths=-/data/logs",
    ]
    assert len(notes) == 1
    assert "broker.plant is 10.0.0.2, 10.0.0.3 now" in notes[0]


def test_a_name_without_address_makes_no_list(config: AgentConfig) -> None:
    with pytest.raises(Unresolved):
        resolve_name("no-such-host.invalid")

    def nobody(host: str) -> list[str]:
        raise Unresolved(host)

    with pytest.raises(Unresolved, match=r"broker\.plant"):
        drop_in(config, [], nobody)


def test_resolving() -> None:
    assert set(resolve_name("localhost")) <= {"127.0.0.1", "::1"}


def test_name_servers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# dhcp\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nnameserver\nsearch x\n"
    )
    assert name_servers(file) == ["10.0.0.53", "fe80::1"]
    assert name_servers(tmp_path / "nothing") == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("site: p\ngateway: gw-1\nmqtt: {url: 'mqtt://127.0.0.1'}\ndevices: [{name: box, type: host}]\n")
    assert main(["-c", str(file)]) == 0
    assert "IPAddressDeny=any" in capsys.readouterr().out
    file.write_text("site: p\n")
    assert main(["-c", str(file)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "agent.yaml" in told.err
