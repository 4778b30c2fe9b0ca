"""Late replies of a serial unit are never taken for others, in whatever way it is late."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.modbus.link import Request
from collectors.modbus.owed import FORGET_S, MOST, Owed


def reading(function: int, offset: int, count: int) -> Request:
    size = (count + 7) // 8 if function <= 2 else 2 * count
    return Request(function, struct.pack(">BHH", function, offset, count), size)


BLOCKS = [reading(3, offset, count) for offset, count in ((0, 4), (100, 4), (200, 1), (300, 2), (400, 9), (500, 1))] + [
    reading(1, 0, 3),
    reading(1, 50, 20),
    reading(1, 90, 9),
]


class Unit:
    """Answers in the order in which it was asked, whenever it likes; and a link that asks it, as `RtuLink` does."""

    def __init__(self, choices: st.DataObject) -> None:
        self.waiting: list[Request] = []
        self.owed = Owed()
        self.choices = choices

    def read(self, request: Request) -> None:
        for _ in range(MOST):
            if not self.owed.owes(1, request, 0.0):
                break
            if not self.ask(self.owed.unlike(1, request, 0.0)):
                return
        self.ask(request)

    def ask(self, request: Request) -> bool:
        for _ in range(self.choices.draw(st.integers(0, len(self.waiting)), "replies that come unasked")):
            self.waiting.pop(0)
        self.waiting.append(request)
        for _ in range(self.choices.draw(st.integers(0, len(self.waiting)), "replies in time")):
            came = self.waiting.pop(0)
            if self.choices.draw(st.booleans(), "an exception"):
                if came.function != request.function:
                    continue  # dropped as late
                self.owed.refused(1, request, 0.0)
                return True
            if (came.function, came.size) == (request.function, request.size):
                assert came is request, "a late reply was taken for the answer"
                self.owed.answered(1)
                return True
            if not self.owed.may_have_sent(1, came.function, came.size, 0.0):
                break  # a wrong reply
        self.owed.given_up(1, request, 0.0)
        return False


@given(st.lists(st.sampled_from(BLOCKS), max_size=12), st.data())
@settings(max_examples=200)
def test_a_reply_is_never_taken_for_that_to_another_request(blocks: list[Request], choices: st.DataObject) -> None:
    unit = Unit(choices)
    for block in blocks:
        unit.read(block)


@given(st.sampled_from(BLOCKS), st.integers(1, 2 * MOST))
def test_probes_differ_from_all_that_is_owed(block: Request, times: int) -> None:
    owed = Owed()
    owed.given_up(1, block, 0.0)
    for _ in range(times):
        probe = owed.unlike(1, block, 0.0)
        _, offset, count = struct.unpack(">BHH", probe.pdu)
        assert (offset, probe.size) == (struct.unpack(">BHH", block.pdu)[1], reading(block.function, 0, count).size)
        assert not owed.owes(1, probe, 0.0)
        owed.given_up(1, probe, 0.0)


def test_a_unit_that_takes_one_register_at_a_time_is_asked_again_in_the_end() -> None:
    owed, single = Owed(), reading(3, 0, 1)
    owed.given_up(1, single, 100.0)
    owed.given_up(1, owed.unlike(1, single, 100.5), 130.0)  # for two registers it has no answer at all
    assert owed.owes(1, single, 99.9 + FORGET_S)
    assert not owed.owes(1, single, 100.0 + FORGET_S)
    assert owed.any(100.0 + FORGET_S)
    assert not owed.any(130.0 + FORGET_S)


def test_an_exception_settles_the_oldest_alone() -> None:
    owed, first, later = Owed(), reading(3, 0, 4), reading(3, 200, 1)
    owed.given_up(1, first, 0.0)
    probe = owed.unlike(1, first, 0.0)
    owed.given_up(1, probe, 1.0)
    owed.refused(1, owed.unlike(1, first, 1.0), 2.0)  # most likely it is about `first`
    assert not owed.owes(1, first, 2.0)
    assert owed.owes(1, later, 2.0), "the reply to the probe looks like one to this, and may still come"
