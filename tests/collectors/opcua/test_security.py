"""Secured connections to a real server: what is let in, what is refused and why, and what never leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from collectors.api import CollectorError, Context, Misconfigured, Unavailable
from collectors.opcua.certificate import describe
from collectors.opcua.security import WARN_BEFORE
from collectors.opcua.trust import TrustStore
from tests.collectors.opcua.reading import SHORT, Reading
from tests.faulty.opcua import rude_port
from tests.servers.opcua import OpcuaServer
from tests.servers.opcua_secure import ALL, Pair, SecureServer, pair

N = OpcuaServer.node
NODES = {"speed": N("speed")}
PASSWORD = "canary-Pa55wort-密码"
NONE = "http://opcfoundation.org/UA/SecurityPolicy#None"
BASIC256 = "http://opcfoundation.org/UA/SecurityPolicy#Basic256"


@dataclass
class Plant:
    """A server, its certificate, and an agent's state directory."""

    server: SecureServer
    own: Pair
    state: Path

    @property
    def store(self) -> TrustStore:
        return TrustStore(self.state)

    def trust(self, own: Pair | None = None) -> None:
        self.store.trust("d", describe((own or self.own).der))

    def reading(self, context: Context | None = None, **keys: Any) -> Reading:
        keys = {"security": {}, "timeout": 1.5, **keys}
        return Reading(self.server.url, NODES, context or Context(self.state), SHORT, **keys)

    async def refusal(self, context: Context | None = None, **keys: Any) -> CollectorError:
        with pytest.raises(CollectorError) as raised:
            async with self.reading(context, **keys):
                pass
        return raised.value


@pytest.fixture(scope="module")
def _server() -> Iterator[SecureServer]:
    with SecureServer({"speed": 1.5}) as running:
        yield running


@pytest.fixture(scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("plc"), "plc")


@pytest.fixture
def plant(_server: SecureServer, _own: Pair, tmp_path: Path) -> Plant:
    """The server with every policy, trusted."""
    _server.secure(_own)
    made = Plant(_server, _own, tmp_path / "state")
    made.trust()
    return made


