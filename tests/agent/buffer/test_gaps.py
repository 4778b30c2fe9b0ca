"""The list of gaps: nothing that was added is ever uncovered before it was told."""

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.buffer.gaps import MAX_GAPS, REPEATED, Gaps


def test_neighbours_are_one_entry() -> None:
    gaps = Gaps()
    for seq in (1, 2, 3, 7, 6, 10):
        gaps.add("r", seq, seq, "cap")
    assert [(gap["from"], gap["to"]) for gap in gaps.listing()] == [(1, 3), (6, 7), (10, 10)]


def test_reasons_and_runs_are_kept_apart() -> None:
    gaps = Gaps()
    gaps.add("r", 1, 1, "cap")
    gaps.add("r", 2, 2, "refused")
    gaps.add("q", 3, 3, "cap")
    assert len(gaps) == 3


def test_a_range_that_grew_is_told_again() -> None:
    gaps = Gaps()
    gaps.add("r", 1, 5, "cap")
    sent = gaps.listing()
    gaps.add("r", 6, 6, "cap")
    for seq in range(100, 100 + 2 * REPEATED, 2):
        gaps.add("r", seq, seq, "cap")
    gaps.told(sent)
    assert {"run": "r", "from": 1, "to": 6, "reason": "cap"} in gaps.listing()
    gaps.told(gaps.listing())
    assert len(gaps.listing()) == REPEATED


def test_what_is_unknown_is_told_once() -> None:
    gaps = Gaps()
    gaps.add("r", None, None, "crash")
    gaps.add("r", None, None, "crash")
    assert gaps.listing() == [{"run": "r", "from": None, "to": None, "reason": "crash"}]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3000), st.booleans()), max_size=700))
def test_the_list_is_bounded_and_covers_everything_untold(steps: list[tuple[str, int, bool]]) -> None:
    gaps = Gaps()
    untold: set[tuple[str, int]] = set()
    for run, seq, tell in steps:
        gaps.add(run, seq, seq, "cap")
        untold.add((run, seq))
        if tell and seq % 50 == 0:
            gaps.told(gaps.listing())
            untold.clear()
        assert len(gaps) <= MAX_GAPS
    listed = gaps.listing()
    for run, seq in untold:
        assert any(gap["run"] == run and gap["from"] <= seq <= gap["to"] for gap in listed)
