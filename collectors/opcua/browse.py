"""What a server offers: its tree with values, types, units and access, for people and for lists of tags.

Promises: reads only; each node is asked once, in calls as large as the server takes, with a pause between them; the
server's own folder (Server) is left out unless it is asked for; ends after the wished number of entries.

May import: `collectors.api`, `collectors.opcua.*`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from collectors.api import BrowseEntry, BrowseWish, Context, Misconfigured
from collectors.opcua import details
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.node_ids import BadNodeId, parse
from collectors.opcua.paths import BadPath, BrowsePath, parse_path, tag_name
from collectors.opcua.resolve import node_id
from collectors.opcua.sample import sample_of
from collectors.opcua.security import Security
from collectors.opcua.services import Services
from collectors.opcua.session import Session
from collectors.opcua.timing import DEFAULT_TIMING
from collectors.opcua.tree import Branch, Tree
from collectors.opcua.values import decode, quality_of

OBJECTS: Final = 85
SERVER: Final = 2253
_DESCRIPTION: Final = 5
_DATA_TYPE: Final = 14
_USER_ACCESS_LEVEL: Final = 18
_ACCESS: Final = {0: "", 1: "r", 2: "w", 3: "rw"}
_ROWS: Final = 100
"""Variables whose values are read together."""


@dataclass(frozen=True, slots=True)
class _Line:
    branch: Branch
    names: tuple[str, ...]


async def browse(config: OpcuaConfig, context: Context, wish: BrowseWish) -> AsyncIterator[BrowseEntry]:
    """Yield the nodes below where the wish begins, parents before their children.

    Raises:
        Unavailable: no connection, or it was lost.
        Misconfigured: there is no such place to begin.
    """
    timing = DEFAULT_TIMING
    session = Session(
        config.url,
        config.name,
        config.timeout,
        Security(config, context),
        channel_s=timing.channel,
        probe_s=timing.probe,
    )
    try:
        await session.connect()
        services = Services(session, {})
        await services.learn()
        namespaces = await session.namespaces()
        tree = Tree(services)
        start = await _start(wish, tree, namespaces)
        await _fetch(tree, services, start, wish)
        lines = islice(_lines(tree, start, wish, session.ua), wish.most)
        while rows := list(islice(lines, _ROWS)):
            for entry in await _entries(services, rows, namespaces, wish):
                yield entry
            await asyncio.sleep(wish.pause)
    finally:
        await session.close()


async def _start(wish: BrowseWish, tree: Tree, namespaces: Sequence[str | None]) -> Any:
    ua = tree.ua
    under = (wish.under or "/Objects").strip().rstrip("/")
    if under in ("/Objects", "/Root/Objects", "/0:Objects"):
        return ua.NodeId(OBJECTS)
    try:
        place: Any = parse_path(under) if under.startswith("/") else parse(under)
    except (BadPath, BadNodeId) as error:
        raise Misconfigured("misconfigured", str(error)) from error
    if isinstance(place, BrowsePath):
        ((_, node),) = await tree.find([place])
    else:
        index = place.index(namespaces)
        node = node_id(ua, place, index) if index is not None else None
    if node is None:
        raise Misconfigured("misconfigured", f"the server has no {under}")
    return node


async def _fetch(tree: Tree, services: Services, start: Any, wish: BrowseWish) -> None:
    """Ask level by level for what will be shown."""
    ua, front, seen = tree.ua, [start], {start}
    for _ in range(wish.depth):
        following = []
        for at in range(0, len(front), services.limit("browse")):
            nodes = front[at : at + services.limit("browse")]
            await tree.children(nodes)
            await asyncio.sleep(wish.pause)
            for node in nodes:
                for branch in tree.below(node):
                    if branch.node not in seen and not branch.property and branch.node != ua.NodeId(SERVER):
                        seen.add(branch.node)
                        following.append(branch.node)
            # A search goes on until it has seen ten times what it may show.
            if len(seen) > wish.most * (10 if wish.find else 1):
                return
        front = following


def _lines(tree: Tree, start: Any, wish: BrowseWish, ua: Any) -> Iterator[_Line]:
    """Depth first, by name, each node once."""
    text = wish.find.casefold() if wish.find else None
    seen = {start, ua.NodeId(SERVER)} if start != ua.NodeId(SERVER) else {start}

    def below(node: Any, names: tuple[str, ...]) -> Iterator[_Line]:
        if len(names) >= wish.depth:
            return
        for branch in sorted(tree.below(node), key=lambda one: (one.variable, one.name)):
            if branch.property or branch.node in seen:
                continue
            seen.add(branch.node)
            path = (*names, branch.name)
            shown = "/".join((*path, branch.display)).casefold()
            if text is None or (branch.variable and text in shown):
                yield _Line(branch, path)
            yield from below(branch.node, path)

    return below(start, ())


async def _entries(
    services: Services, rows: Sequence[_Line], namespaces: Sequence[str | None], wish: BrowseWish
) -> list[BrowseEntry]:
    ua = services.session.ua
    variables = [row.branch.node for row in rows if row.branch.variable] if wish.values else []
    found: dict[Any, Mapping[str, Any]] = {}
    if variables:
        values = await services.read(variables)
        access = await services.read(variables, _USER_ACCESS_LEVEL)
        described = await services.read(variables, _DESCRIPTION)
        types = await services.read(variables, _DATA_TYPE)
        units = await details.units(services, variables)
        for node, value, level, text, kind, unit in zip(
            variables, values, access, described, types, units, strict=True
        ):
            found[node] = {
                **_value(ua, value, details.content(kind)),
                "access": _ACCESS[int(details.content(level) or 0) & 3],
                "description": getattr(details.content(text), "Text", None) or None,
                "unit": unit,
            }
    entries = []
    for row in rows:
        branch, facts = row.branch, dict(found.get(row.branch.node, {}))
        readable = facts.pop("readable", not wish.values)
        label = branch.display if branch.display and branch.display != branch.name else None
        entries.append(
            BrowseEntry(
                level=0 if wish.find else len(row.names) - 1,
                names=row.names,
                source=source(branch.node, namespaces),
                label=label,
                variable=branch.variable,
                tag=tag_name("", row.names) if branch.variable and readable and all(row.names) else None,
                **facts,
            )
        )
    return entries


def source(node: Any, namespaces: Sequence[str | None]) -> str:
    """A node id as a configuration names it for good: with the URI of its namespace."""
    text = str(node.to_string())
    index = node.NamespaceIndex
    uri = namespaces[index] if index < len(namespaces) else None
    if not index or not uri:
        return text
    escaped = uri.replace("%", "%25").replace(";", "%3B")
    return f"nsu={escaped};{text.partition(';')[2]}"


def _value(ua: Any, data_value: Any, data_type: Any) -> dict[str, Any]:
    """Value, type and quality of a variable as read, and whether a tag can be made of it."""
    quality = quality_of(data_value.StatusCode.value) if data_value.StatusCode is not None else None
    _, type_id, raw, _, _, _ = sample_of(0, data_value)
    name = data_value.Value.VariantType.name if type_id else _type_name(ua, data_type)
    if isinstance(raw, list):
        return {"type": f"{name}[{len(raw)}]", "value": None, "quality": quality, "readable": False}
    value, _, reason = decode(type_id, raw, shortest=True)
    # Without a value now (or of the wrong kind) it may have one later; raw bytes and structures never do.
    readable = type_id not in (15, 22, 23, 24, 25)
    return {"type": name, "value": value, "quality": quality or reason, "readable": readable}


def _type_name(ua: Any, data_type: Any) -> str:
    """Of a built-in type; a server's own types have numbers alone."""
    if data_type is None or data_type.NamespaceIndex:
        return ""
    try:
        return str(ua.VariantType(data_type.Identifier).name)
    except ValueError:
        return ""
