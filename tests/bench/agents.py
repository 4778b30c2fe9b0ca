"""The agents that can be measured. One more is one more class here and its name in `AGENTS`.

An agent gets a `Setting` (work, addresses, a directory of its own) and answers with the command that starts it. The
process tree of that command is what is measured.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tests.bench.opcua_server import URI
from tests.bench.works import Tag, Work, tags_of

_UNQUOTED = re.compile(r'"([a-z][a-z0-9_]*|holding:[0-9]+|CDAB)"')
ROOT = Path(__file__).resolve().parents[2]
_IN_THE_FILE = 15_000
"""Tags; with more of them a file would come near the megabyte that it may have."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What an agent is told.

    Attributes:
        python: interpreter for agents written in Python.
        directory: empty, or what the same agent left there.
        broker: port on the loopback.
        plcs: ports of the simulated PLCs, one a device.
        opcua: port of the OPC UA server.
    """

    work: Work
    python: str
    directory: Path
    broker: int
    plcs: Sequence[int] = ()
    opcua: int | None = None


class Agent(Protocol):
    """How an agent is put to work.

    Attributes:
        topics: filter of the topics it publishes readings on.
        reader: which of `subscriber.READERS` understands its payloads.
    """

    topics: ClassVar[str]
    reader: ClassVar[str]

    def does(self, work: Work) -> bool:
        """Whether it can do this work."""

    def command(self, setting: Setting) -> list[str]:
        """Write the configuration; return what to run (in the root of the repository)."""

    def backlog(self, setting: Setting, messages: int, size: int) -> bool:
        """Fill its store with unsent messages of about `size` bytes; False if it has none, or no way to fill it."""


class Shopfloor:
    """Ours."""

    topics: ClassVar[str] = "shopfloor/#"
    reader: ClassVar[str] = "shopfloor"

    def does(self, work: Work) -> bool:
        """See `Agent`."""
        return True

    def command(self, setting: Setting) -> list[str]:
        """See `Agent`."""
        work, directory = setting.work, setting.directory
        devices: list[dict[str, Any]] = [self._modbus(work, at, port) for at, port in enumerate(setting.plcs)]
        if work.devices * work.tags > _IN_THE_FILE:
            self._move_tags(devices, directory / "tags.csv")
        if work.host:
            devices.append({"name": "box", "type": "host", "interval": max(work.interval_s, 10.0)})
        if setting.opcua is not None:
            devices.append(self._opcua(work, setting.opcua))
        document = {
            "site": "bench",
            "gateway": "gw",
            "mqtt": {"url": f"mqtt://127.0.0.1:{setting.broker}"},
            "buffer": {"directory": str(directory / "data"), "max_size": "2 GB", "replay_rate": 0},
            "devices": devices,
        }
        file = directory / "agent.yaml"
        # JSON is YAML; without the quotes of what needs none it is what a person would write.
        file.write_text(_UNQUOTED.sub(r"\1", json.dumps(document, separators=(", ", ": "))))
        return [setting.python, "-m", "agent", "run", "-c", str(file)]

    def backlog(self, setting: Setting, messages: int, size: int) -> bool:
        """See `Agent`."""
        target = setting.directory / "data"
        subprocess.run(
            [setting.python, "-m", "tests.bench.backlog", str(target), str(messages), str(size)], cwd=ROOT, check=True
        )
        return True

    @staticmethod
    def _modbus(work: Work, at: int, port: int) -> dict[str, Any]:
        tags = tags_of(work)
        device: dict[str, Any] = {
            "name": f"plc{at}",
            "type": "modbus",
            "url": f"tcp://127.0.0.1:{port}",
            "interval": work.interval_s,
            "tags": [_tag(tag) for tag in tags],
        }
        if any(tag.deadband is not None for tag in tags):
            device["report"] = {"heartbeat": "60 s"}
        return device

    @staticmethod
    def _move_tags(devices: list[dict[str, Any]], file: Path) -> None:
        """Into a list of their own: all devices have the same."""
        tags: list[dict[str, Any]] = devices[0]["tags"]
        columns = dict.fromkeys(key for tag in tags for key in tag)
        lines = [",".join(columns), *(",".join(str(tag.get(key, "")) for key in columns) for tag in tags)]
        file.write_text("\n".join(lines) + "\n")
        for device in devices:
            del device["tags"]
            device["tags_file"] = file.name

    @staticmethod
    def _opcua(work: Work, port: int) -> dict[str, Any]:
        return {
            "name": "server",
            "type": "opcua",
            "url": f"opc.tcp://127.0.0.1:{port}",
            "security": {"policy": "None"},
            "interval": work.interval_s,
            "tags": [{"name": f"n{at}", "node": f"nsu={URI};s=n{at}"} for at in range(work.nodes)],
        }


def _tag(tag: Tag) -> dict[str, Any]:
    keys: dict[str, Any] = {"name": tag.name, "address": f"holding:{tag.offset}", "type": tag.type}
    if tag.swapped:
        keys["word_order"] = "CDAB"
    if tag.limits is not None:
        keys["min"], keys["max"] = tag.limits
    rules = {"scale": tag.scale, "offset": tag.add, "decimals": tag.decimals, "deadband": tag.deadband}
    keys.update((key, value) for key, value in rules.items() if value is not None)
    return keys


class Floor:
    """The same work in bare Python, with nothing that makes it trustworthy: see `floor`."""

    topics: ClassVar[str] = "shopfloor/#"
    reader: ClassVar[str] = "shopfloor"

    def does(self, work: Work) -> bool:
        """Plain Modbus registers only."""
        return work.devices > 0 and work.kind == "uint16" and not work.host and not work.nodes

    def command(self, setting: Setting) -> list[str]:
        """See `Agent`."""
        work = setting.work
        numbers = [setting.broker, work.tags, work.interval_s, *setting.plcs]
        return [setting.python, "-m", "tests.bench.floor", *map(str, numbers)]

    def backlog(self, setting: Setting, messages: int, size: int) -> bool:
        """It has no store."""
        return False


AGENTS: dict[str, Agent] = {"shopfloor": Shopfloor(), "floor": Floor()}
DEFAULT = "shopfloor"
PYTHON = sys.executable
