from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.modbus.address import AREAS, BIT_AREAS, Area
from collectors.modbus.plan import Block, Span, plan


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Span], int, int, int]:
    max_registers = draw(st.integers(1, 125))
    max_coils = draw(st.integers(1, 200))
    max_gap = draw(st.integers(0, 40))
    reach = draw(st.sampled_from([60, 400, 65535]))
    spans = []
    for index in range(draw(st.integers(0, 60))):
        area: Area = draw(st.sampled_from(AREAS))
        width = 1 if area in BIT_AREAS else draw(st.integers(1, min(8, max_registers)))
        first = draw(st.integers(0, reach))
        if draw(st.booleans()) and reach == 65535:
            first = 65535 - first % 300
        spans.append(Span(area, min(first, 65536 - width), width, index))
    return spans, max_registers, max_coils, max_gap


@given(layouts())
@settings(max_examples=200, deadline=None)
def test_every_tag_once_no_limit_broken_no_forbidden_hole_read(layout: tuple[list[Span], int, int, int]) -> None:
    spans, max_registers, max_coils, max_gap = layout
    blocks = plan(spans, max_registers=max_registers, max_coils=max_coils, max_gap=max_gap)
    assert sorted(span.index for block in blocks for span in block.spans) == list(range(len(spans)))
    for block in blocks:
        assert 1 <= block.count <= (max_coils if block.is_bits else max_registers)
        assert block.offset >= 0
        assert block.offset + block.count <= 65536
        named: set[int] = set()
        for span in block.spans:
            assert span.area == block.area
            assert block.offset <= span.offset
            assert span.end <= block.offset + block.count
            named.update(range(span.offset, span.end))
        assert {block.offset, block.offset + block.count - 1} <= named
        hole = 0
        for offset in range(block.offset, block.offset + block.count):
            hole = 0 if offset in named else hole + 1
            assert hole <= max_gap


@given(layouts())
@settings(max_examples=100, deadline=None)
def test_reading_groups_together_never_takes_more_requests_than_apart(
    layout: tuple[list[Span], int, int, int],
) -> None:
    spans, max_registers, max_coils, max_gap = layout

    def count(some: list[Span]) -> int:
        return len(plan(some, max_registers=max_registers, max_coils=max_coils, max_gap=max_gap))

    assert count(spans) <= count(spans[::2]) + count(spans[1::2])


def test_examples() -> None:
    def shown(*spans: tuple[Area, int, int], gap: int = 8) -> list[str]:
        numbered = [Span(*span, index) for index, span in enumerate(spans)]
        return [str(block) for block in plan(numbered, max_registers=125, max_coils=2000, max_gap=gap)]

    assert shown(("holding", 0, 2), ("holding", 10, 1)) == ["holding 0..10 (11 registers)"]
    assert shown(("holding", 0, 2), ("holding", 11, 1)) == ["holding 0..1 (2 registers)", "holding 11 (1 register)"]
    assert shown(("holding", 0, 1), ("holding", 2, 1), gap=0) == ["holding 0 (1 register)", "holding 2 (1 register)"]
    assert shown(("holding", 0, 1), ("input", 0, 1), ("coil", 3, 1)) == [
        "coil 3 (1 bit)", "input 0 (1 register)", "holding 0 (1 register)",
    ]  # fmt: skip
    assert shown(("holding", 124, 2), ("holding", 0, 1), ("holding", 123, 4), gap=125) == [
        "holding 0 (1 register)", "holding 123..126 (4 registers)",
    ]  # fmt: skip


def test_a_thousand_registers_take_eight_requests() -> None:
    spans = [Span("holding", offset, 1, offset) for offset in range(1000)]
    blocks = plan(spans, max_registers=125, max_coils=2000, max_gap=8)
    assert [block.count for block in blocks] == [125] * 8


def test_the_payload_is_what_the_reply_must_carry() -> None:
    assert Block("holding", 0, 3, ()).payload == 6
    assert [Block("coil", 0, count, ()).payload for count in (1, 8, 9, 2000)] == [1, 1, 2, 250]
