"""All that the author of a collector imports (with `collectors.fields` for the configuration).

A collector reads one device. It never loops, sleeps between attempts, retries, logs outages or knows where its
readings go: the agent's runner owns schedule, back-off, isolation and logging. A bad tag is data (a quality), not an
exception; two exceptions say that the device as a whole cannot be read:

    CollectorError
    ├── Unavailable      not now: the runner closes this object, backs off and opens a fresh one
    │   └── ActionNeeded     and not before a person acts, who is told at once
    │       └── LoginRefused     and seldom, because accounts get locked
    └── Misconfigured    not until the configuration changes

May import: the standard library, `collectors.certificates`, `collectors.explanation`, `collectors.line_lock`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar

from collectors.certificates import Certificates
from collectors.explanation import Estimate as Estimate
from collectors.explanation import Explanation as Explanation
from collectors.explanation import TagExplanation as TagExplanation
from collectors.line_lock import LineLocks

Value: TypeAlias = bool | int | float | str | None
"""What a tag can be: one JSON type for ever, or None (no usable value; its quality says why)."""

ALL_TAGS = "*"
"""Key in `Batch.quality` for "every tag of the group that is named in neither values nor quality"."""

PARKED_S = 30.0
"""Longer than any delay between two attempts."""

JsonType: TypeAlias = Literal["number", "boolean", "string"]


class CollectorError(Exception):
    """A device cannot be read. `cause` picks the sentence for people, `facts` fill it.

    Args:
        cause: stable snake_case word, e.g. `refused`, `no_route`, `connect_timeout`, `no_answer`, `name_unknown`,
            `closed_by_peer`, `bad_reply`. A cause without a sentence of its own is shown as `text`.
        text: one English sentence: what was expected, what came, what to try next. No secrets.
        facts: placeholders of the sentence, e.g. `where="192.168.10.21:502"`, `unit_id=4`.
    """

    def __init__(self, cause: str, text: str, **facts: str | int | float) -> None:
        super().__init__(text)
        self.cause = cause
        self.text = text
        self.facts = facts


class Unavailable(CollectorError):
    """The device does not answer now; every tag of it gets `bad:{reason}` until it does.

    Args:
        reason: `timeout`, `not-connected`, `decode`, `stale`, `layout`, `exception-N`, `status-0xNNNNNNNN`.
    """

    def __init__(self, reason: str, cause: str, text: str, **facts: str | int | float) -> None:
        super().__init__(cause, text, **facts)
        self.reason = reason


class ActionNeeded(Unavailable):
    """Not before a person acts, at the device or here (a certificate to be trusted): told at once, also to those who
    were just told that the device is lost for another cause. It is tried again all the same."""


class LoginRefused(ActionNeeded):
    """The device does not take this user: tried again fifteen times an hour at most, because accounts get locked."""


class Misconfigured(CollectorError):
    """The configuration can never work with this device; every tag of it gets `bad:config`."""


@dataclass(slots=True)
class Batch:
    """The readings of one device and group at one time; the unit of everything that follows.

    Attributes:
        device: name of the device.
        group: name of the group of tags, see `group_name`.
        at: monotonic seconds (`time.monotonic()`) when the group's last reply came.
        values: raw decoded values by tag; None when unusable. Scale, limits and maps come later (`TagRules`).
        quality: `bad:` or `uncertain:` + reason, only of tags that are not good. `ALL_TAGS` only with empty `values`.
        age_ms: how much earlier than the batch a tag was sampled, only where that matters.
        ts: time of the source in ms UTC; None = gateway time, which the agent derives from `at`.
    """

    device: str
    group: str
    at: float
    values: dict[str, Value]
    quality: dict[str, str] = field(default_factory=dict)
    age_ms: dict[str, int] = field(default_factory=dict)
    ts: int | None = None


@dataclass(frozen=True, slots=True)
class TagRules:
    """What is done to a raw value on its way out, in this order; all of it optional.

    raw -> x scale -> + offset -> round to `decimals` -> `minimum`/`maximum` -> `map`.
    `deadband` compares with the last value that was sent. `as_string` publishes a 64-bit integer as text; without it
    integers beyond 2^53 become null with `bad:range`.
    """

    scale: float | None = None
    offset: float | None = None
    decimals: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    map: Mapping[int, str] | None = None
    deadband: float | None = None
    as_string: bool = False


NO_RULES = TagRules()


@dataclass(frozen=True, slots=True)
class TagInfo:
    """What `meta` tells subscribers of a tag, and what the agent does to its values.

    Attributes:
        name: key in `values`.
        group: the group it is read in.
        source: address as the person wrote it (`40001`, `nsu=...;s=...`, `cpu.percent`).
        type: JSON type of the published value; None while unknown (OPC UA before the first connect).
        label, unit, description: texts for people; `unit` in UCUM where known.
        wide: a 64-bit integer, whose values may exceed 2^53.
        rules: see `TagRules`.
    """

    name: str
    group: str
    source: str
    type: JsonType | None = None
    label: str | None = None
    unit: str | None = None
    description: str | None = None
    wide: bool = False
    rules: TagRules = NO_RULES


@dataclass(slots=True)
class CollectorStats:
    """Counters of one collector object since it was made; the runner adds them up over its successors.

    Attributes:
        requests: requests sent to the device.
        wire_s: seconds in which the line was busy for this device.
        samples_lost: samples that the device told us it threw away (OPC UA overflow), or that were dropped here.
    """

    requests: int = 0
    wire_s: float = 0.0
    samples_lost: int = 0


class Collector(Protocol):
    """Reads one device. Made by `CollectorType.create`; constructors only assign.

    `pushes` False: the runner ticks and calls `collect` with the groups that are due; a call that has begun is never
    cancelled before the process ends (a cancelled read is how wrong values are made), so `collect` must end by itself
    within the deadlines of its requests. `pushes` True: `collect` waits for news and returns it, or returns nothing
    after at most 10 s as a sign of life; `due` is empty; it may be cancelled at any await and loses nothing by it.
    """

    pushes: ClassVar[bool]
    tags_version: int

    @property
    def groups(self) -> Mapping[str, float]:
        """Group name -> interval in seconds; known from the configuration alone."""

    async def open(self) -> None:
        """Connect, at most one attempt, heavy imports included. Raises Unavailable, Misconfigured."""

    def tags(self) -> Sequence[TagInfo]:
        """The tags, as far as known; before `open` what the configuration tells. `tags_version` rises on change."""

    async def collect(self, due: frozenset[str]) -> Sequence[Batch]:
        """Read; at most one batch per due group (push: any number). Raises Unavailable, Misconfigured."""

    def stats(self) -> CollectorStats:
        """Counters so far."""

    async def close(self) -> None:
        """Give everything back. Safe without `open`, safe twice."""


R = TypeVar("R", bound="SharedResource")
K = TypeVar("K")


class SharedResource(Protocol):
    """What several devices share: a line, a connection."""

    async def close(self) -> None:
        """Give everything back. Whoever asks for the resource meanwhile is given this one: it can be used again."""


class Lease(Generic[R]):
    """One user's hold on a shared resource; the last `release` closes it."""

    def __init__(self, resource: R, release: Callable[[], Awaitable[None]]) -> None:
        self.resource = resource
        self._release = release
        self._held = True

    async def release(self) -> None:
        """Give the hold back; safe twice."""
        if self._held:
            self._held = False
            await self._release()


