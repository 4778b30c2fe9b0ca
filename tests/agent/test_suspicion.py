"""What ends sessions is left out for a while, and nothing else is."""

from __future__ import annotations

from agent.suspicion import FIRST_PAUSE_S, LONGEST_PAUSE_S, TRIES, Shunned


def test_a_topic_is_shunned_after_some_ends_for_pauses_that_grow() -> None:
    shunned, now = Shunned(), 1000.0
    assert not shunned
    assert [shunned.blame("a", 500, now) for _ in range(TRIES)] == [False] * (TRIES - 1) + [True]
    assert shunned.shuns("a", 500, now)
    assert not shunned.shuns("a", 500, now + FIRST_PAUSE_S)
    now += FIRST_PAUSE_S
    assert not shunned.blame("a", 500, now), "told once"
    assert shunned.shuns("a", 500, now + FIRST_PAUSE_S)
    for _ in range(20):
        shunned.blame("a", 500, now)
    assert not shunned.shuns("a", 500, now + LONGEST_PAUSE_S)


def test_other_topics_and_much_smaller_messages_go_on() -> None:
    shunned = Shunned()
    for _ in range(TRIES):
        shunned.blame("a", 10_000, 0.0)
    assert not shunned.shuns("b", 10_000, 1.0)
    assert not shunned.shuns("a", 1_000, 1.0)
    assert shunned.shuns("a", 9_990, 1.0)
    assert shunned.shuns("a", 50_000, 1.0)


def test_what_works_again_is_forgiven_but_a_small_message_proves_nothing() -> None:
    shunned = Shunned()
    for _ in range(TRIES):
        shunned.blame("a", 10_000, 0.0)
    shunned.worked("a", 1_000)
    assert shunned.shuns("a", 10_000, 1.0)
    shunned.worked("a", 10_000)
    assert not shunned.shuns("a", 10_000, 1.0)
    assert not shunned
