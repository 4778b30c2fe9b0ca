"""The tree of a server's nodes: follows paths by names, and finds the variables that fit a pattern.

Promises: each node is asked for its children once, many at a time; cycles end; a search ends after `MOST_SEEN` nodes
and `DEEPEST` levels, and says so; results come in the order of their paths, whatever order the server tells.

May import: `collectors.opcua.{paths,services}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from collectors.opcua.paths import BrowsePath
from collectors.opcua.services import Services

NO_MATCH: Final = 0x806F_0000
TOO_MANY_MATCHES: Final = 0x806D_0000
ROOT: Final = 84
HAS_PROPERTY: Final = 46
MOST_SEEN: Final = 20_000
"""Nodes that one search looks at."""
DEEPEST: Final = 12
"""Levels below the root that `**` goes down to."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A node as its parent's reference describes it.

    Attributes:
        node: id of the library's type.
        namespace, name: its browse name.
        display: its display name.
        variable: a variable, else an object.
        property: a property of its parent.
    """

    node: Any
    namespace: int
    name: str
    display: str
    variable: bool
    property: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A variable that fits a pattern, with the browse names that lead to it from the root."""

    branch: Branch
    names: tuple[tuple[int, str], ...]


class Tree:
    """The tree as far as it was looked at; made anew for each connection."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._children: dict[Any, list[Branch]] = {}
        self.seen = 0
        """Nodes that were told so far."""

    @property
    def ua(self) -> Any:
        """The library's types."""
        return self._services.session.ua

    async def children(self, nodes: Iterable[Any]) -> None:
        """Fetch the children of nodes that were not asked for before."""
        new = [node for node in dict.fromkeys(nodes) if node not in self._children]
        ua = self._services.session.ua
        for node, references in zip(new, await self._services.children(new) if new else (), strict=True):
            branches = []
            for reference in references:
                target = reference.NodeId
                if getattr(target, "ServerIndex", 0) or getattr(target, "NamespaceUri", None):
                    # Of another server.
                    continue
                branches.append(
                    Branch(
                        ua.NodeId(target.Identifier, target.NamespaceIndex, target.NodeIdType),
                        reference.BrowseName.NamespaceIndex,
                        reference.BrowseName.Name or "",
                        reference.DisplayName.Text or "",
                        reference.NodeClass == ua.NodeClass.Variable,
                        reference.ReferenceTypeId == ua.NodeId(HAS_PROPERTY),
                    )
                )
            self._children[node] = branches
            self.seen += len(branches)

    def below(self, node: Any) -> list[Branch]:
        """The children of a node that was asked for."""
        return self._children.get(node, [])

    async def find(self, paths: Sequence[BrowsePath]) -> list[tuple[int, Any]]:
        """Return (0, node) of each path, or a bad status and None: nothing there, or more than one node."""
        here: list[set[Any]] = [{self._root()} for _ in paths]
        for level in range(max((len(path.steps) for path in paths), default=0)):
            await self.children(
                node for path, nodes in zip(paths, here, strict=True) if level < len(path.steps) for node in nodes
            )
            for number, path in enumerate(paths):
                if level < len(path.steps):
                    step = path.steps[level]
                    here[number] = {
                        branch.node
                        for node in here[number]
                        for branch in self.below(node)
                        if step.fits(branch.namespace, branch.name)
                    }
        return [
            (0, next(iter(nodes))) if len(nodes) == 1 else (TOO_MANY_MATCHES if nodes else NO_MATCH, None)
            for nodes in here
        ]

    async def match(self, pattern: BrowsePath, most: int) -> tuple[list[Found], bool]:
        """Return the variables that fit, at most so many, and whether these are all."""
        steps = pattern.steps
        found: dict[Any, Found] = {}
        reached: set[tuple[Any, int]] = set()
        front: list[tuple[Any, tuple[tuple[int, str], ...], int]] = [(self._root(), (), 0)]
        first = self.seen
        for _ in range(DEEPEST + len(steps)):
            if not front or self.seen - first > MOST_SEEN:
                break
            await self.children(node for node, _, _ in front)
            following = []
            for node, names, at in front:
                for branch in self.below(node):
                    path = (*names, (branch.namespace, branch.name))
                    for after in _positions(steps, at, branch):
                        if after == len(steps):
                            if branch.variable:
                                found.setdefault(branch.node, Found(branch, path))
                        elif (branch.node, after) not in reached:
                            reached.add((branch.node, after))
                            following.append((branch.node, path, after))
            front = following
        ordered = sorted(found.values(), key=lambda one: ([name for _, name in one.names], one.names))
        return ordered[:most], len(ordered) <= most and not front

    def _root(self) -> Any:
        return self._services.session.ua.NodeId(ROOT)


def _positions(steps: Sequence[Any], at: int, branch: Branch) -> set[int]:
    """The steps still to go from a child on: after `**` there is more than one reading."""
    positions = set()
    step = steps[at]
    if step.deep:
        if branch.property:
            # Ranges, units and the like of every variable: nobody means them by **.
            return _positions(steps, at + 1, branch) if at + 1 < len(steps) and not _wild(steps[at + 1]) else set()
        positions.add(at)
        if at + 1 == len(steps):
            positions.add(len(steps))
        else:
            positions |= _positions(steps, at + 1, branch)
    elif step.fits(branch.namespace, branch.name) and not (branch.property and _wild(step)):
        positions.add(at + 1)
    return positions


def _wild(step: Any) -> bool:
    return step.deep or step.pattern is not None
