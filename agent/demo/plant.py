"""Everything the demo shows, in a temporary directory: broker, press, CNC and the real agent, each a process.

May import: the standard library, `agent.demo.*` but `show` and `views`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from agent.demo import broker
from agent.demo.broker import BrokerName
from agent.demo.children import Child, ChildFailed, Server, environment, serving
from agent.demo.configuration import configuration
from agent.demo.texts import Language

_READY_S = 30.0
_AGENT_GRACE_S = 8.0
_GRACE_S = 2.0


class Plant:
    """Broker, simulated machines and agent.

    Args:
        directory: empty; whoever made it removes it.
        broker_name: as `agent.demo.broker.choose` found it.
    """

    def __init__(self, directory: Path, language: Language, broker_name: BrokerName) -> None:
        self.configuration_file = directory / "agent.yaml"
        self.broker_name = broker_name
        self._directory = directory
        self._language = language
        self._environment = environment()
        self._servers: dict[str, Server] = {}
        self._agent: Child | None = None

    @property
    def broker_port(self) -> int:
        """Where the broker listens on the loopback."""
        return self._servers["broker"].port

    def start(self, say: Callable[[str], None]) -> None:
        """Start broker and machines, write the configuration, wait until all serve.

        Args:
            say: told the text key of each thing that is waited for.

        Raises:
            ChildFailed: one of them did not come up.
        """
        for name in ("cnc", "press"):  # the slowest first
            log = self._directory / f"{name}.log"
            self._servers[name] = serving(name, f"agent.demo.{name}", log, self._environment)
        self._servers["broker"] = broker.start(self.broker_name, self._directory, self._environment)
        for name in ("broker", "press", "cnc"):
            say(name)
            self._servers[name].wait_ready(_READY_S)
        text = configuration(
            language=self._language,
            broker_port=self.broker_port,
            protocol=broker.protocol(self.broker_name),
            press_port=self._servers["press"].port,
            cnc_port=self._servers["cnc"].port,
        )
        self.configuration_file.write_text(text, encoding="utf-8")

    def start_agent(self) -> None:
        """Start `shopfloor run` with the written configuration."""
        state, run = self._directory / "state", self._directory / "run"
        state.mkdir()
        run.mkdir()
        variables = self._environment | {"STATE_DIRECTORY": str(state), "RUNTIME_DIRECTORY": str(run)}
        command = [sys.executable, "-m", "agent", "run", "-c", str(self.configuration_file)]
        self._agent = Child("agent", command, self._directory / "agent.log", variables, tied=False)

    def check(self) -> None:
        """Look after all processes.

        Raises:
            ChildFailed: one of them has ended.
        """
        for child in [*(server.child for server in self._servers.values()), *([self._agent] if self._agent else [])]:
            if child.code() is not None:
                raise ChildFailed(child.name, child.code(), child.log_end())

    def agent_log(self, lines: int) -> list[str]:
        """The last sentences the agent has logged."""
        return self._agent.log_end(lines).splitlines() if self._agent else []

    def stop_agent(self, *, came_up: bool) -> None:
        """End the agent as a service manager would.

        Args:
            came_up: it has reported; one that has not may still be too young to end in order.

        Raises:
            ChildFailed: it did not end well.
        """
        if self._agent is not None:
            agent = self._agent
            code = agent.stop(_AGENT_GRACE_S)
            self._agent = None
            if code != 0 and (came_up or code != -signal.SIGTERM):
                raise ChildFailed(agent.name, code, agent.log_end())

    def close(self) -> None:
        """End whatever still runs; safe at any time."""
        if self._agent is not None:
            self._agent.stop(_GRACE_S)
        for server in self._servers.values():
            server.child.stop(_GRACE_S)
