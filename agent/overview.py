"""What the agent knows about itself, put together: the status snapshot, the retained status, the agent's counters,
the last values. Reads the other parts and changes none of them.

May import: `agent.announce`, `agent.buffer`, `agent.clock`, `agent.config_model`, `agent.control`, `agent.fleet`,
`agent.intake`, `agent.last_values`, `agent.publisher`, `agent.status`, orjson.
"""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from pathlib import Path
from typing import Any, cast

import orjson

from agent import __version__, announce
from agent.buffer.outbox import Outbox
from agent.clock import Clock
from agent.config_model import AgentConfig
from agent.control import DeviceValues
from agent.fleet import Fleet
from agent.intake import Intake
from agent.last_values import last_values
from agent.publisher import Publisher
from agent.runner import Runner
from agent.status import AgentStatus, BrokerStatus, BufferStatus, Counters, DeviceStatus, LineStatus, Snapshot
from collectors.line import LineStats
from collectors.line_config import OnLine

_RATE_WINDOW = 12
"""How many snapshots back the rates look: a minute at one snapshot every 5 s."""


class Overview:
    """Answers every question about the running agent.

    Attributes:
        state: of the process.
        config_refused: the first mistake of the configuration that the last reload refused; None = it was taken.
        loop_lag_s: largest delay of the event loop since the last snapshot.
    """

    def __init__(
        self,
        config: AgentConfig,
        digest: str,
        *,
        outbox: Outbox,
        fleet: Fleet,
        intake: Intake,
        clock: Clock,
    ) -> None:
        self.config = config
        self.digest = digest
        self.state: Any = "starting"
        self.config_refused: str | None = None
        self.loop_lag_s = 0.0
        self._outbox = outbox
        self._fleet = fleet
        self._intake = intake
        self._clock = clock
        self._started = time.monotonic()
        self._rates: dict[str, deque[tuple[float, int]]] = {}
        self._busy: dict[str, deque[tuple[float, float]]] = {}
        self._fill: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)

    def status_document(self, state: str, *, at: float | None = None) -> bytes:
        """The retained status: `online`, `stopped`, or the last will `lost`, of the monotonic instant `at`."""
        previous = self._outbox.previous
        return announce.status(
            state,
            ts=self._clock.stamp(time.monotonic() if at is None else at),
            run=self._outbox.run,
            version=__version__,
            config=self.digest,
            since=self._clock.stamp(self._started),
            store=self._outbox.state,
            plaintext=self.config.mqtt.plaintext,
            previous=None if previous is None else {"run": previous.run, "ended": previous.ended, "at": previous.at},
            devices=None if state == "lost" else self.device_states(),
        )

    def device_states(self) -> dict[str, str]:
        """Device -> state."""
        return {name: runner.state.state for name, runner in self._fleet.runners.items()}

    def agent_document(self) -> bytes:
        """The agent's own counters, what is complete and what is missing."""
        counters = self._outbox.counters()
        runners = self._fleet.runners.values()
        late = [p99 for p99 in (runner.state.lateness.p99() for runner in runners) if p99 is not None]
        counters |= {
            "values": self._intake.values,
            "values_lost": self._intake.values_lost,
            "missed_polls": self._fleet.missed,
            "samples_lost": self._fleet.samples_lost,
            "late_p99_ms": round(max(late) * 1000, 1) if late else None,
            "loop_lag_ms": round(self.loop_lag_s * 1000, 1),
            "rss": _rss(),
        }
        return orjson.dumps(
            {
                "v": 1,
                "ts": self._clock.stamp(time.monotonic()),
                "run": self._outbox.run,
                "counters": counters,
                "complete_to": self._outbox.complete_to(),
                "gaps": self._outbox.gaps(),
            }
        )

    def snapshot(self, publisher: Publisher) -> Snapshot:
        """What `status.json` says now; call it at a steady pace, its rates are over the last dozen calls."""
        now = time.monotonic()
        runners = self._fleet.runners
        snapshot = Snapshot(
            agent=self._agent(now),
            broker=self._broker(publisher, now),
            buffer=self._buffer(now),
            counters=self._counters(),
            devices={name: self._device(name, runner, now) for name, runner in runners.items()},
            lines={name: self._line(name, stats, users, now) for name, (stats, users) in self._fleet.lines().items()},
            clock={"synced": self._clock.synchronised},
            loop_lag_ms=round(self.loop_lag_s * 1000, 1),
            rss=_rss(),
            findings=[],
        )
        self.loop_lag_s = 0.0
        return snapshot

    def _counters(self) -> Counters:
        counters: Any = self._outbox.counters() | {
            "values": self._intake.values,
            "missed_polls": self._fleet.missed,
            "samples_lost": self._fleet.samples_lost + self._intake.values_lost,
        }
        return cast("Counters", counters)

    def _agent(self, now: float) -> AgentStatus:
        return {
            "version": __version__,
            "run": self._outbox.run,
            "pid": os.getpid(),
            "site": self.config.site,
            "gateway": self.config.gateway,
            "label": self.config.label,
            "started_at": self._clock.stamp(self._started),
            "since_s": round(now - self._started, 1),
            "config": self.digest,
            "state": self.state,
            "config_refused": self.config_refused,
            "language": self.config.language,
        }

    def _broker(self, publisher: Publisher, now: float) -> BrokerStatus:
        return {
            "state": publisher.state,
            "url": self.config.mqtt.url,
            "protocol": publisher.protocol,
            "since_s": round(now - publisher.since, 1),
            "cause": publisher.cause,
            "text": publisher.text,
            "window": publisher.window,
            "in_flight": self._outbox.counters()["in_flight"],
            "plaintext": self.config.mqtt.plaintext,
        }

    def _buffer(self, now: float) -> BufferStatus:
        outbox = self._outbox
        size, cap = outbox.bytes_stored, outbox.cap
        self._fill.append((now, size))
        buffered = outbox.counters()["buffered"]
        then, before = self._fill[0]
        rate = (size - before) / (now - then) if now > then else 0.0
        return {
            "state": outbox.state,
            "backlog": buffered,
            "bytes": size,
            "cap": cap,
            "oldest_s": outbox.backlog_age_s,
            "fills_in_s": round((cap - size) / rate) if rate > 0 and buffered else None,
        }

    def _device(self, name: str, runner: Runner, now: float) -> DeviceStatus:
        state, config = runner.state, self._fleet.config(name)
        p99 = state.lateness.p99()
        rates = self._rates.setdefault(name, deque(maxlen=_RATE_WINDOW))
        rates.append((now, state.values))
        then, before = rates[0]
        return {
            "type": config.type,
            "state": state.state,
            "since_s": round(now - state.since, 1),
            "label": config.label,
            "line": config.line_label if isinstance(config, OnLine) else None,
            "cause": state.cause,
            "text": state.text,
            "facts": dict(state.facts),
            "paused_for_s": round(runner.paused_s) or None,
            "last_read_age_s": round(now - state.last_read_at, 1) if state.last_read_at is not None else None,
            "groups": dict(runner.groups),
            "tags": len(runner.tags),
            "bad_tags": state.bad_tags,
            "polls": state.polls,
            "missed": state.missed,
            "late_p99_ms": round(p99 * 1000, 1) if p99 is not None else None,
            "reconnects": state.reconnects,
            "requests": runner.stats().requests,
            "values_per_s": round((state.values - before) / (now - then), 1) if now > then else 0.0,
        }

    def _line(self, name: str, stats: LineStats, users: list[str], now: float) -> LineStatus:
        busy = self._busy.setdefault(name, deque(maxlen=_RATE_WINDOW))
        busy.append((now, stats.busy_s))
        then, before = busy[0]
        return {
            "state": stats.state,
            "busy": round(min(1.0, (stats.busy_s - before) / (now - then)), 3) if now > then else 0.0,
            "users": users,
            "reconnects": max(0, stats.connects - 1),
            "requests": stats.requests,
            "late": stats.late,
        }

    def forget(self, device: str) -> None:
        """The device is gone from the configuration, or counts from zero again."""
        self._rates.pop(device, None)

    def values(self, device: str) -> DeviceValues:
        """The last values of one device, as they would be published."""
        runner = self._fleet.runners[device]
        tags = last_values(runner.tags, runner.normaliser, time.monotonic())
        return {"label": runner.state.label, "state": runner.state.state, "tags": tags}


def _rss() -> int:
    """Bytes of memory in use, 0 where the kernel does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()
