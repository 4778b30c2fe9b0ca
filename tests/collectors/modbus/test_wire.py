"""Whatever comes in from the wire while requests are on, an answer is one; see `tests.soak.fuzz_modbus`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak.fuzz_modbus import SEEDS, over_rtu, over_tcp
from tests.virtual_time import run_virtual

STEPS = st.lists(st.binary(min_size=2, max_size=2), max_size=20).map(b"".join)
RAW = st.binary(max_size=31).map(lambda raw: bytes([31, len(raw)]) + raw)
SCRIPTS = st.sampled_from(SEEDS) | st.tuples(st.sampled_from([b"\0", b"\1"]), STEPS, RAW, STEPS).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([over_tcp, over_rtu]), SCRIPTS)
def test_an_answer_is_one_to_the_request_that_is_on(
    over: Callable[[bytes], Coroutine[Any, Any, None]], script: bytes
) -> None:
    run_virtual(over(script))
