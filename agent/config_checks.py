"""What no section can see for itself: names, topics that collide, what fits together.

Each check looks at the nodes of the file, not at finished models, so that one mistake does not hide another. May
import: `agent.config_document`, `agent.config_model`, `agent.topics`, `agent.yaml_source`, `collectors.fields`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent import topics
from agent.config_document import Document
from agent.config_model import MqttConfig, broker_host, is_loopback
from agent.yaml_source import Mapping as MappingNode
from agent.yaml_source import Scalar, Sequence
from collectors.fields import RESERVED_NAMES, DeviceConfig

_NO_PEM = "is no certificate in PEM form (-----BEGIN CERTIFICATE-----): openssl x509 -inform DER -in FILE converts"
_GROUP = r"\d+(?:ms|s|min|h|d)"


def check_names(document: Document) -> None:
    """Device names: unique on the gateway, not reserved; tag names: unique in the device."""
    devices = document.root.get("devices")
    if not isinstance(devices, Sequence):
        return
    seen: dict[str, Scalar] = {}
    for index, device in enumerate(devices.items):
        if not isinstance(device, MappingNode):
            continue
        name = device.get("name")
        if isinstance(name, Scalar) and name.text:
            first = seen.setdefault(name.text.casefold(), name)
            if name.text.casefold() in RESERVED_NAMES:
                document.tell(
                    ("devices", index, "name"), f"the name '{name.text}' is reserved for the agent's own topics"
                )
            elif first is not name:
                differs = "" if first.text == name.text else f" as '{first.text}' (capital letters do not tell apart)"
                document.tell(
                    ("devices", index, "name"),
                    f"the name '{name.text}' is taken already, in {document.place_of(first)}{differs}",
                )
        _check_tag_names(document, device, index)


def _check_tag_names(document: Document, device: MappingNode, index: int) -> None:
    tags = device.get("tags")
    if not isinstance(tags, Sequence):
        return
    seen: dict[str, Scalar] = {}
    for number, tag in enumerate(tags.items):
        name = tag.get("name") if isinstance(tag, MappingNode) else None
        if not isinstance(name, Scalar) or not name.text:
            continue
        first = seen.setdefault(name.text, name)
        if first is not name:
            document.tell(
                ("devices", index, "tags", number, "name"),
                f"the name '{name.text}' is taken already in this device, in {document.place_of(first)}",
            )


def check_mqtt(document: Document, data: Mapping[str, Any]) -> None:
    """Plain MQTT beyond this machine, and keys that need each other."""
    url = data.get("url")
    host = broker_host(url) if isinstance(url, str) else None
    if host is not None:
        tls = str(url).startswith("mqtts:")
        if not tls and data.get("allow_plaintext") is not True and not is_loopback(host):
            document.tell(
                ("mqtt", "url"),
                "mqtt:// would send readings and password unencrypted through the network: use mqtts://, "
                "or write allow_plaintext: true if everybody in this network may see them",
            )
        for key in ("ca_file", "client_cert_file", "client_key_file"):
            if data.get(key) is not None and not tls:
                document.tell(("mqtt", key), "has no effect with mqtt://: use mqtts://", at_key=True)
    for key, other in (
        ("client_cert_file", "client_key_file"),
        ("client_key_file", "client_cert_file"),
        ("password_file", "username"),
    ):
        if data.get(key) is not None and data.get(other) is None:
            document.tell(("mqtt", key), f"needs {other}: beside it", at_key=True)
    _check_tls_files(document, data)


def _check_tls_files(document: Document, data: Mapping[str, Any]) -> None:
    """Load the certificates as the session will: a wrong format or a key of another certificate shows here."""

    def usable(key: str) -> bool:
        return isinstance(data.get(key), str) and not document.was_told(("mqtt", key))

    if not usable("ca_file") and not usable("client_cert_file"):
        return
    import ssl  # only where TLS files are named: it costs a small gateway some memory

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if usable("ca_file"):
        try:
            context.load_verify_locations(cafile=data["ca_file"])
        except OSError:
            document.tell(("mqtt", "ca_file"), _NO_PEM)
    if usable("client_cert_file") and usable("client_key_file"):
        try:
            context.load_cert_chain(data["client_cert_file"], data["client_key_file"], password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                document.tell(("mqtt", "client_key_file"), "is not the key of the certificate in client_cert_file")
            else:
                document.tell(("mqtt", "client_cert_file"), f"{_NO_PEM}; and the key without a passphrase")
        except OSError as error:
            document.tell(("mqtt", "client_cert_file"), f"cannot be used with its key: {error.strerror}")


def check_deadbands(document: Document, index: int, device: DeviceConfig) -> None:
    """A deadband without `report` would do nothing, where the whole group is published every interval."""
    if device.always_reports or device.report is not None:
        return
    for number, tag in enumerate(getattr(device, "tags", ())):
        if getattr(tag, "deadband", None):
            document.tell(
                ("devices", index, "tags", number, "deadband"),
                "needs report: {heartbeat: 60 s} on the device: without it every value is published every interval",
                at_key=True,
            )


def check_topics(document: Document, mqtt: MqttConfig, site: str, gateway: str, devices: Iterable[str]) -> None:
    """Topics that become equal once names are put in: subscribers could not tell them apart."""
    names = list(dict.fromkeys(devices))
    here = {"site": site, "gateway": gateway}
    taken: dict[str, str] = {}
    for key in ("status_topic", "agent_topic"):
        template = getattr(mqtt, key)
        if template is not None:
            _take(document, taken, key, topics.expand(template, **here), "of the gateway")
    if mqtt.meta_topic is not None:
        for name in names:
            topic = topics.expand(mqtt.meta_topic, device=name, **here)
            if not _take(document, taken, "meta_topic", topic, f"of device {name}"):
                break
    for name in names:
        topic = topics.expand(mqtt.topic, device=name, **here)
        form = re.compile(re.escape(topic).replace(re.escape("{group}"), _GROUP))
        other = next((known for known in taken if form.fullmatch(known)), None)
        if other is not None:
            _collides(document, "topic", other, taken[other])
            return


def _take(document: Document, taken: dict[str, str], key: str, topic: str, whose: str) -> bool:
    if topic in taken:
        _collides(document, key, topic, taken[topic])
        return False
    taken[topic] = f"{key} {whose}"
    return True


def _collides(document: Document, key: str, topic: str, other: str) -> None:
    advice = "put {device} into it" if other.startswith("meta_topic of device") else "give each its own topic"
    loc = ("mqtt", key)
    if not document.find(loc).complete:
        loc = ("mqtt", other.partition(" ")[0])
    what = "" if loc[1] == key else f"{key} "
    document.tell(loc, f"{what}becomes '{topic}', as {other} does: {advice}")
