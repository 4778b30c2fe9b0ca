"""The configuration of an OPC UA device, and what can be said of it offline: estimate, explanation.

May import: `collectors.api`, `collectors.fields`, `collectors.opcua.node_ids`, pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from collectors.api import Estimate, Explanation, TagExplanation, TagInfo, group_name
from collectors.fields import DeviceConfig, Duration, Model, Report, TagConfig
from collectors.opcua.node_ids import BadNodeId, NodeAddress, parse

DEFAULT_PORT = 4840
"""Registered for opc.tcp."""
SHORTEST_INTERVAL_S = 0.05
"""Below it servers revise the interval, and milliseconds were taken for seconds (`interval: 0.001`)."""
TAGS_PER_CALL = 100
"""Monitored items created in one call: small PLCs take no more (S7-1200: 100 to 200)."""

Policy = Literal["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss", "None"]

_WRITE_NONE = "secure policies are not supported yet: write `security: {policy: None}` to connect without encryption"


def _check_policy(value: object) -> object:
    if value in ("Basic128Rsa15", "Basic256"):
        raise PydanticCustomError(
            "policy",
            "{policy} is broken (SHA-1) and withdrawn by the OPC Foundation: never supported",
            {"policy": value},
        )
    return value


class Security(Model):
    """How the connection is protected."""

    policy: Annotated[Policy, BeforeValidator(_check_policy)] = Field(
        "Basic256Sha256", description="`None` (no encryption, no signature) must be written"
    )
    mode: Literal["None", "Sign", "SignAndEncrypt"] | None = Field(
        None, description="default SignAndEncrypt; nothing with policy None"
    )

    @model_validator(mode="after")
    def _supported(self) -> Security:
        if self.policy != "None":
            raise PydanticCustomError("unsupported", _WRITE_NONE)
        if self.mode not in (None, "None"):
            raise PydanticCustomError("mode", "policy None neither signs nor encrypts: leave mode out")
        return self


def _security_is_written(value: Security | None) -> Security | None:
    if value is None:
        raise PydanticCustomError("unsupported", _WRITE_NONE)
    return value


def _check_node(value: str) -> str:
    try:
        return parse(value).text
    except BadNodeId as error:
        raise PydanticCustomError("node", "{text}", {"text": str(error)}) from None


def _check_url(value: str) -> str:
    """Return the url with its port."""
    parts = urlsplit(value)
    try:
        port = parts.port
    except ValueError:
        raise PydanticCustomError("url", "the port is a number from 1 to 65535") from None
    if parts.scheme != "opc.tcp" or not parts.hostname:
        raise PydanticCustomError("url", "expected a url such as opc.tcp://192.168.10.50:4840")
    if "@" in parts.netloc:
        raise PydanticCustomError("url", "no user name or password in the url")
    if port == 0:
        raise PydanticCustomError("url", "the port is a number from 1 to 65535")
    return value if port is not None else parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{DEFAULT_PORT}").geturl()


def _check_interval(value: float | None) -> float | None:
    if value is not None and value < SHORTEST_INTERVAL_S:
        raise PydanticCustomError("interval", "an interval of an OPC UA server is at least 50 ms")
    return value


def _always_reports(value: Report | None) -> Report:
    return value if value is not None else Report()


def _check_deadband(value: object) -> object:
    if isinstance(value, str) and value.rstrip().endswith("%"):
        raise PydanticCustomError("unsupported", "deadbands in percent are not supported yet: write the number")
    return value


class OpcuaTag(TagConfig):
    """A variable of the server."""

    deadband: Annotated[float | None, BeforeValidator(_check_deadband)] = Field(
        None, ge=0, description="smallest change that is published"
    )

    node: Annotated[str, AfterValidator(_check_node)] = Field(
        description="node id: nsu=URI;s=NAME (kept right when the server renumbers), or ns=2;s=NAME, ns=2;i=5, i=2258"
    )
    interval: Annotated[Duration | None, AfterValidator(_check_interval)] = Field(
        None, description="publishing interval, default that of the device"
    )

    @classmethod
    def unsupported(cls) -> dict[str, str]:
        """Keys that later versions bring."""
        return {
            "path": "browse paths are not supported yet: write the node id as node:",
            "browse": "browsing is not supported yet: write each tag with its node id",
            "index": "index ranges are not supported yet: only scalar variables can be read",
            "enum_text": "texts of enumerations are not supported yet: use map: {0: idle, 1: running}",
            "sampling": "a sampling interval of its own is not supported yet: it is the interval",
            "queue": "the queue size is not supported yet: it is publishing / sampling interval x 2",
            "discard": "the discard policy is not supported yet: the oldest value is discarded",
        }

    def address(self) -> NodeAddress:
        """The node id in its parts."""
        return parse(self.node)


class OpcuaConfig(DeviceConfig):
    """An OPC UA server."""

    always_reports: ClassVar[bool] = True

    type: Literal["opcua"]
    url: Annotated[str, AfterValidator(_check_url)] = Field(description="opc.tcp://HOST:PORT, port default 4840")
    security: Annotated[Security | None, AfterValidator(_security_is_written)] = Field(
        None, description="{policy: None} must be written to connect without encryption"
    )
    time: Literal["source", "server", "gateway"] = Field("source", description="whose time the readings carry")
    max_skew: Duration = Field(
        60.0, description="a server whose clock is further off (a time that far ahead) is stamped by the gateway"
    )
    interval: Annotated[Duration, AfterValidator(_check_interval)] = Field(1.0, description="publishing interval")
    report: Annotated[Report | None, AfterValidator(_always_reports)] = Field(
        None, description="changes are always reported; `heartbeat` is how often everything is"
    )
    tags: tuple[OpcuaTag, ...] = Field(min_length=1, strict=False)

    @classmethod
    def unsupported(cls) -> dict[str, str]:
        """Keys that later versions bring."""
        return {
            "username": "user names are not supported yet: only anonymous sessions",
            "password_file": "user names and passwords are not supported yet: only anonymous sessions",
            "user_cert_file": "user certificates are not supported yet: only anonymous sessions",
            "collect": "polling is not supported yet: the server must offer subscriptions",
            "line": "an OPC UA server has no line: write url: opc.tcp://HOST:4840",
        }

    @model_validator(mode="after")
    def _names_differ(self) -> OpcuaConfig:
        seen: set[str] = set()
        for tag in self.tags:
            if tag.name in seen:
                raise PydanticCustomError("duplicate", "two tags are named {name}", {"name": tag.name})
            seen.add(tag.name)
        return self

    def interval_of(self, tag: OpcuaTag) -> float:
        """Seconds between notifications of a tag."""
        return tag.interval if tag.interval is not None else self.interval

    def groups(self) -> Mapping[str, float]:
        """Group name -> publishing interval in seconds; a subscription each."""
        return {group_name(seconds): seconds for seconds in sorted({self.interval_of(tag) for tag in self.tags})}

    def tag_infos(self) -> list[TagInfo]:
        """The tags as far as the configuration tells: types are learned from the server."""
        return [
            TagInfo(
                name=tag.name,
                group=group_name(self.interval_of(tag)),
                source=tag.node,
                type="string" if tag.map is not None or tag.as_ is not None else None,
                label=tag.label,
                unit=tag.unit,
                description=tag.description,
                rules=tag.rules(),
            )
            for tag in self.tags
        ]


def queue_size(publishing_s: float, sampling_s: float) -> int:
    """How many values the server keeps of a tag between notifications: what fits, twice; never 0 (which means 1)."""
    return max(2, 2 * ceil(publishing_s / sampling_s - 1e-9))


def estimate(config: OpcuaConfig) -> Estimate:
    """What the device will cost: one publish request per notification at most; heartbeats surely."""
    groups = config.groups()
    heartbeat = _always_reports(config.report).heartbeat
    return Estimate(
        requests_per_s=sum(1 / seconds for seconds in groups.values()),
        wire_s_per_s=0.0,
        line=None,
        messages_per_s=len(groups) / heartbeat,
        values_per_message=len(config.tags) / len(groups),
    )


def explain(config: OpcuaConfig) -> Explanation:
    """What will be read, tag by tag and subscription by subscription."""
    rows = []
    counts: dict[str, int] = {}
    for tag, info in zip(config.tags, config.tag_infos(), strict=True):
        namespace = tag.address().namespace
        note = ""
        if isinstance(namespace, int) and namespace > 1:
            note = "the index may change when the server restarts: nsu=URI stays right"
        rows.append(TagExplanation(tag.name, tag.node, info.group, info.type or "as the server says", note=note))
        counts[info.group] = counts.get(info.group, 0) + 1
    requests = [
        f"subscription {name}: {counts[name]} nodes, queue {queue_size(seconds, seconds)}"
        for name, seconds in config.groups().items()
    ]
    return Explanation(rows, requests)
