"""What a good file becomes, what counts as a change, and that no file crashes the loader."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # ships no types
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import config_hints, config_model, reference, secret_files, topics
from agent.config import AgentConfig, FileUnusable, Loaded, load, read_secret
from agent.config_apart import Loading, load_apart
from agent.yaml_source import Mapping, Node, Scalar, Sequence, parse
from collectors.fields import DeviceConfig
from collectors.registry import BUILT_IN, collector_type

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [ROOT / "config" / "agent.yaml", *sorted((ROOT / "config" / "examples").glob("*.yaml"))]
SMALL = "site: plant\ngateway: gw-1\nmqtt: {url: 'mqtts://broker'}\ndevices:\n  - {name: box, type: host}\n"


def written(directory: Path, text: str) -> Path:
    file = directory / "agent.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def good(loaded: Loaded) -> AgentConfig:
    assert not loaded.mistakes, "\n".join(map(str, loaded.mistakes))
    assert loaded.config is not None
    return loaded.config


def plain(node: Node) -> Any:
    match node:
        case Mapping(items=items):
            return {key.text: plain(value) for key, value in items}
        case Sequence(items=items):
            return [plain(child) for child in items]
        case Scalar():
            return node.value()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_shipped_files_are_valid_here_and_for_editors(file: Path) -> None:
    good(load(file))
    root, mistakes = parse(file.read_text(encoding="utf-8"), file.name)
    assert not mistakes
    assert root is not None
    jsonschema.Draft202012Validator(json.loads((ROOT / "config/schema.json").read_text())).validate(plain(root))


def test_schema_refuses_what_check_refuses() -> None:
    validator = jsonschema.Draft202012Validator(reference.schema())
    validator.check_schema(validator.schema)
    root, _ = parse(SMALL, "f")
    assert root is not None
    data = plain(root)
    validator.validate(data)
    data["devices"][0]["sets"] = ["cpuu"]
    assert not validator.is_valid(data)
    assert not validator.is_valid({**plain(root), "extra": 1})


def test_schema_and_reference_are_current() -> None:
    told = "run `python -m agent.reference`"
    assert json.loads((ROOT / "config/schema.json").read_text(encoding="utf-8")) == reference.schema(), told
    assert (ROOT / "config/reference.md").read_text(encoding="utf-8") == reference.reference(), told


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_model_names_only_keys_it_does_not_have_as_unsupported(name: str) -> None:
    model = collector_type(name).config_model
    fields = {info.alias or key for key, info in model.model_fields.items()}
    # What every device refuses, one type may have: the field wins.
    assert not fields & (set(model.unsupported()) - set(DeviceConfig.unsupported()))


def test_the_annotated_example_says_what_it_says() -> None:
    config = good(load(ROOT / "config/agent.yaml"))
    press, cnc, box = config.devices
    assert (press.name, cnc.name, box.name) == ("press-3", "cnc-7", "box")
    tags = {tag.name: tag for tag in press.tags}  # type: ignore[attr-defined] # of this type
    assert tags["fault"].address == "40010.10"
    assert tags["temperature"].address == "40001"
    assert tags["mode"].map == {0: "idle", 1: "running", 2: "fault"}
    assert [str(item) for item in tags["pressure"].invalid] == ["0x8000"]
    assert press.interval == 1.0
    assert box.interval == 10.0
    assert config.label == "二号厂房网关"


def test_defaults_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/data:/other")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    config = good(load(written(tmp_path, SMALL)))
    assert config.mqtt.client_id == "shopfloor-gw-1"
    assert config.buffer.directory == "/data"
    assert config.language == "zh"
    assert config.timezone is None
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.tls, config.mqtt.plaintext) == ("broker", 8883, True, False)
    assert (config.mqtt.keepalive, config.mqtt.window, config.mqtt.max_payload) == (15.0, 100, 60_000)
    assert config.mqtt.agent_topic == "shopfloor/{site}/{gateway}/agent"
    assert config.log.max_size == 10_000_000
    monkeypatch.setenv("LC_ALL", "")
    monkeypatch.setenv("LC_MESSAGES", "")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert good(load(written(tmp_path, SMALL))).language == "en"


def test_gateway_is_the_hosts_name_unless_stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SMALL.replace("gateway: gw-1\n", "")
    monkeypatch.setattr("socket.gethostname", lambda: "hall-2.example")
    config = good(load(written(tmp_path, text)))
    assert config.gateway == "hall-2.example"
    assert config.mqtt.client_id == "shopfloor-hall-2.example"
    for name in ("raspberrypi", "Debian", "网关"):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        (mistake,) = load(written(tmp_path, text)).mistakes
        assert mistake.path == "gateway"
        assert f"is not written, and the host's name '{name}' cannot be it" in mistake.message


def test_defaults_reach_only_devices_that_do_not_say_otherwise(tmp_path: Path) -> None:
    two = SMALL.replace("  - {name: box", "  - {name: a, type: host, interval: 3 s}\n  - {name: box")
    a, box = good(load(written(tmp_path, two))).devices
    assert (a.interval, box.interval) == (3.0, 10.0)
    a, box = good(load(written(tmp_path, two + "defaults: {interval: 20, timeout: 5 s}\n"))).devices
    assert (a.interval, box.interval, a.timeout) == (3.0, 20.0, 5.0)
    assert [one.name for one in (a, box)] == ["a", "box"]


def test_text_is_taken_as_written(tmp_path: Path) -> None:
    text = SMALL.replace("plant", "012").replace("gw-1", "1e3") + "label: no\n"
    text = text.replace("'mqtts://broker'", "'mqtts://b', username: 0x10, protocol: 5, client_id: '{gateway}/1.0'")
    config = good(load(written(tmp_path, text)))
    assert (config.site, config.gateway, config.label) == ("012", "1e3", "no")
    assert (config.mqtt.username, config.mqtt.protocol, config.mqtt.client_id) == ("0x10", "5", "1e3/1.0")


def test_null_is_none_where_that_has_a_meaning(tmp_path: Path) -> None:
    config = good(load(written(tmp_path, SMALL.replace("broker'", "b', status_topic: null, meta_topic: ~"))))
    assert config.mqtt.status_topic is None
    assert config.mqtt.meta_topic is None


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = good(load(written(tmp_path, SMALL + "log: {file: a.log}\nbuffer: {directory: data}\n")))
    assert config.log.file == str(tmp_path / "a.log")
    assert config.buffer.directory == str(tmp_path / "data")
    assert config.buffer.max_size is None


def test_plain_mqtt_is_for_this_machine_unless_allowed(tmp_path: Path) -> None:
    for url in ("mqtt://localhost", "mqtt://127.0.0.1:1884", "mqtt://[::1]:1883/"):
        config = good(load(written(tmp_path, SMALL.replace("mqtts://broker", url))))
        assert not config.mqtt.plaintext
    config = good(load(written(tmp_path, SMALL.replace("mqtts://broker'", "mqtt://10.0.0.1', allow_plaintext: true"))))
    assert config.mqtt.plaintext
    assert config.mqtt.port == 1883


SECRET = SMALL.replace("mqtts://broker'", "mqtts://b', username: u, password_file: mqtt-password, ca_file: ca.pem")


def self_signed() -> tuple[bytes, bytes]:
    """A certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start)
    certificate = builder.not_valid_after(start + timedelta(days=3650)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    monkeypatch.setattr(secret_files, "SECRETS_DIRECTORY", directory)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (directory / "mqtt-password").write_text("geheim\n")
    (directory / "mqtt-password").chmod(0o640)
    certificate, _ = self_signed()
    (tmp_path / "ca.pem").write_bytes(certificate)
    return directory


def test_named_files_are_looked_up_in_order(tmp_path: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, SECRET)
    mqtt = good(load(file)).mqtt
    assert mqtt.password_file == str(secrets / "mqtt-password")
    assert mqtt.ca_file == str(tmp_path / "ca.pem")
    secret = read_secret(mqtt.password_file)
    assert secret.reveal() == "geheim"
    assert "geheim" not in f"{secret} {secret!r}"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "mqtt-password").write_text("other")
    (credentials / "mqtt-password").chmod(0o644)  # systemd's own directory protects it
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    mqtt = good(load(file)).mqtt
    assert mqtt.password_file == str(credentials / "mqtt-password")
    assert read_secret(mqtt.password_file).reveal() == "other"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o641, 0o604, 0o620])
