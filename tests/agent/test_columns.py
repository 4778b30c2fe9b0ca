from hypothesis import given, settings
from hypothesis import strategies as st

from agent.columns import clean, cut, escape_json, pad, table, width


def test_chinese_takes_two_columns() -> None:
    assert width("1号冲床") == 7
    assert width("meter-04") == 8
    assert width("e\u0301") == 1
    assert pad("三号", 6) == "三号  "
    assert pad("三号", 6, right=True) == "  三号"


def test_control_characters_are_shown_not_obeyed() -> None:
    assert clean("a\r\n\x1b[31mb\x9b\u202e") == "a\\r\\n\\x1b[31mb\\x9b\\u202e"
    assert clean("压力 MPa（表）") == "压力 MPa（表）"


@given(st.text(st.characters(), max_size=60), st.integers(1, 30))
@settings(max_examples=200)
def test_cut_and_clean_keep_their_promises(text: str, columns: int) -> None:
    safe = clean(text)
    assert safe.isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in safe)
    assert width(cut(safe, columns)) <= columns
    escape_json(text).encode("utf-8")


def test_a_table_is_aligned() -> None:
    lines = table(["设备", "n"], [["三号冲床", "1"], ["m", "200"]], numbers=frozenset({1}))
    assert lines == ["设备        n", "三号冲床    1", "m         200"]
