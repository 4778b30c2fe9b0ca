"""A server of another make (node-opcua) in a child process: it shares no code with the agent's library.

    with NodeServer(directory, {"speed": 1.5}) as server:
        server.restart(shuffle=True)

Needs `node`, and the package node-opcua installed (`npm install node-opcua`) in the directory that the environment
variable NODE_OPCUA names; `missing` tells what is not there. Unlike the servers made with asyncua it samples, fills its
queues, filters deadbands, and tells all operation limits. Variables as in `tests.servers.opcua`; besides, the tree
/Objects/Line/{Press1,Press2}/{Speed,State,Multi,标签}.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.child import ServerProcess
from tests.servers.opcua import DECOYS, URI, free_port

PROGRAM = Path(__file__).with_suffix(".js")
POLICIES = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
PLACE = "NODE_OPCUA"


def missing() -> str | None:
    """What has to be installed first; None = nothing."""
    if shutil.which("node") is None:
        return "node"
    place = os.environ.get(PLACE)
    if place is None or not (Path(place) / "node_modules" / "node-opcua").is_dir():
        return f"node-opcua (npm install node-opcua, {PLACE}=DIRECTORY)"
    return None


class NodeServer(ServerProcess):
    """A server process.

    Args:
        directory: for its certificates.
        nodes: name -> first value, or `{"value": ..., "type": "Float"}` with a built-in type's name.
        policies, modes: what it offers.
        users: name -> password; None = anybody.
        trusted: clients' certificates (DER); None = any.
        channel_s: life of its secure channels.
        sessions: how many it takes.
        limits: its operation limits, names of the specification in camelCase.
    """

    def __init__(
        self,
        directory: Path,
        nodes: Mapping[str, Any],
        *,
        policies: Sequence[str] = ("None", *POLICIES),
        modes: Sequence[str] = ("None", "Sign", "SignAndEncrypt"),
        users: Mapping[str, str] | None = None,
        trusted: Sequence[bytes] | None = None,
        channel_s: float = 600.0,
        sessions: int = 100,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.nodes = dict(nodes)
        self._directory = directory
        self._how = {
            "policies": list(policies),
            "modes": list(modes),
            "users": users,
            "trusted": [der.hex() for der in trusted] if trusted is not None else None,
            "channel_ms": round(channel_s * 1000),
            "sessions": sessions,
            "limits": dict(limits or {}),
        }

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"opc.tcp://127.0.0.1:{self.port}"

    @staticmethod
    def node(name: str) -> str:
        """The node id of a variable, good for ever."""
        return f"nsu={URI};s={name}"

    def start(self, *, shuffle: bool = False) -> None:
        """Start the process and wait until the server listens."""
        uris = [URI, *DECOYS]
        if shuffle:
            random.shuffle(uris)
        self.spawn(
            ["node", str(PROGRAM), str(self.port), str(self._directory)],
            environment={"NODE_PATH": str(Path(os.environ[PLACE]) / "node_modules")},
            log=self._directory / "node.log",
        )
        self.call("start", nodes=self.nodes, uris=uris, how=self._how)

    def restart(self, *, shuffle: bool = False) -> None:
        """End the process without a word and start another on the same port."""
        self.kill()
        self.start(shuffle=shuffle)

    def set(self, name: str, value: Any = None, *, status: int = 0, source_ms: int | None = None) -> None:
        """Write a variable; see `tests.servers.opcua`."""
        self.call("set", name=name, value=value, status=status, source_ms=source_ms)

    def change(self, names: list[str], every_s: float) -> None:
        """Count these variables up every so often, from now until `still`."""
        self.call("change", names=names, every_ms=every_s * 1000)

    def still(self) -> int:
        """End `change`; returns how many values were written."""
        return int(self.call("still"))

    def sessions(self) -> int:
        """How many sessions the server holds."""
        return int(self.call("sessions"))

    def drop_subscriptions(self) -> int:
        """Delete every subscription; how many there were."""
        return int(self.call("drop_subscriptions"))