class Context:
    """What the process lends its collectors: shared resources that outlive one device's close, and line locks.

    Args:
        state_dir: where collectors may keep files for years, each type in a folder of its own (it may not exist yet);
            None = nowhere, and what needs it is refused.
        locks: of lines that one process at a time may have open; default none.
    """

    def __init__(self, state_dir: Path | None = None, locks: LineLocks | None = None) -> None:
        self.locks = locks if locks is not None else LineLocks()
        self._parked: dict[str, tuple[Lease[Any], asyncio.TimerHandle]] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self.state_dir = state_dir
        self._shared: dict[Hashable, tuple[Any, int]] = {}
        self._kept: dict[Hashable, Any] = {}

    def shared(self, key: Hashable, factory: Callable[[], R]) -> Lease[R]:
        """Return a hold on the resource of this key, made by `factory` if nobody holds it yet."""
        resource, users = self._shared.get(key, (None, 0))
        if resource is None:
            resource = factory()
        self._shared[key] = (resource, users + 1)

        async def release() -> None:
            held, count = self._shared[key]
            self._shared[key] = (held, count - 1)
            if count > 1:
                return
            try:
                await held.close()
            finally:
                # Whoever came during the close was given the same resource: there are never two of one key.
                if self._shared.get(key) == (held, 0):
                    del self._shared[key]

        return Lease(resource, release)

    def kept(self, key: Hashable, factory: Callable[[], K]) -> K:
        """Return what the collectors of this key remember from one connection to the next; made once a process."""
        if key not in self._kept:
            self._kept[key] = factory()
        found: K = self._kept[key]
        return found

    def users(self, key: Hashable) -> int:
        """How many hold the resource of this key now."""
        return self._shared.get(key, (None, 0))[1]

    def park(self, device: str, lease: Lease[Any]) -> None:
        """Keep a device's hold for its next attempt, for `PARKED_S` at most: the device is silent, its line is not."""
        timer = asyncio.get_running_loop().call_later(PARKED_S, self._expire, device)
        self._parked[device] = (lease, timer)

    def parked(self, device: str) -> Lease[Any] | None:
        """Return the hold that was kept for a device, which is now the caller's to release."""
        if device not in self._parked:
            return None
        lease, timer = self._parked.pop(device)
        timer.cancel()
        return lease

    async def unpark(self, devices: Iterable[str]) -> None:
        """Release what is kept for these devices: they are paused, removed, or changed."""
        for device in devices:
            lease = self.parked(device)
            if lease is not None:
                await lease.release()

    def _expire(self, device: str) -> None:
        lease = self.parked(device)
        if lease is not None:
            task = asyncio.get_running_loop().create_task(lease.release())
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)


