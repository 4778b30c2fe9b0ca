from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.modbus.address import AREAS, BIT_AREAS, Area
from collectors.modbus.plan import Block, Limits, Rules, Span, plan
from collectors.modbus.wire import TCP, Wire, serial_wire

WIRES = [TCP, serial_wire(9600), serial_wire(1200, pause=0.0, answer_s=0.0), serial_wire(115_200, pause=0.05)]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Span], Limits]:
    limits = Limits(
        draw(st.integers(1, 125)), draw(st.integers(1, 200)), draw(st.integers(0, 40)), draw(st.sampled_from(WIRES))
    )
    reach = draw(st.sampled_from([60, 400, 65535]))
    spans = []
    for index in range(draw(st.integers(0, 60))):
        area: Area = draw(st.sampled_from(AREAS))
        width = 1 if area in BIT_AREAS else draw(st.integers(1, min(8, limits.max_registers)))
        first = draw(st.integers(0, reach))
        if draw(st.booleans()) and reach == 65535:
            first = 65535 - first % 300
        spans.append(Span(area, min(first, 65536 - width), width, index))
    return spans, limits


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    refused: dict[Area, list[tuple[int, int]]] = {}
    cuts: dict[Area, list[tuple[int, int]]] = {}
    for area in AREAS:
        firsts = draw(st.lists(st.integers(0, 400), max_size=6))
        refused[area] = sorted({(first, first + draw(st.integers(1, 4))) for first in firsts})
        cuts[area] = sorted(draw(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 4)), max_size=4)))
    return Rules(
        limits=draw(st.dictionaries(st.sampled_from(AREAS), st.integers(1, 150), max_size=2)),
        refused=refused,
        cuts=cuts,
    )


@given(layouts(), rules())
@settings(max_examples=100)
def test_every_tag_once_no_limit_broken_no_forbidden_hole_read(layout: tuple[list[Span], Limits], known: Rules) -> None:
    spans, limits = layout
    blocks = plan(spans, limits, known)
    readable = [span for span in spans if (span.offset, span.end) not in known.refused[span.area]]
    assert sorted(span.index for block in blocks for span in block.spans) == [span.index for span in readable]
    for block in blocks:
        places = {(span.offset, span.width) for span in block.spans}
        configured = limits.max_coils if block.is_bits else limits.max_registers
        learned = known.limits.get(block.area, configured) if len(places) > 1 else configured
        assert 1 <= block.count <= min(configured, learned)
        assert block.offset >= 0
        assert block.end <= 65536
        named: set[int] = set()
        for span in block.spans:
            assert span.area == block.area
            assert block.offset <= span.offset
            assert span.end <= block.end
            named.update(range(span.offset, span.end))
        assert {block.offset, block.end - 1} <= named
        hole = 0
        for offset in range(block.offset, block.end):
            hole = 0 if offset in named else hole + 1
            assert hole <= limits.max_gap
        if len(places) > 1:
            for first, end in known.refused[block.area]:
                assert not (block.offset <= first and end <= block.end)
            for cut in known.cuts[block.area]:
                assert len({place < cut for place in places}) == 1


@given(layouts())
@settings(max_examples=100)
def test_over_tcp_reading_groups_together_never_takes_more_requests_than_apart(
    layout: tuple[list[Span], Limits],
) -> None:
    spans, limits = layout
    limits = Limits(limits.max_registers, limits.max_coils, limits.max_gap)

    def count(some: list[Span]) -> int:
        return len(plan(some, limits))

    assert count(spans) <= count(spans[::2]) + count(spans[1::2])


def seconds(blocks: list[Block], wire: Wire) -> float:
    return sum(wire.seconds(block.payload) for block in blocks)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=7, unique=True),
    st.integers(1, 20),
    st.integers(0, 20),
    st.sampled_from([*WIRES, Wire(request_s=1.0, byte_s=0.1), Wire(request_s=1.0, byte_s=1.0)]),
)
@settings(max_examples=80)
def test_no_other_plan_takes_less_time_on_the_wire(offsets: list[int], limit: int, gap: int, wire: Wire) -> None:
    offsets.sort()
    spans = [Span("holding", offset, 1, index) for index, offset in enumerate(offsets)]
    found = seconds(plan(spans, Limits(limit, 2000, gap, wire)), wire)
    best = float("inf")
    for number in range(len(spans)):
        for ends in combinations(range(1, len(spans)), number):
            edges = [0, *ends, len(spans)]
            parts = [offsets[begin:end] for begin, end in pairwise(edges)]
            if all(part[-1] - part[0] < limit and all(b - a - 1 <= gap for a, b in pairwise(part)) for part in parts):
                best = min(best, sum(wire.seconds(2 * (part[-1] - part[0] + 1)) for part in parts))
    assert found <= best + 1e-9


def test_examples() -> None:
    def shown(*spans: tuple[Area, int, int], gap: int = 8, wire: Wire = TCP) -> list[str]:
        numbered = [Span(*span, index) for index, span in enumerate(spans)]
        return [str(block) for block in plan(numbered, Limits(125, 2000, gap, wire))]

    assert shown(("holding", 0, 2), ("holding", 10, 1)) == ["holding 0..10 (11 registers)"]
    assert shown(("holding", 0, 2), ("holding", 11, 1)) == ["holding 0..1 (2 registers)", "holding 11 (1 register)"]
    assert shown(("holding", 0, 1), ("holding", 2, 1), gap=0) == ["holding 0 (1 register)", "holding 2 (1 register)"]
    assert shown(("holding", 0, 1), ("input", 0, 1), ("coil", 3, 1)) == [
        "coil 3 (1 bit)", "input 0 (1 register)", "holding 0 (1 register)",
    ]  # fmt: skip
    assert shown(("holding", 124, 2), ("holding", 0, 1), ("holding", 123, 4), gap=125) == [
        "holding 0 (1 register)", "holding 123..126 (4 registers)",
    ]  # fmt: skip
    # Over TCP 99 registers more cost nothing beside a request; at 2400 baud they cost 0.9 s, and a request 0.12 s.
    far: list[tuple[Area, int, int]] = [("holding", 0, 1), ("holding", 100, 1)]
    assert len(shown(*far, gap=125)) == 1
    assert len(shown(*far, gap=125, wire=serial_wire(2400))) == 2


def test_a_thousand_registers_take_eight_requests() -> None:
    spans = [Span("holding", offset, 1, offset) for offset in range(1000)]
    blocks = plan(spans, Limits(125, 2000, 8))
    assert [block.count for block in blocks] == [125] * 8


def test_the_payload_is_what_the_reply_must_carry() -> None:
    assert Block("holding", 0, 3, ()).payload == 6
    assert [Block("coil", 0, count, ()).payload for count in (1, 8, 9, 2000)] == [1, 1, 2, 250]


def test_rtu_frames_take_the_time_of_their_characters() -> None:
    # 9600 8E1: 11 bits a character, 1.146 ms. 10 registers: 8 + 5 + 20 characters, twice 3.5 of silence, the answer.
    character = 11 / 9600
    assert abs(serial_wire(9600, answer_s=0.02).seconds(20) - (40 * character + 0.02)) < 1e-9
    assert abs(serial_wire(9600, pause=0.05, answer_s=0).seconds(0) - (16.5 * character + 0.05)) < 1e-9
    assert abs(serial_wire(115_200, bits=10, answer_s=0).seconds(0) - (130 / 115_200 + 0.0035)) < 1e-9
