"""Tags -> nodes of the server as it is now: namespaces, paths, patterns, and what a tag needs to know of its variable.

Promises: every tag is resolved anew on each connection; one that cannot be is told with a status of its own and spoils
no other; a path that leads to two nodes is refused, never guessed; what a pattern finds has names that depend on the
tree alone.

May import: `collectors.api`, `collectors.opcua.{details,node_ids,paths,services,state,tag,tree}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from collectors.api import TagInfo, Unavailable
from collectors.opcua import details
from collectors.opcua.node_ids import NodeAddress
from collectors.opcua.paths import BrowsePath, tag_name, written
from collectors.opcua.services import Services
from collectors.opcua.state import Tag
from collectors.opcua.tag import OpcuaTag
from collectors.opcua.tree import NO_MATCH, ROOT, TOO_MANY_MATCHES, Tree

UNKNOWN_NODE: Final = 0x8034_0000
"""BadNodeIdUnknown."""
MOST_FOUND: Final = 1000
"""Variables that one pattern adds at most."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a pattern found: each tag and its node, and whether there is more than the limit."""

    tags: list[tuple[TagInfo, Any]]
    complete: bool


class Resolver:
    """Resolves on one connection."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._session = services.session
        self._by_names = False
        self.learned = 0
        """Rises whenever something was learned that `meta` or the rules of a tag depend on."""

    async def resolve(self, tags: Sequence[Tag]) -> list[tuple[Tag, int]]:
        """Set `node` of each tag; returns those that have none, with why. Raises Unavailable."""
        ua = self._session.ua
        namespaces = await self._session.namespaces()
        refused: list[tuple[Tag, int]] = []
        paths: list[tuple[Tag, BrowsePath]] = []
        for tag in tags:
            address = tag.address
            tag.node = tag.fixed
            if tag.fixed is not None:
                continue
            if isinstance(address, BrowsePath):
                paths.append((tag, address))
                continue
            index = address.index(namespaces)
            if index is None:
                refused.append((tag, UNKNOWN_NODE))
            else:
                tag.node = node_id(ua, address, index)
        for (tag, _), (status, node) in zip(paths, await self._follow([path for _, path in paths]), strict=True):
            tag.node = node
            if node is None:
                refused.append((tag, status))
        lost = {id(tag) for tag, _ in refused}
        await self._details([tag for tag in tags if id(tag) not in lost])
        return refused

    async def expand(self, tag: OpcuaTag, group: str) -> Expansion:
        """Return what a pattern finds now. Raises Unavailable."""
        pattern = tag.address()
        assert isinstance(pattern, BrowsePath)
        found, complete = await Tree(self._services).match(pattern, MOST_FOUND)
        nodes = [one.branch.node for one in found]
        units = await details.units(self._services, nodes) if nodes and tag.unit is None else [tag.unit] * len(nodes)
        taken: dict[str, int] = {}
        tags = []
        for one, unit in zip(found, units, strict=True):
            names = [name for _, name in one.names[pattern.first_pattern :]]
            name = tag_name(tag.name, names)
            taken[name] = taken.get(name, 0) + 1
            label = one.branch.display if one.branch.display != one.branch.name else None
            info = tag.info(name, group, written(one.names))
            tags.append((replace(info, label=label, unit=unit), one.branch.node))
        # Two nodes whose names differ in the namespace alone cannot be told apart by name: neither is guessed.
        return Expansion([(info, node) for info, node in tags if taken[info.name] == 1], complete)

    async def _follow(self, paths: Sequence[BrowsePath]) -> list[tuple[int, Any]]:
        """Each path's status and node."""
        answers: dict[int, tuple[int, Any]] = {}
        by_server = [at for at, path in enumerate(paths) if path.qualified and not self._by_names]
        if by_server:
            try:
                found = await self._translate([paths[at] for at in by_server])
                answers.update(zip(by_server, found, strict=True))
            except Unavailable as error:
                if error.cause != "session_refused":
                    raise
                # It does not offer this; the tree leads there too.
                self._by_names = True
        by_names = [at for at in range(len(paths)) if at not in answers]
        if by_names:
            found = await Tree(self._services).find([paths[at] for at in by_names])
            answers.update(zip(by_names, found, strict=True))
        return [answers[at] for at in range(len(paths))]

    async def _translate(self, paths: Sequence[BrowsePath]) -> list[tuple[int, Any]]:
        ua = self._session.ua
        root = ua.NodeId(ROOT)
        asked = [(root, [ua.QualifiedName(step.name, step.namespace) for step in path.steps]) for path in paths]
        answers = []
        for status, targets in await self._services.translate(asked):
            nodes = list(dict.fromkeys(details.plain(ua, target) for target in targets))
            if len(nodes) == 1:
                answers.append((0, nodes[0]))
            else:
                answers.append((TOO_MANY_MATCHES if nodes else status or NO_MATCH, None))
        return answers

    async def _details(self, tags: Sequence[Tag]) -> None:
        """Learn the texts of enumerations, and deadbands in percent of ranges."""
        everyone = [(tag, lead.node) for lead in tags for tag in (lead, *lead.readers)]
        enums = [(tag, node) for tag, node in everyone if tag.enum_text]
        if enums:
            texts = await details.enumerations(self._services, [node for _, node in enums])
            for (tag, _), known in zip(enums, texts, strict=True):
                tag.texts = known
        shares = [(tag, node) for tag, node in everyone if tag.percent is not None]
        if shares:
            widths = await details.ranges(self._services, [node for _, node in shares])
            for (tag, _), width in zip(shares, widths, strict=True):
                if width is not None and tag.percent is not None:
                    scale = abs(tag.info.rules.scale) if tag.info.rules.scale else 1.0
                    deadband = width * tag.percent / 100 * scale
                    self.learned += deadband != tag.info.rules.deadband
                    tag.info = replace(tag.info, rules=replace(tag.info.rules, deadband=deadband))


def node_id(ua: Any, address: NodeAddress, index: int) -> Any:
    """The library's form of a node id."""
    kinds = ua.NodeIdType
    kind = {"i": kinds.Numeric, "s": kinds.String, "g": kinds.Guid, "b": kinds.ByteString}[address.kind]
    return ua.NodeId(address.identifier, index, kind)
