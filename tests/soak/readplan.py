"""What the read plan saves in requests and time on the wire, and that it finds its way round odd devices.

Pure computation on the planner and the knowledge of devices; nothing is connected.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from collectors.modbus.healing import QUARANTINED, Knowledge, Outcome
from collectors.modbus.mending import MOST_ASKED
from collectors.modbus.plan import Block, Limits, Span, plan
from collectors.modbus.wire import TCP, Wire, serial_wire
from tests.soak.claims import Claim, Options

TAGS = 1000
WIRES = {"Modbus TCP": TCP, "9600 baud 8E1": serial_wire(9600, bits=11)}
DEVICES = 150
LIMITS = (10, 16, 20, 32, 50, 64, 100, 125)
SETTLED = 40
"""Polls after which all questions must be answered."""


def run(options: Options) -> list[Claim]:
    """Compute it."""
    dice = random.Random(options.seed)
    spans = scattered(dice)
    claims = [_saving(name, wire, spans) for name, wire in WIRES.items()]
    return [*claims, _contiguous(), *_odd_devices(dice)]


def scattered(dice: random.Random) -> list[Span]:
    """Tags as a tag list has them: runs of neighbours, small gaps, now and then a wide one."""
    spans, at = [], 0
    for index in range(TAGS):
        width = dice.choice((1, 1, 2))
        spans.append(Span("holding", at, width, index))
        at += width + dice.choice((0,) * 12 + (1, 1, 2, 3, 4, 6, 8, 20, 60))
    return spans


def _saving(name: str, wire: Wire, spans: Sequence[Span]) -> Claim:
    alone = [Block(span.area, span.offset, span.width, (span,)) for span in spans]
    contiguous = plan(spans, Limits(125, 2000, 0, wire))
    ours = plan(spans, Limits(125, 2000, 8, wire))
    took = {how: _seconds(blocks, wire) for how, blocks in (("a", alone), ("b", contiguous), ("c", ours))}
    read_once = sorted(span.index for block in ours for span in block.spans) == list(range(TAGS))
    return Claim(
        f"few requests, {name}",
        f"{TAGS} scattered tags over {spans[-1].end} registers: one request a tag / neighbours only / this plan",
        f"{len(alone)} / {len(contiguous)} / {len(ours)} requests, {took['a']:.2f} / {took['b']:.2f} /"
        f" {took['c']:.2f} s on the wire",
        read_once and len(ours) < len(contiguous) < len(alone) and took["c"] < took["b"] < took["a"],
    )


def _contiguous() -> Claim:
    """The least there can be."""
    spans = [Span("holding", offset, 1, offset) for offset in range(TAGS)]
    blocks = {name: plan(spans, Limits(125, 2000, 8, wire)) for name, wire in WIRES.items()}
    return Claim(
        "no request too many",
        f"{TAGS} tags in a row",
        ", ".join(
            f"{name}: {len(found)} requests, {_seconds(found, WIRES[name]):.2f} s" for name, found in blocks.items()
        ),
        all(len(found) == TAGS // 125 for found in blocks.values()),
    )


def _seconds(blocks: Sequence[Block], wire: Wire) -> float:
    return sum(wire.seconds(block.payload) for block in blocks)


@dataclass
class _Device:
    """Takes so many registers in a request, and refuses those that touch certain addresses, tags or holes."""

    limit: int
    refused: set[int]
    memory: list[int]

    def ask(self, block: Block) -> list[int] | None:
        """The registers, or None for exception 2 or 3."""
        if block.count > self.limit or not self.refused.isdisjoint(range(block.offset, block.end)):
            return None
        return self.memory[block.offset : block.end]


class _Agent:
    """Polls as the collector does."""

    def __init__(self, spans: Sequence[Span], device: _Device) -> None:
        self.now = 0.0
        self.known = Knowledge(lambda: self.now)
        self.limits = Limits(125, 2000, 8)
        self._spans = spans
        self._device = device
        self._plan: list[Block] = []
        self._version = -1

    def poll(self) -> dict[int, list[int]]:
        """Index of each tag that was read -> its registers."""
        self.now += 1.0
        values: dict[int, list[int]] = {}
        if self._version != self.known.version:
            self._version, self._plan = self.known.version, plan(self._spans, self.limits, self.known.rules)
        came = [block for block in self._plan if self._take(block, values)]
        refused = [block for block in self._plan if any(span.index not in values for span in block.spans)]
        for block in came:
            self.known.was_read(block)
        if self.known.believes(len(came)):
            steps = self.known.heal(refused, self.limits, self._spans)
            step = next(steps, None)
            for _ in range(MOST_ASKED):
                if step is None:
                    break
                outcome = Outcome.READ if self._take(step.block, values) else Outcome.REFUSED
                try:
                    step = steps.send(outcome)
                except StopIteration:
                    step = None
        return values

    def _take(self, block: Block, values: dict[int, list[int]]) -> bool:
        registers = self._device.ask(block)
        if registers is None:
            return False
        for span in block.spans:
            values[span.index] = registers[span.offset - block.offset : span.end - block.offset]
        return True


def _odd_devices(dice: random.Random) -> list[Claim]:
    back_at_next = wrong = unread = refused_still = astray = 0
    faults = {"a limit": 0, "holes": 0, "refused tags": 0}
    relearned = 0
    for number in range(DEVICES):
        spans = _some(dice)
        kind = number % 3
        named = {offset for span in spans for offset in range(span.offset, span.end)}
        holes = sorted(set(range(spans[-1].end)) - named)
        device = _Device(
            LIMITS[number % len(LIMITS)] if kind == 0 else 125, set(), [dice.randrange(65536) for _ in range(4096)]
        )
        if kind == 1 and holes:
            device.refused = set(dice.sample(holes, min(3, len(holes))))
        elif kind == 2:
            device.refused = {dice.choice(spans).offset for _ in range(3)}
        faults[list(faults)[kind]] += 1
        agent = _Agent(spans, device)
        readable = {span.index for span in spans if device.refused.isdisjoint(range(span.offset, span.end))}
        agent.poll()
        second = agent.poll()
        back_at_next += second.keys() == readable
        for _ in range(SETTLED):
            values = agent.poll()
            wrong += sum(values[i] != device.memory[spans[i].offset : spans[i].end] for i in values)
        unread += len(readable - values.keys())
        blocks = plan(spans, agent.limits, agent.known.rules)
        refused_still += sum(device.ask(block) is None for block in blocks)
        left = {span.index for span in spans if agent.known.quality(span.area, (span.offset, span.end)) == QUARANTINED}
        astray += left != set(range(len(spans))) - readable
        if kind == 0:
            device.limit = 125
            agent.known.reconnected()
            for _ in range(5):
                agent.poll()
            relearned += len(plan(spans, agent.limits, agent.known.rules)) == len(plan(spans, agent.limits))
    did = f"{DEVICES} simulated devices: " + ", ".join(f"{count} with {what}" for what, count in faults.items())
    return [
        Claim("the rest is back at the next poll", did, f"{back_at_next} of {DEVICES}", back_at_next == DEVICES),
        Claim("no wrong value", f"the same, {SETTLED} polls each", f"{wrong} wrong, {unread} readable tags not read",
              not wrong and not unread),
        Claim("nothing is refused twice", "the plan that each ended with",
              f"{refused_still} requests refused, {astray} devices with other tags left out than those at fault",
              not refused_still and not astray),
        Claim("a replaced device is measured anew", f"{faults['a limit']} with a limit, then without, reconnected",
              f"{relearned} read in as few requests as any", relearned == faults["a limit"]),
    ]  # fmt: skip


def _some(dice: random.Random) -> list[Span]:
    """100 to 300 tags within 2,000 registers or so."""
    spans, at = [], dice.randrange(20)
    for index in range(dice.randrange(100, 300)):
        width = dice.choice((1, 1, 1, 2, 2, 4))
        spans.append(Span("holding", at, width, index))
        at += width + dice.choice((0,) * 10 + (1, 2, 5, 8, 20))
    return spans
