"""A message costs what its length allows, whatever it says of itself."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.opcua.session import GARBLED, load

HUGE = struct.pack("<i", 0x7FFF_FFFF)


@pytest.fixture(scope="module")
def library() -> Any:
    return load()


def decoded(library: Any, data: bytes) -> Any:
    from asyncua.common.utils import Buffer

    return library.decode(library.ua.DataValue, Buffer(b"\x01" + data)).Value


@pytest.mark.parametrize("length", [-1, 0, 3, 0x7FFF_FFFF])
def test_an_array_of_nulls_is_no_value(library: Any, length: int) -> None:
    assert decoded(library, b"\x80" + struct.pack("<i", length)).Value is None


def test_an_array_with_dimensions_beyond_its_elements_is_no_value(library: Any) -> None:
    elements, dimensions = struct.pack("<ib", 1, 7), struct.pack("<iii", 2, 1000, 1000)
    assert decoded(library, b"\xc2" + elements + dimensions).Value is None


@pytest.mark.parametrize("size", [0, 1, 0x7FFF_FFFF])
def test_an_array_of_ten_thousand_dimensions_is_no_value(library: Any, size: int) -> None:
    elements, dimensions = struct.pack("<ib", 1, 7), struct.pack("<i", 10_000) + struct.pack("<i", size) * 10_000
    began = time.process_time()
    assert decoded(library, b"\xc2" + elements + dimensions).Value is None
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize("dimensions", [(-1,), (0,), (1, -1), (2, -1, -1)])
def test_an_array_with_dimensions_that_say_nothing_is_no_value(library: Any, dimensions: tuple[int, ...]) -> None:
    data = b"\xc2" + struct.pack("<ib", 1, 7) + struct.pack(f"<{len(dimensions)}i", *dimensions)
    assert decoded(library, data).Value is None


def test_dimensions_that_fit_are_kept(library: Any) -> None:
    data = b"\xc2" + struct.pack("<i6b", 6, *range(6)) + struct.pack("<iii", 2, 2, 3)
    assert decoded(library, data).Value == [[0, 1, 2], [3, 4, 5]]
    assert decoded(library, b"\xc2" + struct.pack("<iii", 0, 1, 0)).Value == []


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 63), st.sampled_from([0, 0x40, 0x80, 0xC0]), st.binary(max_size=24), st.booleans())
def test_no_variant_costs_more_than_its_length(library: Any, kind: int, form: int, rest: bytes, huge: bool) -> None:
    began = time.process_time()
    try:
        decoded(library, bytes([kind | form]) + HUGE * huge + rest)
    except (library.ua.UaError, *GARBLED):
        pass
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("length", [-2, -4, -16, -0x8000_0000])
def test_a_text_of_negative_length_does_not_lead_back_to_what_was_read(library: Any, length: int) -> None:
    texts = struct.pack("<i", 100_000) + struct.pack("<i", length) * 4
    with pytest.raises(GARBLED):
        decoded(library, b"\x8c" + texts)
    assert decoded(library, b"\x0c" + struct.pack("<i", -1)).Value is None
