from hypothesis import given, settings
from hypothesis import strategies as st

from agent.columns import width
from agent.demo.cells import Paint, bare, fit, wrap


def test_a_cut_never_splits_a_wide_character() -> None:
    assert fit("三号冲床", 8) == "三号冲床"
    assert fit("三号冲床", 6) == "三号… "
    assert fit("23.5", 7, right=True) == "   23.5"


@given(st.text(max_size=40), st.integers(1, 40))
@settings(max_examples=150)
def test_fitted_text_has_exactly_the_width(text: str, columns: int) -> None:
    assert width(fit(text, columns)) == columns
    assert width(fit(text, columns, right=True)) == columns
    assert fit(text, columns).isprintable() or "\x1b" not in fit(text, columns)


def test_parts_wrap_into_lines_of_the_width() -> None:
    assert wrap(["messages 12", "lost 0", "broker 127.0.0.1"], 22) == ["messages 12   lost 0", "broker 127.0.0.1"]
    assert wrap(["a very long part"], 8) == ["a very …"]


def test_colours_only_where_allowed() -> None:
    assert Paint(enabled=False)("bad", "red", "bold") == "bad"
    assert Paint(enabled=True)("bad", "red", "bold") == "\x1b[31;1mbad\x1b[0m"
    assert bare(Paint(enabled=True)("bad", "red", "bold")) == "bad"
