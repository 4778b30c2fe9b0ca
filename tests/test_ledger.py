"""The ledger checker finds what it is there to find: each test breaks a sound ledger in one way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ledger import Ledger

RUN, OLD = "0123456789abcdef", "fedcba9876543210"
TOPIC, AGENT = "shopfloor/plant-2/gw-01/press/data", "shopfloor/plant-2/gw-01/agent"


def data(seq: int, run: str = RUN, *, replayed: bool = False, **changes: Any) -> tuple[str, bytes]:
    message = {
        "v": 1,
        "ts": 1_700_000_000_000 + 1000 * seq,
        "site": "plant-2",
        "gateway": "gw-01",
        "device": "press",
        "group": "1s",
        "run": run,
        "seq": seq,
        "rev": "5be1c09a",
        "values": {"t": seq},
        **changes,
    }
    body = json.dumps(message, separators=(",", ":")).encode()
    return TOPIC, body[:-1] + b',"replayed":true}' if replayed else body


def counters(produced: int, **changes: Any) -> dict[str, Any]:
    dropped = {"cap": 0, "refused": 0, "too-large": 0, "store-failing": 0}
    plain = {"carried_over": 0, "delivered": produced, "buffered": 0, "in_flight": 0, "dropped": dropped}
    return {"produced": produced, **plain, **changes}


def agent(produced: int, run: str = RUN, *, gaps: Any = (), complete: Any = None, **changes: Any) -> tuple[str, bytes]:
    message = {
        "v": 1,
        "ts": 1,
        "run": run,
        "counters": counters(produced, **changes),
        "complete_to": complete if complete is not None else {run: produced},
        "gaps": list(gaps),
    }
    return AGENT, json.dumps(message).encode()


def gap(run: str | None, first: int | None, last: int | None, reason: str) -> dict[str, Any]:
    return {"run": run, "from": first, "to": last, "reason": reason}


def ledger(*arrivals: tuple[str, bytes]) -> Ledger:
    found = Ledger("plant-2", "gw-01")
    for arrival in arrivals:
        found.take(*arrival)
    return found


def faults(*arrivals: tuple[str, bytes], ended: dict[str, int] | None = None) -> str:
    return "\n".join(ledger(*arrivals).settle(ended).faults)


def test_a_sound_ledger() -> None:
    other = ("shopfloor/plant-2/gw-02/press/data", b"whatever")
    meta = ("shopfloor/plant-2/gw-01/press/meta", b"")
    account = ledger(
        data(1), data(2), other, meta, data(4), data(3, replayed=True), data(4, replayed=True), agent(4)
    ).settle({RUN: 4})
    assert account.ok, account
    assert (account.messages, account.replayed, account.duplicates, account.missing) == (4, 1, 1, 0)
    assert (account.values, account.runs, account.agent_messages) == (4, 1, 1)


def test_a_hole_is_missing_until_it_is_told() -> None:
    assert faults(data(1), data(3), agent(3, delivered=2, in_flight=1)) == f"{RUN}: 1 missing and not told: 2"
    dropped = {"cap": 1}
    told = ledger(data(1), data(3), agent(3, gaps=[gap(RUN, 2, 2, "cap")], delivered=2, dropped=dropped)).settle()
    assert told.ok
    assert (told.told, told.missing) == (1, 0)
    needless = ledger(data(1), data(2), agent(2, gaps=[gap(RUN, 2, 2, "cap")])).settle()
    assert needless.ok
    assert (needless.told, needless.needless) == (0, 1)


def test_each_hole_counts_and_only_those_that_were_told_are_told() -> None:
    """Beyond the end, of another run, or with one bound only, a gap explains nothing."""
    holes = ledger(data(1), data(4), data(6), agent(6, delivered=3, in_flight=3)).settle()
    assert (holes.missing, holes.told) == (3, 0)
    assert "3 missing and not told: 2-3, 5" in str(holes)
    first = ledger(data(1), data(4), agent(4, gaps=[gap(RUN, 2, 2, "cap")], delivered=2, in_flight=2)).settle()
    assert (first.missing, first.told, first.needless) == (1, 1, 0)
    beyond = ledger(data(1), agent(3, gaps=[gap(RUN, 3, 9, "cap")], delivered=1, in_flight=2)).settle({RUN: 3})
    assert (beyond.missing, beyond.told) == (1, 1)
    other = [gap(OLD, 2, 3, "cap"), gap(RUN, 2, None, "cap"), gap(None, 2, 3, "cap")]
    assert "2 missing and not told: 2-3" in faults(data(1), data(4), agent(4, gaps=other, delivered=2, in_flight=2))
    all_of_it = ledger(data(3), agent(3, gaps=[gap(RUN, None, None, "store-damaged")], delivered=1, in_flight=2))
    assert (all_of_it.settle().missing, all_of_it.settle().told) == (0, 2)


def test_the_list_of_what_is_missing_is_short() -> None:
    odd = [data(seq) for seq in range(1, 62, 2)]
    text = faults(*odd, agent(61, delivered=31, in_flight=30))
    assert "30 missing and not told: 2, 4, " in text
    assert text.endswith("38, 40, ...")
    text = faults(*odd[:21], agent(41, delivered=21, in_flight=20))
    assert text.endswith("38, 40")


def test_what_is_forgotten_is_not_missing_and_must_not_come_again() -> None:
    found = ledger(*(data(seq) for seq in (1, 2, 3, 5, 6, 7, 8)), agent(8, delivered=7, in_flight=1))
    found.forget(keep=2)
    account = found.settle()
    assert (account.messages, account.missing) == (7, 1)
    assert "1 missing and not told: 4" in str(account)
    assert sorted(found.runs[RUN].seen) == [5, 6, 7, 8], "a hole ends what can be forgotten"
    found.take(*data(3))
    again = found.settle()
    assert (again.messages, again.duplicates) == (7, 1)
    assert "3 came again when it was forgotten" in str(again)


def test_only_fifty_faults_are_written_out() -> None:
    account = ledger(*(data(1, device="saw") for _ in range(70)), agent(0)).settle()
    assert len(account.faults) == 50
    assert not account.ok
    assert str(account).startswith("messages 0, replayed 0, ")
    assert str(account).count("on the topic of press") == 50


def test_the_end_is_missing_when_it_is_known() -> None:
    assert faults(data(1), agent(1)) == ""
    assert "2 missing and not told: 2-3" in faults(data(1), agent(1), ended={RUN: 3})
    # The agent's own word that all is done counts as well.
    assert "1 missing and not told: 2" in faults(data(1), agent(2))


def test_an_earlier_run_is_accounted_for() -> None:
    assert "3 missing and not told: 1-3" in faults(data(1), agent(1, complete={RUN: 1, OLD: 3}))
    assert faults(data(1), agent(1, complete={RUN: 1, OLD: 3}, gaps=[gap(OLD, None, None, "store-damaged")])) == ""
    assert faults(data(1), agent(1, complete={RUN: 1, OLD: 3}, gaps=[gap(None, None, None, "store-damaged")])) == ""


@pytest.mark.parametrize(
    "changed",
    [{"values": {"t": 8}}, {"ts": 5}, {"quality": {"u": "uncertain:stale"}}],
    ids=["value", "time", "quality"],
)
def test_a_duplicate_that_differs(changed: dict[str, Any]) -> None:
    assert faults(data(1), data(1), data(1, replayed=True), agent(1)) == ""
    assert "came again and is another" in faults(data(1), data(1, replayed=True, **changed), agent(1))


def test_order_holds_in_each_lane() -> None:
    assert faults(data(3), data(1, replayed=True), data(4), data(2, replayed=True), agent(4)) == ""
    assert "live seq 1 came after 2" in faults(data(2), data(1), agent(2))
    assert "replayed seq 1 came after 2" in faults(data(2, replayed=True), data(1, replayed=True), agent(2))
    # A new session sends again what the old one had under way: no disorder, the first arrivals rise.
    assert faults(data(1), data(2), data(1, replayed=True), data(2, replayed=True), data(3), agent(3)) == ""


def test_invented_messages() -> None:
    assert "never named" in faults(data(1), data(1, OLD), agent(1))
    assert "seq 2 arrived, but only 1 were produced" in faults(data(1), data(2), agent(1))
    assert "seq 2 arrived, but only 1 were produced" in faults(data(1), data(2), agent(2), ended={RUN: 1})
    assert faults(data(1), agent(1), data(2), agent(1), agent(2)) == ""  # the same once more tells nothing new
    assert "on the topic of press" in faults(data(1, device="saw"), agent(1))
    assert "somebody else" in faults(data(1, site="plant-3"), agent(1))
    assert "seq is not a number" in faults(data(0), agent(1))
    assert "seq is not a number" in faults((TOPIC, data(1)[1].replace(b'"seq":1', b'"seq":1.5')), agent(1))
    assert "somebody else" in faults(data(1, v=2), agent(1))
    assert "somebody else" in faults(data(1, gateway="gw-02"), agent(1))
    assert faults(("shopfloor/plant-2/gw-01/press/data/x", b"whatever"), agent(0)) == ""
    # What an earlier run left is not what this one numbered.
    assert faults(data(1), data(1, OLD), agent(2, carried_over=1, complete={RUN: 1, OLD: 1})) == ""
    assert "seq 2 arrived, but only 1 were" in faults(data(1), data(2), agent(2, carried_over=1, complete={RUN: 1}))


def test_a_run_is_named_by_counters_by_what_is_complete_and_by_gaps() -> None:
    assert faults(data(1), agent(1, complete={})) == ""
    assert faults(data(1, OLD), agent(1, complete={OLD: 1}, carried_over=1)) == ""
    assert faults(data(1, OLD), agent(1, complete={}, carried_over=1, gaps=[gap(OLD, 2, 2, "cap")])) == ""
    assert "never named" in faults(data(1, OLD), agent(1, complete={}, carried_over=1, gaps=[gap(None, 2, 2, "cap")]))
    found = ledger(data(1))
    assert not found.settle().ok
    found.sample({"agent": {"run": RUN}, "counters": counters(1)})
    assert found.settle().ok


def test_an_earlier_run_has_an_end_too() -> None:
    """Of which the caller knows it, and of which nobody has heard."""
    ends = {RUN: 1, OLD: 2}
    sound = [data(1), data(1, OLD), data(2, OLD), agent(3, carried_over=2, complete={RUN: 1, OLD: 2})]
    assert faults(*sound, ended=ends) == ""
    assert faults(*sound, ended={RUN: 1}) == ""
    assert "seq 2 arrived, but only 1 were" in faults(*sound, ended={RUN: 1, OLD: 1})
    assert "2 missing and not told: 1-2" in faults(data(1), agent(1), ended=ends)


def test_keys_are_those_of_a_message_in_their_order() -> None:
    body = json.loads(data(1)[1])
    turned = json.dumps(dict(reversed(body.items()))).encode()
    assert "keys are not" in faults((TOPIC, turned), agent(1))
    assert "keys are not" in faults(data(1, extra=1), agent(1))
    assert "keys are not" in faults(data(1, clock="unsynced", age_ms={}), agent(1))
    assert faults(data(1, age_ms={"t": 3}, clock="unsynced"), agent(1)) == ""
    for key in body:
        fewer = json.dumps({name: value for name, value in body.items() if name != key}).encode()
        assert faults((TOPIC, fewer), agent(1)) != "", key


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"[]", b'"x"', b"{", data(1)[1].replace(b'"v":1,', b""), data(1)[1].replace(b'{"t":1}', b'{"t":NaN}')],
)
def test_foreign_shapes(payload: bytes) -> None:
    assert faults((TOPIC, payload), agent(0)) != ""


def test_null_needs_a_reason() -> None:
    assert faults(data(1, values={"t": None}, quality={"t": "bad:timeout"}), agent(1)) == ""
    assert "t is None with quality None" in faults(data(1, values={"t": None}), agent(1))
    assert "t is 7 with quality 'bad:timeout'" in faults(
        data(1, values={"t": 7}, quality={"t": "bad:timeout"}), agent(1)
    )


def test_a_crash_costs_no_more_than_it_may() -> None:
    crash = [gap(OLD, None, None, "crash")]
    first = [data(seq, OLD) for seq in (1, 2, 3)]
    account = ledger(*first, data(5, OLD), agent(0, gaps=crash, complete={RUN: 0, OLD: 5})).settle()
    assert not account.ok  # 2 s lie between 3 and 5
    near = ledger(*first, data(5, OLD, ts=1_700_000_003_900), agent(0, gaps=crash, complete={RUN: 0, OLD: 5})).settle()
    assert near.ok, near
    assert (near.told, near.crashes) == (1, 1)
    assert "a crash cost" in faults(data(2, OLD), agent(0, gaps=crash, complete={RUN: 0, OLD: 2}))
    last = 1_700_000_003_000
    for span, sound in ((1500, True), (1501, False)):
        late = [*first, data(5, OLD, ts=last + span), agent(0, gaps=crash, complete={RUN: 0, OLD: 5})]
        assert ledger(*late).settle().ok is sound
    # A crash excuses nothing of another run, and one without a hole is none.
    assert "missing and not told" in faults(data(1), data(3), agent(3, gaps=crash, delivered=2, in_flight=1))
    whole = ledger(*first, agent(0, gaps=crash, complete={RUN: 0, OLD: 3})).settle()
    assert whole.ok
    assert (whole.told, whole.crashes) == (0, 1)
    assert ledger(agent(0, gaps=crash, complete={RUN: 0})).settle().ok


def test_counters_that_do_not_add_up() -> None:
    assert "not the sum of its parts" in faults(data(1), agent(1, delivered=0))
    assert "not the sum of its parts" in faults(data(1), agent(1, delivered=2, buffered=-1))
    assert "not the sum of its parts" in faults(data(1), agent(1, delivered=2, in_flight=-1))
    parts: dict[str, Any] = {"buffered": 2, "in_flight": 3, "dropped": {"cap": 4, "refused": 5}}
    assert faults(data(1), agent(15, complete={RUN: 1}, delivered=1, **parts)) == ""
    for part in ("buffered", "in_flight"):
        less = {**parts, part: 1}
        assert "not the sum of its parts" in faults(data(1), agent(15, complete={RUN: 1}, delivered=1, **less))
    # The newest of a run count: an older word that comes late does not take back what was delivered.
    late = ledger(data(1), agent(2, complete={RUN: 1}, delivered=2), agent(1, delivered=1)).settle()
    assert "2 counted as delivered, but only 1 arrived" in str(late)
    same = ledger(data(1), agent(2, complete={RUN: 1}, delivered=0, in_flight=2), agent(2, complete={RUN: 1}))
    assert "2 counted as delivered, but only 1 arrived" in str(same.settle())
    assert "2 counted as delivered, but only 1 arrived" in faults(data(1), agent(2, complete={RUN: 1}))
    found = ledger(data(1), agent(1))
    found.sample({})
    found.sample({"agent": {"run": RUN}, "counters": counters(3, in_flight=1)})
    account = found.settle()
    assert account.samples == 1
    assert "status.json" in "".join(account.faults)


def test_a_gap_for_an_unknown_reason() -> None:
    assert "nobody knows" in faults(data(1), agent(1, gaps=[gap(RUN, 9, 9, "bad luck")]))


def test_what_is_forgotten_is_no_hole_and_may_not_come_again() -> None:
    ledger = Ledger("plant-2", "gw-01")
    for seq in range(1, 11):
        ledger.take(*data(seq))
    ledger.take(*data(12))
    ledger.forget(keep=1)
    gap = {"run": RUN, "from": 11, "to": 11, "reason": "cap"}
    ledger.take(*agent(12, complete={RUN: 12}, gaps=[gap], delivered=11, dropped={"cap": 1}))
    account = ledger.settle({RUN: 12})
    assert account.ok, account
    assert (account.messages, account.told, ledger.runs[RUN].forgotten) == (11, 1, 10)
    ledger.take(*data(3))
    assert not ledger.settle({RUN: 12}).ok
