"""What every test begins and ends with."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from agent import logs

# How long an example takes says something about the machine, not about the code.
settings.register_profile("shopfloor", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shopfloor")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A command that sets up its logging leaves none of it to the next test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    if not logs._active:
        return
    for active in logs._active:
        active.close()
    logs._active.clear()
    root.handlers, root.level = handlers, level
    for name in logs._LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
