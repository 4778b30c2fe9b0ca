"""Secure OPC UA connections: who is refused, what the log says to do about it, and channels that are renewed often."""

from __future__ import annotations

import json
import time
from pathlib import Path

from collectors.opcua.certificate import describe
from tests.daemon import Daemon, data_topic, eventually, opcua, site
from tests.servers.opcua_secure import Pair, SecureServer, pair
from tests.soak.claims import Claim, Options
from tests.soak.hearing import Hearing
from tests.soak.plant import Witness

LIFE_S = 4.0
EVERY_S = 0.02
DEVICE = "plc"


def run(options: Options) -> list[Claim]:
    """Run it."""
    directory, memory = options.disk / "secure", options.memory / "secure"
    for place in (directory, memory):
        place.mkdir()
    with Witness(directory) as witness, SecureServer({"count": 0.0}) as server:
        first = pair(directory, "first")
        server.channels(LIFE_S)
        server.secure(first)
        device = opcua(
            DEVICE,
            server.url,
            {"count": server.node("count")},
            security={"policy": "Basic256Sha256", "mode": "SignAndEncrypt"},
        )
        device["tags"][0]["queue"] = 1000
        with Daemon(directory, site(witness.broker.url, [device]), volatile=memory) as daemon:
            hearing = Hearing(witness.heard)
            claims = [_unknown(daemon, hearing, first)]
            claims.append(_renewals(server, hearing, options.lasting(2, 0.05) * 60))
            claims += _strangers(server, daemon, hearing, directory)
            daemon.stop()
    return claims


def _unknown(daemon: Daemon, hearing: Hearing, own: Pair) -> Claim:
    """As factory IT: read the log, run the command it names, see data."""
    told = daemon.wait_for("device_lost", within=20, cause="untrusted")
    thumbprint, command = describe(own.der).thumbprint, f"shopfloor cert trust {DEVICE}"
    plain = told["thumbprint"] == thumbprint and command in told["text"]
    before = _values(hearing)
    trusted = daemon.command("cert", "trust", DEVICE, "--thumbprint", thumbprint, "-c", str(daemon.path))
    began = time.monotonic()
    eventually(lambda: _values(hearing), "a value of the trusted server", 30)
    took = time.monotonic() - began
    return Claim(
        "an unknown server is refused, and one command trusts it",
        "a fresh secure server; only what the log says",
        f"{len(before)} values before; thumbprint and command {'told' if plain else 'NOT told'}; data"
        f" {took:.1f} s after the command",
        plain and not before and trusted.returncode == 0 and took <= 15,
    )


def _renewals(server: SecureServer, hearing: Hearing, seconds: float) -> Claim:
    before = server.renewals()
    server.change(["count"], EVERY_S)
    heard: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        heard += _values(hearing)
        time.sleep(0.2)
    renewed = server.renewals() - before
    written = server.still()

    def ended() -> bool:
        heard.extend(_values(hearing))
        return bool(heard) and heard[-1] == written

    eventually(ended, "the last value", 20)
    numbers = [int(value) for value in heard if value]
    begin = numbers.index(1)
    missing = written - len(set(numbers[begin:]))
    return Claim(
        "renewed channels lose nothing",
        f"SignAndEncrypt, channels of {LIFE_S:.0f} s, {1 / EVERY_S:.0f} values/s for {seconds:.0f} s",
        f"{renewed} renewals, {missing} of {written} values missing",
        missing == 0 and renewed >= seconds / LIFE_S * 0.8,
    )


def _strangers(server: SecureServer, daemon: Daemon, hearing: Hearing, directory: Path) -> list[Claim]:
    """Another certificate, then trusted ones that have ended or do not begin yet."""
    claims = []
    for name, days, cause, trust in (
        ("another certificate than the trusted one", (-1.0, 365.0), "certificate_changed", False),
        ("a trusted certificate that ended yesterday", (-10.0, -1.0), "certificate_expired", True),
        ("a trusted certificate of tomorrow", (1.0, 10.0), "certificate_not_yet_valid", True),
    ):
        own = pair(directory, cause, days=days)
        thumbprint = describe(own.der).thumbprint
        if trust:
            file = str(own.certificate)
            daemon.command("cert", "trust", DEVICE, "--file", file, "--thumbprint", thumbprint, "-c", str(daemon.path))
        server.secure(own)
        told = daemon.wait_for("device_lost", within=30, cause=cause)
        _values(hearing)
        time.sleep(5)
        heard = len(_values(hearing))
        claims.append(
            Claim(
                f"refused and reported: {name}",
                "the server restarts with it",
                f"{heard} values taken; thumbprint {'told' if thumbprint in json.dumps(told) else 'NOT told'}",
                heard == 0 and thumbprint in json.dumps(told),
            )
        )
    return claims


def _values(hearing: Hearing) -> list[float]:
    """The values that came since the last look."""
    found = []
    for _, topic, payload in hearing.news():
        if topic == data_topic(DEVICE) and (value := json.loads(payload)["values"].get("count")) is not None:
            found.append(value)
    return found
