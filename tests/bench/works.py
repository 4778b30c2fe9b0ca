"""The works: which tags on how many devices, how often. Known to the agents' side and to the simulated PLC alike.

The first three registers of every device carry the time (microseconds of the machine's monotonic clock, 48 bits) at
which the PLC answered the request for them: from there the subscriber counts a value's age.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Literal

STAMP_TAGS = ("t0", "t1", "t2")
REGISTERS = 10_000
"""Size of a simulated PLC's holding registers."""
IMAGES = 64
"""So many states of all registers follow one another, each for a millisecond."""

Kind = Literal["uint16", "mixed"]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag as any agent could be given it: holding registers from `offset` (0-based) on."""

    name: str
    offset: int
    type: Literal["uint16", "int16", "uint32", "float32"] = "uint16"
    swapped: bool = False
    scale: float | None = None
    add: float | None = None
    decimals: int | None = None
    limits: tuple[float, float] | None = None
    deadband: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be read and published.

    Attributes:
        interval_s: between two reads of a tag; of the host's metrics too.
        host: the gateway's own metrics as well.
        nodes: OPC UA variables of one server, which all change every interval.
    """

    devices: int = 0
    tags: int = 0
    interval_s: float = 1.0
    kind: Kind = "uint16"
    host: bool = False
    nodes: int = 0

    @property
    def values_per_s(self) -> float:
        """What is offered, without the host's."""
        return (self.devices * self.tags + self.nodes) / self.interval_s


def tags_of(work: Work) -> list[Tag]:
    """The tags of one device."""
    stamps = [Tag(name, at) for at, name in enumerate(STAMP_TAGS)]
    if work.kind == "uint16":
        return stamps + [Tag(f"r{at}", at) for at in range(3, work.tags)]
    tags, offset = stamps, len(stamps)
    for index in range(3, work.tags):
        tag = _MIXTURE[index % len(_MIXTURE)](index, offset)
        tags.append(tag)
        offset += 2 if tag.type in {"uint32", "float32"} else 1
    return tags


_MIXTURE = (
    lambda index, at: Tag(f"temperature_{index}", at, "float32", swapped=True),
    lambda index, at: Tag(f"flow_{index}", at, "float32"),
    lambda index, at: Tag(f"level_{index}", at, "float32", swapped=True, deadband=0.5),
    lambda index, at: Tag(f"count_{index}", at, "uint32", swapped=True),
    lambda index, at: Tag(f"pressure_{index}", at, "int16", scale=0.1, add=-10.0, decimals=1, limits=(-400.0, 3400.0)),
    lambda index, at: Tag(f"voltage_{index}", at, "uint16", scale=0.01, deadband=0.05),
    lambda index, at: Tag(f"power_{index}", at, "float32", scale=0.001, decimals=3, limits=(-1000.0, 1000.0)),
    lambda index, at: Tag(f"state_{index}", at, "uint16"),
)
"""Half float32, half of those with swapped words; scale, offset, decimals, limits, deadband as machines have them."""


def images(kind: Kind, tags: int) -> list[bytes]:
    """States of a PLC's registers, big-endian, the same in every run."""
    dice = random.Random(1)
    if kind == "uint16":
        return [dice.randbytes(2 * REGISTERS) for _ in range(IMAGES)]
    layout = tags_of(Work(devices=1, tags=tags, kind=kind))
    return [_image(layout, dice) for _ in range(IMAGES)]


def _image(layout: list[Tag], dice: random.Random) -> bytes:
    parts = bytearray(2 * REGISTERS)
    for tag in layout:
        if tag.type == "float32":
            data = struct.pack(">f", round(dice.uniform(-500.0, 500.0), dice.choice((1, 2, 3))))
        elif tag.type == "uint32":
            data = struct.pack(">I", dice.randrange(1 << 24))
        elif tag.type == "int16":
            data = struct.pack(">h", dice.randrange(-3000, 3000))
        else:
            data = struct.pack(">H", dice.randrange(1 << 16))
        if tag.swapped:
            data = data[2:] + data[:2]
        parts[2 * tag.offset : 2 * tag.offset + len(data)] = data
    return bytes(parts)
