"""Publisher and pump with the real outbox, against mosquitto and a broker that misbehaves."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.buffer.outbox import Outbox
from agent.config_model import MqttConfig
from agent.pace import Timing
from agent.publisher import Publisher
from agent.retained import Retained
from collectors.api import Batch
from tests.faulty.broker import V5, V311, FaultyBroker, Publish
from tests.servers.mosquitto import Mosquitto, Received, Subscriber, free_port, needs_mosquitto

PERSISTENT = ("allow_anonymous true", "persistence true")
DATA = "shopfloor/plant/gw/press/data"
STATUS = "shopfloor/plant/gw/status"
AGENT = "shopfloor/plant/gw/agent"
QUICK = Timing(
    connect=2.0,
    silent=0.4,
    skipped=0.6,
    first=0.02,
    longest=0.1,
    first_refused=0.02,
    refused=0.2,
    short=60,
    twin=100,
    every=60,
    spread=0.05,
    farewell=1.0,
)


class Gateway:
    """An outbox with a publisher, as the daemon has them."""

    def __init__(
        self, directory: Path, url: str, *, replay_rate: float = 0, timing: Timing = QUICK, **mqtt: Any
    ) -> None:
        self.outbox = Outbox(
            directory,
            site="plant",
            gateway="gw",
            max_size=50_000_000,
            commit_interval=0.5,
            max_payload=60_000,
            replay="live-first",
        )
        self.config = MqttConfig(url=url, client_id="gw", **mqtt)
        self.retained = Retained(directory / "retained.json", settle=0.05)
        self.sessions = 0
        self.publisher = Publisher(
            self.config,
            site="plant",
            gateway="gw",
            replay_rate=replay_rate,
            outbox=self.outbox,
            retained=self.retained,
            status=self.status,
            agent_message=lambda: json.dumps({"gaps": self.outbox.gaps()}).encode(),
            on_session=self.count_session,
            timing=timing,
        )
        self.tasks: list[asyncio.Task[None]] = []

    def status(self, state: str, *, at: float | None = None) -> bytes:
        return state.encode()

    def count_session(self) -> None:
        self.sessions += 1

    async def produce(self, count: int, device: str = "press", size: int = 10) -> None:
        for _ in range(count):
            batch = Batch(device, "1s", time.monotonic(), {"x": "v" * size})
            await self.outbox.append(batch, ts=time.time_ns() // 1_000_000, rev="r")

    def start(self) -> None:
        self.tasks = [asyncio.create_task(self.outbox.commit_loop()), asyncio.create_task(self.publisher.run())]

    def check(self) -> dict[str, Any]:
        """Return the counters; every message is in exactly one place."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()
        counts = self.outbox.counters()
        waiting = counts["buffered"] + counts["in_flight"]
        assert counts["produced"] == counts["delivered"] + waiting + sum(counts["dropped"].values())
        return counts

    async def until(self, condition: Callable[[], object], within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while not condition():
                self.check()
                await asyncio.sleep(0.01)

    async def delivered(self, count: int, within: float = 10.0) -> None:
        """Wait until so many messages are delivered and none is left."""
        await self.until(lambda: self.outbox.counters()["delivered"] >= count, within)
        assert self.check()["delivered"] == count

    async def close(self) -> None:
        await self.publisher.stop(b"stopped")
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.outbox.close(clean=True)


@asynccontextmanager
async def running(directory: Path, url: str, before: int = 0, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway at work; `before`: messages that are there before it may connect."""
    gateway = Gateway(directory, url, **options)
    await gateway.outbox.open()
    await gateway.produce(before)
    gateway.start()
    try:
        yield gateway
        gateway.check()
    finally:
        await gateway.close()


def ledger(payloads: list[bytes], run: str, count: int) -> list[dict[str, Any]]:
    """Every message arrived, re-deliveries are identical but for the mark; returns them decoded in order of arrival."""
    messages = [json.loads(payload) for payload in payloads]
    mine = [message for message in messages if message["run"] == run]
    assert {message["seq"] for message in mine} == set(range(1, count + 1))
    bodies: dict[int, set[str]] = {}
    for message in mine:
        plain = {key: value for key, value in message.items() if key != "replayed"}
        bodies.setdefault(message["seq"], set()).add(json.dumps(plain))
    assert all(len(variants) == 1 for variants in bodies.values())
    for lane in (True, False):
        seqs = [message["seq"] for message in mine if message.get("replayed", False) is lane]
        first_seen = list(dict.fromkeys(seqs))
        assert first_seen == sorted(first_seen), f"order of lane replayed={lane}"
    return mine


def payloads(received: list[Received]) -> list[bytes]:
    return [message.payload for message in received]


class TestWithMosquitto:
    pytestmark = needs_mosquitto

    @pytest.mark.parametrize("protocol", ["5", "3.1.1"])
    async def test_readings_status_and_counters_arrive(self, tmp_path: Path, protocol: str) -> None:
        with Mosquitto(tmp_path) as broker, Subscriber(broker) as subscriber:
            async with running(tmp_path, broker.url, protocol=protocol) as gateway:
                await gateway.until(lambda: gateway.publisher.state == "connected")
                assert gateway.publisher.protocol == protocol
                await gateway.produce(50)
                await gateway.delivered(50)
                await gateway.until(lambda: len(subscriber.on(DATA)) == 50)
                messages = ledger(subscriber.payloads(DATA), gateway.outbox.run, 50)
                assert not any("replayed" in message for message in messages)
            await gateway.until(lambda: len(subscriber.on(STATUS)) == 2)
            assert subscriber.payloads(STATUS) == [b"online", b"stopped"]
            assert [json.loads(payload) for payload in subscriber.payloads(AGENT)] == [{"gaps": []}]
            with Subscriber(broker) as late:
                await gateway.until(lambda: late.messages)
                assert [(m.topic, m.payload, m.retain) for m in late.messages] == [(STATUS, b"stopped", True)]

    async def test_a_backlog_is_replayed_and_marked(self, tmp_path: Path) -> None:
        keeping = (*PERSISTENT, f"persistence_location {tmp_path}/")
        with Mosquitto(tmp_path, *keeping) as broker, Subscriber(broker) as subscriber:
            broker.stop()
            async with running(tmp_path / "data", broker.url, before=300) as gateway:
                await gateway.until(lambda: gateway.publisher.state == "unreachable")
                await asyncio.sleep(2.1)  # what is younger counts as fresh
                with structlog.testing.capture_logs() as logs:
                    broker.start()
                    await gateway.delivered(300)
                    await gateway.until(lambda: any(entry["event"] == "backlog_done" for entry in logs))
                await gateway.until(lambda: len(set(subscriber.payloads(DATA))) == 300)
                messages = ledger(subscriber.payloads(DATA), gateway.outbox.run, 300)
                assert all(message["replayed"] for message in messages)
                assert [entry["event"] for entry in logs] == ["broker_connected", "backlog_replay", "backlog_done"]

    async def test_restarts_of_the_broker_lose_nothing(self, tmp_path: Path) -> None:
        with (
            Mosquitto(
                tmp_path, "allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/"
            ) as broker,
            Subscriber(broker) as subscriber,
        ):
            async with running(tmp_path / "data", broker.url) as gateway:
                for _ in range(3):
                    await gateway.produce(150)
                    broker.restart()
                    await gateway.produce(150)
                    await gateway.until(lambda: gateway.publisher.state == "connected")
                await gateway.delivered(900)
                await gateway.until(lambda: len({json.loads(p)["seq"] for p in subscriber.payloads(DATA)}) == 900)

    async def test_a_denied_topic_is_parked_three_times_and_counted_and_the_others_flow(self, tmp_path: Path) -> None:
        acl = tmp_path / "acl"
        acl.write_text("topic readwrite shopfloor/plant/gw/press/#\ntopic readwrite shopfloor/plant/gw/status\n")
        acl.chmod(0o644)
        lines = ("allow_anonymous true", f"acl_file {acl}")
        with Mosquitto(tmp_path, *lines) as broker, structlog.testing.capture_logs() as logs:
            async with running(tmp_path / "data", broker.url) as gateway:
                await gateway.until(lambda: gateway.publisher.state == "connected")
                for _ in range(20):
                    await gateway.produce(1, "press")
                    await gateway.produce(1, "secret")
                await gateway.until(lambda: gateway.outbox.counters()["delivered"] == 20)
                parked = [entry for entry in logs if entry["event"] == "message_parked"]
                assert [(e["device"], e["reason"], e["code"]) for e in parked] == [("secret", "not-authorized", 0x87)]
                await gateway.until(lambda: gateway.outbox.counters()["buffered"] == 20)
                assert gateway.sessions == 1

    async def test_kill_lets_the_will_speak_and_stop_says_stopped(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker, Subscriber(broker, STATUS) as subscriber:
            async with running(tmp_path, broker.url) as gateway:
                await gateway.until(lambda: subscriber.payloads(STATUS) == [b"online"])
                await gateway.produce(200)
                began = time.monotonic()
                assert await gateway.publisher.stop(b"stopped")
                assert time.monotonic() - began < 1
                await gateway.until(lambda: subscriber.payloads(STATUS) == [b"online", b"stopped"])

    async def test_stop_with_a_frozen_broker_leaves_the_word_to_the_will(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker, Subscriber(broker, STATUS) as subscriber:
            async with running(tmp_path, broker.url) as gateway:
                await gateway.until(lambda: subscriber.payloads(STATUS) == [b"online"])
                broker.freeze()
                began = time.monotonic()
                assert not await gateway.publisher.stop(b"stopped")
                assert time.monotonic() - began < 4
                broker.thaw()
                await gateway.until(lambda: subscriber.payloads(STATUS)[-1] == b"lost")

    async def test_a_password_that_is_corrected_is_used(self, tmp_path: Path) -> None:
        passwords, secret = tmp_path / "passwd", tmp_path / "secret"
        Mosquitto.write_password(passwords, "gw", "right")
        secret.write_text("wrong")
        secret.chmod(0o600)
        with Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}") as broker:
            options = {"username": "gw", "password_file": str(secret)}
            with structlog.testing.capture_logs() as logs:
                async with running(tmp_path / "data", broker.url, before=5, **options) as gateway:
                    await gateway.until(lambda: gateway.publisher.state == "refused")
                    assert gateway.publisher.cause == "not_authorized"
                    await asyncio.sleep(0.3)
                    secret.write_text("right")
                    await gateway.delivered(5)
                    assert gateway.publisher.cause is None
            assert [entry["event"] for entry in logs] == ["broker_refused", "broker_connected"]
            assert "wrong" not in str(logs)
            assert "right" not in str(logs)

    async def test_a_reload_at_the_moment_of_connecting_is_not_forgotten(self, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        (tmp_path / "new").mkdir()
        with Mosquitto(tmp_path / "old") as old, Mosquitto(tmp_path / "new") as new:
            async with running(tmp_path / "data", old.url, before=5) as gateway:
                elsewhere = gateway.config.model_copy(update={"url": new.url})
                attempts: list[asyncio.Task[Any]] = []
                while not attempts:
                    await asyncio.sleep(0)
                    attempts = [task for task in asyncio.all_tasks() if "Session.connect" in repr(task)]
                # The attempt has its result, and nobody has looked at it yet.
                attempts[0].add_done_callback(lambda _: gateway.publisher.reconfigure(elsewhere))
                await gateway.until(lambda: "as gw" in new.log(), 5)
                await gateway.delivered(5)

    async def test_a_message_over_the_brokers_limit_is_counted_and_harms_nobody(self, tmp_path: Path) -> None:
        for line in ("message_size_limit 1000", "max_packet_size 1200"):
            with Mosquitto(tmp_path, "allow_anonymous true", line) as broker:
                async with running(tmp_path / line.split()[0], broker.url) as gateway:
                    await gateway.until(lambda: gateway.publisher.state == "connected")
                    await gateway.produce(5)
                    await gateway.produce(1, size=3000)
                    await gateway.produce(5)
                    await gateway.until(lambda: gateway.outbox.counters()["delivered"] == 10)
                    assert gateway.publisher.state == "connected"
                    assert gateway.check()["buffered"] == 1

    async def test_retained_topics_of_gone_things_are_cleared_after_a_restart(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker:
            async with running(tmp_path / "data", broker.url) as gateway:
                for name in ("a", "b"):
                    gateway.retained.set(f"meta/{name}", name.encode())
                with Subscriber(broker, "meta/#") as subscriber:
                    await gateway.until(lambda: len(subscriber.messages) == 2)
            async with running(tmp_path / "data", broker.url, status_topic=None) as gateway:
                gateway.retained.set("meta/b", b"b2")
                gateway.retained.keep_only(["meta/b"])
                await gateway.until(
                    lambda: json.loads((tmp_path / "data/retained.json").read_bytes())["topics"] == ["meta/b"]
                )
            with Subscriber(broker, "#") as subscriber:
                await gateway.until(lambda: subscriber.messages)
                assert [(m.topic, m.payload) for m in subscriber.messages] == [("meta/b", b"b2")]

    async def test_a_new_configuration_is_a_new_session(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker, Subscriber(broker, "#") as subscriber:
            async with running(tmp_path, broker.url) as gateway:
                await gateway.until(lambda: subscriber.payloads(STATUS) == [b"online"])
                gateway.publisher.reconfigure(gateway.config.model_copy(update={"topic": "new/{device}/{group}"}))
                await gateway.until(lambda: gateway.sessions == 2)
                await gateway.produce(3)
                await gateway.until(lambda: len(subscriber.on("new/press/1s")) == 3)
                assert subscriber.payloads(STATUS) == [b"online", b"online"]

    async def test_a_broker_that_is_left_for_another_is_told_by_the_will(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as old, Mosquitto(tmp_path) as new, Subscriber(old, STATUS) as subscriber:
            async with running(tmp_path, old.url) as gateway:
                await gateway.until(lambda: subscriber.payloads(STATUS) == [b"online"])
                gateway.publisher.reconfigure(gateway.config.model_copy(update={"url": new.url}))
                await gateway.until(lambda: gateway.sessions == 2)
                await gateway.produce(3)
                await gateway.delivered(3)
                await gateway.until(lambda: subscriber.payloads(STATUS) == [b"online", b"lost"])


class TestWindow:
    @pytest.mark.parametrize("maximum", [1, 2, 7])
    async def test_receive_maximum_is_never_exceeded(self, tmp_path: Path, maximum: int) -> None:
        async with FaultyBroker(receive_maximum=maximum) as broker:
            broker.puback_delay_s = 0.002
            async with running(tmp_path, broker.url, before=30) as gateway:
                for number in range(30):
                    gateway.retained.set(f"meta/{number}", b"x")
                for _ in range(10):
                    await gateway.produce(3)
                    await asyncio.sleep(0.005)
                await gateway.delivered(60)
                await broker.until(lambda: sum(p.topic.startswith("meta/") for p in broker.publishes) == 30)
                assert await gateway.publisher.stop(b"stopped")
            assert broker.max_unacked == maximum
            ledger(broker.payloads(DATA), gateway.outbox.run, 60)

    async def test_documents_do_not_wait_for_acknowledgements_that_are_there(self, tmp_path: Path) -> None:
        async with FaultyBroker(receive_maximum=5) as broker, running(tmp_path, broker.url) as gateway:
            for number in range(100):
                gateway.retained.set(f"meta/{number}", b"x")
            await broker.until(lambda: sum(p.topic.startswith("meta/") for p in broker.publishes) == 100, 3.0)

    async def test_the_configured_window(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.puback = lambda _publish: None
            async with running(tmp_path, broker.url, before=300, window=25) as gateway:
                await broker.until(lambda: len(broker.publishes) >= 25)
                await asyncio.sleep(0.1)
                assert broker.max_unacked == 25
                assert gateway.publisher.window == 25

    async def test_fresh_messages_pass_a_backlog(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.answer_connect = False
            async with running(tmp_path, broker.url, before=2000, timing=replace(QUICK, connect=0.3)) as gateway:
                await asyncio.sleep(2.3)
                broker.answer_connect = True
                broker.puback_delay_s = 0.02
                await broker.until(lambda: len(broker.publishes) > 50)
                latencies = []
                for number in range(20):
                    await gateway.produce(1, f"live{number}")
                    began = time.monotonic()
                    topic = f"shopfloor/plant/gw/live{number}/data"
                    await broker.until(lambda: bool(broker.payloads(topic)))  # noqa: B023 - used at once
                    latencies.append(time.monotonic() - began)
                assert gateway.outbox.backlog > 0
                assert sorted(latencies)[10] < 0.05
                assert broker.max_unacked <= 100

    async def test_the_rate_of_a_backlog(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.answer_connect = False
            timing = replace(QUICK, connect=0.3)
            async with running(tmp_path, broker.url, before=500, replay_rate=100, timing=timing) as gateway:
                await asyncio.sleep(2.3)
                broker.answer_connect = True
                await broker.until(lambda: broker.payloads(DATA) != [])
                began = time.monotonic()
                await asyncio.sleep(1.0)
                allowed = 100 * (time.monotonic() - began) + 20
                assert allowed / 2 < len(broker.payloads(DATA)) <= allowed
                assert gateway.check()["buffered"] > 200


class TestRefusals:
    async def test_too_fast_is_sent_again_more_slowly_and_not_counted_as_refused(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            refusing = itertools.count()
            broker.puback = lambda publish: 0x97 if publish.topic == DATA and next(refusing) < 50 else 0
            async with running(tmp_path, broker.url, before=200) as gateway:
                await gateway.delivered(200)
                counts = gateway.check()
                assert counts["dropped"] == dict.fromkeys(counts["dropped"], 0)
            again = Counter(json.loads(payload)["seq"] for payload in broker.payloads(DATA))
            assert max(again.values()) >= 2

    async def test_a_session_ended_for_our_pace_is_followed_by_a_slower_one(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.take_over_after, broker.say_before_end = 30, 0x93
            broker.puback_delay_s = 0.01
            async with running(tmp_path, broker.url, window=40) as gateway:
                await gateway.until(lambda: gateway.publisher.state == "connected")
                await gateway.produce(200)
                await gateway.until(lambda: gateway.publisher.window <= 5)  # 5 itself lasts for 30 messages
                broker.take_over_after = None
                await gateway.delivered(200)

    async def test_a_message_that_ends_the_session_is_found_and_harms_nobody(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            topic = "shopfloor/plant/gw/poison/data"

            def puback(publish: Publish) -> int | None:
                if publish.topic != topic:
                    return 0
                broker.connections[publish.connection].writer.close()
                return None

            broker.puback = puback
            broker.puback_delay_s = 0.005
            async with running(tmp_path, broker.url) as gateway:
                await gateway.until(lambda: gateway.publisher.state == "connected")
                await gateway.produce(100)
                await gateway.produce(1, "poison")
                await gateway.produce(100)
                await gateway.until(lambda: gateway.outbox.counters()["delivered"] == 200)
                assert gateway.check()["dropped"]["refused"] == 0
                assert gateway.sessions <= 4

    async def test_a_denied_topic_whose_refusal_ends_the_session_harms_nobody(self, tmp_path: Path) -> None:
        """Every denied message cost a session, the others waited, and after three of them a twin was blamed."""
        async with FaultyBroker() as broker:

            def puback(publish: Publish) -> int:
                if publish.topic != "shopfloor/plant/gw/secret/data":
                    return 0
                asyncio.get_running_loop().call_soon(broker.connections[publish.connection].writer.close)
                return 0x87

            broker.puback = puback
            with structlog.testing.capture_logs() as logs:
                async with running(tmp_path, broker.url) as gateway:
                    for number in range(1, 41):
                        await gateway.produce(1, "secret")
                        await gateway.produce(1)
                        await gateway.until(lambda n=number: gateway.outbox.counters()["delivered"] == n)  # type: ignore[misc]
                    assert gateway.check()["dropped"]["refused"] + gateway.check()["buffered"] == 40
                    assert gateway.sessions <= 4
            events = [entry["event"] for entry in logs]
            assert events.count("topic_shunned") == 1
            assert "broker_twin" not in events

    async def test_a_topic_of_our_own_that_ends_the_session_is_barred(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:

            def puback(publish: Publish) -> int | None:
                if publish.topic != AGENT:
                    return 0
                broker.connections[publish.connection].writer.close()
                return None

            broker.puback = puback
            with structlog.testing.capture_logs() as logs:
                async with running(tmp_path, broker.url, before=10) as gateway:
                    await gateway.delivered(10)
                    await gateway.until(lambda: any(entry["event"] == "topic_barred" for entry in logs))
                    await gateway.until(lambda: gateway.publisher.state == "connected")
                    await gateway.produce(10)
                    await gateway.delivered(20)

    async def test_no_subscriber_is_a_success(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.puback = lambda _publish: 0x10
            async with running(tmp_path, broker.url, before=20) as gateway:
                await gateway.delivered(20)

    async def test_gaps_are_told_until_the_broker_has_them(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.puback = lambda publish: 0x87 if publish.topic == AGENT and len(broker.payloads(AGENT)) < 3 else 0
            timing = replace(QUICK, every=0.1)
            async with running(tmp_path, broker.url, timing=timing) as gateway:
                told: list[Any] = []
                gateway.outbox.gaps_told = told.append  # type: ignore[method-assign,assignment] # listens only
                await broker.until(lambda: len(told) > 0)
                assert len(broker.payloads(AGENT)) >= 3
                await broker.until(lambda: broker.payloads(STATUS).count(b"online") >= 3)


class TestLosses:
    async def test_lost_acknowledgements_end_the_session_and_everything_is_sent_again(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.puback = lambda publish: None if publish.connection == 0 and publish.topic == DATA else 0
            async with running(tmp_path, broker.url) as gateway:
                await gateway.until(lambda: gateway.publisher.state == "connected")
                await gateway.produce(40)
                await gateway.delivered(40)
                messages = ledger(broker.payloads(DATA), gateway.outbox.run, 40)
                assert len(broker.connects) == 2
                assert not any("replayed" in message for message in messages[:40])
                assert all(message["replayed"] for message in messages[40:])

    async def test_some_lost_acknowledgements(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            rng = random.Random(1)
            broker.puback = lambda publish: None if publish.connection < 2 and rng.random() < 0.2 else 0
            async with running(tmp_path, broker.url) as gateway:
                for _ in range(100):
                    await gateway.produce(2)
                    await asyncio.sleep(0.01)
                await gateway.delivered(200)
                ledger(broker.payloads(DATA), gateway.outbox.run, 200)

    async def test_a_connection_cut_anywhere_loses_nothing(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.cut_at = [1, 2, 15, 60, 90, 100, 150, 201, 333, 1000, 1777, 2500, 5001]
            cuts = len(broker.cut_at)
            async with running(tmp_path, broker.url, before=100, timing=replace(QUICK, twin=0.1)) as gateway:
                for _ in range(50):
                    await gateway.produce(4)
                    await asyncio.sleep(0.01)
                await gateway.delivered(300, within=20)
                assert not broker.cut_at
                assert len(broker.connections) >= cuts
            acknowledged = {json.loads(p.payload)["seq"] for p in broker.acknowledged if p.topic == DATA}
            assert acknowledged == set(range(1, 301))

    async def test_a_frozen_broker_is_noticed(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker, running(tmp_path, broker.url) as gateway:
            await gateway.until(lambda: gateway.publisher.state == "connected")
            broker.freeze()
            with structlog.testing.capture_logs() as logs:
                await gateway.produce(10)
                await gateway.until(lambda: logs)
            assert (logs[0]["event"], logs[0]["cause"]) == ("broker_lost", "silent")


class TestLife:
    async def test_starts_without_a_broker_and_says_so_once(self, tmp_path: Path) -> None:
        with structlog.testing.capture_logs() as logs:
            async with running(tmp_path, f"mqtt://127.0.0.1:{free_port()}") as gateway:
                await gateway.until(lambda: gateway.publisher.state == "unreachable")
                await asyncio.sleep(0.5)
                assert gateway.publisher.cause == "refused"
                assert time.monotonic() - gateway.publisher.alive_at < 1
                began = time.monotonic()
                assert not await gateway.publisher.stop(b"stopped")
                assert time.monotonic() - began < 0.5
        assert [(entry["event"], entry["cause"]) for entry in logs] == [("broker_unreachable", "refused")]

    async def test_stop_does_not_wait_for_an_answer_to_connect(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.answer_connect = False
            async with running(tmp_path, broker.url) as gateway:
                await broker.until(lambda: len(broker.connects) == 1)
                began = time.monotonic()
                assert not await gateway.publisher.stop(b"stopped")
                assert time.monotonic() - began < 1.5

    async def test_stop_before_run(self, tmp_path: Path) -> None:
        gateway = Gateway(tmp_path, "mqtt://127.0.0.1:1")
        assert not await gateway.publisher.stop(b"stopped")

    async def test_an_explicit_refusal_of_5_brings_311_and_is_remembered(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.connack = {V5: 0x84}
            with structlog.testing.capture_logs() as logs:
                async with running(tmp_path, broker.url, before=5) as gateway:
                    await gateway.delivered(5)
                    broker.kick()
                    await gateway.until(lambda: gateway.sessions == 2)
                    assert gateway.publisher.protocol == "3.1.1"
            assert [connect.protocol for connect in broker.connects] == [V5, V311, V311]
            events = [entry["event"] for entry in logs]
            assert events == ["broker_fallback", "broker_connected", "broker_lost", "broker_connected"]

    @pytest.mark.parametrize("answer", ["never", "bad_login", "garbage"])
    async def test_nothing_else_brings_311(self, tmp_path: Path, answer: str) -> None:
        async with FaultyBroker() as broker:
            broker.answer_connect = answer != "never"
            broker.connack = {V5: 0x86} if answer == "bad_login" else {}
            broker.connack_bytes = b"\x20\x02\x00\x00" if answer == "garbage" else None
            async with running(tmp_path, broker.url, timing=replace(QUICK, connect=0.1)):
                await broker.until(lambda: len(broker.connects) >= 4)
            assert {connect.protocol for connect in broker.connects} == {V5}

    async def test_a_named_version_is_never_changed(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.connack = {V5: 0x84}
            async with running(tmp_path, broker.url, protocol="5") as gateway:
                await broker.until(lambda: len(broker.connects) >= 3)
                await gateway.until(lambda: gateway.publisher.state == "refused")
                assert gateway.publisher.cause == "protocol"
            assert {connect.protocol for connect in broker.connects} == {V5}

    async def test_where_neither_version_works_5_is_tried_again(self, tmp_path: Path) -> None:
        async with FaultyBroker() as broker:
            broker.connack = {V5: 0x84, V311: 1}
            async with running(tmp_path, broker.url, before=1) as gateway:
                await broker.until(lambda: len(broker.connects) >= 4)
                assert [connect.protocol for connect in broker.connects[:4]] == [V5, V311, V5, V311]
                broker.connack = {}
                await gateway.delivered(1)

    @pytest.mark.parametrize("protocol", ["5", "3.1.1"])
    async def test_a_twin_is_told_and_left_in_peace(self, tmp_path: Path, protocol: str) -> None:
        async with FaultyBroker() as broker:
            broker.take_over_after = 1 if protocol == "5" else None
            with structlog.testing.capture_logs() as logs:
                async with running(tmp_path, broker.url, protocol=protocol) as gateway:
                    for session in (1, 2, 3):
                        await gateway.until(lambda: gateway.sessions == session)  # noqa: B023 - used at once
                        if protocol == "3.1.1":  # the broker closes without a word, when nothing is under way
                            await broker.until(lambda: len(broker.acknowledged) == 2 * session)  # noqa: B023
                            await asyncio.sleep(0.05)
                            broker.kick()
                    await gateway.until(lambda: any(entry["event"] == "broker_twin" for entry in logs))
                    await asyncio.sleep(0.3)
                    assert len(broker.connects) == 3
            twin = next(entry for entry in logs if entry["event"] == "broker_twin")
            assert (twin["client_id"], twin["times"]) == ("gw", 3)

    async def test_a_broker_without_retained_messages(self, tmp_path: Path) -> None:
        async with FaultyBroker(retain_available=0) as broker, running(tmp_path, broker.url):
            await broker.until(lambda: broker.payloads(STATUS) == [b"online"])
            assert not broker.publishes[0].retain
