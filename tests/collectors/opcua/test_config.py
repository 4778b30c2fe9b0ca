"""What may be configured, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from collectors.opcua import TYPE
from collectors.opcua.config import OpcuaConfig, estimate, explain
from collectors.opcua.tag import queue_size
from tests.collectors.opcua.reading import config

URL = "opc.tcp://192.168.10.50:4840"
SPEED = {"speed": "ns=2;s=speed"}


def mistakes(**keys: Any) -> list[tuple[str, str]]:
    """Place and text of every mistake."""
    with pytest.raises(ValidationError) as raised:
        config(keys.pop("url", URL), keys.pop("nodes", SPEED), **keys)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in raised.value.errors()]


def test_defaults() -> None:
    device = OpcuaConfig.model_validate(
        {
            "name": "cnc-7",
            "type": "opcua",
            "url": "opc.tcp://cnc",
            "security": {"policy": "None"},
            "tags": [{"name": "speed", "node": "i=5"}],
        }
    )
    assert device.url == "opc.tcp://cnc:4840"
    assert (device.time, device.max_skew, device.interval, device.timeout) == ("source", 60.0, 1.0, 3.0)
    assert device.report is not None
    assert device.report.heartbeat == 60.0
    assert device.always_reports


def test_reports_also_with_null() -> None:
    device = config(URL, SPEED, report=None)
    assert device.report is not None


def test_a_connection_is_encrypted_unless_none_is_written() -> None:
    base = {"name": "d", "type": "opcua", "url": URL, "tags": [{"name": "speed", "node": "i=5"}]}
    written: list[dict[str, Any]] = [{}, {"security": {}}, {"security": {"policy": "Basic256Sha256"}}]
    for security in written:
        device = OpcuaConfig.model_validate({**base, **security})
        assert (device.security.policy, device.security.applied_mode) == ("Basic256Sha256", "SignAndEncrypt")
    for policy in ("Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"):
        assert config(URL, SPEED, security={"policy": policy, "mode": "Sign"}).security.applied_mode == "Sign"
    assert config(URL, SPEED, security={"policy": "None"}).security.applied_mode == "None"
    assert mistakes(security=None)[0][0] == "security"
    ((place, text),) = mistakes(security={"mode": "None"})
    assert (place, "write policy: None" in text) == ("security", True)


NAMED = {"username": "u", "password_file": "/p"}
CERTIFIED = {"user_cert_file": "/c", "user_key_file": "/k"}


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"username": "u", "security": {}}, "username", "needs password_file"),
        ({"password_file": "/p", "security": {}}, "password_file", "needs username"),
        ({"user_cert_file": "/c", "security": {}}, "user_cert_file", "needs user_key_file"),
        ({"user_key_file": "/k", "security": {}}, "user_key_file", "needs user_cert_file"),
        ({**NAMED, **CERTIFIED, "security": {}}, "user_cert_file", "not both"),
        (NAMED, "username", "could read the password"),
        (CERTIFIED, "user_cert_file", "could take over the session"),
    ],
)
def test_users_that_are_refused(keys: dict[str, Any], key: str, words: str) -> None:
    """Half a user, two of them, or one that everybody in the network would know (policy None)."""
    with pytest.raises(ValidationError) as raised:
        config(URL, SPEED, **keys)
    (error,) = raised.value.errors()
    assert (error["ctx"]["key"], words in error["msg"]) == (key, True)


def test_users_of_protected_connections() -> None:
    for user in (NAMED, CERTIFIED):
        for mode in ("Sign", "SignAndEncrypt"):
            config(URL, SPEED, security={"mode": mode}, **user)


@pytest.mark.parametrize("policy", ["Basic256", "Basic128Rsa15"])
def test_broken_policies_are_refused_for_good(policy: str) -> None:
    ((place, text),) = mistakes(security={"policy": policy})
    assert (place, "never supported" in text) == ("security.policy", True)


def test_policy_none_has_no_mode() -> None:
    assert mistakes(security={"policy": "None", "mode": "Sign"})[0][0] == "security"
    config(URL, SPEED, security={"policy": "None", "mode": "None"})


@pytest.mark.parametrize(
    "url",
    ["192.168.10.50", "http://h:4840", "opc.tcp://", "opc.tcp://h:99999", "opc.tcp://h:0", "opc.tcp://u:p@h:4840"],
)
def test_urls_that_are_refused(url: str) -> None:
    assert mistakes(url=url)[0][0] == "url"


def test_nodes_intervals_and_names() -> None:
    assert mistakes(nodes={"speed": "Speed"})[0][0] == "tags.0.node"
    assert mistakes(interval="10 ms") == [("interval", "an interval of an OPC UA server is at least 50 ms")]
    assert mistakes(nodes={"a": {"node": "i=1", "interval": 0.001}})[0][0] == "tags.0.interval"
    assert mistakes(nodes={}) != []
    twice = [{"name": "a", "node": "i=1"}, {"name": "a", "node": "i=2"}]
    assert mistakes(tags=twice) == [("", "two tags are named a")]


def test_later_keys_are_named() -> None:
    """The loader tells these words at the key's place."""
    for text in OpcuaConfig.unsupported().values():
        assert "not supported yet" in text or "has no line" in text


def test_groups_estimate_and_explanation() -> None:
    device = config(
        URL,
        {
            "a": "nsu=urn:x;s=a",
            "b": "ns=2;s=b",
            "c": {"node": "i=5", "interval": "5 s", "map": {0: "idle"}},
        },
        interval="500 ms",
    )
    assert device.groups() == {"500ms": 0.5, "5s": 5.0}
    assert [(info.name, info.group, info.type) for info in device.tag_infos()] == [
        ("a", "500ms", None),
        ("b", "500ms", None),
        ("c", "5s", "string"),
    ]
    cost = estimate(device)
    assert (cost.line, cost.requests_per_s, cost.values_per_message) == (None, 2.2, 1.5)
    assert cost.messages_per_s == pytest.approx(2 / 60)
    explanation = explain(device)
    assert [bool(row.note) for row in explanation.tags] == [False, True, False]
    assert list(explanation.requests) == ["subscription 500ms: 2 nodes, queue 2", "subscription 5s: 1 nodes, queue 2"]


@pytest.mark.parametrize(
    ("publishing", "sampling", "size"), [(1, 1, 2), (1, 0.1, 20), (0.5, 0.2, 6), (0.1, 1, 2), (0.3, 0.1, 6)]
)
def test_the_queue_is_never_0(publishing: float, sampling: float, size: int) -> None:
    assert queue_size(publishing, sampling) == size


def test_asyncua_is_not_imported_before_open() -> None:
    code = (
        "import sys; from collectors.opcua import TYPE; from collectors.api import Context;"
        "c = TYPE.config_model(name='d', type='opcua', url='opc.tcp://h', security={'policy': 'None'},"
        " tags=[{'name': 'a', 'node': 'i=1'}]); TYPE.create(c, Context()); TYPE.explain(c);"
        "assert 'asyncua' not in sys.modules and 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert TYPE.name == "opcua"
