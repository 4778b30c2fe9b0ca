"""Forty broken configurations, each with a reload: refused with its place, and no poll is lost meanwhile."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, modbus, site
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness, sleep_until

DEVICES, INTERVAL_S = 5, 0.1
EVERY_S = 0.15
"""Between two reloads, in which a refusal must have come."""

Config = dict[str, Any]


def _changed(*path: str | int, to: Any) -> Callable[[Config], str]:
    """The configuration with another value in one place."""

    def change(config: Config) -> str:
        at: Any = config
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to
        return json.dumps(config)

    return change


def _without(*path: str | int) -> Callable[[Config], str]:
    def change(config: Config) -> str:
        at: Any = config
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
        return json.dumps(config)

    return change


def _text(text: str) -> Callable[[Config], str]:
    return lambda _: text


_DEVICE = ("devices", 0)
_TAG = (*_DEVICE, "tags", 0)
BROKEN: dict[str, Callable[[Config], str]] = {
    "empty": _text(""),
    "a comment alone": _text("# nothing here\n"),
    "a list": _text("- site: test\n"),
    "a word": _text("site"),
    "null": _text("~\n"),
    "not YAML": _text("site: [a, b\n"),
    "a tab": _text("site: test\n\tgateway: gw\n"),
    "another encoding": lambda config: json.dumps({**config, "label": "é"}, ensure_ascii=False),  # written as Latin-1
    "a control character": _text("site: te\x00st\n"),
    "an alias": _text("site: &a test\ngateway: *a\n"),
    "a key twice": lambda config: json.dumps(config)[:-1] + ', "site": "other"}',
    "two documents": lambda config: json.dumps(config) + "\n---\nsite: other\n",
    "cut in the middle": lambda config: json.dumps(config)[: len(json.dumps(config)) // 2],
    "too large": lambda config: json.dumps(config) + "\n#" + "x" * 1_100_000,
    "deep nesting": _text("[" * 5000),
    "unknown key at the top": _changed("intervall", to="1 s"),
    "unknown key of mqtt": _changed("mqtt", "pasword_file", to="x"),
    "unknown key of a device": _changed(*_DEVICE, "adress", to=1),
    "unknown key of a tag": _changed(*_TAG, "skale", to=2),
    "no site": _without("site"),
    "no mqtt": _without("mqtt"),
    "no broker": _without("mqtt", "url"),
    "no devices' type": _without(*_DEVICE, "type"),
    "no tags": _without(*_DEVICE, "tags"),
    "site with a slash": _changed("site", to="a/b"),
    "site is a list": _changed("site", to=["test"]),
    "broker without a scheme": _changed("mqtt", "url", to="127.0.0.1"),
    "plaintext beyond loopback": _changed("mqtt", "url", to="mqtt://192.0.2.1"),
    "password file that is not there": _changed("mqtt", "password_file", to="nowhere"),
    "window of no messages": _changed("mqtt", "window", to=0),
    "keepalive in words": _changed("mqtt", "keepalive", to="soon"),
    "topic with a wildcard": _changed("mqtt", "topic", to="shopfloor/#"),
    "negative commit interval": _changed("buffer", "commit_interval", to="-1 s"),
    "size in words": _changed("buffer", "max_size", to="much"),
    "device twice": lambda config: json.dumps({**config, "devices": [config["devices"][0]] * 2}),
    "reserved name": _changed(*_DEVICE, "name", to="agent"),
    "unknown type": _changed(*_DEVICE, "type", to="mdbus"),
    "no interval": _changed(*_DEVICE, "interval", to="0 s"),
    "address that is none": _changed(*_TAG, "address", to="70001"),
    "address beyond the last": _changed(*_TAG, "address", to="holding:65536"),
    "unknown data type": _changed(*_TAG, "type", to="uint17"),
    "scale in words": _changed(*_TAG, "scale", to="half"),
}


def run(options: Options) -> list[Claim]:
    """Run it."""
    names = list(BROKEN)
    random.Random(options.seed).shuffle(names)
    accepted: list[str] = []
    placeless: list[str] = []
    with Witness(options.disk) as witness, ModbusServer() as plc:
        devices = [modbus(f"press-{at}", plc.url, interval=f"{INTERVAL_S * 1000:.0f} ms") for at in range(DEVICES)]
        config = site(witness.broker.url, devices)
        with Daemon(options.disk, config, volatile=options.memory) as daemon:
            for at in range(DEVICES):
                daemon.wait_for("device_ok", device=f"press-{at}")
            daemon.wait_for("broker_connected")
            began = time.monotonic()
            for name in names:
                due = time.monotonic() + EVERY_S
                before = len(daemon.events("config_refused")), len(daemon.events("config_reloaded"))
                _break(daemon, name, config)
                refusal = _outcome(daemon, before)
                if refusal is None:
                    accepted.append(name)
                elif not refusal.startswith(f"{daemon.path}:"):
                    placeless.append(f"{name}: {refusal}")
                sleep_until(due)
            _break(daemon, "nothing", config)
            daemon.wait_for("config_reloaded")
            took = time.monotonic() - began
            kept = daemon.events("config_reloaded")[-1]["kept"]
            connections = plc.seen().connections
            code = daemon.stop()
            status = daemon.status()
        time.sleep(0.5)
        account = witness.settle({status["agent"]["run"]: status["counters"]["produced"]})
    polls = sum(device["polls"] for device in status["devices"].values())
    missed = sum(device["missed"] for device in status["devices"].values())
    late = max(device["late_p99_ms"] for device in status["devices"].values())
    for text in (*accepted, *placeless):
        print(text, flush=True)
    return [
        Claim(
            "a broken configuration changes nothing",
            f"{len(names)} of them with SIGHUP in {took:.0f} s, then the sound one",
            f"{len(names) - len(accepted)} refused, {len(placeless)} without a place; "
            f"{kept} of {DEVICES} devices kept, {connections} connection to their PLC; "
            f"{account.missing} of {account.messages} messages missing",
            not accepted and not placeless and (kept, connections, code) == (DEVICES, 1, 0) and account.ok,
        ),
        Claim(
            "no poll is lost by it",
            f"{DEVICES} devices at {INTERVAL_S * 1000:.0f} ms",
            f"{missed} missed of {polls} polls, late p99 {late} ms",
            missed == 0,
            timing=True,
        ),
    ]


def _break(daemon: Daemon, name: str, config: Config) -> None:
    fresh: Config = json.loads(json.dumps(config))
    text = BROKEN[name](fresh) if name in BROKEN else json.dumps(fresh)
    _replace(daemon.path, text.encode("latin-1" if name == "another encoding" else "utf-8"))
    daemon.signal(1)


def _replace(path: Path, content: bytes) -> None:
    """As a careful editor does; what the agent reads is one or the other."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def _outcome(daemon: Daemon, before: tuple[int, int]) -> str | None:
    """What the refusal says first; None if there was a reload."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        refused, reloaded = daemon.events("config_refused"), daemon.events("config_reloaded")
        if len(refused) > before[0]:
            return str(refused[-1]["first"])
        if len(reloaded) > before[1]:
            return None
        time.sleep(0.005)
    raise AssertionError("neither refused nor reloaded")
