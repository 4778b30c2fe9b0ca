"""YAML with positions: core scalars, refusals, and that nothing crashes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.yaml_source import FileRefused, Mapping, Node, Scalar, Sequence, core_value, parse, read_text


def plain(node: Node | None) -> Any:
    """The document as Python data."""
    match node:
        case Mapping(items=items):
            return {key.text: plain(value) for key, value in items}
        case Sequence(items=items):
            return [plain(child) for child in items]
        case Scalar():
            return node.value()
        case _:
            return None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("+7", 7), ("0", 0), ("0x8000", 0x8000), ("0o17", 15), ("1.5", 1.5), (".5", 0.5),
        ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-3", -0.0015), ("true", True), ("False", False), ("null", None),
        ("~", None), ("", None),
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("off", "off"), ("y", "y"), ("12:30", "12:30"),
        ("12:30:45", "12:30:45"),
        ("012", "012"), ("00123", "00123"), ("010.5", "010.5"), ("2026-11-23", "2026-11-23"), ("1_000", "1_000"),
        (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"), ("3.1.1", "3.1.1"), ("40010.10", 40010.10),
        ("9" * 5000, "9" * 5000), ("１２", "１２"), ("٣", "٣"), ("0b1", "0b1"), ("-0x1", "-0x1"), ("None", "None"),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = core_value(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_are_text_and_the_source_is_kept() -> None:
    root, mistakes = parse("a: '1'\nb: 40010.10\nc: \"x\\ny\"\nd: |\n  two\n  lines\n", "f")
    assert not mistakes
    assert isinstance(root, Mapping)
    assert plain(root) == {"a": "1", "b": 40010.10, "c": "x\ny", "d": "two\nlines\n"}
    b = root.get("b")
    assert isinstance(b, Scalar)
    assert b.text == "40010.10"


def test_positions_count_characters() -> None:
    root, _ = parse("标签: 二号厂房\n列表: [一, {二: 三}]\n", "f")
    assert isinstance(root, Mapping)
    (_, first), (key, second) = root.items
    assert (first.line, first.column) == (1, 5)
    assert (key.line, key.column) == (2, 1)
    assert isinstance(second, Sequence)
    inner = second.items[1]
    assert isinstance(inner, Mapping)
    assert [(value.line, value.column) for _, value in inner.items] == [(2, 13)]


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("a: 1\nb: 2\na: 3\n", (3, 1), "stands here twice; the first is in line 1"),
        ("a: {b: 1, b: 2}\n", (1, 11), "'b' stands here twice"),
        ("a: &x 1\nb: *x\n", (2, 4), "aliases (*x)"),
        ("a: *nowhere\n", (1, 4), "aliases (*nowhere)"),
        ("a: !!str 5\n", (1, 4), "tags (!...)"),
        ("a: !Ref [1]\n", (1, 4), "tags (!...)"),
        ("a: 1\n---\nb: 1\n", (2, 1), "second document"),
        ("{[a]: 1}\n", (1, 2), "a key must be a text"),
        ("a: {b: {c: 1}, {d}: x}\n", (1, 16), "a key must be a text"),
        ("a:\n\tb: 1\n", (2, 1), "a tab"),
        ("a: |\n\tx\n", (2, 1), "a tab"),
        ("unit: %\n", (1, 7), 'cannot begin with % unless it stands in quotes: unit: "%"'),
        ("- {unit: %, a: 1}\n", (1, 10), 'unit: "%"'),
        ("a: @home\n", (1, 4), 'a: "@home"'),
        ("password: @secret\n", (1, 11), "cannot begin with @ unless it stands in quotes"),
        ("a: * 3\n", (1, 4), "cannot begin with *"),
        ("a: b: c\n", (1, 5), "in quotes"),
        ("a: 1\n b: 2\n", (2, 3), "same column"),
        ("a:\n  - b\n c: 1\n", (3, 2), "same column"),
        ("topic: {site}/x\n", (1, 14), "in quotes as a whole"),
        ("a: 'x\nb: 1\n", (1, 4), "never closed"),
        ("a: [1, 2\nb: 3\n", (2, 2), "bracket [ is not closed"),
        ("a: {b: 1\nc: 3\n", (2, 2), "brace { is not closed"),
        ("- a\nb: 1\n", (2, 1), "list item was expected"),
        ("k: - a\n", (1, 4), "on a line of its own"),
        ('a: "\\d"\n', (1, 5), "backslash"),
        ("site：plant\nb: 1\n", (1, 1), "full-width '：'"),
        ("a: 1\nsite：plant\nb: 1\n", (2, 1), "full-width '：'"),
        ("site plant\nb: 1\n", (1, 1), "a colon and a space"),
        ("a: 1\nsite:plant\nb: 1\n", (2, 1), "a colon and a space"),
        ("a: \x01\n", (1, 4), "control character \\x01"),
        ("a: ]\n", (1, 4), "a value was expected"),
        ("[" * 25 + "\n", (1, 21), "nested deeper than 20"),
    ],
)  # fmt: skip
def test_refused_with_place_and_advice(text: str, place: tuple[int, int], part: str) -> None:
    _, mistakes = parse(text, "f.yaml")
    assert [(one.line, one.column, one.path) for one in mistakes[:1]] == [(*place, "yaml")], mistakes
    assert part in mistakes[0].message, mistakes


def test_a_secret_is_never_shown() -> None:
    for text in ("password: %geheim\n", "password: geheim: x\n", "password: 'geheim\n", "password: {geheim}/x\n"):
        _, mistakes = parse(text, "f")
        assert mistakes
        assert "geheim" not in "".join(map(str, mistakes))


def test_mistakes_that_can_be_stepped_over_do_not_hide_others() -> None:
    root, mistakes = parse("a: %\nb:\n\tc: 1\nd: @x\ne: *f\ne: 1\n", "f")
    assert [(one.line, one.column) for one in mistakes] == [(1, 4), (3, 1), (4, 4), (5, 4), (6, 1)]
    assert isinstance(root, Mapping)
    assert root.get("d") is not None


@pytest.mark.parametrize(
    ("data", "place", "part"),
    [
        (b"", (1, 1), "is empty"),
        (b"\n \n", (1, 1), "is empty"),
        (b"\xef\xbb\xbf", (1, 1), "is empty"),
        ("site: 一\n".encode("utf-16"), (1, 1), "UTF-16"),
        ("site: x\n".encode("utf-16-le"), (1, 1), "UTF-16"),
        ("site: x\nlabel: 二号厂房\n".encode("gbk"), (2, 8), "looks like GBK"),
        (b"site: x\nlabel: \xff\xff\n", (2, 8), "is not UTF-8"),
        (b"# " + b"x" * 1_000_000, (1, 1), "larger than 1 MB"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, place: tuple[int, int], part: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(data)
    with pytest.raises(FileRefused) as refused:
        read_text(file)
    mistake = refused.value.mistake
    assert (mistake.line, mistake.column, mistake.path) == (*place, "file")
    assert part in mistake.message


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="there is no such file"):
        read_text(tmp_path / "missing.yaml")
    with pytest.raises(FileRefused, match="is a directory"):
        read_text(tmp_path)
    with pytest.raises(FileRefused, match="no ordinary file"):
        read_text(Path("/dev/null"))
    with pytest.raises(FileRefused, match="cannot be read"):
        read_text(Path("a\x00b"))


def test_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes("\ufeffa: 1\r\nb: 二\r\n".encode())
    text, _ = read_text(file)
    root, mistakes = parse(text, "f")
    assert not mistakes
    assert plain(root) == {"a": 1, "b": "二"}


@given(st.text(alphabet=st.sampled_from(list("ab1 \n\t:-{}[],'\"%@*&!#|>?~．：中\\")), max_size=60))
@settings(max_examples=200)
def test_no_text_crashes_the_parser(text: str) -> None:
    root, mistakes = parse(text, "f")
    assert root is not None or mistakes or not plain(root)
    for one in mistakes:
        assert one.line >= 1
        assert one.column >= 1


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.yaml"
    file.write_bytes(data)
    try:
        text, _ = read_text(file)
    except FileRefused:
        return
    parse(text, "f")
