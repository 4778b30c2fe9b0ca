"""The tags of a device on one connection: made from the configuration, joined by what patterns find.

Promises: elements of one array share one read of it; a tag keeps its name, type and group whatever else is found.

May import: `collectors.api`, `collectors.opcua.{config,news,resolve,state,tag,values}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from collectors.api import JsonType, TagInfo
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.resolve import Resolver
from collectors.opcua.state import Kept, Sampling, Tag
from collectors.opcua.tag import Element, OpcuaTag, Percent


class Roster:
    """Who is read.

    Args:
        config: the device.
        kept: what earlier connections learned.
    """

    def __init__(self, config: OpcuaConfig, kept: Kept) -> None:
        self.leads: dict[str, list[Tag]] = {group: [] for group in config.groups()}
        """By group; without those that read along with another one."""
        self.findings: list[tuple[str, str, dict[str, Any]]] = []
        """Event, tag and fields, to be told once a process."""
        self._config = config
        self._kept = kept
        self._entries: list[tuple[OpcuaTag, list[Tag]]] = []
        self._shared: dict[tuple[object, ...], Tag] = {}
        for tag in config.tags:
            group = config.group_of(tag)
            elements = [element for _, element in tag.elements()]
            made = [
                self._add(tag, info, element)
                for info, element in zip(tag.infos(group), elements if tag.browse is None else (), strict=True)
            ]
            self._entries.append((tag, made))

    def __iter__(self) -> Iterator[Tag]:
        for _, tags in self._entries:
            yield from tags

    def infos(self) -> Sequence[TagInfo]:
        """The tags; their types as far as values came, and before a pattern was looked for what it found last."""
        kept = self._kept
        known: list[TagInfo] = []
        for config, tags in self._entries:
            if config.browse is not None and not tags:
                known.extend(kept.found.get(config.name, ()))
            known.extend(tag.info for tag in tags)
        infos = []
        for info in known:
            key = (info.name, info.source)
            infos.append(
                replace(info, type=_published_type(info, kept.kinds.get(key)), wide=info.wide or key in kept.wide)
            )
        return infos

    async def expand(self, resolver: Resolver) -> list[Tag]:
        """Look for what the patterns find that have found nothing so far; returns the new tags. Raises Unavailable."""
        new: list[Tag] = []
        names = {tag.info.name for tag in self}
        for config, tags in self._entries:
            if config.browse is None or tags:
                continue
            expansion = await resolver.expand(config, self._config.group_of(config))
            for info, node in expansion.tags:
                if info.name not in names:
                    names.add(info.name)
                    tag = self._add(config, info, None)
                    tag.node = tag.fixed = node
                    tags.append(tag)
            self._kept.found[config.name] = [tag.info for tag in tags]
            new.extend(tags)
            if not tags:
                self.findings.append(("browse_empty", config.name, {"pattern": config.place}))
            elif not expansion.complete:
                self.findings.append(("browse_capped", config.name, {"pattern": config.place, "tags": len(tags)}))
        return new

    @property
    def incomplete(self) -> bool:
        """Whether some pattern found nothing so far."""
        return any(config.browse is not None and not tags for config, tags in self._entries)

    def _add(self, config: OpcuaTag, info: TagInfo, element: Element | None) -> Tag:
        rules = info.rules
        sampling = Sampling(
            config.sampling, config.queue, config.discard == "oldest", filter=self._config.server_deadband
        )
        tag = Tag(
            info,
            config.address(),
            shortest=rules.scale is None and rules.offset is None,
            kind=self._kept.kinds.get((info.name, info.source)),
            sampling=sampling,
            element=element,
            enum_text=config.enum_text,
            percent=float(config.deadband) if isinstance(config.deadband, Percent) else None,
        )
        if element is not None:
            lead = self._shared.setdefault((config.place, info.group, sampling), tag)
            if lead is not tag:
                lead.readers = (*lead.readers, tag)
                return tag
        self.leads[info.group].append(tag)
        return tag


def _published_type(info: TagInfo, kind: JsonType | None) -> JsonType | None:
    """The JSON type after scale, map and the like."""
    if info.type is not None:
        return info.type
    if kind == "boolean" and (info.rules.scale is not None or info.rules.offset is not None):
        return "number"
    return kind
