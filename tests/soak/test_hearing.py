"""What a listener wrote down comes once, whole, and in order."""

from __future__ import annotations

from pathlib import Path

from tests.soak.hearing import Hearing


def test_reads_what_mosquitto_sub_wrote(tmp_path: Path) -> None:
    log = tmp_path / "heard"
    log.write_bytes(
        b"1700000000.5 1 shopfloor/plant-2/gw-01/status {}\n"
        b'1700000001.25 0 shopfloor/plant-2/gw-01/press/data {"a": "b c"}\n'
        b"1700000002 0 shopfloor/plant-2/gw-01/press/meta \n"
    )
    assert list(Hearing(log, whole=True).news()) == [
        (1700000001.25, "shopfloor/plant-2/gw-01/press/data", b'{"a": "b c"}'),
        (1700000002.0, "shopfloor/plant-2/gw-01/press/meta", b""),
    ]


def test_goes_on_behind_what_was_taken(tmp_path: Path) -> None:
    log = tmp_path / "heard"
    log.write_bytes(b"0 0 before x\n")
    hearing = Hearing(log)
    with log.open("ab") as listener:
        listener.write(b"1 0 a 1\n2 0 b 2\n3 0 c")
    assert next(hearing.news()) == (1.0, "a", b"1")
    assert list(hearing.news()) == [(2.0, "b", b"2")]
    with log.open("ab") as listener:
        listener.write(b" 3\n")
    assert list(hearing.news()) == [(3.0, "c", b"3")]
