"""OPC UA against a server of another make (node-opcua): nothing here was written by the makers of the agent's library.

Skipped, and said so, where node-opcua is not installed; see `tests.servers.node_opcua`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from collectors.opcua.certificate import describe
from collectors.opcua.trust import TrustStore
from tests.daemon import Daemon, data_topic, eventually, opcua, site
from tests.servers.node_opcua import POLICIES, NodeServer, missing
from tests.servers.opcua import DECOY
from tests.soak.claims import Claim, Options
from tests.soak.hearing import Hearing
from tests.soak.plant import Witness

MOST_S = 15.0
TAGS = 20
KINDS: dict[str, tuple[Any, Any]] = {
    "boolean": (True, True),
    "byte": ({"type": "Byte", "value": 200}, 200),
    "int16": ({"type": "Int16", "value": -30000}, -30000),
    "uint32": ({"type": "UInt32", "value": 4_000_000_000}, 4_000_000_000),
    "float": ({"type": "Float", "value": 23.4}, 23.4),
    "text": ("三号冲床", "三号冲床"),
    "localized": ({"type": "LocalizedText", "value": "läuft"}, "läuft"),
    "when": ({"type": "DateTime", "value": "2026-11-23T18:00:00.123Z"}, "2026-11-23T18:00:00.123Z"),
}
"""Name -> what the server is told, and what a subscriber must hear."""


def run(options: Options) -> list[Claim]:
    """Run it."""
    if (what := missing()) is not None:
        return [Claim("a server of another make", f"skipped: needs {what}", "-")]
    directory, memory = options.disk / "other", options.memory / "other"
    for place in (directory, memory):
        place.mkdir()
    return [*_kinds(directory, memory), *_policies(directory, memory), *_restarts(options, directory, memory)]


def _kinds(directory: Path, memory: Path) -> list[Claim]:
    """Types, elements, enumerations, patterns, deadbands; browse and what it writes."""
    nodes = {name: spec for name, (spec, _) in KINDS.items()} | {"array": {"type": "Int16", "value": [1, 2, 3]}}
    with Witness(_new(directory, "kinds")) as witness, NodeServer(directory, nodes) as server:
        device = opcua("plc", server.url, {name: server.node(name) for name in KINDS})
        device["tags"] += [
            {"name": "part", "node": server.node("array"), "index": "0:2"},
            {"name": "state", "path": "/Objects/Line/Press1/State", "enum_text": True},
            {"name": "multi", "path": "/Objects/Line/Press1/Multi", "enum_text": True},
            {"name": "speeds", "browse": "/Objects/Line/*/Speed", "deadband": "2 %"},
        ]
        wanted = {name: value for name, (_, value) in KINDS.items()} | {
            "part.0": 1,
            "part.1": 2,
            "part.2": 3,
            "state": "running",
            "multi": "故障",
            "speeds.Press1.Speed": 100.0,
            "speeds.Press2.Speed": 100.0,
        }
        with Daemon(_new(directory, "kinds-agent"), site(witness.broker.url, [device]), volatile=memory) as daemon:
            heard: dict[str, Any] = {}
            hearing = Hearing(witness.heard)
            _wait(lambda: wanted.keys() <= _take(hearing, heard).keys(), 30)
            server.set("Press1.Speed", 103.0)  # 1.5 % of 0..200
            server.set("Press2.Speed", 105.0)
            _wait(lambda: _take(hearing, heard).get("speeds.Press2.Speed") == 105.0, 10)
            within = heard.get("speeds.Press1.Speed") == 100.0
            listed = daemon.command("browse", server.url, "--under", "/Objects/Line", "--csv")
            daemon.stop()
    wrong = [name for name, value in wanted.items() if name != "speeds.Press2.Speed" and heard.get(name) != value]
    rows = len(listed.stdout.splitlines()) - 1
    return [
        Claim(
            "another make: values of all kinds",
            "types, elements, enumerations, a pattern",
            f"{len(wanted) - len(wrong)} of {len(wanted)} right {wrong or ''}".strip(),
            not wrong,
        ),
        Claim(
            "another make: deadband in percent, browse",
            "changes of 1.5 % and 2.5 % of the range; --csv",
            f"the small one {'held back' if within else 'NOT held back'}, {rows} tags listed",
            within and rows == 8,
        ),
    ]


def _policies(directory: Path, memory: Path) -> list[Claim]:
    """Each policy in both modes, with a user; channels of seconds."""
    agent = _new(directory, "policies-agent")
    (agent / "pw").write_text("secret")
    (agent / "pw").chmod(0o600)
    names = [(policy, mode) for policy in POLICIES for mode in ("Sign", "SignAndEncrypt")]
    secure = NodeServer(
        directory, {"speed": 1.5}, policies=POLICIES, modes=("Sign", "SignAndEncrypt"), users={"u": "secret"}
    )
    with Witness(_new(directory, "policies")) as witness, secure as server:
        certificate = describe(bytes.fromhex(server.call("certificate")))
        devices = []
        for policy, mode in names:
            device = opcua(f"{policy}.{mode}", server.url, {"speed": server.node("speed")})
            devices.append({**device, "security": {"policy": policy, "mode": mode}})
            devices[-1] |= {"username": "u", "password_file": "pw"}
            TrustStore(agent / "data").trust(device["name"], certificate)
        with Daemon(agent, site(witness.broker.url, devices), volatile=memory) as daemon:
            hearing = Hearing(witness.heard)
            reading: set[str] = set()

            def read() -> bool:
                for _, topic, payload in hearing.news():
                    if topic.endswith("/data") and json.loads(payload)["values"].get("speed") == 1.5:
                        reading.add(topic)
                return len(reading) == len(names)

            _wait(read, 40)
            daemon.stop()
    return [
        Claim(
            "another make: secure connections",
            "three policies, Sign and SignAndEncrypt, user and password",
            f"{len(reading)} of {len(names)} deliver",
            len(reading) == len(names),
        )
    ]


def _restarts(options: Options, directory: Path, memory: Path) -> list[Claim]:
    """Killed and started with its namespaces in another order; frozen; subscriptions dropped."""
    tags = {f"t{at}": float(at * 1000) for at in range(TAGS)}
    count = options.times(10, 1)
    with Witness(_new(directory, "restarts")) as witness, NodeServer(directory, tags) as server:
        device = opcua("plc", server.url, {name: server.node(name) for name in tags})
        with Daemon(_new(directory, "restarts-agent"), site(witness.broker.url, [device]), volatile=memory) as daemon:
            hearing = Hearing(witness.heard)
            heard: dict[str, Any] = {}
            wrong = _Wrong(heard)
            eventually(lambda: _take(hearing, heard, wrong) == tags, "the first values", 30)
            took, dropped = [], []
            for turn in range(1, count + 1):
                server.nodes = {name: value + turn for name, value in tags.items()}
                server.restart(shuffle=True)
                took.append(_back(hearing, heard, wrong, server.nodes))
            for turn in range(count):
                assert server.drop_subscriptions() > 0
                wanted = {name: value + 500 + turn for name, value in tags.items()}
                for name, value in wanted.items():
                    server.set(name, value)
                dropped.append(_back(hearing, heard, wrong, wanted))
            daemon.stop()
    return [
        Claim(
            "another make: back after a kill",
            f"{count} x kill -9, namespaces shuffled",
            f"longest {max(took):.1f} s, {len(wrong.found)} wrong values",
            max(took) <= MOST_S and not wrong.found,
        ),
        Claim(
            "another make: subscriptions dropped",
            f"{count} x deleted by the server",
            f"longest {max(dropped):.1f} s",
            max(dropped) <= MOST_S,
        ),
    ]


class _Wrong:
    def __init__(self, heard: dict[str, Any]) -> None:
        self.found: list[str] = []
        self._heard = heard

    def look(self) -> None:
        for name, value in self._heard.items():
            if value is not None and (value == DECOY or int(value) // 1000 != int(name[1:])):
                self.found.append(f"{name}: {value}")


def _back(hearing: Hearing, heard: dict[str, Any], wrong: _Wrong, wanted: dict[str, float]) -> float:
    began = time.monotonic()
    eventually(lambda: _take(hearing, heard, wrong) == wanted, "the values after a fault", 4 * MOST_S)
    return time.monotonic() - began


def _take(hearing: Hearing, heard: dict[str, Any], wrong: _Wrong | None = None) -> dict[str, Any]:
    """Everything heard of a tag last."""
    for _, topic, payload in hearing.news():
        if topic == data_topic("plc"):
            heard.update(json.loads(payload)["values"])
            if wrong is not None:
                wrong.look()
    return heard


def _wait(condition: Any, seconds: float) -> None:
    """Wait for it; what did not come is the claim's figure."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def _new(directory: Path, name: str) -> Path:
    place = directory / name
    place.mkdir()
    return place