def test_secrets_that_others_can_read_or_change_are_refused(tmp_path: Path, secrets: Path, mode: int) -> None:
    (secrets / "mqtt-password").chmod(mode)
    (mistake,) = load(written(tmp_path, SECRET)).mistakes
    assert mistake.path == "mqtt.password_file"
    assert f"(mode {mode:04o})" in mistake.message
    with pytest.raises(FileUnusable, match="others can read or change"):
        read_secret(secrets / "mqtt-password")


def test_unusable_secrets(tmp_path: Path, secrets: Path) -> None:
    file = secrets / "mqtt-password"
    for content, part in ((b"", "is empty"), (b"x" * 70_000, "too large")):
        file.write_bytes(content)
        assert part in load(written(tmp_path, SECRET)).mistakes[0].message
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(FileUnusable, match="not UTF-8"):
        read_secret(file)
    file.unlink()
    assert "there is no file of this name in" in load(written(tmp_path, SECRET)).mistakes[0].message
    file.mkdir()
    assert load(written(tmp_path, SECRET)).mistakes


def test_certificates_are_loaded_as_the_session_will(tmp_path: Path, secrets: Path) -> None:
    url = "mqtts://b', ca_file: ca.pem, client_cert_file: gw.pem, client_key_file: gw.key"
    file = written(tmp_path, SMALL.replace("mqtts://broker'", url))
    certificate, key = self_signed()
    (tmp_path / "gw.pem").write_bytes(certificate)
    (tmp_path / "gw.key").write_bytes(key)
    (tmp_path / "gw.key").chmod(0o640)
    mqtt = good(load(file)).mqtt
    assert mqtt.client_key_file == str(tmp_path / "gw.key")
    assert len(mqtt.file_digests) == 3
    (tmp_path / "gw.key").write_bytes(self_signed()[1])
    (mistake,) = load(file).mistakes
    assert str(mistake).startswith(f"{file}:3:86: mqtt.client_key_file: is not the key of the certificate")
    (tmp_path / "gw.pem").write_text("no certificate")
    (tmp_path / "ca.pem").write_bytes(b"\x30\x82")
    assert [one.path for one in load(file).mistakes] == ["mqtt.ca_file", "mqtt.client_cert_file"]
    (tmp_path / "gw.key").chmod(0o644)
    assert [one.path for one in load(file).mistakes] == ["mqtt.ca_file", "mqtt.client_key_file"]


