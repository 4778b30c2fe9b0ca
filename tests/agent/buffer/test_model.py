"""The outbox against a model, for many seeds; `SHOPFLOOR_SEEDS=1000` for a long run."""

import os
from pathlib import Path

import pytest

from tests.agent.buffer.model import Driver

SEEDS = int(os.environ.get("SHOPFLOOR_SEEDS", "16"))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_agrees_with_a_list(seed: int, tmp_path: Path) -> None:
    await Driver(seed, tmp_path).run(120)


@pytest.mark.parametrize("seed", range(SEEDS // 2))
async def test_agrees_with_a_list_while_the_cap_is_reached(seed: int, tmp_path: Path) -> None:
    await Driver(seed, tmp_path, max_size=4_000_000).run(200)
