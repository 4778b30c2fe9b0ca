"""What a broker does not take: more than one message at a time, large packets, topics that its access list denies."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.daemon import GATEWAY, SITE, Daemon, data_topic, eventually, fill_backlog, modbus, site
from tests.faulty.broker import FaultyBroker
from tests.ledger import Account, Ledger
from tests.servers.modbus import ModbusServer
from tests.servers.mosquitto import free_port
from tests.soak.claims import Claim, Options
from tests.soak.plant import Sampler, Witness

T = TypeVar("T")

DEVICES = 3
ROUND_TRIP_S = 0.005
LIVE_S = 2.0
PACKET = 5000
TAGS = 1000
"""In one message far more than `PACKET` bytes."""
ENOUGH = 0.95
"""Share of a healthy device's polls whose messages arrive live beside one that makes trouble."""


def run(options: Options) -> list[Claim]:
    """Run it."""
    claims = _one_at_a_time(options)
    if options.short:
        return claims
    for protocol in ("5", "3.1.1"):
        claims += _too_large(options, protocol)
    claims += _denied(options, "5", hangs_up=True)
    claims += _denied(options, "5", hangs_up=False)
    return claims + _denied(options, "3.1.1", hangs_up=False)


def _place(options: Options, name: str) -> tuple[Path, Path]:
    directory, memory = options.disk / name, options.memory / name
    directory.mkdir()
    memory.mkdir()
    return directory, memory


