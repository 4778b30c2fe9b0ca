"""Twelve secrets, each in a place where people put them, and then a search through everything that leaves the agent:
logs at debug level, status.json, metrics.prom, answers of the control socket, all that the broker got, the process
list, the files of the data directory, and what `check` and `read` print. Searched for as they are, and encoded.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collectors.opcua.identity import LOGIN_FAULTS
from tests.daemon import Daemon, data_topic, eventually, opcua, site
from tests.servers.certificates import Authority
from tests.servers.mosquitto import Mosquitto
from tests.servers.opcua_secure import Pair, SecureServer, pair
from tests.soak import disguises
from tests.soak.claims import Claim, Options


class Places:
    """What was found where."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, bytes]] = []

    def add(self, name: str, text: str | bytes) -> None:
        """A place to look at."""
        self.texts.append((name, text if isinstance(text, bytes) else text.encode()))

    def command(self, daemon: Daemon, *arguments: str) -> None:
        """What a command prints, on both."""
        done = daemon.command(*arguments)
        self.add(f"shopfloor {' '.join(arguments[:1])}", done.stdout + done.stderr)


def run(options: Options) -> list[Claim]:
    """Run it."""
    disk, places = options.disk, Places()
    secrets = {name: _canary(name) for name in ("mqtt-password", "opcua-password")}
    with SecureServer({"a": 1.0}) as cnc:
        server, user, authority = pair(disk, "server"), pair(disk, "user"), Authority(disk)
        cnc.secure(server, users={"operator": secrets["opcua-password"]})
        with _broker(disk, authority, secrets["mqtt-password"]) as (broker, heard, client):
            certificate, key = client
            secrets["mqtt-client-key"] = _body(key)
            for name in ("mqtt-password", "opcua-password"):
                _secret(disk / name, secrets[name])
            mqtt = {
                "url": broker.url.replace("mqtt://", "mqtts://"),
                "username": "gw",
                "password_file": "mqtt-password",
                "ca_file": str(authority.ca_file),
                "client_cert_file": str(certificate),
                "client_key_file": str(key),
            }
            _good(options, places, secrets, cnc, mqtt, server)
            refusals = _refused(options, places, secrets, cnc, mqtt, user, server)
            _wrong_files(options, places, secrets, mqtt)
            time.sleep(0.5)
            places.add("payloads and retained messages", heard.read_bytes())
    forms = {
        name: disguises.of_pem(secret) if name.endswith("-key") else disguises.of_text(secret)
        for name, secret in secrets.items()
    }
    found = [
        f"{secret} in {place} ({form})"
        for place, text in places.texts
        for secret, sought in forms.items()
        for form, value in sought.items()
        if value in text
    ]
    size = sum(len(text) for _, text in places.texts)
    unheard = not any(data_topic("cnc").encode() in text for _, text in places.texts)
    return [
        Claim(
            "secrets appear nowhere",
            f"{len(secrets)} canaries, each in {min(map(len, forms.values()))} forms or more: {', '.join(secrets)}",
            f"{len(found)} hits in {len(places.texts)} places, {size} bytes" + "".join(f"; {one}" for one in found),
            not found and not unheard and len(secrets) == 12,
        ),
        Claim(
            "wrong secrets were offered, and refused",
            "a wrong password for the broker, another for the OPC UA server, a user certificate that it does not know",
            ", ".join(f"{who}: {'refused' if was else 'NOT SEEN'}" for who, was in refusals.items()),
            all(refusals.values()),
        ),
    ]


def _canary(name: str) -> str:
    """A secret that every encoding writes in another way."""
    return f"canary-{name}-c4n4ry+&="


