"""The configuration of the host device and what is said of it offline."""

from __future__ import annotations

import sys
from subprocess import run

import pytest
from pydantic import ValidationError

from collectors.host import TYPE
from collectors.host.config import ALL_SETS, HostConfig
from collectors.registry import collector_type


def test_defaults() -> None:
    config = HostConfig.model_validate({"name": "box", "type": "host"})
    assert config.interval == 10.0
    assert tuple(config.sets) == ALL_SETS
    assert collector_type("host") is TYPE


@pytest.mark.parametrize("sets", [[], ["cpu", "cpu"], ["gpu"], "cpu"])
def test_bad_sets_are_refused(sets: object) -> None:
    with pytest.raises(ValidationError):
        HostConfig.model_validate({"name": "box", "type": "host", "sets": sets})


def test_estimate_is_about_thirty_values() -> None:
    estimate = TYPE.estimate(HostConfig.model_validate({"name": "box", "type": "host"}))
    assert 25 <= estimate.values_per_message <= 35
    assert estimate.messages_per_s == pytest.approx(0.1)
    report = HostConfig.model_validate({"name": "box", "type": "host", "report": {"heartbeat": "60 s"}})
    assert TYPE.estimate(report).messages_per_s == pytest.approx(1 / 60)


def test_explain_names_the_sets_that_are_read() -> None:
    config = HostConfig.model_validate({"name": "box", "type": "host", "sets": ["clock", "memory"]})
    explanation = TYPE.explain(config)
    assert {tag.source for tag in explanation.tags} == {"memory", "clock"}
    assert {tag.group for tag in explanation.tags} == {"10s"}
    assert len(explanation.requests) == 2


def test_the_type_is_light() -> None:
    code = "import sys, collectors.host; sys.exit('psutil' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
