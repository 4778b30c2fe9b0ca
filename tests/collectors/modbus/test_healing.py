"""A simulated device with bad addresses and a limit of its own, then pymodbus's server that refuses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.api import Context, Unavailable
from collectors.modbus.config import ModbusConfig
from collectors.modbus.healing import QUARANTINED, SILENT, Knowledge, Outcome
from collectors.modbus.mending import Mender
from collectors.modbus.plan import Block, Limits, Span, plan
from collectors.modbus.reading import Reading
from tests.collectors.modbus.test_collector import collector, due, once, tag
from tests.servers.modbus import ModbusServer

LIMITS = Limits(125, 2000, 8)


@dataclass
class Device:
    """What it refuses: requests that touch a bad address, and those of more than `limit` registers."""

    bad: set[int]
    limit: int
    mute: bool = False
    """No answer at all to requests that are too long."""
    asked: list[tuple[int, int]] = field(default_factory=list)

    def ask(self, block: Block) -> Outcome:
        self.asked.append((block.offset, block.end))
        if block.count > self.limit:
            return Outcome.SILENT if self.mute else Outcome.REFUSED
        return Outcome.READ if self.bad.isdisjoint(range(block.offset, block.end)) else Outcome.REFUSED


@dataclass
class Agent:
    """Polls a device as the collector does, with so many further questions in a poll."""

    spans: list[Span]
    device: Device
    questions: int = 16
    now: float = 0.0

    def __post_init__(self) -> None:
        self.known = Knowledge(lambda: self.now)

    def poll(self) -> set[int]:
        """Index of each tag that was read."""
        self.now += 1.0
        blocks = plan(self.spans, LIMITS, self.known.rules)
        outcomes = {block: self.device.ask(block) for block in blocks}
        came = [block for block, outcome in outcomes.items() if outcome is Outcome.READ]
        for block in came:
            self.known.was_read(block)
        refused = [block for block, outcome in outcomes.items() if outcome is Outcome.REFUSED]
        if self.known.believes(len(came)):
            steps = self.known.heal(refused, LIMITS, self.spans)
            step = next(steps, None)
            for _ in range(self.questions):
                if step is None:
                    break
                outcome = self.device.ask(step.block)
                came += [step.block] if outcome is Outcome.READ else []
                try:
                    step = steps.send(outcome)
                except StopIteration:
                    step = None
        return {span.index for block in came for span in block.spans}

    def left_out(self) -> set[int]:
        return {s.index for s in self.spans if self.known.quality(s.area, (s.offset, s.end)) == QUARANTINED}


@st.composite
def plants(draw: st.DrawFn) -> tuple[list[Span], Device]:
    at, spans = draw(st.integers(0, 50)), []
    for index in range(draw(st.integers(1, 120))):
        width = draw(st.sampled_from([1, 1, 1, 2, 2, 4]))
        spans.append(Span("holding", at, width, index))
        at += draw(st.sampled_from([0, width, width, width, width + 1, width + 5, width + 20]))
    bad = draw(st.sets(st.integers(0, at), max_size=8))
    return spans, Device(bad, draw(st.sampled_from([1, 2, 3, 4, 5, 16, 32, 63, 100, 125])))


@given(plants())
@settings(max_examples=40)
def test_after_a_few_polls_all_that_can_be_read_is_and_nothing_is_refused_any_more(
    plant: tuple[list[Span], Device],
) -> None:
    spans, device = plant
    agent = Agent(spans, device)
    readable = {
        span.index
        for span in spans
        if device.bad.isdisjoint(range(span.offset, span.end)) and span.width <= device.limit
    }
    for _ in range(40):
        read = agent.poll()
        assert read <= readable
    assert read == readable
    assert agent.left_out() == {span.index for span in spans} - readable
    device.asked.clear()
    agent.poll()
    assert {device.ask(block) for block in plan(spans, LIMITS, agent.known.rules)} <= {Outcome.READ}


@given(plants())
@settings(max_examples=8)
def test_what_can_be_read_again_is_within_the_hour(plant: tuple[list[Span], Device]) -> None:
    spans, device = plant
    agent = Agent(spans, device)
    for _ in range(40):
        agent.poll()
    device.bad.clear()
    for _ in range(20):
        agent.now += 600
        for _ in range(10):
            read = agent.poll()
    assert read == {span.index for span in spans if span.width <= device.limit}
    assert agent.left_out() == {span.index for span in spans if span.width > device.limit}


def test_two_trials_with_one_bridge_do_not_ask_the_same_for_ever() -> None:
    places = [(0, 1), (1, 1), (2, 1), (4, 2), (26, 1), (26, 1), (26, 1), (26, 1), (26, 1), (26, 1), (27, 1), (33, 1),
              *((54 + n, 1) for n in range(6)), (59, 2), (61, 2), (61, 4), (65, 1), (65, 2), (67, 1), (68, 1), (69, 2),
              (69, 1), (70, 1), (72, 2)]  # fmt: skip
    agent = Agent([Span("holding", *place, index) for index, place in enumerate(places)], Device(set(), 3))
    for _ in range(10):
        read = agent.poll()
    assert read == set(range(len(places))) - {places.index((61, 4))}
    agent.device.asked.clear()
    agent.poll()
    assert max(Counter(agent.device.asked).values()) == 1


def test_a_device_that_takes_fewer_registers_is_measured_once() -> None:
    spans = [Span("holding", offset, 1, offset) for offset in range(1000)]
    device = Device(set(), 64)
    agent = Agent(spans, device)
    assert agent.poll() != set()
    assert len(agent.poll()) == 1000
    assert agent.known.rules.limits == {"input": 64, "holding": 64}
    assert agent.known.rules.cuts == {}
    device.asked.clear()
    assert len(agent.poll()) == 1000
    assert len(device.asked) == 16


@pytest.mark.parametrize(("before", "after"), [(64, 125), (10, 64), (64, 30), (100, 101), (1, 125)])
def test_a_device_that_was_replaced_is_measured_anew(before: int, after: int) -> None:
    spans = [Span("holding", offset, 1, offset) for offset in range(1000)]
    device = Device(set(), before)
    agent = Agent(spans, device, questions=32)
    for _ in range(80):
        agent.poll()
    assert agent.known.rules.limits.get("holding", 125) == before
    device.limit = after
    agent.known.reconnected()
    for _ in range(20):
        agent.poll()
    assert agent.known.rules.limits.get("holding", 125) == after
    device.asked.clear()
    assert len(agent.poll()) == 1000
    assert len(device.asked) == -(-1000 // after)


def test_a_device_that_is_the_same_is_asked_for_more_once_a_connection_and_once_a_day() -> None:
    spans = [Span("holding", offset, 1, offset) for offset in range(1000)]
    device = Device(set(), 64)
    agent = Agent(spans, device, questions=32)
    agent.poll()
    agent.poll()
    for wait in (0.0, 86_400.0):
        if wait:
            agent.now += wait
        else:
            agent.known.reconnected()
        device.asked.clear()
        for _ in range(10):
            assert len(agent.poll()) == 1000
        assert [end - first for first, end in device.asked if end - first > 64] == [65]
        assert agent.known.rules.limits["holding"] == 64


def test_a_device_that_is_mute_to_long_requests_is_not_asked_for_more_at_each_connection() -> None:
    spans = [Span("holding", offset, 1, offset) for offset in range(100)]
    device = Device(set(), 64, mute=True)
    agent = Agent(spans, device)
    agent.known.not_read(plan(spans, LIMITS)[0], SILENT)
    for _ in range(40):
        agent.poll()
    assert agent.known.rules.limits["holding"] == 64
    device.asked.clear()
    for _ in range(10):
        agent.known.reconnected()
        assert len(agent.poll()) == 100
    assert all(end - first <= 64 for first, end in device.asked)
    agent.now += 86_400
    for _ in range(10):
        assert len(agent.poll()) == 100
    assert [end - first for first, end in device.asked if end - first > 64] == [65]
    device.limit = 125
    agent.now += 86_400
    for _ in range(10):
        agent.poll()
    assert agent.known.rules.limits == {}


def test_a_limit_stays_when_other_tags_are_read_and_is_tried_with_those() -> None:
    agent = Agent([Span("holding", offset, 1, offset) for offset in range(100)], Device(set(), 64))
    agent.known.fit("a")
    agent.poll()
    agent.poll()
    agent.known.fit("b")
    agent.spans = [Span("input", offset, 1, offset) for offset in range(70)]
    assert len(agent.poll()) == 70
    assert agent.known.rules.limits["input"] == 64
    agent.device.limit = 125
    agent.device.asked.clear()
    agent.known.reconnected()
    agent.poll()
    agent.poll()
    assert agent.known.rules.limits == {}
    assert max(end - first for first, end in agent.device.asked) == 70


def test_a_hole_between_tags_is_not_read_along_any_more() -> None:
    spans = [Span("holding", offset, 1, offset) for offset in (0, 1, 2, 6, 7, 8)]
    device = Device({4}, 125)
    agent = Agent(spans, device)
    assert len(agent.poll()) == 6
    assert len(agent.poll()) == 6
    device.asked.clear()
    agent.poll()
    assert device.asked == [(0, 3), (6, 9)]


def test_pauses_grow_and_a_new_connection_ends_them() -> None:
    device = Device({0}, 125)
    agent = Agent([Span("holding", 0, 1, 0), Span("holding", 1, 1, 1)], device)
    agent.poll()
    device.asked.clear()
    times = []
    while agent.now < 20_000:
        agent.poll()
        if (0, 1) in device.asked:
            times.append(agent.now)
        device.asked.clear()
    pauses = [round(later - earlier, -1) for earlier, later in itertools.pairwise(times)]
    assert pauses[:6] == [120, 240, 480, 960, 1920, 3600]
    agent.known.reconnected()
    agent.poll()
    assert (0, 1) in device.asked


def test_a_device_that_was_fine_and_refuses_everything_is_not_believed_at_once() -> None:
    spans = [Span("holding", offset, 1, offset) for offset in range(8)]
    device = Device(set(), 125)
    agent = Agent(spans, device)
    agent.poll()
    device.bad = set(range(8))
    agent.poll()
    agent.poll()
    assert agent.left_out() == set()
    device.bad = set()
    assert len(agent.poll()) == 8
    device.bad = set(range(4))
    for _ in range(4):
        agent.poll()
    assert agent.left_out() == {0, 1, 2, 3}


def test_what_was_learned_of_other_tags_is_forgotten() -> None:
    known = Knowledge(lambda: 0.0)
    known.fit("a")
    known.not_read(Block("holding", 5, 1, (Span("holding", 5, 1, 0),)), SILENT)
    known.fit("a")
    assert known.quality("holding", (5, 6)) == SILENT
    known.fit("b")
    assert known.quality("holding", (5, 6)) is None
    assert known.rules.refused == {}


# -- against a real server --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process() -> Iterator[ModbusServer]:
    with ModbusServer(units=(1,)) as server:
        yield server


@pytest.fixture
def server(process: ModbusServer) -> ModbusServer:
    process.reset()
    return process


async def test_bad_addresses_are_left_out_and_the_rest_is_back_at_the_next_poll(server: ModbusServer) -> None:
    server.set("holding", 0, list(range(1, 101)))
    for bad in (13, 47, 48, 99):
        server.refuse("holding", bad, bad, 2 if bad % 2 else 3)
    context = Context()
    tags = [tag(f"t{n}", f"holding:{n}", "uint16") for n in range(100)]
    device = collector(server, *tags, context=context)
    await device.open()
    await once(device)
    batch = await once(device)
    bad_tags = {"t13", "t47", "t48", "t99"}
    assert batch.quality == dict.fromkeys(bad_tags, "bad:quarantined")
    assert batch.values == {f"t{n}": None if f"t{n}" in bad_tags else n + 1 for n in range(100)}
    for _ in range(4):  # what is left to find out is found out
        await once(device)
    before = device.stats().requests
    await once(device)
    assert device.stats().requests - before == 3
    await device.close()

    # The next connection knows it, tries again, and takes back what is read again.
    server.refuse("holding", 47, 47, 0)
    successor = collector(server, *tags, context=context)
    await successor.open()
    batch = await once(successor)
    assert set(batch.quality) == bad_tags - {"t47"}
    assert batch.values["t47"] == 48
    await successor.close()
    assert set(server.seen().functions) == {3}


async def test_one_tag_per_request_is_never_needed_for_a_device_with_a_limit(server: ModbusServer) -> None:
    server.limit(50)
    tags = [tag(f"t{n}", f"holding:{n}", "uint16") for n in range(0, 400, 2)]
    context = Context()
    device = collector(server, *tags, context=context)
    await device.open()
    for _ in range(6):
        batch = await once(device)
    assert batch.quality == {}
    before = device.stats().requests
    await once(device)
    assert device.stats().requests - before == 8  # 49 registers each, every second one named
    await device.close()
    server.limit(125)  # another one in its place, or new firmware
    device = collector(server, *tags, context=context)
    await device.open()
    assert (await once(device)).quality == {}
    before = device.stats().requests
    assert (await once(device)).quality == {}
    assert device.stats().requests - before == 4
    await device.close()


async def test_a_device_that_is_mute_to_long_requests_is_read_with_short_ones(server: ModbusServer) -> None:
    server.limit(20, mute=True)
    context = Context()
    tags = [tag(f"t{n}", f"holding:{n}", "uint16") for n in range(60)]
    quality = {"never": "read"}
    for _ in range(3):
        device = collector(server, *tags, context=context, timeout=0.15)
        await device.open()
        try:
            for _ in range(30):
                quality = (await once(device)).quality
        except Unavailable:
            pass  # the runner makes a fresh one then
        finally:
            await device.close()
    assert quality == {}


async def test_max_gap_0_reads_only_what_is_named_whatever_is_refused(server: ModbusServer) -> None:
    server.refuse("holding", 3, 3, 2)
    named = (0, 1, 3, 5, 6, 7, 20)
    device = collector(server, *(tag(f"t{n}", f"holding:{n}", "uint16") for n in named), max_gap=0)
    await device.open()
    for _ in range(5):
        await device.collect(due(device))
    await device.close()
    asked = {n for _, _, first, count in server.seen().requests for n in range(first, first + count)}
    assert asked == set(named)


class Counted(list[Any]):
    """Tags of which it costs to go through them: `Packed` is unpacked each time."""

    times = 0

    def __iter__(self) -> Iterator[Any]:
        self.times += 1
        return super().__iter__()


async def test_a_lost_reply_alone_costs_no_look_at_all_tags() -> None:
    tags = [{"name": "a", "address": "holding:0"}, {"name": "b", "address": "holding:1000"}]
    press = {"name": "press", "type": "modbus", "url": "tcp://10.0.0.1"}
    config = ModbusConfig.model_validate(press | {"tags": [tag | {"type": "int16"} for tag in tags]})
    config.pack()
    config.__dict__["tags"] = found = Counted(config.tags)
    mender = Mender(config, Knowledge(lambda: 0.0))
    plan = mender.plan(frozenset(config.groups()))
    first, second = plan.readings
    first.came(b"\x00\x01", 1.0)
    second.failed("bad:timeout", 1.0)
    found.times = 0

    async def ask(reading: Reading) -> None:
        raise AssertionError("there is nothing to ask")

    assert await mender.mend(plan, frozenset(config.groups()), 0.0, ask, lambda: True) is plan
    assert found.times == 0