@pytest.mark.parametrize(
    "text",
    [
        SMALL.replace("mqtts://broker'", "u:geheim@broker'"),
        SMALL.replace("mqtts://broker'", "mqtts://u:geheim@broker'"),
        SMALL.replace("mqtts://broker'", "mqtts://u:geheim@bro ker'"),
        SMALL.replace("'mqtts://broker'", "mqtts://u:geheim@b: x"),
        SMALL.replace("broker'", "b', username: u, password: geheim"),
        SMALL.replace("broker'", "b', username: u, password_file: geheim"),
        SMALL.replace("broker'", "b', username: u, password_file: [geheim]"),
        SMALL.replace("broker'", "b', username: u, password_file: {a: geheim}"),
        SMALL.replace("{name: box, type: host}", "{name: c, type: opcua, url: 'opc.tcp://u:geheim@b'}"),
        SMALL.replace("{name: box, type: host}", "{name: c, type: opcua, url: 'u:geheim@b'}"),
        SMALL.replace("{name: box, type: host}", "{name: c, type: modbus, url: 'u:geheim@b', password: geheim}"),
        SMALL + "password: %geheim\n",
        SMALL + "password: 'geheim\n",
    ],
)
def test_no_message_repeats_a_secret(tmp_path: Path, text: str) -> None:
    mistakes = load(written(tmp_path, text)).mistakes
    assert mistakes
    assert "geheim" not in "\n".join(map(str, mistakes))


def test_a_replaced_secret_is_a_change_of_its_section_alone(tmp_path: Path, secrets: Path) -> None:
    file = written(tmp_path, SECRET)
    before, again = load(file), load(file)
    first, same = good(before), good(again)
    assert before.digest == again.digest
    assert first.mqtt.fingerprint == same.mqtt.fingerprint
    assert first == same
    (secrets / "mqtt-password").write_text("new")
    after = load(file)
    changed = good(after)
    assert after.digest != before.digest
    assert changed.mqtt.fingerprint != first.mqtt.fingerprint
    assert first.mqtt.fingerprint == same.mqtt.fingerprint  # as it was when it was loaded
    assert changed.mqtt != first.mqtt
    assert changed.devices[0].fingerprint == first.devices[0].fingerprint
    assert changed.devices == first.devices


def test_fingerprint_sees_every_setting(tmp_path: Path) -> None:
    def of(text: str) -> str:
        return good(load(written(tmp_path, text))).devices[0].fingerprint

    base = of(SMALL)
    assert of(SMALL + "# comment\nlabel: x\n") == base
    assert of(SMALL.replace("type: host", "type: host, interval: 10000 ms")) == base
    assert of(SMALL.replace("type: host", "type: host, label: x")) != base
    assert of(SMALL.replace("type: host", "type: host, report: {}")) != base
    assert of(SMALL + "defaults: {interval: 11 s}\n") != base


