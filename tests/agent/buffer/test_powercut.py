"""A short run of the power cuts; `python -m tests.soak powercut` is the long one."""

from pathlib import Path

import pytest

pytest.importorskip("apsw", reason="apsw is not installed")

from tests.soak.powercut import soak


def test_nothing_committed_is_lost_when_the_power_goes(tmp_path: Path) -> None:
    soak(100, 20_261_123, tmp_path)


def test_these_cuts_find_a_store_that_does_not_sync(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="lost"):
        soak(100, 20_261_123, tmp_path, synchronous="NORMAL")
