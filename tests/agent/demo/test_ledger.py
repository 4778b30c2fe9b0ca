import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.demo.ledger import Ledger


def message(seq: int, run: str = "a" * 16, device: str = "press-3", **more: Any) -> dict[str, Any]:
    return {"run": run, "seq": seq, "device": device, "values": {"parts": seq, "torque": None}} | more


def test_an_unbroken_row_of_messages_lost_nothing() -> None:
    ledger = Ledger()
    assert all(ledger.take(message(seq)) for seq in range(1, 11))
    assert (ledger.messages, ledger.values, ledger.lost, ledger.duplicates) == (10, 10, 0, 0)
    assert ledger.devices["press-3"].bad == 10


def test_a_hole_is_lost_until_it_is_replayed() -> None:
    ledger = Ledger()
    for seq in (1, 2, 5):
        ledger.take(message(seq))
    assert ledger.lost == 2
    assert ledger.take(message(3, replayed=True))
    assert ledger.lost == 1
    assert ledger.take(message(4, replayed=True))
    assert ledger.lost == 0


def test_the_first_messages_of_a_run_are_missed_too() -> None:
    ledger = Ledger()
    ledger.take(message(4))
    assert ledger.lost == 3


def test_a_second_delivery_is_a_duplicate_and_counts_no_readings() -> None:
    ledger = Ledger()
    ledger.take(message(1))
    assert not ledger.take(message(1, replayed=True))
    assert (ledger.messages, ledger.values, ledger.duplicates, ledger.lost) == (1, 1, 1, 0)


def test_a_replayed_message_is_a_duplicate_only_once_it_has_come() -> None:
    ledger = Ledger()
    ledger.take(message(1))
    ledger.take(message(3))
    assert ledger.take(message(2, replayed=True))
    assert not ledger.take(message(2, replayed=True))
    assert (ledger.duplicates, ledger.lost) == (1, 0)


def test_each_run_has_its_own_numbers() -> None:
    ledger = Ledger()
    for seq in (1, 2, 3):
        ledger.take(message(seq))
    assert ledger.take(message(1, run="b" * 16))
    assert ledger.take(message(5, replayed=True))
    assert (ledger.runs, ledger.lost, ledger.duplicates) == (2, 1, 0)


def test_parts_of_a_split_message_are_messages_of_their_own() -> None:
    ledger = Ledger()
    ledger.take(message(1, values={"a": 1, "b": 2}, ts=7))
    ledger.take(message(2, values={"c": 3}, ts=7))
    assert (ledger.messages, ledger.values, ledger.lost) == (2, 3, 0)


def test_devices_share_the_numbers_of_their_run() -> None:
    ledger = Ledger()
    ledger.take(message(1))
    ledger.take(message(2, device="cnc-7"))
    ledger.take(message(3))
    assert ledger.lost == 0
    assert {name: tally.messages for name, tally in ledger.devices.items()} == {"press-3": 2, "cnc-7": 1}


def test_an_absurd_leap_is_counted_but_not_remembered() -> None:
    ledger = Ledger()
    ledger.take(message(10**15))
    assert ledger.lost == 10**15 - 1


@given(st.integers(1, 60), st.sets(st.integers(1, 60)), st.integers(0, 2**32))
@settings(max_examples=150)
def test_in_any_order_lost_is_what_did_not_come(count: int, dropped: set[int], seed: int) -> None:
    sent = [seq for seq in range(1, count + 1) if seq not in dropped]
    shuffled = sent * 2
    random.Random(seed).shuffle(shuffled)
    ledger = Ledger()
    for seq in shuffled:
        ledger.take(message(seq))
    assert ledger.lost == (max(sent) if sent else 0) - len(sent)
    assert ledger.duplicates == len(sent)
