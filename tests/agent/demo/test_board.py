from typing import Any

from agent.demo.board import Board


def data(values: dict[str, Any], ts: int = 1_000, **more: Any) -> dict[str, Any]:
    return {"device": "press-3", "group": "1s", "ts": ts, "values": values} | more


def test_expected_devices_stand_there_before_they_deliver() -> None:
    assert list(Board(("press-3", "cnc-7")).devices) == ["press-3", "cnc-7"]


def test_a_newer_message_replaces_only_what_it_names() -> None:
    board = Board()
    board.data(data({"a": 1, "b": 2}))
    board.data(data({"a": 3}, ts=2_000))
    tags = board.devices["press-3"].tags
    assert (tags["a"].value, tags["a"].at, tags["a"].changed_at) == (3, 2_000, 2_000)
    assert (tags["b"].value, tags["b"].at, tags["b"].changed_at) == (2, 1_000, 0)


def test_replayed_messages_change_nothing() -> None:
    board = Board()
    board.data(data({"a": 2}, ts=2_000))
    board.data(data({"a": 9}, ts=3_000, replayed=True))
    assert board.devices["press-3"].tags["a"].value == 2
    assert (board.devices["press-3"].heard, board.devices["press-3"].last_ts) == (1, 2_000)


def test_live_messages_count_in_the_order_of_their_coming() -> None:
    board = Board()
    board.data(data({"a": 1, "b": 1}, ts=2_001, age_ms={"a": 250}))
    board.data(data({"a": 2}, ts=2_000))
    assert board.devices["press-3"].tags["a"].value == 2


def test_parts_of_a_split_message_are_all_shown() -> None:
    board = Board()
    board.data(data({"a": 1}))
    board.data(data({"b": 2}))
    assert set(board.devices["press-3"].tags) == {"a", "b"}


def test_groups_of_a_device_age_apart() -> None:
    board = Board()
    board.data(data({"a": 1}, ts=5_000))
    board.data(data({"slow": 1}, ts=4_000, group="5s"))
    assert board.devices["press-3"].tags["slow"].value == 1


def test_a_star_speaks_for_all_tags_of_its_group_but_the_named() -> None:
    board = Board()
    board.data(data({"a": 1, "b": 2}))
    board.data(data({"slow": 5}, group="5s"))
    quality = {"*": "bad:not-connected", "b": "bad:range"}
    board.data(data({"b": None}, ts=2_000, quality=quality))
    tags = board.devices["press-3"].tags
    assert (tags["a"].value, tags["a"].quality) == (None, "bad:not-connected")
    assert (tags["b"].value, tags["b"].quality) == (None, "bad:range")
    assert (tags["slow"].value, tags["slow"].quality) == (5, "")


def test_age_of_a_tag_that_was_sampled_earlier() -> None:
    board = Board()
    board.data(data({"a": 1, "b": 1}, age_ms={"b": 300}))
    assert board.devices["press-3"].tags["b"].at == 700


def test_meta_orders_labels_and_drops_tags() -> None:
    board = Board()
    board.data(data({"old": 1, "a": 2}))
    tags = {"b": {"label": "温度", "unit": "Cel", "group": "1s"}, "a": {"group": "1s"}}
    board.meta("press-3", {"label": "三号冲床", "tags": tags})
    view = board.devices["press-3"]
    assert view.label == "三号冲床"
    assert list(view.tags) == ["b", "a"]
    assert (view.tags["b"].label, view.tags["b"].unit, view.tags["a"].value) == ("温度", "Cel", 2)


def test_status_tells_the_agent_and_its_devices() -> None:
    board = Board(("press-3",))
    board.status({"state": "online", "devices": {"press-3": "degraded"}})
    assert (board.agent_state, board.devices["press-3"].state) == ("online", "degraded")
    board.status({"state": "lost"})
    assert (board.agent_state, board.devices["press-3"].state) == ("lost", "degraded")
