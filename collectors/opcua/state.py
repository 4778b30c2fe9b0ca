"""What is known of a device's tags: while its server is connected, and from one connection to the next. No behaviour.

May import: `collectors.api`, `collectors.opcua.{node_ids,paths,sample,values}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from collectors.api import JsonType, TagInfo
from collectors.opcua.node_ids import NodeAddress
from collectors.opcua.paths import BrowsePath
from collectors.opcua.sample import Sample
from collectors.opcua.values import DIRECT, FLOATS

TagKey: TypeAlias = tuple[str, str]
"""Name and node as configured: the same name for another node may have another type."""


@dataclass(slots=True)
class Kept:
    """What a device's next connection inherits.

    Attributes:
        kinds, wide: the types its tags have for ever.
        undecodable: tags that can never be read, as reported.
        skew_reported: whether the clock's offset was told.
        told: what else was reported once, event and tag.
        limits: operations in a call that the server showed to take, by service.
        no_filter: tags whose deadband the server refused to apply.
        found: what each pattern found last.
        ranges_checked: whether deadbands in percent of no range were looked for.
    """

    kinds: dict[TagKey, JsonType] = field(default_factory=dict)
    wide: set[TagKey] = field(default_factory=set)
    undecodable: set[TagKey] = field(default_factory=set)
    skew_reported: bool = False
    told: set[tuple[str, str]] = field(default_factory=set)
    limits: dict[str, int] = field(default_factory=dict)
    no_filter: set[TagKey] = field(default_factory=set)
    found: dict[str, list[TagInfo]] = field(default_factory=dict)
    ranges_checked: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the server is to watch a variable; None = as its subscription.

    Attributes:
        interval: seconds.
        queue: values kept between messages.
        discard_oldest: which value goes when there are more.
        filter: whether the server is to apply the deadband too.
    """

    interval: float | None = None
    queue: int | None = None
    discard_oldest: bool = True
    filter: bool = False


AS_SUBSCRIPTION = Sampling()
NOTHING: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class Tag:
    """A tag while its server is connected.

    Attributes:
        info: as configured.
        address: where it is.
        shortest: see `values.decode`.
        kind: JSON type of its raw values; None before the first.
        direct: built-in types whose finite values are published as they come; none before the first.
        sampling: how it is watched.
        element: which element of an array it is.
        enum_text: its number is published as text: one of `texts`, None = not (yet) known.
        percent: its deadband is so many percent of the variable's range.
        readers: other tags that are made of the same value (elements of one array); they are never watched themselves.
        node: the library's id, of this session; None = not resolved.
        fixed: the node that a pattern found: nothing to resolve.
        quality: as last seen; None = good or nothing seen.
        handle: what the server's notifications call it now; 0 = nothing.
        item: the server's id of what monitors it; None = not monitored.
        retry_at: monotonic time of the next attempt to monitor it; None = no need.
        retry_s: delay before the next attempt.
        heard: monotonic time of its last notification; 0 = none since it is monitored.
        monitored: monotonic time since when it is monitored.
        last: its last sample, to know a repeated one; None = none on this connection.
    """

    info: TagInfo
    address: NodeAddress | BrowsePath
    shortest: bool
    kind: JsonType | None = None
    direct: frozenset[int] = NOTHING
    sampling: Sampling = AS_SUBSCRIPTION
    element: tuple[int, ...] | None = None
    enum_text: bool = False
    texts: Mapping[int, str] | None = None
    percent: float | None = None
    readers: tuple[Tag, ...] = ()
    node: Any = None
    fixed: Any = None
    quality: str | None = None
    handle: int = 0
    item: int | None = None
    retry_at: float | None = None
    retry_s: float = 0.0
    heard: float = 0.0
    monitored: float = 0.0
    last: Sample | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            self.learn(self.kind)

    def learn(self, kind: JsonType) -> None:
        """Take note of its JSON type."""
        self.kind = kind
        if self.element is None and not self.enum_text and not self.readers:
            self.direct = FLOATS if kind == "number" and not self.shortest else DIRECT[kind]

    @property
    def key(self) -> TagKey:
        """What its type is remembered under."""
        return self.info.name, self.info.source

    def repeats(self, sample: Sample) -> bool:
        """Whether the server sent the last value again: same source time, status and value. Remembers it if not."""
        source, last = sample[4], self.last
        self.last = sample
        # Type, value and status only where the time is the same, which is rare.
        return last is not None and source is not None and last[4] == source and last[1:4] == sample[1:4]