def test_topics() -> None:
    assert topics.expand("a/{site}/{device}/{x}", site="s", device="d") == "a/s/d/{x}"
    assert topics.template_mistake("shopfloor/{site}/{gateway}/{device}/{group}", topics.DATA_PLACEHOLDERS) is None
    for bad in ("", "a/+/b", "a/#", "$SYS/x", "a/{sit}", "a/{", "a}", "a\x00b", "a\ud800", "x" * 65_536, "a/{device}"):
        assert topics.template_mistake(bad, topics.GATEWAY_PLACEHOLDERS)


def test_two_thousand_tags(tmp_path: Path) -> None:
    tags = "".join(
        f"      - {{name: tag_{index}, label: 标签, address: 'holding:{index * 2}', type: float32, unit: Cel}}\n"
        for index in range(2000)
    )
    head = SMALL.replace("  - {name: box, type: host}\n", "")
    file = written(tmp_path, f"{head}  - name: press\n    type: modbus\n    url: tcp://10.0.0.1\n    tags:\n{tags}")
    config = good(load(file))
    assert len(config.devices[0].tags) == 2000  # type: ignore[attr-defined] # of this type


def tags_of(device: object) -> list[object]:
    return list(getattr(device, "tags", ()))


def test_what_stays_of_loading_is_what_was_loaded(tmp_path: Path) -> None:
    extra = """  - name: press
    type: modbus
    url: tcp://127.0.0.1
    brand: delta-dvp
    report: {heartbeat: 60 s}
    tags:
      - {name: lot, address: 'holding:200', type: string, length: 8, encoding: gbk}
      - {name: mode, address: D30, type: uint16, map: {0: idle}, deadband: 1}
  - {name: cnc, type: opcua, url: 'opc.tcp://127.0.0.1', security: {policy: None}, tags: [{name: s, node: 'ns=2;s=S'}]}
"""
    file = written(tmp_path, SMALL + extra)
    apart, loaded = load_apart(file), load(file)
    assert apart.digest == loaded.digest
    assert good(apart).mqtt.fingerprint == good(loaded).mqtt.fingerprint
    for packed, whole in zip(good(apart).devices, good(loaded).devices, strict=True):
        assert packed.fingerprint == whole.fingerprint
        assert dict(packed) | {"tags": tags_of(packed)} == dict(whole) | {"tags": tags_of(whole)}
    assert good(apart).devices[1].groups() == good(loaded).devices[1].groups()  # type: ignore[attr-defined] # of this type
    file = written(tmp_path, SMALL + "nonsense: 1\n")
    assert load_apart(file) == load(file)
    assert load_apart(file).mistakes


def test_what_cannot_be_read_apart_is_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, SMALL)
    monkeypatch.setattr("sys.executable", "/nowhere/python")  # as when no further process may be started
    assert good(load_apart(file)) == good(load(file))
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert good(load_apart(file)) == good(load(file))
    monkeypatch.setattr("sys.executable", "/bin/echo")  # ends well, and says what no agent of this version does
    assert good(load_apart(file)) == good(load(file))


def test_the_other_process_finds_its_modules_where_we_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, SMALL)
    (tmp_path / "yaml.py").write_text("open('loaded', 'w')\n")  # where the agent was started from: anybody's directory
    monkeypatch.chdir(tmp_path)
    assert load_apart(file).config is not None
    assert not (tmp_path / "loaded").exists()


def test_what_a_module_prints_does_not_spoil_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talkative.py").write_text("print('hello')\nfrom collectors.host import TYPE\n")
    information = tmp_path / "talkative-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: talkative\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[shopfloor.collectors]\ntalkative = talkative:TYPE\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = SMALL.replace("type: host", "type: talkative") + "plugins: [talkative]\n"
    loaded = load_apart(written(tmp_path, text))
    assert "hello" in capfd.readouterr().err
    assert "talkative" not in sys.modules, "read here after all"
    assert loaded.mistakes


