"""Who may in: refused logins, certificates that must not be trusted, files that are replaced, a twin.

The long ones wait most of the time, so they run side by side, each with a broker of its own.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, eventually, modbus, site
from tests.faulty.proxy import FaultProxy
from tests.ledger import Account
from tests.servers.certificates import Authority
from tests.servers.modbus import ModbusServer
from tests.servers.mosquitto import Mosquitto, free_port
from tests.soak.beside import Beside
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Witness, settle

REFUSED_MIN = 10.0
MOST_ATTEMPTS = 5
"""In ten minutes, as in no hour there are more than fifteen; without a growing delay there would be hundreds."""
TWIN_MIN = 5.0
MOST_RECONNECTS = 6
TWIN_GONE_S = 310.0
"""The longest delay is 5 min."""
ROTATIONS = 5
INTERVAL = "500 ms"
"""Of all polls: a machine that is busy with five brokers is late by some milliseconds, and that is no missed poll."""
RENEWED_S = 60.0
USER, PASSWORD = "gw-01", "canary-5f1e"


def run(options: Options) -> list[Claim]:
    """Run it."""
    if options.short:
        return _untrusted(options) + _replaced(options)
    parts: list[Callable[[Options], list[Claim]]] = [
        _refused,
        lambda o: _twin(o, "5"),
        lambda o: _twin(o, "3.1.1"),
        _two_agents,
        lambda o: _untrusted(o) + _replaced(o),
    ]
    with ThreadPoolExecutor(len(parts)) as pool:
        return [claim for claims in pool.map(lambda part: part(options), parts) for claim in claims]


def _place(options: Options, name: str) -> tuple[Path, Path]:
    directory, memory = options.disk / name, options.memory / name
    directory.mkdir()
    memory.mkdir()
    return directory, memory


def _secret(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def _settle(daemon: Daemon, witness: Witness, sampler: Sampler) -> tuple[Account, int]:
    """Stop when all has arrived; the account, and missed polls."""

    account, status = settle(daemon, witness, sampler)
    return account, sum(device["missed"] for device in status["devices"].values())


def _refused(options: Options) -> list[Claim]:
    """A wrong password, and then the right one."""
    directory, memory = _place(options, "refused")
    seconds = options.lasting(REFUSED_MIN, 0.1) * 60
    port, users = free_port(), directory / "users"
    Mosquitto.write_password(users, USER, PASSWORD)
    lines = (f"listener {port} 127.0.0.1", "allow_anonymous false", f"password_file {users}")
    file = directory / "password"
    mqtt = {"username": USER, "password_file": _secret(file, "not-this")}
    with Witness(directory, *lines) as witness, ModbusServer() as plc, FaultProxy(port) as proxy:
        config = site(proxy.url, [modbus("press", plc.url, interval=INTERVAL)], mqtt=mqtt, buffer={"replay_rate": 0})
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            time.sleep(seconds)
            attempts, told = len(proxy.links), len(_told(daemon))
            _secret(file, PASSWORD)
            daemon.reload(config)
            began = time.monotonic()
            daemon.wait_for("broker_connected", within=60)
            back = time.monotonic() - began
            account, missed = _settle(daemon, witness, sampler)
    return [
        Claim(
            "a refused login backs off, without a storm",
            f"wrong password for {seconds / 60:.0f} min, then the right one and SIGHUP",
            f"{attempts} attempts, {told} log lines; in {back:.1f} s after SIGHUP; {missed} missed polls, "
            f"{account.missing} missing of {account.messages}",
            1 <= attempts <= MOST_ATTEMPTS and told == 1 and back < RENEWED_S and missed == 0 and account.ok,
        )
    ]


def _told(daemon: Daemon) -> list[dict[str, Any]]:
    return [line for line in daemon.events() if line["event"].startswith("broker_")]


@contextmanager
def _impostor(certificate: tuple[Path, Path]) -> Iterator[tuple[int, list[bytes], list[int]]]:
    """A TLS server with this certificate: its port, what clients told it under TLS, and one entry for each who came."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    told: list[bytes] = []
    came: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def serve(end: threading.Event) -> None:
            while not end.is_set():
                with contextlib.suppress(OSError):  # a client that does not trust us hangs up
                    bare, _ = server.accept()
                    came.append(1)
                    bare.settimeout(2)
                    with context.wrap_socket(bare, server_side=True) as sock:
                        told.append(sock.recv(4096))

        with Beside(serve):
            yield server.getsockname()[1], told, came


