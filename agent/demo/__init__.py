"""A simulated plant and broker, so that the agent can be seen at work without either."""

from __future__ import annotations


def run_demo(seconds: float | None) -> int:
    """Run `shopfloor demo`, see `agent.demo.show.run_demo`; loads nothing before."""
    from agent.demo import show

    return show.run_demo(seconds)
