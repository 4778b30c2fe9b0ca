"""The demo's MQTT broker: mosquitto where it is installed, else amqtt in a process of its own.

Either listens on the loopback only, keeps nothing on disk and lets everybody in. amqtt never answers a client that
speaks MQTT 5, so the agent speaks 3.1.1 to it. `python -m agent.demo.broker PORT PARENT_PID` is amqtt.
May import: amqtt (inside `serve`), `agent.demo.children`, `agent.demo.leash`.
"""

from __future__ import annotations

import asyncio
import getpass
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from agent.demo.children import Child, Server, listens, serving
from agent.demo.leash import tie

BrokerName = Literal["mosquitto", "amqtt"]

_SYSTEM_PLACES = "/usr/local/sbin:/usr/sbin:/sbin"  # Debian's, missing from the PATH of ordinary users
_MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 100000
log_dest stderr
log_type error
log_type warning
user {user}
"""


class NoBroker(Exception):
    """Neither mosquitto nor amqtt is installed."""


def installed() -> list[BrokerName]:
    """The brokers that could be started here, the best first."""
    found: list[BrokerName] = ["mosquitto"] if _mosquitto() else []
    return [*found, "amqtt"] if find_spec("amqtt") else found


def choose(candidates: Sequence[BrokerName], wanted: BrokerName | None = None) -> BrokerName:
    """The broker to use: the first of the candidates; `wanted` leaves no choice.

    Raises:
        NoBroker: it is not among them.
    """
    for name in candidates:
        if wanted in (None, name):
            return name
    raise NoBroker


def protocol(name: BrokerName) -> str:
    """The MQTT version to configure for this broker."""
    return "3.1.1" if name == "amqtt" else "auto"


def start(name: BrokerName, directory: Path, environment: Mapping[str, str]) -> Server:
    """Start the broker; its configuration and log are put into the directory."""
    log = directory / "broker.log"
    if name == "amqtt":
        return serving(name, "agent.demo.broker", log, environment)
    program = _mosquitto()
    assert program is not None

    def mosquitto(port: int) -> Child:
        # Started by root, mosquitto would change to a user of its own, and lose its tie to us with that.
        conf = directory / "mosquitto.conf"
        conf.write_text(_MOSQUITTO_CONF.format(port=port, user=getpass.getuser()), encoding="utf-8")
        return Child(name, [program, "-c", str(conf)], log, environment, tied=False)

    return Server(mosquitto, listens)


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_SYSTEM_PLACES)


async def serve(port: int) -> None:
    """Run amqtt on this port of the loopback until cancelled; prints `ready` when it listens."""
    from amqtt.broker import Broker

    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Run amqtt as a child of the process in the arguments."""
    tie(int(sys.argv[2]))
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
