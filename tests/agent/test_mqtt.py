"""The session against a real mosquitto, and against a broker that misbehaves."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import mqtt_errors
from agent.aside import Aside, Died, Late, Stuck
from agent.mqtt import Limits, Protocol, Session, Will
from agent.mqtt_endpoint import Endpoint
from agent.mqtt_errors import RETAIN_UNSUPPORTED, SessionError
from tests.faulty.broker import V5, V311, FaultyBroker
from tests.servers.certificates import Authority
from tests.servers.mosquitto import Mosquitto, Subscriber, free_port, needs_mosquitto

WILL = Will("status", b"lost")


class Client:
    """A session and the event its news set."""

    def __init__(self, endpoint: Endpoint, protocol: Protocol = "5", connect_s: float = 3.0) -> None:
        self.news = asyncio.Event()
        self.aside: Aside[SessionError | None] = Aside("test-connect")
        self.session = Session(
            endpoint, protocol, will=WILL, aside=self.aside, on_news=self.news.set, connect_s=connect_s
        )

    async def acks(self, count: int, within: float = 5.0) -> list[tuple[int, int]]:
        """Wait for so many acknowledgements."""
        got: list[tuple[int, int]] = []
        async with asyncio.timeout(within):
            while len(got) < count:
                await self.news.wait()
                self.news.clear()
                got += self.session.take_acks()
        return got

    async def lost(self, within: float = 5.0) -> SessionError:
        """Wait for the end of the session."""
        async with asyncio.timeout(within):
            while self.session.lost is None:
                await self.news.wait()
                self.news.clear()
        return self.session.lost


def endpoint(port: int, **changes: Any) -> Endpoint:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": False, "client_id": "gw"}
    return Endpoint(**given | changes)


@asynccontextmanager
async def connected(where: Endpoint, protocol: Protocol = "5") -> AsyncIterator[Client]:
    client = Client(where, protocol)
    await client.session.connect()
    try:
        yield client
    finally:
        await client.session.close(goodbye=False)


async def failure(where: Endpoint, protocol: Protocol = "5", connect_s: float = 3.0) -> SessionError:
    client = Client(where, protocol, connect_s)
    with pytest.raises(SessionError) as caught:
        await client.session.connect()
    return caught.value


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def seen(condition: Callable[[], object], within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what it looks at is in other threads and processes
            await asyncio.sleep(0.01)


class TestWithMosquitto:
    pytestmark = needs_mosquitto

    @pytest.mark.parametrize("protocol", ["5", "3.1.1"])
    async def test_publishes_and_hears_the_acknowledgement(self, tmp_path: Path, protocol: Protocol) -> None:
        with Mosquitto(tmp_path) as broker, Subscriber(broker) as subscriber:
            async with connected(endpoint(broker.port), protocol) as client:
                mids = [client.session.publish("a/b", b"%d" % n) for n in range(20)]
                assert [mid for mid, code in await client.acks(20) if code < 0x80] == mids
            await seen(lambda: len(subscriber.on("a/b")) == 20)
            assert subscriber.payloads("a/b") == [b"%d" % n for n in range(20)]

    async def test_goodbye_keeps_the_will_back_and_its_absence_lets_it_speak(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker, Subscriber(broker) as subscriber:
            for goodbye in (True, False):
                client = Client(endpoint(broker.port))
                await client.session.connect()
                began = time.monotonic()
                await client.session.close(goodbye=goodbye)
                assert time.monotonic() - began < 1
                await client.session.close(goodbye=goodbye)  # twice is fine
                mark = f"after {goodbye}".encode()
                async with connected(endpoint(broker.port, client_id="other")) as other:
                    other.session.publish("mark", mark)
                    await other.acks(1)
                    await other.session.close(goodbye=True)
            await seen(lambda: len(subscriber.on("mark")) == 2)
            assert [m.payload for m in subscriber.messages] == [b"after True", b"lost", b"after False"]

    async def test_a_denied_topic_is_a_refusal_under_5(self, tmp_path: Path) -> None:
        acl = tmp_path / "acl"
        acl.write_text("topic write open/#\n")
        acl.chmod(0o644)
        with Mosquitto(tmp_path, "allow_anonymous true", f"acl_file {acl}") as broker:
            async with connected(endpoint(broker.port)) as client:
                denied, allowed = client.session.publish("shut", b"x"), client.session.publish("open/x", b"x")
                acks = dict(await client.acks(2))
                assert acks[denied] == 0x87
                assert acks[allowed] < 0x80

    async def test_limits_are_what_the_broker_says(self, tmp_path: Path) -> None:
        lines = ("allow_anonymous true", "max_inflight_messages 7", "max_packet_size 2000")
        with Mosquitto(tmp_path, *lines) as broker:
            client = Client(endpoint(broker.port))
            limits = await client.session.connect()
            await client.session.close(goodbye=True)
        assert limits == Limits("5", window=7, packet_size=2000)

    async def test_a_broker_that_retains_nothing_refuses_a_retained_will(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path, "allow_anonymous true", "retain_available false") as broker:
            assert (await failure(endpoint(broker.port))).code == RETAIN_UNSUPPORTED

    async def test_a_changed_password_file_is_used(self, tmp_path: Path) -> None:
        passwords = tmp_path / "passwd"
        Mosquitto.write_password(passwords, "gw", "right")
        secret = tmp_path / "secret"
        secret.write_text("wrong\n")
        secret.chmod(0o600)
        with Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}") as broker:
            where = endpoint(broker.port, username="gw", password_file=secret)
            for protocol in ("5", "3.1.1"):
                error = await failure(where, protocol)
                assert (error.cause, error.refused) == ("not_authorized", True)
                assert "wrong" not in error.text
            secret.write_text("right\n")
            async with connected(where):
                pass
            secret.chmod(0o644)
            error = await failure(where)
            assert "others can read" in error.text

    async def test_the_broker_killed_is_a_lost_session(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker:
            async with connected(endpoint(broker.port)) as client:
                broker.stop(9)
                assert (await client.lost()).cause == "closed_by_peer"

    async def test_a_take_over_ends_the_session(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker:
            async with connected(endpoint(broker.port)) as first, connected(endpoint(broker.port)):
                assert (await first.lost()).cause in ("taken_over", "closed_by_peer")  # 2.0.11 does not say why

    async def test_a_hundred_sessions_leave_neither_files_nor_threads(self, tmp_path: Path) -> None:
        with Mosquitto(tmp_path) as broker:
            async with connected(endpoint(broker.port)):
                pass
            files, threads = open_files(), threading.active_count()
            for number in range(40):
                async with connected(endpoint(broker.port)) as client:
                    client.session.publish("a", b"x")
                    await client.session.close(goodbye=number % 2 == 0)
            assert open_files() <= files + 2
            assert threading.active_count() <= threads + 1


class TestTls:
    pytestmark = [  # noqa: RUF012 - how pytest wants it
        needs_mosquitto,
        # paho does not close a socket whose handshake failed; it goes with the last reference.
        pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        pytest.mark.filterwarnings("ignore::ResourceWarning"),
    ]

    async def connect(self, tmp_path: Path, host: str, cert: tuple[Path, Path], *lines: str, **tls: Any) -> str:
        """Return the cause of the failure, or `connected`; nothing is sent before the broker is known."""
        options = (f"certfile {cert[0]}", f"keyfile {cert[1]}", "allow_anonymous true", *lines)
        with Mosquitto(tmp_path, *options) as broker:
            client = Client(endpoint(broker.port, host=host, tls=True, **tls))
            try:
                await client.session.connect()
            except SessionError as error:
                refusal = error
            else:
                client.session.publish("a", b"x")
                await client.acks(1)
                await client.session.close(goodbye=True)
                return "connected"
            assert "New client connected" not in broker.log()
            assert refusal.refused
            return refusal.cause

    async def test_the_right_authority(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        cert = authority.issue("broker", "127.0.0.1", "localhost")
        for host in ("127.0.0.1", "localhost"):
            assert await self.connect(tmp_path, host, cert, ca_file=authority.ca_file) == "connected"

    async def test_nothing_goes_to_a_broker_that_cannot_be_trusted(self, tmp_path: Path) -> None:
        authority, other = Authority(tmp_path), Authority(tmp_path, "other")
        good = authority.issue("good", "127.0.0.1")
        cases = {
            "certificate_unknown": (good, other.ca_file),
            "certificate_wrong_host": (authority.issue("elsewhere", "elsewhere.example"), authority.ca_file),
            "certificate_expired": (authority.issue("old", "127.0.0.1", days=(-3, -1)), authority.ca_file),
            "certificate_not_yet_valid": (authority.issue("new", "127.0.0.1", days=(1, 2)), authority.ca_file),
        }
        for cause, (cert, ca_file) in cases.items():
            assert await self.connect(tmp_path, "127.0.0.1", cert, ca_file=ca_file) == cause
        assert await self.connect(tmp_path, "127.0.0.1", good) == "certificate_unknown"  # the system's store

    async def test_mutual(self, tmp_path: Path) -> None:
        authority, other = Authority(tmp_path), Authority(tmp_path, "other")
        cert = authority.issue("broker", "127.0.0.1")
        require = (f"cafile {authority.ca_file}", "require_certificate true")
        mine, alien = authority.issue("mine"), other.issue("alien")
        tls = {"ca_file": authority.ca_file}
        good = tls | {"client_cert_file": mine[0], "client_key_file": mine[1]}
        bad = tls | {"client_cert_file": alien[0], "client_key_file": alien[1]}
        mixed = tls | {"client_cert_file": mine[0], "client_key_file": alien[1]}
        assert await self.connect(tmp_path, "127.0.0.1", cert, *require, **good) == "connected"
        # The verdict comes after the handshake, and not always before the end of the connection.
        assert await self.connect(tmp_path, "127.0.0.1", cert, *require, **tls) in ("client_certificate", "tls")
        assert await self.connect(tmp_path, "127.0.0.1", cert, *require, **bad) in ("client_certificate", "tls")
        assert await self.connect(tmp_path, "127.0.0.1", cert, *require, **mixed) == "other"

    async def test_a_broker_without_tls(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        with Mosquitto(tmp_path) as broker:
            error = await failure(endpoint(broker.port, tls=True, ca_file=authority.ca_file))
        assert error.cause in ("tls", "closed_by_peer", "connect_timeout")


PUBACK, PUBREC, PUBCOMP = 4, 5, 7
ANSWERS = st.tuples(
    st.sampled_from([PUBACK, PUBACK, PUBREC, PUBCOMP, 9, 11, 13]), st.integers(1, 6), st.sampled_from([0, 0x10, 0x87])
)


class TestAcknowledgements:
    async def answered(self, protocol: Protocol, said: bytes) -> tuple[list[tuple[int, int]], SessionError]:
        """What a session that has published four messages takes for acknowledgements, and why it ended."""
        async with FaultyBroker() as broker:
            broker.puback = lambda _: None
            async with connected(endpoint(broker.port), protocol) as client:
                assert [client.session.publish("a", b"x") for _ in range(4)] == [1, 2, 3, 4]
                await broker.until(lambda: len(broker.publishes) == 4)
                broker.connections[0].writer.write(said)
                broker.connections[0].writer.close()
                error = await client.lost()
                return client.session.take_acks(), error

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from(["5", "3.1.1"]), st.lists(ANSWERS, max_size=8))
    def test_only_what_the_broker_acknowledged_and_all_of_it(
        self, protocol: Protocol, packets: list[tuple[int, int, int]]
    ) -> None:
        tail = protocol == "5"
        said = b"".join(bytes([kind << 4, 2 + tail, 0, mid, code][: 4 + tail]) for kind, mid, code in packets)
        acks, _ = asyncio.run(self.answered(protocol, said))
        told: dict[int, int] = {}
        for kind, mid, code in packets:
            if kind == PUBACK and mid <= 4:
                told.setdefault(mid, code if tail else 0)
        assert acks == list(told.items())[: len(acks)]
        if all(kind == PUBACK for kind, _, _ in packets):
            assert len(acks) == len(told)

    @pytest.mark.parametrize("protocol", ["5", "3.1.1"])
    async def test_the_last_step_of_another_quality_of_service_acknowledges_nothing(self, protocol: Protocol) -> None:
        acks, error = await self.answered(protocol, b"\x40\x02\x00\x01\x50\x02\x00\x02\x70\x02\x00\x02")
        assert (acks, error.cause) == ([(1, 0)], "not_mqtt")


class TestTroubleWithConnecting:
    async def test_nobody_listens(self) -> None:
        error = await failure(endpoint(free_port()))
        assert (error.cause, error.refused) == ("refused", False)

    async def test_no_such_name(self) -> None:
        for name in ("no-such-host.invalid", "a" * 70 + ".example"):
            error = await failure(endpoint(1883, host=name), connect_s=8)
            assert error.cause in ("name_unknown", "other")

    async def test_connect_is_never_answered(self) -> None:
        async with FaultyBroker() as broker:
            broker.answer_connect = False
            error = await failure(endpoint(broker.port), connect_s=0.3)
            assert (error.cause, error.unsupported_protocol, error.refused) == ("not_mqtt", False, False)
            await broker.until(lambda: broker.connections[0].ended)

    @pytest.mark.parametrize(
        ("protocol", "code", "cause", "refused"),
        [
            ("5", 0x84, "protocol", True),
            ("5", 0x85, "client_id", True),
            ("5", 0x86, "bad_login", True),
            ("5", 0x87, "not_authorized", True),
            ("5", 0x88, "busy", False),
            ("5", 0x8A, "banned", True),
            ("3.1.1", 2, "client_id", True),
            ("3.1.1", 3, "busy", False),
            ("3.1.1", 4, "bad_login", True),
            ("3.1.1", 5, "not_authorized", True),
        ],
    )
    async def test_connect_is_refused(self, protocol: Protocol, code: int, cause: str, refused: bool) -> None:
        async with FaultyBroker() as broker:
            broker.connack = {V5: code, V311: code}
            error = await failure(endpoint(broker.port), protocol)
        assert (error.cause, error.refused) == (cause, refused)
        assert error.unsupported_protocol == (code == 0x84)

    async def test_an_old_broker_answers_5_in_its_own_language(self) -> None:
        async with FaultyBroker() as broker:
            broker.connack_bytes = b"\x20\x02\x00\x01"
            assert (await failure(endpoint(broker.port))).unsupported_protocol

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x20\x02\x00\x00",
            b"\x20\x03\x00\x00\x7f",
            b"\x20\xff\xff\xff\xff\xff",
        ],
    )
    async def test_an_answer_that_is_not_mqtt(self, answer: bytes) -> None:
        async with FaultyBroker() as broker:
            broker.connack_bytes = answer
            error = await failure(endpoint(broker.port), connect_s=1.0)
            assert not error.unsupported_protocol
            assert error.cause in ("not_mqtt", "closed_by_peer")

    async def test_a_broker_without_qos_1(self) -> None:
        async with FaultyBroker(maximum_qos=0) as broker:
            error = await failure(endpoint(broker.port))
            assert "QoS 1" in error.text

    async def test_given_up_before_tcp_stands(self) -> None:
        """A connection that comes late must not bring a CONNECT: it would throw out our own next session."""
        async with FaultyBroker() as broker:
            client = Client(endpoint(broker.port))
            await client.session.close(goodbye=False)
            with pytest.raises(SessionError):
                await client.session.connect()
            await broker.until(lambda: [connection.ended for connection in broker.connections] == [True])
            assert not broker.connects


class TestFaultyBroker:
    async def test_what_connect_says(self) -> None:
        async with FaultyBroker() as broker:
            for protocol in ("5", "3.1.1"):
                async with connected(endpoint(broker.port, keepalive_s=15.0), protocol):
                    pass
        for connect, level in zip(broker.connects, (V5, V311), strict=True):
            assert connect.protocol == level
            assert connect.clean
            assert connect.keepalive == 15
            assert (connect.client_id, connect.will_topic, connect.will_payload) == ("gw", "status", b"lost")

    async def test_limits(self) -> None:
        async with FaultyBroker(receive_maximum=3, maximum_packet_size=1000, retain_available=0) as broker:
            client = Client(endpoint(broker.port))
            assert await client.session.connect() == Limits("5", 3, 1000, False)
            await client.session.close(goodbye=True)
            await broker.until(lambda: broker.connections[0].goodbye)

    async def test_a_burst_of_acknowledgements_wakes_the_loop_once(self) -> None:
        woken: list[int] = []
        session = Session(
            endpoint(1), "5", will=None, aside=Aside("unused"), on_news=lambda: woken.append(1), connect_s=1.0
        )
        burst = threading.Thread(target=lambda: deque(map(session.acknowledged, range(500), [0] * 500)))
        burst.start()
        burst.join()  # the loop is busy meanwhile
        await asyncio.sleep(0.01)
        assert len(woken) == 1
        assert session.take_acks() == [(mid, 0) for mid in range(500)]
        session.acknowledged(500, 0)
        await asyncio.sleep(0.01)
        assert len(woken) == 2

    async def test_options_of_the_socket(self) -> None:
        async with FaultyBroker() as broker, connected(endpoint(broker.port)) as client:
            assert client.session._client is not None
            sock = client.session._client.socket()
            assert isinstance(sock, socket.socket)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000

    async def test_frozen_broker_does_not_hold_up_the_end(self) -> None:
        async with FaultyBroker() as broker, connected(endpoint(broker.port)) as client:
            broker.freeze()
            for _ in range(200):
                client.session.publish("a", b"x" * 60_000)
            began = time.monotonic()
            await client.session.close(goodbye=True, within=0.2)
            assert time.monotonic() - began < 1.5

    async def test_disconnect_of_the_broker_has_its_reason(self) -> None:
        async with FaultyBroker() as broker:
            broker.take_over_after, broker.say_before_end = 1, 0x8B
            async with connected(endpoint(broker.port)) as client:
                client.session.publish("a", b"x")
                lost = await client.lost()
                assert (lost.cause, lost.code, lost.taken_over) == ("closed_by_peer", 0x8B, False)


class TestLimits:
    def test_packet_size_counts_every_byte(self) -> None:
        for size in (0, 100, 120, 121, 16_370, 16_380, 60_000):
            body = 2 + 3 + 2 + 1 + size
            packet = 1 + (1 if body < 128 else 2 if body < 16_384 else 3) + body
            assert Limits("5", packet_size=packet).fits("a/b", b"x" * size)
            assert not Limits("5", packet_size=packet - 1).fits("a/b", b"x" * size)
        assert Limits("5").fits("a/b", b"x" * 1_000_000)


class TestAside:
    async def test_one_call_at_a_time_and_none_is_waited_for(self) -> None:
        aside: Aside[int] = Aside("test")
        assert await aside.run(lambda: 1, 1.0) == 1
        assert await aside.run(lambda: 2, 1.0) == 2
        release = threading.Event()
        with pytest.raises(Late):
            await aside.run(lambda: int(release.wait(5)), 0.05)
        threads = threading.active_count()
        with pytest.raises(Stuck):
            await aside.run(lambda: 3, 1.0)
        assert threading.active_count() == threads
        release.set()
        await seen(lambda: not aside.busy)
        assert await aside.run(lambda: 4, 1.0) == 4

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    async def test_a_call_that_raises(self) -> None:
        aside: Aside[float] = Aside("test")
        with pytest.raises(Died):
            await aside.run(lambda: 1 / 0, 1.0)


class TestWhyASessionEnded:
    @pytest.mark.parametrize(
        ("number", "cause"),
        [
            (errno.ETIMEDOUT, "silent"),
            (errno.EHOSTUNREACH, "no_route"),
            (errno.ECONNRESET, "closed_by_peer"),
            (0, "closed_by_peer"),
        ],
    )
    def test_a_link_that_the_kernel_gave_up_was_closed_by_nobody(self, number: int, cause: str) -> None:
        """Three of them in a minute were taken for another gateway with our client id."""
        ended = mqtt_errors.ended(by_broker=False, code=0, name="", where="broker:1883", error=number)
        assert ended.cause == cause