def _good(
    options: Options, places: Places, secrets: dict[str, str], cnc: SecureServer, mqtt: Any, server: Pair
) -> None:
    """All secrets are right and in use."""
    device = _device(cnc, username="operator", password_file="opcua-password")
    config = site(str(mqtt["url"]), [device], mqtt=mqtt, log={"level": "debug", "format": "json"})
    with Daemon(options.disk, config, volatile=options.memory) as daemon:
        eventually(lambda: daemon.status().get("devices", {}).get("cnc", {}).get("state") == "bad", "no trust", 20)
        thumbprint = hashlib.sha1(server.der, usedforsecurity=False).hexdigest()
        places.command(daemon, "cert", "trust", "cnc", "-c", str(daemon.path), "--thumbprint", thumbprint)
        daemon.wait_for("device_back", device="cnc", within=40)
        daemon.wait_for("broker_connected", within=10)
        time.sleep(6)
        (own,) = (file for file in daemon.data.rglob("*") if file.is_file() and b"PRIVATE KEY" in file.read_bytes())
        secrets["own-opcua-key"] = _body(own)
        places.command(daemon, "check", "-c", str(daemon.path), "--explain")
        places.command(daemon, "check", "-c", str(daemon.path), "--json")
        places.command(daemon, "read", "-c", str(daemon.path))
        places.command(daemon, "status", "--values", "--json")
        for name in ("cmdline", "environ"):
            places.add(name, (Path("/proc") / str(daemon.pid) / name).read_bytes())
        places.add("process list", subprocess.run(["ps", "axww"], capture_output=True, check=True).stdout)
        _collect(places, daemon, own)
        daemon.stop()
        _collect(places, daemon, own)


def _refused(
    options: Options, places: Places, secrets: dict[str, str], cnc: SecureServer, mqtt: Any, user: Pair, server: Pair
) -> dict[str, bool]:
    """Secrets that are wrong; whether they were offered and refused, as server and log say."""
    for name in ("wrong-mqtt-password", "wrong-opcua-password"):
        secrets[name] = _canary(name)
        _secret(options.disk / name, secrets[name])
    secrets["opcua-user-key"] = _body(user.key)
    cnc.secure(server, users={"operator": secrets["opcua-password"]}, user_certificates=[server])  # nobody else's
    devices = [
        _device(cnc, username="operator", password_file="wrong-opcua-password"),
        {
            **_device(cnc, user_cert_file=str(user.certificate), user_key_file=str(user.key)),
            "name": "cnc-2",
        },
    ]
    wrong = {**mqtt, "password_file": "wrong-mqtt-password"}
    config = site(str(mqtt["url"]), devices, mqtt=wrong, log={"level": "debug", "format": "json"})
    with Daemon(options.disk, config, volatile=options.memory) as daemon:
        thumbprint = hashlib.sha1(server.der, usedforsecurity=False).hexdigest()
        places.command(daemon, "cert", "trust", "cnc-2", "-c", str(daemon.path), "--thumbprint", thumbprint)
        lost = {
            device: daemon.wait_for("device_lost", device=device, cause="login_refused", within=30)
            for device in ("cnc", "cnc-2")
        }
        refusal = daemon.wait_for("broker_refused", within=20)
        time.sleep(6)
        came = [user["name"] for user in cnc.seen()]
        places.command(daemon, "read", "-c", str(daemon.path))
        places.command(daemon, "status")
        _collect(places, daemon, None)
        daemon.stop()
    return {
        "MQTT password": refusal["cause"] in ("not_authorized", "bad_login"),
        "OPC UA password": "operator" in came and lost["cnc"]["detail"] in LOGIN_FAULTS,
        "OPC UA user key": lost["cnc-2"]["detail"] in LOGIN_FAULTS,
    }