def _untrusted(options: Options) -> list[Claim]:
    """Impostors one after the other, and nothing for any of them but a hand-shake."""
    directory, memory = _place(options, "untrusted")
    ours, theirs = Authority(directory, "ours"), Authority(directory, "theirs")
    cases = {
        "certificate_expired": ours.issue("expired", "127.0.0.1", days=(-30, -1)),
        "certificate_not_yet_valid": ours.issue("early", "127.0.0.1", days=(1, 30)),
        "certificate_wrong_host": ours.issue("other", "broker.example", "127.0.0.2"),
        "certificate_unknown": theirs.issue("foreign", "127.0.0.1"),
    }
    port, users = free_port(), directory / "users"
    Mosquitto.write_password(users, USER, PASSWORD)
    cert, key = ours.issue("broker", "127.0.0.1")
    lines = (
        f"listener {port} 127.0.0.1",
        "allow_anonymous false",
        f"password_file {users}",
        f"certfile {cert}",
        f"keyfile {key}",
    )
    mqtt = {
        "username": USER,
        "password_file": _secret(directory / "password", PASSWORD),
        "ca_file": str(ours.ca_file),
    }
    refusals, named, sent, leaked = 0, 0, 0, 0
    with Witness(directory, *lines) as witness, ModbusServer() as plc:

        def config(at: int) -> dict[str, Any]:
            return site(
                f"mqtts://127.0.0.1:{at}",
                [modbus("press", plc.url, interval=INTERVAL)],
                mqtt=mqtt,
                buffer={"replay_rate": 0},
            )

        with Daemon(directory, config(port), volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            daemon.wait_for("broker_connected")
            for cause, certificate in cases.items():
                with _impostor(certificate) as (at, told, came), FaultProxy(at, record=True) as proxy:
                    daemon.reload(config(proxy.port))
                    daemon.wait_for("broker_refused", cause=cause, within=15)
                    time.sleep(options.lasting(0.2, 0.0) * 60)
                    heard = b"".join(bytes(link.heard) for link in proxy.links)
                    refusals += len(came)
                    named += len(daemon.events("broker_refused", cause=cause)) == 1
                    sent += sum(map(len, told))
                    leaked += sum(word in heard for word in (USER.encode(), PASSWORD.encode(), b"shopfloor"))
            daemon.reload(config(port))
            daemon.wait_for("broker_connected", count=2, within=15)
            account, missed = _settle(daemon, witness, sampler)
    return [
        Claim(
            "nothing is sent to a broker that cannot be trusted",
            "certificate expired, not valid yet, for another host, of another authority; then the right one",
            f"{refusals} connections, {named} of {len(cases)} named once each; {sent} bytes under TLS, {leaked} names "
            f"or passwords in the clear; {missed} missed polls, {account.missing} missing of {account.messages}",
            refusals >= len(cases) == named and sent == leaked == missed == 0 and account.ok,
        )
    ]


def _replaced(options: Options) -> list[Claim]:
    """Authority, certificates, keys and password are all replaced on both sides; then SIGHUP."""
    directory, memory = _place(options, "replaced")
    port, users = free_port(), directory / "users"
    names = ("broker-cert", "broker-key", "broker-ca", "cert", "key", "ca", "password")
    files = {name: directory / f"in-use-{name}" for name in names}
    lines = (
        f"listener {port} 127.0.0.1",
        "allow_anonymous false",
        f"password_file {users}",
        f"certfile {files['broker-cert']}",
        f"keyfile {files['broker-key']}",
        f"cafile {files['broker-ca']}",
        "require_certificate true",
    )

    def renew(number: int) -> None:
        place = directory / f"generation-{number}"
        place.mkdir()
        brokers, gateways = Authority(place, "brokers"), Authority(place, "gateways")
        broker_cert, broker_key = brokers.issue("broker", "127.0.0.1")
        cert, key = gateways.issue("gateway")
        found = (broker_cert, broker_key, gateways.ca_file, cert, key, brokers.ca_file)
        for name, path in zip(names, found, strict=False):
            files[name].write_bytes(path.read_bytes())
            files[name].chmod(0o600 if name.endswith("key") else 0o644)
        _secret(files["password"], f"{PASSWORD}-{number}")
        Mosquitto.write_password(users, USER, f"{PASSWORD}-{number}")

    renew(0)
    mqtt = {
        "username": USER,
        "password_file": str(files["password"]),
        "ca_file": str(files["ca"]),
        "client_cert_file": str(files["cert"]),
        "client_key_file": str(files["key"]),
    }
    count, slowest = options.times(ROTATIONS, 1), 0.0
    with Witness(directory, *lines) as witness, ModbusServer() as plc:
        url = f"mqtts://127.0.0.1:{port}"
        config = site(url, [modbus("press", plc.url, interval=INTERVAL)], mqtt=mqtt, buffer={"replay_rate": 0})
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            for number in range(1, count + 1):
                daemon.wait_for("broker_connected", count=number)
                time.sleep(1)
                renew(number)
                witness.broker.restart()  # it reads its certificate only then
                daemon.wait_for("broker_lost", count=number)
                daemon.reload(config)
                began = time.monotonic()
                daemon.wait_for("broker_connected", count=number + 1, within=RENEWED_S + 5)
                slowest = max(slowest, time.monotonic() - began)
            account, missed = _settle(daemon, witness, sampler)
    return [
        Claim(
            "replaced files are picked up on SIGHUP",
            f"authority, certificates, keys and password of both sides replaced, {count} times",
            f"in after {slowest:.1f} s at most; {missed} missed polls, {account.missing} missing of {account.messages}",
            slowest <= RENEWED_S and missed == 0 and account.ok,
        )
    ]


def _twin(options: Options, protocol: str) -> list[Claim]:
    """Another client with our client id that comes back a second after it was thrown out."""
    directory, memory = _place(options, f"twin-{protocol}")
    seconds = options.lasting(TWIN_MIN, 0.2) * 60
    with Witness(directory) as witness, ModbusServer() as plc:
        config = site(
            witness.broker.url,
            [modbus("press", plc.url, interval=INTERVAL)],
            mqtt={"protocol": protocol},
            buffer={"replay_rate": 0},
        )
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            daemon.wait_for("broker_connected")
            with _other(witness.broker.port, "shopfloor-gw"):
                time.sleep(seconds)
                reconnects = len(daemon.events("broker_connected")) - 1
                named = len(daemon.events("broker_twin", client_id="shopfloor-gw"))
            began = time.monotonic()
            eventually(lambda: sampler.look()["broker"]["state"] == "connected", "a session", TWIN_GONE_S)
            back = time.monotonic() - began
            account, missed = _settle(daemon, witness, sampler)
    return [
        Claim(
            f"a twin is named and left in peace (MQTT {protocol})",
            f"another client with our client_id for {seconds / 60:.0f} min, back 1 s after each end",
            f"{reconnects} reconnects, named {named} times; in {back:.0f} s after it went; {missed} missed polls, "
            f"{account.missing} missing of {account.messages}",
            reconnects <= MOST_RECONNECTS and named == 1 and missed == 0 and account.ok,
        )
    ]


def _other(port: int, client_id: str) -> Beside:
    """A bare MQTT 3.1.1 client that knows no back-off."""
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(client_id).to_bytes(2) + client_id.encode()

    def insist(end: threading.Event) -> None:
        while not end.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
                sock.sendall(bytes([0x10, len(body)]) + body)
                while not end.is_set():
                    with contextlib.suppress(TimeoutError):
                        if not sock.recv(100):
                            break
            end.wait(1)

    return Beside(insist)


def _two_agents(options: Options) -> list[Claim]:
    """A cloned card: two agents with one client id."""
    seconds = options.lasting(TWIN_MIN, 0.2) * 60
    (first, first_memory), (second, second_memory) = _place(options, "card"), _place(options, "clone")
    with Witness(first) as witness, ModbusServer() as plc:
        config = site(witness.broker.url, [modbus("press", plc.url, interval=INTERVAL)], mqtt={"client_id": "cloned"})
        clone = {**config, "gateway": "gw-2"}
        with (
            Daemon(first, config, volatile=first_memory) as one,
            Daemon(second, clone, volatile=second_memory) as two,
        ):
            time.sleep(seconds)
            both = (one, two)
            reconnects = [len(daemon.events("broker_connected")) - 1 for daemon in both]
            named = [len(daemon.events("broker_twin")) for daemon in both]
            delivered = [daemon.status()["counters"]["delivered"] for daemon in both]
    return [
        Claim(
            "two agents with one client_id name each other",
            f"a cloned card for {seconds / 60:.0f} min",
            f"{reconnects[0]} and {reconnects[1]} reconnects, named {named[0]} and {named[1]} times; "
            f"{delivered[0]} and {delivered[1]} messages delivered meanwhile",
            max(reconnects) <= MOST_RECONNECTS and sum(named) >= 1,
        )
    ]
