"""The short form of the soak: every promise once, in a few seconds each."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path

import pytest

from tests.soak.__main__ import SHORT
from tests.soak.claims import Claim, Options, table


@pytest.mark.parametrize("name", SHORT)
def test_the_short_form_holds(name: str, tmp_path: Path) -> None:
    disk, memory, seed = tmp_path / "disk", tmp_path / "memory", random.randrange(1 << 31)
    disk.mkdir()
    memory.mkdir()
    claims: list[Claim] = import_module(f"tests.soak.{name}").run(Options(disk, memory, seed, short=True))
    assert claims
    failed = [claim for claim in claims if claim.passed is False and not claim.timing]
    assert not failed, f"seed {seed}\n{table(claims)}"