def _wrong_files(options: Options, places: Places, secrets: dict[str, str], mqtt: Any) -> None:
    """Secrets written into the configuration, where they do not belong: refused, and not repeated."""
    names = ("password-in-mqtt-url", "password-in-opcua-url", "password-in-modbus-url", "inline-mqtt", "inline-opcua")
    secrets |= {name: _canary(name) for name in names}
    opc = opcua("cnc", "opc.tcp://127.0.0.1:4840", {"a": "i=85"})
    plc = {"name": "plc", "type": "modbus", "url": "tcp://127.0.0.1", "tags": [{"name": "a", "address": "coil:0"}]}
    spoiled: list[dict[str, Any]] = [
        site(f"mqtts://gw:{secrets['password-in-mqtt-url']}@127.0.0.1", [plc]),
        site(mqtt["url"], [{**opc, "url": f"opc.tcp://u:{secrets['password-in-opcua-url']}@127.0.0.1"}]),
        site(mqtt["url"], [{**plc, "url": f"tcp://u:{secrets['password-in-modbus-url']}@127.0.0.1"}]),
        site(mqtt["url"], [plc], mqtt={"password": secrets["inline-mqtt"]}),
        site(mqtt["url"], [{**opc, "password": secrets["inline-opcua"]}]),
    ]
    good = site(mqtt["url"], [plc], mqtt=mqtt, log={"level": "debug", "format": "json"})
    with Daemon(options.disk, good, volatile=options.memory) as daemon:
        for number, config in enumerate(spoiled, 1):
            daemon.reload(config)
            daemon.wait_for("config_refused", count=number)
            for arguments in (("check",), ("check", "--json"), ("read",), ("run",)):
                places.command(daemon, arguments[0], "-c", str(daemon.path), *arguments[1:])
        time.sleep(6)
        _collect(places, daemon, None)
        daemon.stop()


def _collect(places: Places, daemon: Daemon, own_key: Path | None) -> None:
    places.add("log", daemon.text())
    for file in [*daemon.run_dir.iterdir(), *daemon.data.rglob("*")]:
        holds_key = file == own_key or (own_key is None and file.is_file() and b"PRIVATE KEY" in file.read_bytes())
        if file.is_file() and not holds_key:
            places.add(file.name, file.read_bytes())


def _device(cnc: SecureServer, **keys: Any) -> dict[str, Any]:
    device = opcua("cnc", cnc.url, {"a": cnc.node("a")}, **keys)
    return {**device, "security": {"policy": "Basic256Sha256", "mode": "SignAndEncrypt"}}


def _secret(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def _body(key: Path) -> str:
    """A line of a PEM file that nothing else can contain: of the private exponent, since the modulus is public."""
    lines = re.findall(r"^[A-Za-z0-9+/=]{40,}$", key.read_text(), re.MULTILINE)
    return str(lines[len(lines) * 2 // 5])


@contextmanager
def _broker(disk: Path, authority: Authority, password: str) -> Iterator[tuple[Mosquitto, Path, tuple[Path, Path]]]:
    """A broker with TLS, certificates of clients and a password, and what it hands out as a file."""
    certificate, key = authority.issue("broker", "127.0.0.1", "localhost")
    client = authority.issue("gw")
    client[1].chmod(0o600)
    Mosquitto.write_password(disk / "passwords", "gw", password)
    broker = Mosquitto(
        disk,
        f"cafile {authority.ca_file}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "require_certificate true",
        "allow_anonymous false",
        f"password_file {disk / 'passwords'}",
    )
    heard = disk / "heard"
    command = ["mosquitto_sub", "-h", "localhost", "-p", str(broker.port), "--cafile", str(authority.ca_file)]
    command += ["--cert", str(client[0]), "--key", str(client[1]), "-u", "gw", "-t", "#", "-v"]
    options = disk / "mosquitto_sub.conf"
    options.write_text(f"-P {password}\n")  # not among the arguments: the process list is looked at
    with broker, heard.open("wb") as sink:
        environment = {"XDG_CONFIG_HOME": str(disk), "PATH": "/usr/bin:/bin"}
        (disk / "mosquitto_sub").write_text(f"-P {password}\n")
        listener = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment)
        eventually(lambda: "SUBSCRIBE" in broker.log(), "the subscription")
        try:
            yield broker, heard, client
        finally:
            listener.terminate()
            listener.wait(5)
