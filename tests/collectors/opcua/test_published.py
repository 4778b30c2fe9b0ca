"""What a server publishes, changed anywhere: the values are those of the message; see `tests.soak.fuzz_opcua`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st


def test_values_are_those_of_the_message_or_none() -> None:
    from tests.soak.fuzz_opcua import notifications  # imports asyncua

    seeds, target = notifications()
    changes = st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=4)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 7), st.lists(st.sampled_from(seeds), min_size=1, max_size=3), changes)
    def changed(setting: int, messages: list[bytes], bytes_at: list[tuple[int, int]]) -> None:
        data = bytearray(b"".join(message[1:] for message in messages))
        for at, byte in bytes_at:
            data[at % len(data)] = byte
        target(bytes([setting]) + bytes(data))

    changed()