@contextmanager
def _in_thread(broker: FaultyBroker) -> Iterator[None]:
    """The scripted broker, in a loop and a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    call(broker.__aenter__())
    try:
        yield
    finally:
        call(broker.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def _one_at_a_time(options: Options) -> list[Claim]:
    """Receive Maximum 1 of a broker that keeps to the letter, with a backlog to drain beside."""
    directory, memory = _place(options, "receive-maximum")
    backlog = 200 if options.short else 5_000
    before = fill_backlog(directory / "data", backlog)
    broker = FaultyBroker(receive_maximum=1)
    broker.puback_delay_s = ROUND_TRIP_S
    ledger = Ledger(SITE, GATEWAY)
    lates: list[float] = []

    def note(publish: Any) -> int:
        if publish.topic.endswith("/data") and b'"replayed":true' not in publish.payload:
            lates.append(time.time() - json.loads(publish.payload)["ts"] / 1000)
        return 0

    broker.puback = note
    with _in_thread(broker), ModbusServer() as plc:
        devices = [modbus(f"live-{at}", plc.url) for at in range(DEVICES)]
        config = site(broker.url, devices, buffer={"replay_rate": 0})
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, ledger) as sampler:
            daemon.wait_for("backlog_done", within=options.lasting(5, 0.5) * 60)
            took = daemon.events("backlog_done")[0]["seconds"]
            daemon.stop()
            status = sampler.look()
        counters = status["counters"]
        for publish in broker.acknowledged:
            if not publish.retain:
                ledger.take(publish.topic, publish.payload)
    own = counters["produced"] - counters["carried_over"]
    account = ledger.settle({status["agent"]["run"]: own, before: backlog})
    print(account, flush=True)
    lates.sort()
    return [
        Claim(
            "Receive Maximum 1 is kept, and fresh data comes first",
            f"{backlog} messages of backlog in {took:.0f} s beside {DEVICES * 10} live messages a second, "
            f"{ROUND_TRIP_S * 1000:.0f} ms each",
            f"at most {broker.max_unacked} unacknowledged, {len(broker.connections)} session; live p99 "
            f"{lates[int(len(lates) * 0.99)]:.2f} s, at most {lates[-1]:.2f} s; {account.missing} missing of "
            f"{account.messages}",
            broker.max_unacked == 1 and len(broker.connections) == 1 and lates[-1] <= LIVE_S and account.ok,
        )
    ]


def _beside(
    options: Options, name: str, lines: tuple[str, ...], protocol: str, trouble: dict[str, Any]
) -> tuple[Account, dict[str, Any], Daemon, dict[str, int], float]:
    """Three healthy devices beside one whose messages the broker does not take; `trouble` configures it.

    Returns:
        The account, the last status, the daemon that has ended, messages heard of each device (`live` of those of the
        healthy that were not replayed), and the seconds that it took.
    """
    directory, memory = _place(options, f"{name}-{protocol}")
    port = free_port()
    listener = (f"listener {port} 127.0.0.1", "allow_anonymous true", *lines)
    with Witness(directory, *listener) as witness, ModbusServer() as plc:
        devices = [modbus(f"good-{at}", plc.url) for at in range(DEVICES)]
        devices.append(modbus("odd", plc.url, **trouble))
        config = site(f"mqtt://127.0.0.1:{port}", devices, mqtt={"protocol": protocol})
        with Daemon(directory, config, volatile=memory) as daemon, Sampler(daemon, witness.ledger) as sampler:
            daemon.wait_for("broker_connected")
            began = time.monotonic()
            time.sleep(options.lasting(2, 0.2) * 60)
            took = time.monotonic() - began
            eventually(lambda: _good_waiting(sampler.look()) < 100, "few messages that wait", 60)
            daemon.stop()
            status = sampler.look()
        config["devices"] = devices[:-1]
        with Daemon(directory, config, volatile=memory) as last:
            last.wait_for("broker_connected")
            eventually(lambda: _good_waiting(last.status()) <= 1, "few messages that wait", 90)
            before = len(last.events("broker_connected"))
            config["mqtt"]["window"] = 99
            last.reload(config)  # a new session tells the last gaps
            last.wait_for("broker_connected", count=before + 1)
            time.sleep(1)
            last.stop()
            ended = last.status()
        time.sleep(1)
        heard = {"live": 0, "odd": 0}
        for _, topic, payload in witness.arrivals():
            if topic.endswith("/data"):
                heard["odd"] += topic == data_topic("odd")
                own_run = status["agent"]["run"].encode() in payload
                heard["live"] += own_run and topic != data_topic("odd") and b'"replayed":true' not in payload
        own = ended["counters"]["produced"] - ended["counters"]["carried_over"]
        account = witness.settle({status["agent"]["run"]: status["counters"]["produced"], ended["agent"]["run"]: own})
    print(account, flush=True)
    return account, _added(status, ended), daemon, heard, took


def _added(status: dict[str, Any], ended: dict[str, Any]) -> dict[str, Any]:
    """The first status, with what became of its messages in the run after it."""
    dropped, later = status["counters"]["dropped"], ended["counters"]["dropped"]
    status["counters"]["dropped"] = {reason: count + later[reason] for reason, count in dropped.items()}
    status["counters"]["buffered"] = ended["counters"]["buffered"]
    return status


def _good_waiting(status: dict[str, Any]) -> int:
    return int(status["counters"]["buffered"]) if status else 1 << 30


def _polls(status: dict[str, Any]) -> int:
    return sum(device["polls"] for name, device in status["devices"].items() if name.startswith("good-"))


def _lines(daemon: Daemon) -> int:
    """Lines about the broker and messages, without those of start and end."""
    return len([line for line in daemon.events() if line["event"].startswith(("broker_", "message_", "topic_"))])


def _too_large(options: Options, protocol: str) -> list[Claim]:
    """A limit that MQTT 5 tells in CONNACK; under 3.1.1 the broker ends the session instead."""
    trouble = {"tags": TAGS, "interval": "10 s"}
    account, status, daemon, heard, took = _beside(options, "packet", (f"max_packet_size {PACKET}",), protocol, trouble)
    counters, lost = status["counters"], len(daemon.events("broker_lost"))
    dropped = {reason: count for reason, count in counters["dropped"].items() if count}
    share = heard["live"] / _polls(status)
    return [
        Claim(
            f"a packet too large harms nobody (MQTT {protocol})",
            f"broker takes {PACKET} bytes; 1,000 tags in a message every 10 s beside {DEVICES * 10} small messages a "
            f"second, {took:.0f} s",
            f"dropped {dropped}, told {account.told}, {counters['buffered']} parked, {account.missing} missing; "
            f"{lost} sessions lost; {share:.1%} of the others arrived live; {_lines(daemon)} log lines",
            account.ok and share >= ENOUGH and account.told == sum(dropped.values()) > 0,
        )
    ]


def _denied(options: Options, protocol: str, *, hangs_up: bool) -> list[Claim]:
    """An access list that denies one device's topic.

    Args:
        hangs_up: the broker ends the session after each refusal, as several do. mosquitto 2.0.11 does so when its
            queue is not limited.
    """
    acl = options.disk / f"list-{protocol}-{hangs_up}"
    acl.write_text(f"topic readwrite #\ntopic deny {data_topic('odd')}\n")
    acl.chmod(0o644)
    lines = (f"acl_file {acl}", *(() if hangs_up else ("max_queued_messages 1000000",)))
    account, status, daemon, heard, took = _beside(options, f"acl-{hangs_up}", lines, protocol, {"interval": "1 s"})
    counters = status["counters"]
    dropped = {reason: count for reason, count in counters["dropped"].items() if count}
    share = heard["live"] / _polls(status)
    done = f"access list denies one device of {DEVICES + 1}, {took:.0f} s"
    if protocol == "5":
        return [
            Claim(
                f"a denied topic is told and harms nobody (MQTT 5{', broker hangs up' * hangs_up})",
                done,
                f"dropped {dropped}, told {account.told}, {account.missing} missing; "
                f"{len(daemon.events('broker_lost'))} sessions lost; "
                f"{share:.1%} of the others arrived live; {_lines(daemon)} log lines",
                account.ok and share >= ENOUGH and account.told == sum(dropped.values()) > 0,
            )
        ]
    blind = status["devices"]["odd"]["polls"]
    return [
        Claim(
            "a denied topic cannot be noticed under MQTT 3.1.1, as the reference says",
            done,
            f"{blind} messages acknowledged by the broker, {heard['odd']} handed on; {share:.1%} of the others arrived "
            "live",
            heard["odd"] == 0 and not dropped and share >= ENOUGH and account.missing == blind,
        )
    ]