def test_when_all_processes_are_told_to_stop_the_file_is_not_read_here(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    os.mkfifo(file)  # it does not answer
    with Loading(file) as loading:
        file.unlink()
        (reader,) = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        os.kill(int(reader), signal.SIGTERM)
        with pytest.raises(SystemExit):
            loading.result()


def test_a_disk_that_does_not_answer_is_a_mistake_and_nothing_goes_on_waiting(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    os.mkfifo(file)
    loaded = load_apart(file, 0.2)
    assert loaded.config is None
    assert "0.2 s" in str(loaded.mistakes[0])
    file.unlink()
    assert load_apart(written(tmp_path, SMALL), 30.0).config is not None


def test_of_a_version_installed_meanwhile_nothing_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.config_apart.__version__", "0.0.1")  # ours, from before
    loaded = load_apart(written(tmp_path, SMALL))
    assert loaded.config is None
    assert "restart" in loaded.mistakes[0].message


def test_a_copy_with_other_settings_has_another_fingerprint(tmp_path: Path) -> None:
    mqtt = good(load_apart(written(tmp_path, SMALL))).mqtt
    assert mqtt.model_copy(update={"max_payload": 10_000}).fingerprint != mqtt.fingerprint
    assert mqtt.model_copy(update={"max_payload": mqtt.max_payload}).fingerprint == mqtt.fingerprint


def test_two_thousand_mistakes_are_all_told_in_time(tmp_path: Path) -> None:
    tags = "".join(f"      - {{nam: tag_{index}, address: {index}, typ: x}}\n" for index in range(2000))
    head = SMALL.replace("  - {name: box, type: host}\n", "")
    file = written(tmp_path, f"{head}  - name: press\n    type: modbus\n    url: tcp://10.0.0.1\n    tags:\n{tags}")
    started = time.process_time()
    loaded = load(file)
    assert time.process_time() - started < 3
    assert len(loaded.mistakes) >= 6000 - 2


_GOOD = "\n".join(file.read_text(encoding="utf-8") for file in SHIPPED[:1])
_SCRAPS = [
    *(
        "\t",
        "%",
        "{",
        "}",
        "[",
        "]",
        ":",
        "'",
        '"',
        "&a",
        "*a",
        "null",
        "~",
        "0x",
        "1e999",
        "-",
        "  ",
        "\n",
        "：",
        "\x00",
    ),
    *("!!x", "😀"),
]
_VALUE = re.compile(r": *([^\n,{}\[\]]+)")
_VALUES = [*_VALUE.findall(_GOOD), "[]", "{}", "null", "-1", "1e9", "[[]]", "{a: b}", "'", "true", "''", "0x1"]


@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
@settings(max_examples=150)
def test_no_mutation_of_a_good_file_crashes_the_loader(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    dice = random.Random(seed)
    text = _GOOD
    for _ in range(count):
        at = dice.randrange(len(text))
        match dice.randrange(8):
            case 0:
                text = text[:at] + dice.choice(_SCRAPS) + text[at:]
            case 1:
                text = text[:at] + text[at + dice.randrange(1, 30) :]
            case 2:
                end = at + dice.randrange(1, 200)
                text = text[:end] + text[at:end] + text[end:]
            case 3 | 4 | 5 | 6:
                places = list(_VALUE.finditer(text))
                if places:
                    place = dice.choice(places)
                    text = text[: place.start(1)] + dice.choice(_VALUES) + text[place.end(1) :]
            case _:
                lines = text.split("\n")
                dice.shuffle(lines) if dice.random() < 0.02 else lines.pop(dice.randrange(len(lines)))
                text = "\n".join(lines)
    file = tmp_path_factory.getbasetemp() / "mutated.yaml"
    file.write_text(text, encoding="utf-8")
    loaded = load(file)
    assert (loaded.config is None) == bool(loaded.mistakes)
    last = text.count("\n") + 2
    for mistake in loaded.mistakes:
        assert 1 <= mistake.line <= last
        assert mistake.column >= 1
        assert mistake.message
        assert "\n" not in str(mistake)


def test_words_that_people_use_elsewhere() -> None:
    types = ("int16", "float32", "float64", "string")
    assert config_hints.meant_value("REAL", types) == "float32"
    assert config_hints.meant_value("Double", types) == "float64"
    assert config_hints.meant_value("flot32", types) == "float32"
    assert config_hints.meant_value("REAL", ("a", "b")) is None
    assert config_hints.unit_hint("5 分钟", of_time=True) == "; did you mean 5 min?"
    assert config_hints.unit_hint("2gb", of_time=False) == "; did you mean 2 GB?"
    assert config_hints.unit_hint("2 gb", of_time=True) == ""
    assert config_hints.unknown_key_hint("\u3000site", ["site"]) == "; type it in plain letters: site"


def test_stock_names_are_lower_case() -> None:
    assert all(name == name.casefold() for name in config_model.STOCK_HOST_NAMES)