@pytest.fixture
def password(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    return str(file)


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
async def test_each_policy_and_mode_reads_and_renews_its_channel(plant: Plant, policy: str, mode: str) -> None:
    """The server offers nothing else; the channel lives 1 s and is renewed twice."""
    plant.server.secure(plant.own, policies=[f"{policy.replace('_', '')}_{mode}"])
    timing = replace(SHORT, channel=1.0)
    reading = Reading(
        plant.server.url, NODES, Context(plant.state), timing, security={"policy": policy, "mode": mode}, timeout=3.0
    )
    async with reading:
        await reading.all()
        began = time.monotonic()
        value = 10.0
        while time.monotonic() < began + 1.8:
            value += 1
            plant.server.set("speed", value)
            await reading.until(lambda value=value: reading.values["speed"] == value)  # type: ignore[misc]


async def test_an_unknown_server_is_refused_kept_and_taken_once_it_is_trusted(plant: Plant) -> None:
    """Nothing but a person makes it trusted; the next attempt then works without a restart."""
    context = Context(plant.state / "fresh")
    store = TrustStore(plant.state / "fresh")
    thumbprint = describe(plant.own.der).thumbprint
    for _ in range(2):
        error = await plant.refusal(context)
        assert isinstance(error, Unavailable)
        assert (error.cause, error.reason) == ("untrusted", "not-connected")
        assert error.facts["thumbprint"] == thumbprint
        assert "shopfloor cert trust d" in error.text
    rejected = store.rejected("d")
    assert rejected is not None
    assert rejected.der == plant.own.der
    assert store.trusted("d") is None
    store.trust("d", rejected)
    with capture_logs() as logs:
        async with plant.reading(context) as reading:
            await reading.all()
    assert not logs
    assert store.rejected("d") is None


async def test_a_changed_certificate_is_refused_and_both_thumbprints_told(plant: Plant, tmp_path: Path) -> None:
    other = pair(tmp_path, "other")
    plant.server.secure(other)
    error = await plant.refusal()
    assert (error.cause, error.facts["thumbprint"], error.facts["trusted"]) == (
        "certificate_changed",
        describe(other.der).thumbprint,
        describe(plant.own.der).thumbprint,
    )
    rejected = plant.store.rejected("d")
    assert rejected is not None
    assert rejected.der == other.der
    plant.trust(other)
    async with plant.reading() as reading:
        await reading.all()


@pytest.mark.parametrize(
    ("days", "cause"), [((-30, -1), "certificate_expired"), ((1, 30), "certificate_not_yet_valid")]
)
async def test_a_certificate_out_of_its_time_is_refused_though_trusted(
    plant: Plant, tmp_path: Path, days: tuple[float, float], cause: str
) -> None:
    old = pair(tmp_path, "old", days=days)
    plant.server.secure(old)
    plant.trust(old)
    error = await plant.refusal()
    assert error.cause == cause
    assert "clock skew" in error.text


async def test_somebody_else_with_the_trusted_certificate_is_found_out(plant: Plant, tmp_path: Path) -> None:
    """It shows the certificate, which anybody can copy, and does not have its key."""
    thief = Pair(plant.own.certificate, pair(tmp_path, "thief").key)
    plant.server.secure(thief)
    error = await plant.refusal()
    assert error.cause == "client_untrusted"
    assert "does not accept" in error.text


async def test_a_weak_key_is_refused(plant: Plant, tmp_path: Path) -> None:
    weak = pair(tmp_path, "weak", bits=1024)
    plant.trust(weak)
    error = await plant.refusal()
    assert error.cause == "certificate_unusable"
    assert "RSA 1024" in error.text


async def test_a_server_that_does_not_trust_us_is_told_plainly(plant: Plant) -> None:
    plant.server.secure(plant.own, trusted=[])
    error = await plant.refusal()
    own = plant.store.own().certificate
    assert (error.cause, error.facts["thumbprint"], error.facts["file"]) == (
        "client_untrusted",
        own.thumbprint,
        str(plant.store.file),
    )
    plant.server.secure(plant.own, trusted=[own.der])
    async with plant.reading() as reading:
        await reading.all()


async def test_a_policy_that_is_not_offered_is_never_replaced_by_a_weaker_one(plant: Plant) -> None:
    plant.server.secure(plant.own, policies=["NoSecurity", "Basic256Sha256_Sign"])
    error = await plant.refusal()
    assert (error.cause, error.facts["asked"]) == ("policy_not_offered", "Basic256Sha256 SignAndEncrypt")
    assert error.facts["offered"] == "Basic256Sha256 Sign, None"
    error = await plant.refusal(Context(plant.state / "fresh"), security={"policy": "Aes128_Sha256_RsaOaep"})
    assert error.cause == "policy_not_offered"


async def test_policy_none_where_only_secure_ones_are_offered(plant: Plant) -> None:
    error = await plant.refusal(security={"policy": "None"})
    assert (error.cause, error.facts["asked"]) == ("policy_not_offered", "None")


async def test_a_session_whose_endpoints_leave_out_certificates(plant: Plant) -> None:
    """Part 4, 5.6.2.2 recommends it, and node-opcua does so; the server proved with its signature who it is."""
    context, store = Context(plant.state / "fresh"), TrustStore(plant.state / "fresh")
    plant.server.secure(plant.own, bare=True)
    assert (await plant.refusal(context)).cause == "untrusted"
    store.trust("d", describe(plant.own.der))
    with capture_logs() as logs:
        async with plant.reading(context) as reading:
            await reading.all()
    assert [line["event"] for line in logs] == []


async def test_an_endpoint_list_that_was_tampered_with_is_told(plant: Plant) -> None:
    """What was said before a person trusted the server is compared with what the server signs."""
    context, store = Context(plant.state / "fresh"), TrustStore(plant.state / "fresh")
    plant.server.secure(plant.own, policies=["NoSecurity", *ALL])
    assert (await plant.refusal(context)).cause == "untrusted"
    plant.server.secure(plant.own)
    store.trust("d", describe(plant.own.der))
    with capture_logs() as logs:
        async with plant.reading(context) as reading:
            await reading.all()
        async with plant.reading(context) as reading:
            await reading.all()
    assert [line["event"] for line in logs] == ["endpoints_differ"]


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
async def test_a_user_and_a_wrong_password(plant: Plant, password: str, mode: str) -> None:
    plant.server.secure(plant.own, users={"operator": PASSWORD}, tokens=["UserName"])
    keys: dict[str, Any] = {"security": {"mode": mode}, "username": "operator", "password_file": password}
    async with plant.reading(**keys) as reading:
        await reading.all()
    (seen,) = plant.server.seen()
    assert seen["name"] == "operator"
    assert (seen["algorithm"] is None) == (mode == "SignAndEncrypt")
    if mode == "Sign":
        assert PASSWORD.encode().hex() not in seen["secret"]
    plant.server.secure(plant.own, users={"operator": "another"}, tokens=["UserName"])
    error = await plant.refusal(**keys)
    assert error.cause == "login_refused"
    assert "operator" in error.text
    assert PASSWORD not in f"{error.text} {error.facts} {error!r}"


@pytest.mark.parametrize("uri", ["", BASIC256])
async def test_an_entry_without_a_policy_means_the_channels_and_a_broken_one_is_not_used(
    plant: Plant, password: str, uri: str
) -> None:
    """An empty policy in the endpoint stands for the channel's, so the password is encrypted although it only signs."""
    plant.server.secure(plant.own, users={"u": PASSWORD}, tokens=["UserName"], token_policies={"UserName": uri})
    keys: dict[str, Any] = {"security": {"mode": "Sign"}, "username": "u", "password_file": password}
    if uri:
        assert (await plant.refusal(**keys)).cause == "password_in_clear"
        assert plant.server.seen() == []
        return
    async with plant.reading(**keys) as reading:
        await reading.all()
    (seen,) = plant.server.seen()
    assert seen["algorithm"].endswith("rsa-oaep")


async def test_a_password_is_never_sent_in_the_clear(plant: Plant, password: str) -> None:
    """A channel that only signs, and a server that wants the password as it is."""
    plant.server.secure(plant.own, users={"u": PASSWORD}, token_policies={"UserName": NONE})
    error = await plant.refusal(security={"mode": "Sign"}, username="u", password_file=password)
    assert isinstance(error, Misconfigured)
    assert error.cause == "password_in_clear"
    assert plant.server.seen() == []


async def test_a_server_that_knows_no_users_or_nobody_else(plant: Plant, password: str) -> None:
    plant.server.secure(plant.own, tokens=["Anonymous"])
    error = await plant.refusal(username="u", password_file=password)
    assert (error.cause, error.facts["offered"]) == ("login_not_offered", "Anonymous")
    plant.server.secure(plant.own, tokens=["UserName"])
    assert (await plant.refusal()).cause == "login_needed"


async def test_a_user_with_a_certificate(plant: Plant, tmp_path: Path) -> None:
    user, stranger = pair(tmp_path, "user"), pair(tmp_path, "stranger")
    plant.server.secure(plant.own, tokens=["X509"], user_certificates=[user])
    keys: dict[str, Any] = {"user_cert_file": str(user.certificate), "user_key_file": str(user.key)}
    async with plant.reading(**keys) as reading:
        await reading.all()
    other: dict[str, Any] = {"user_cert_file": str(stranger.certificate), "user_key_file": str(stranger.key)}
    assert (await plant.refusal(**other)).cause == "login_refused"
    mixed = await plant.refusal(user_cert_file=str(user.certificate), user_key_file=str(stranger.key))
    assert isinstance(mixed, Misconfigured)
    assert (mixed.cause, "not the key" in mixed.text) == ("user_file", True)


async def test_another_host_in_the_certificate_is_a_warning(plant: Plant, tmp_path: Path) -> None:
    moved = pair(tmp_path, "moved", hosts=("192.0.2.7",))
    plant.server.secure(moved)
    plant.trust(moved)
    context = Context(plant.state)
    with capture_logs() as logs:
        for _ in range(2):
            async with plant.reading(context) as reading:
                await reading.all()
    assert [(line["event"], line["hosts"]) for line in logs] == [("certificate_other_host", "192.0.2.7")]


async def test_certificates_that_end_soon_are_told_once_a_day(plant: Plant, tmp_path: Path) -> None:
    ending = pair(tmp_path, "ending", days=(-1, WARN_BEFORE.days - 0.5))
    plant.server.secure(ending)
    plant.trust(ending)
    context = Context(plant.state)
    with capture_logs() as logs:
        for _ in range(2):
            async with plant.reading(context) as reading:
                await reading.all()
    assert [(line["event"], line["days"]) for line in logs] == [("server_certificate_expires", 29)]


async def test_neither_key_nor_password_is_told_anywhere(
    plant: Plant, password: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the library as talkative as it can be, and refusals in every phase."""
    plant.server.secure(plant.own, users={"u": "another"})
    logging.getLogger("asyncua").setLevel(logging.NOTSET)
    try:
        with caplog.at_level(logging.INFO), capture_logs() as logs:
            keys: dict[str, Any] = {"username": "u", "password_file": password}
            errors = [await plant.refusal(**keys), await plant.refusal(Context(plant.state / "new"), **keys)]
            async with plant.reading() as reading:
                await reading.all()
    finally:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    key = plant.store.file.with_name("key.pem").read_text().splitlines()[1]
    told = f"{caplog.text} {logs} {capfd.readouterr()} {plant.store.own()!r} "
    told += " ".join(f"{error!r} {error.text} {error.facts}" for error in errors)
    assert key not in told
    assert PASSWORD not in told


async def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "opcua").write_text("in the way")
    with pytest.raises(Unavailable) as raised:
        async with Reading("opc.tcp://127.0.0.1:9", NODES, Context(tmp_path), security={}):
            pass
    assert raised.value.cause == "own_certificate_unusable"
    with pytest.raises(Misconfigured) as refused:
        async with Reading("opc.tcp://127.0.0.1:9", NODES, Context(), security={}):
            pass
    assert refused.value.cause == "no_state_directory"


async def test_a_peer_that_hangs_up_or_is_silent_keeps_its_own_cause(plant: Plant) -> None:
    """No endpoints to be had: nothing is made up."""
    for answer, cause in ((b"", "closed_by_peer"), (None, "no_answer")):
        async with rude_port(answer) as port:
            with pytest.raises(Unavailable) as raised:
                async with Reading(
                    f"opc.tcp://127.0.0.1:{port}", NODES, Context(plant.state), security={}, timeout=0.3
                ):
                    pass
        assert raised.value.cause == cause
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert describe(plant.own.der).not_after > datetime.now(UTC)
