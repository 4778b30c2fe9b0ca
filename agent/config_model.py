"""The sections of the configuration file that belong to the agent itself; devices bring their own models.

Defaults that depend on the gateway (its name, LANG, the data directory) are filled in here or by the loader, so that
whoever holds a section needs to ask nobody else. May import: pydantic, `collectors.fields`,
`collectors.line_config`, `agent.topics`, `agent.status` (where data is kept).
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, SerializeAsAny
from pydantic_core import PydanticCustomError

from agent import topics
from agent.mistakes import Mistake, did_you_mean
from agent.status import choose_data_dir
from collectors.fields import (
    DeviceConfig,
    Duration,
    DurationOrZero,
    Model,
    Name,
    OutputPath,
    PublicFile,
    SecretFile,
    Section,
    Size,
)
from collectors.line_config import LineConfig

_STOCK = """
localhost localhost.localdomain debian ubuntu raspberrypi raspberry armbian orangepi bananapi nanopi friendlyelec
friendlywrt openwrt lede immortalwrt rock rock64 rockpi rockchip radxa rk3568 rk3588 odroid beaglebone jetson
tinkerboard kali fedora centos alpine archlinux buildroot kylin uos deepin openeuler imx6ull am335x gateway unknown none
"""
STOCK_HOST_NAMES = frozenset(_STOCK.split())
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_OTHER_SCHEMES = {
    "tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts", "mqtt+ssl": "mqtts", "mqtt+tls": "mqtts", "mqtt5": "mqtt",
    "http": "mqtt", "https": "mqtts",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_gateway(value: str) -> str:
    """Refuse the names that images come with: two cloned cards would publish under one name."""
    if value.casefold() in STOCK_HOST_NAMES:
        raise PydanticCustomError(
            "stock_name",
            "this is a name that systems come with; two gateways from one image would publish as one. "
            "Give this gateway a name of its own",
        )
    return value


def _check_timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError):
        near = {"beijing": "Asia/Shanghai", "cst": "Asia/Shanghai", "china": "Asia/Shanghai", "prc": "Asia/Shanghai"}
        known = near.get(value.casefold().rpartition("/")[2])
        hint = f"; did you mean '{known}'?" if known else did_you_mean(value, _zones(), listed=0)
        raise PydanticCustomError(
            "timezone", "expected a time zone such as Asia/Shanghai or Europe/Berlin{hint}", {"hint": hint}
        ) from None
    return value


@lru_cache(maxsize=1)
def _zones() -> tuple[str, ...]:
    return tuple(sorted(available_timezones()))


def _topic(allowed: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        mistake = topics.template_mistake(value, allowed)
        if mistake is not None:
            raise PydanticCustomError("topic", "{mistake}", {"mistake": mistake})
        return value

    return AfterValidator(check)


DataTopic = Annotated[str, _topic(topics.DATA_PLACEHOLDERS)]
MetaTopic = Annotated[str, _topic(topics.META_PLACEHOLDERS)]
GatewayTopic = Annotated[str, _topic(topics.GATEWAY_PLACEHOLDERS)]


def _check_broker_url(value: str) -> str:
    _split_broker_url(value)
    return value


def _split_broker_url(value: str) -> SplitResult:
    def wrong(text: str) -> PydanticCustomError:
        return PydanticCustomError("broker_url", "{text}", {"text": text})

    form = "mqtts://HOST:8883 (with TLS) or mqtt://HOST:1883"
    if "://" not in value:
        raise wrong(f"expected {form}; did you mean 'mqtts://{value.split('@')[-1]}'?")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong(f"expected {form}; the host or the port is none") from None
    if parts.scheme in {"ws", "wss"}:
        raise wrong(f"MQTT over WebSocket ({parts.scheme}://) is not supported yet: use {form}")
    if parts.scheme not in _DEFAULT_PORTS:
        other = _OTHER_SCHEMES.get(parts.scheme)
        raise wrong(f"expected {form}" + (f"; did you mean {other}://?" if other else ""))
    if "@" in parts.netloc:
        raise wrong("no user or password in the url: write username: and password_file:")
    if not parts.hostname or re.search(r"[\s{}]", parts.netloc) or port == 0:
        raise wrong(f"expected {form}; the host or the port is missing")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise wrong(f"expected {form} and nothing after it; topics have keys of their own")
    return parts


def broker_host(url: str) -> str | None:
    """The host of a valid broker url, else None."""
    try:
        return _split_broker_url(url).hostname
    except PydanticCustomError:
        return None


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host never leaves the machine."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_client_id(value: str) -> str:
    if not value.strip() or _CONTROL.search(value) or len(value.encode()) > 256:
        raise PydanticCustomError("client_id", "expected 1 to 256 printable characters, different on every gateway")
    return value


def _check_format(value: str) -> str:
    if value != "json":
        raise PydanticCustomError("format", "formats other than json are not supported yet")
    return value


class MqttConfig(Section):
    """Where readings go."""

    url: Annotated[str, AfterValidator(_check_broker_url)] = Field(
        description="broker: mqtts://HOST:8883, or mqtt://HOST:1883 without encryption"
    )
    client_id: Annotated[str, AfterValidator(_check_client_id)] = Field(
        "shopfloor-{gateway}", description="name of this gateway's session, unique at the broker"
    )
    username: str | None = Field(None, min_length=1, max_length=65_535, description="user at the broker")
    password_file: SecretFile | None = Field(None, description="file that holds the password")
    ca_file: PublicFile | None = Field(
        None, description="PEM file with the authority that signed the broker's certificate; default the system's store"
    )
    client_cert_file: PublicFile | None = Field(None, description="PEM file, with client_key_file: mutual TLS")
    client_key_file: SecretFile | None = Field(None, description="PEM file with the private key")
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        "auto",
        description="auto: MQTT 5, and 3.1.1 only after an explicit refusal, never after a time-out. With 3.1.1 a "
        "broker cannot say that its access list denies a topic: such readings count as delivered and are lost",
    )
    keepalive: Annotated[Duration, Field(ge=1, le=65_535)] = Field(
        15.0, description="how soon a silent broker is noticed"
    )
    window: int = Field(
        100, ge=1, le=65_535, description="unacknowledged messages; never above the broker's Receive Maximum"
    )
    format: Annotated[str, AfterValidator(_check_format)] = Field(
        "json", description="how messages are written", json_schema_extra={"enum": ["json"]}
    )
    topic: DataTopic = Field(
        "shopfloor/{site}/{gateway}/{device}/data",
        description="topic of readings; placeholders {site} {gateway} {device} {group}",
    )
    status_topic: GatewayTopic | None = Field(
        "shopfloor/{site}/{gateway}/status", description="retained state of the gateway; null = none"
    )
    meta_topic: MetaTopic | None = Field(
        "shopfloor/{site}/{gateway}/{device}/meta", description="retained description of a device; null = none"
    )
    agent_topic: GatewayTopic | None = Field(
        "shopfloor/{site}/{gateway}/agent", description="counters of the agent itself; null = none"
    )
    max_payload: Annotated[Size, Field(ge=1000, le=16_000_000)] = Field(
        60_000, description="largest message; larger groups are split"
    )
    allow_plaintext: bool = Field(False, description="mqtt:// to another machine needs true, and the status says so")

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return _split_broker_url(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """The broker's host, IPv6 addresses without brackets."""
        return _split_broker_url(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The broker's port."""
        parts = _split_broker_url(self.url)
        return parts.port or _DEFAULT_PORTS[parts.scheme]

    @property
    def plaintext(self) -> bool:
        """Whether readings cross a network unencrypted."""
        return not self.tls and not is_loopback(self.host)


class BufferConfig(Section):
    """What waits for the broker."""

    directory: Annotated[str, OutputPath()] = Field(
        default_factory=lambda: str(choose_data_dir()),
        min_length=1,
        description="where undelivered readings are kept; default $STATE_DIRECTORY, else /var/lib/shopfloor-agent if "
        "writable, else ~/.local/state/shopfloor-agent",
    )
    max_size: Annotated[Size, Field(ge=4_000_000)] | None = Field(
        None, description="hard limit, the oldest go first; default min(1 GB, a quarter of what the volume has free)"
    )
    commit_interval: Annotated[DurationOrZero, Field(le=60)] = Field(
        1.0, description="how long a new message may wait in memory only; 0 s = commit before publishing"
    )
    replay: Literal["live-first", "in-order"] = Field("live-first", description="after an outage: new readings first?")
    replay_rate: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        100.0, description="backlog messages a second; 0 = no limit"
    )


