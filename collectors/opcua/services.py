"""What is asked of a server in batches: read, browse, translate, register, each in as few calls as the server takes.

Promises: a call never holds more operations than the server announces (OperationLimits) or has shown to take: one that
is refused as too large is halved, and the smaller size is remembered for the device's next connections; answers come
in the order of the questions, as many as there were.

May import: `collectors.api`, `collectors.opcua.session`.
Source: OPC UA Part 5, 6.3.11 (OperationLimitsType); Part 4, 5.8 (View), 5.10 (Attribute).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

from collectors.api import Unavailable
from collectors.opcua.session import Session

Service: TypeAlias = Literal["read", "monitor", "browse", "translate", "register"]
"""What has a limit of its own."""

T = TypeVar("T")
R = TypeVar("R")

LARGEST: Final = 1000
"""Operations in one call at most, whatever the server allows: an answer stays below a megabyte."""
MOST_MONITORED: Final = 100
"""Items that one call monitors, whatever the server announces: an S7-1200 announces 1000, and from 200 on takes 50
times as long (Siemens, OPC UA system limits, entry 109755846); to others the smaller calls cost next to nothing."""
UNTOLD: Final[dict[Service, int]] = {"read": 500, "monitor": 100, "browse": 50, "translate": 100, "register": 500}
"""Operations in the first call to a server that announces no limit."""
LIMIT_NODES: Final[dict[Service, int]] = {
    "read": 11705,
    "monitor": 11714,
    "browse": 11710,
    "translate": 11712,
    "register": 11711,
}
"""Variables of ServerCapabilities/OperationLimits in namespace 0."""
TOO_LARGE: Final = frozenset(
    {
        "BadEncodingLimitsExceeded",
        "BadRequestTooLarge",
        "BadResponseTooLarge",
        "BadTcpMessageTooLarge",
        "BadTooManyOperations",
    }
)
"""Faults that a smaller call does not meet."""
CHILDREN_PER_NODE: Final = 500
"""References of one node in one answer; the rest is fetched with BrowseNext."""
HIERARCHICAL: Final = 33
"""HierarchicalReferences, the parent of all that make up the tree."""


class Services:
    """The batches of one session.

    Args:
        session: connected before the first call.
        learned: sizes that were too large before, halved; shared by the device's connections.
    """

    def __init__(self, session: Session, learned: dict[str, int]) -> None:
        self.session = session
        self._learned = learned
        self._told: dict[Service, int] = {}

    def limit(self, service: Service) -> int:
        """Operations that one call may hold, 1 to `LARGEST`."""
        told = self._told.get(service, 0)
        most = MOST_MONITORED if service == "monitor" else LARGEST
        return min(told or UNTOLD[service], self._learned.get(service, LARGEST), most)

    async def learn(self) -> None:
        """Ask the server for its limits; one that tells none is believed to have some. Raises Unavailable."""
        ua = self.session.ua
        services = list(LIMIT_NODES)
        # One question of five: no server takes fewer, and one that refuses even that is asked no more.
        try:
            values = await self.session.read([ua.NodeId(LIMIT_NODES[service]) for service in services])
        except Unavailable as error:
            if error.cause != "session_refused":
                raise
            return
        for service, value in zip(services, values, strict=True):
            told = value.Value.Value if value.Value is not None else None
            if isinstance(told, int) and told > 0:
                self._told[service] = told

    async def batched(
        self, service: Service, items: Sequence[T], call: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
    ) -> list[R]:
        """Call with as many items at a time as the server takes; halves what it calls too large. Raises Unavailable."""
        results: list[R] = []
        while len(results) < len(items):
            chunk = items[len(results) : len(results) + self.limit(service)]
            try:
                answers = await call(chunk)
            except Unavailable as error:
                if error.facts.get("status") not in TOO_LARGE or len(chunk) == 1:
                    raise
                self._learned[service] = max(1, len(chunk) // 2)
                continue
            if len(answers) != len(chunk):
                raise self.session.bad_reply(f"{len(chunk)} operations were asked for and {len(answers)} answers came")
            results.extend(answers)
        return results

    async def read(self, nodes: Sequence[Any], attribute: int | None = None, timestamps: Any = None) -> list[Any]:
        """Return the data value of an attribute of each node, by default Value.

        Args:
            nodes: ids of the library's type.
            attribute: number of the attribute.
            timestamps: `ua.TimestampsToReturn`, default none.
        """

        async def call(chunk: Sequence[Any]) -> Sequence[Any]:
            return await self.session.read(list(chunk), attribute, timestamps)

        return await self.batched("read", nodes, call)

    async def register(self, nodes: Sequence[Any]) -> list[Any]:
        """Return the ids under which the server reads these nodes faster, while this session lasts."""
        ua = self.session.ua

        async def call(chunk: Sequence[Any]) -> Sequence[Any]:
            request = ua.RegisterNodesRequest()
            request.Parameters.NodesToRegister = list(chunk)
            answer = await self.session.call(request, ua.RegisterNodesResponse)
            return list(answer.Parameters.RegisteredNodeIds or ())

        return await self.batched("register", nodes, call)

    async def children(self, nodes: Sequence[Any]) -> list[list[Any]]:
        """Return the references that lead down from each node (none where the server refuses)."""
        ua = self.session.ua

        async def call(chunk: Sequence[Any]) -> Sequence[list[Any]]:
            request = ua.BrowseRequest()
            request.Parameters.RequestedMaxReferencesPerNode = CHILDREN_PER_NODE
            request.Parameters.NodesToBrowse = [self._down(node) for node in chunk]
            results = (await self.session.call(request, ua.BrowseResponse)).Results or ()
            return [await self._rest(result) for result in results]

        return await self.batched("browse", nodes, call)

    async def translate(self, paths: Sequence[tuple[Any, Sequence[Any]]]) -> list[tuple[int, list[Any]]]:
        """Return the status and the nodes that each path leads to: (start, qualified names of the library's type)."""
        ua = self.session.ua

        async def call(chunk: Sequence[tuple[Any, Sequence[Any]]]) -> Sequence[tuple[int, list[Any]]]:
            request = ua.TranslateBrowsePathsToNodeIdsRequest()
            request.Parameters.BrowsePaths = [self._path(start, names) for start, names in chunk]
            results = (await self.session.call(request, ua.TranslateBrowsePathsToNodeIdsResponse)).Results or ()
            return [(result.StatusCode.value, self._targets(result)) for result in results]

        return await self.batched("translate", paths, call)

    def _down(self, node: Any) -> Any:
        ua = self.session.ua
        wanted = ua.BrowseDescription()
        wanted.NodeId = node
        wanted.BrowseDirection = ua.BrowseDirection.Forward
        wanted.ReferenceTypeId = ua.NodeId(HIERARCHICAL)
        wanted.IncludeSubtypes = True
        wanted.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
        wanted.ResultMask = ua.BrowseResultMask.All
        return wanted

    async def _rest(self, result: Any) -> list[Any]:
        """All references of one node: what did not fit into the first answer is fetched."""
        ua = self.session.ua
        references = list(result.References or ())
        while result.ContinuationPoint:
            request = ua.BrowseNextRequest()
            request.Parameters.ReleaseContinuationPoints = False
            request.Parameters.ContinuationPoints = [result.ContinuationPoint]
            answer = await self.session.call(request, ua.BrowseNextResponse)
            results = list(answer.Parameters.Results or ())
            if len(results) != 1 or not results[0].References:
                break
            result = results[0]
            references.extend(result.References)
        return references

    def _path(self, start: Any, names: Sequence[Any]) -> Any:
        ua = self.session.ua
        path = ua.BrowsePath()
        path.StartingNode = start
        for name in names:
            element = ua.RelativePathElement()
            element.ReferenceTypeId = ua.NodeId(HIERARCHICAL)
            element.IsInverse = False
            element.IncludeSubtypes = True
            element.TargetName = name
            path.RelativePath.Elements.append(element)
        return path

    @staticmethod
    def _targets(result: Any) -> list[Any]:
        """Nodes of this server that the whole path leads to."""
        whole = 0xFFFF_FFFF
        return [target.TargetId for target in result.Targets or () if target.RemainingPathIndex == whole]
