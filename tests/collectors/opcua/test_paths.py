"""Browse paths and patterns as text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.opcua.paths import LONGEST_NAME, BadPath, parse_path, tag_name, written


def steps(text: str, *, pattern: bool = False) -> list[tuple[int | None, str]]:
    return [(step.namespace, step.name) for step in parse_path(text, pattern=pattern).steps]


def test_paths() -> None:
    assert steps("/Objects/2:Line/Speed") == [(0, "Objects"), (2, "Line"), (None, "Speed")]
    assert steps(" /Root/0:Objects/a.b ") == [(0, "Objects"), (None, "a.b")]
    assert steps("/Objects/a&/b&&c/&2:x") == [(0, "Objects"), (None, "a/b&c"), (None, "2:x")]
    assert parse_path("/Objects/2:Line/2:Speed").qualified
    assert not parse_path("/Objects/2:Line/Speed").qualified


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Objects/Line", "from the root"),
        ("/Line/Speed", "begins with /Objects"),
        ("/Objects", "ends at the folder"),
        ("/Objects//Speed", "between every two slashes"),
        ("/Objects/Line/", "between every two slashes"),
        ("/Objects/Line&", "at the end"),
        ("/Objects/99999:Line", "0 to 65535"),
        ("/Objects/Line/*", "browse:"),
    ],
)
def test_what_is_refused(text: str, part: str) -> None:
    with pytest.raises(BadPath, match=part):
        parse_path(text)


def test_patterns() -> None:
    pattern = parse_path("/Objects/Line/P*s?/**/2:Spee&*", pattern=True)
    assert [step.deep for step in pattern.steps] == [False, False, False, True, False]
    assert pattern.first_pattern == 2
    assert pattern.steps[2].fits(7, "Press")
    assert not pattern.steps[2].fits(7, "Line")
    assert pattern.steps[4].fits(2, "Spee*")
    assert not pattern.steps[4].fits(3, "Spee*")
    with pytest.raises(BadPath, match="path:"):
        parse_path("/Objects/Line/Speed", pattern=True)


def test_names_of_found_tags() -> None:
    assert tag_name("line", ["Press1", "Speed"]) == "line.Press1.Speed"
    assert tag_name("line", ["冲床", "Speed"]) != tag_name("line", ["车床", "Speed"])
    assert tag_name("line", ["a.b"]) != tag_name("line", ["a", "b"])


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 65535), st.text(min_size=1, max_size=40)), min_size=1, max_size=5))
def test_a_written_path_reads_as_what_it_was(names: list[tuple[int, str]]) -> None:
    """Also of names with slashes, ampersands, stars and colons; and a tag's name fits into a topic."""
    text = "/Objects" + written(names)
    if text == text.strip():
        parsed = parse_path(text)
        assert [(step.namespace or 0, step.name) for step in parsed.steps[1:]] == names
    name = tag_name("line", [name for _, name in names])
    assert len(name) <= LONGEST_NAME
    assert name.isascii()