class LogConfig(Section):
    """What the agent tells about itself."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least important that is told")
    format: Literal["auto", "sentences", "json"] = Field("auto", description="auto: sentences on a terminal, else JSON")
    file: Annotated[str, Field(min_length=1), OutputPath()] | None = Field(
        None, description="also write here; null = standard error only"
    )
    max_size: Annotated[Size, Field(ge=10_000)] = Field(10_000_000, description="a full file is put aside")
    keep: int = Field(5, ge=0, le=1000, description="files that are kept beside the current one")


class Defaults(Model):
    """What devices get that do not say otherwise."""

    interval: Duration | None = Field(None, description="default 1 s, or what the device type brings")
    timeout: Duration | None = Field(None, description="default 3 s")


def _default_language() -> Literal["zh", "en"]:
    lang = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "")
    return "zh" if lang.casefold().startswith("zh") else "en"


class AgentConfig(Model):
    """The whole file."""

    site: Name = Field(description="the plant; part of topics")
    gateway: Annotated[Name, AfterValidator(check_gateway)] = Field(
        description="this machine; default the host's name; names that images come with are refused"
    )
    label: str | None = Field(None, description="text for people, any language")
    timezone: Annotated[str, AfterValidator(_check_timezone)] | None = Field(
        None, description="for logs and reports, never on the wire; default the system's"
    )
    language: Literal["zh", "en"] = Field(
        default_factory=_default_language, description="of sentences for people; default from LANG"
    )
    mqtt: MqttConfig = Field(description="where readings go")
    buffer: BufferConfig = Field(default_factory=BufferConfig, description="what waits for the broker")
    log: LogConfig = Field(default_factory=LogConfig, description="what the agent tells about itself")
    plugins: tuple[Name, ...] = Field((), description="names of third-party collectors that may load")
    defaults: Defaults = Field(default_factory=Defaults, description="what devices get that do not say otherwise")
    lines: dict[Name, LineConfig] = Field(
        default_factory=dict, description="what several devices share: serial ports, serial servers, modems that call"
    )
    devices: tuple[SerializeAsAny[DeviceConfig], ...] = Field(min_length=1, description="what is read")

    def where(self) -> str:
        """`site/gateway`, for people."""
        return f"{self.site}/{self.gateway}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file.

    Attributes:
        config: the configuration; None if there is any mistake.
        mistakes: every mistake, in the order of the file.
        digest: "sha256:..." of the file and of all files it names; None if the file could not be read.
    """

    config: AgentConfig | None
    mistakes: list[Mistake] = field(default_factory=list)
    digest: str | None = None