@dataclass(frozen=True, slots=True)
class BrowseWish:
    """What of a device's tree is to be shown.

    Attributes:
        under: where to begin, as the protocol writes it; None = at the top.
        find: only variables whose path has this text in it, whatever its case; None = all.
        depth: levels to go down, 1 = the children alone.
        most: entries to show.
        pause: seconds between two questions, so that a device has time for its work.
        values: whether values, types and the like are read too.
    """

    under: str | None = None
    find: str | None = None
    depth: int = 4
    most: int = 2000
    pause: float = 0.05
    values: bool = True


@dataclass(frozen=True, slots=True)
class BrowseEntry:
    """A node of a device's tree.

    Attributes:
        level: 0 = child of where it began.
        names: from there to it.
        source: how a tag names it in the configuration (`nsu=...;s=...`).
        label, unit, description: as the device tells.
        variable: it has a value, else it is a folder.
        tag: name for a tag of it; None = no tag can be made of it.
        type, value, quality: as read now; `type` for people.
        access: `r`, `rw`, `w`, or empty.
    """

    level: int
    names: tuple[str, ...]
    source: str
    label: str | None
    variable: bool
    tag: str | None = None
    type: str = ""
    value: Value = None
    quality: str | None = None
    access: str = ""
    unit: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class CollectorType:
    """What the registry names: light to import; `create` is where the heavy module is loaded.

    Attributes:
        config_model: pydantic model of the device (a `collectors.fields.DeviceConfig`).
        create: makes a collector; imports its module, connects nothing.
        estimate, explain: offline, from the configuration alone.
        browse: what a device offers to be read (raises as `Collector.open` does); None = this type cannot tell.
        certificates: those in a state directory (`Context.state_dir`); None = this type has none.
    """

    name: str
    config_model: type[Any]
    create: Callable[[Any, Context], Collector]
    estimate: Callable[[Any], Estimate]
    explain: Callable[[Any], Explanation]
    certificates: Callable[[Path], Certificates] | None = None
    browse: Callable[[Any, Context, BrowseWish], AsyncIterator[BrowseEntry]] | None = None


@lru_cache(maxsize=256)
def group_name(interval_s: float) -> str:
    """Name of the group of tags read every `interval_s` seconds: the largest whole unit (`1s`, `500ms`, `5min`)."""
    ms = round(interval_s * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
