"""The configuration of an OPC UA device, and what can be said of it offline: estimate, explanation.

May import: `collectors.api`, `collectors.fields`, `collectors.opcua.{access,node_ids,tag}`, pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from collectors.api import Estimate, Explanation, TagExplanation, TagInfo, group_name
from collectors.fields import DeviceConfig, Duration, PublicFile, Report, SecretFile
from collectors.opcua.access import Security, check_user
from collectors.opcua.node_ids import NodeAddress
from collectors.opcua.tag import OpcuaTag, check_interval, queue_size

DEFAULT_PORT = 4840
"""Registered for opc.tcp."""


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


def _always_reports(value: Report | None) -> Report:
    return value if value is not None else Report()


class OpcuaConfig(DeviceConfig):
    """An OPC UA server."""

    always_reports: ClassVar[bool] = True

    type: Literal["opcua"]
    url: Annotated[str, AfterValidator(_check_url)] = Field(description="opc.tcp://HOST:PORT, port default 4840")
    security: Security = Field(
        default_factory=Security, description="{policy: None} must be written to connect without encryption"
    )
    username: str | None = Field(None, min_length=1, max_length=4096, description="user; needs password_file")
    password_file: SecretFile | None = Field(None, description="file that holds the user's password")
    user_cert_file: PublicFile | None = Field(
        None, description="certificate of the user, PEM or DER, instead of username; needs user_key_file"
    )
    user_key_file: SecretFile | None = Field(None, description="its private key, PEM or DER, without a passphrase")
    time: Literal["source", "server", "gateway"] = Field("source", description="whose time the readings carry")
    max_skew: Duration = Field(
        60.0, description="a server whose clock is further off (a time that far ahead) is stamped by the gateway"
    )
    interval: Annotated[Duration, AfterValidator(check_interval)] = Field(1.0, description="publishing interval")
    report: Annotated[Report | None, AfterValidator(_always_reports)] = Field(
        None, description="changes are always reported; `heartbeat` is how often everything is"
    )
    collect: Literal["subscribe", "poll"] = Field(
        "subscribe", description="poll: read every interval, for servers without subscriptions"
    )
    server_deadband: bool = Field(
        False,
        description="let the server apply deadbands too: saves network load, but many do it wrong (a slow drift is"
        " never sent), so by default the agent alone does",
    )
    tags: tuple[OpcuaTag, ...] = Field(min_length=1, strict=False)

    @classmethod
    def unsupported(cls) -> dict[str, str]:
        """Keys that later versions bring."""
        return {
            "line": "an OPC UA server has no line: write url: opc.tcp://HOST:4840",
        }

    @model_validator(mode="after")
    def _user_is_safe(self) -> OpcuaConfig:
        check_user(self.security, self.username, self.password_file, self.user_cert_file, self.user_key_file)
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> OpcuaConfig:
        seen: set[str] = set()
        for tag in self.tags:
            for name, _ in tag.elements():
                if name in seen:
                    raise PydanticCustomError("duplicate", "two tags are named {name}", {"name": name})
                seen.add(name)
        return self

    @model_validator(mode="after")
    def _polling_has_no_queue(self) -> OpcuaConfig:
        if self.collect == "poll":
            for tag in self.tags:
                if tag.sampling is not None or tag.queue is not None:
                    raise PydanticCustomError(
                        "poll",
                        "tag {name}: with collect: poll the interval is all there is; sampling and queue belong to"
                        " subscriptions",
                        {"name": tag.name},
                    )
        return self

    def interval_of(self, tag: OpcuaTag) -> float:
        """Seconds between notifications of a tag."""
        return tag.interval if tag.interval is not None else self.interval

    def groups(self) -> Mapping[str, float]:
        """Group name -> publishing interval in seconds; a subscription each."""
        return {group_name(seconds): seconds for seconds in sorted({self.interval_of(tag) for tag in self.tags})}

    def tag_infos(self) -> list[TagInfo]:
        """The tags as far as the configuration tells: types, and what patterns find, are learned from the server."""
        return [info for tag in self.tags for info in tag.infos(self.group_of(tag))]

    def group_of(self, tag: OpcuaTag) -> str:
        """Name of a tag's group."""
        return group_name(self.interval_of(tag))


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
    rows: list[TagExplanation] = []
    for tag in config.tags:
        infos = tag.infos(config.group_of(tag))
        rows.extend(
            TagExplanation(info.name, info.source, info.group, info.type or "as the server says", note=_note(tag))
            for info in infos
        )
        if not infos:
            group = config.group_of(tag)
            rows.append(TagExplanation(f"{tag.name}.*", tag.place, group, "as the server says", note=_note(tag)))
    return Explanation(rows, [_request(config, name, seconds) for name, seconds in config.groups().items()])


def _request(config: OpcuaConfig, group: str, seconds: float) -> str:
    tags = [tag for tag in config.tags if config.group_of(tag) == group]
    nodes = len({tag.place for tag in tags if tag.browse is None})
    what = f"{nodes} nodes" + (" and what the patterns find" if any(tag.browse is not None for tag in tags) else "")
    if config.collect == "poll":
        return f"read {group}: {what}"
    queues = {tag.queue or queue_size(seconds, tag.sampling or seconds) for tag in tags}
    return f"subscription {group}: {what}, queue {' to '.join(map(str, sorted({min(queues), max(queues)})))}"


def _note(tag: OpcuaTag) -> str:
    address = tag.address()
    if isinstance(address, NodeAddress):
        if isinstance(address.namespace, int) and address.namespace > 1:
            return "the index may change when the server restarts: nsu=URI stays right"
        return ""
    if any(step.namespace is not None and step.namespace > 1 for step in address.steps):
        return "the indexes may change when the server restarts: names alone stay right"
    return ""
