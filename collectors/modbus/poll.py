"""One round of requests to one device: what came of each, when to stop asking, what is counted.

Promises: a request that fails leaves the others theirs; a device that does not answer holds up the line for a few
time-outs at most, for a single short one once it is known to be silent and others wait. May import: the standard
library, `collectors.api`, `collectors.line`, the other modules of this package but `collector`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from collectors.api import CollectorStats, Unavailable
from collectors.line import LineStats, Turn
from collectors.modbus.config import ModbusConfig
from collectors.modbus.link import BadReply, DeviceException, LinkLost, ModbusLink, NoAnswer
from collectors.modbus.reading import Reading

GIVE_UP_AFTER = 3
"""Time-outs in a row after which the rest of a poll is not asked for any more."""
REOPEN_IN_A_POLL = 1
"""How often a connection that is lost within a poll is opened again: one bad block must not spoil the others."""
GATEWAY_EXCEPTIONS = frozenset({10, 11})
"""A gateway answers for a unit that it cannot reach."""


class Poll:
    """One round of requests to one device.

    Args:
        config: of the device.
        stats: of the device.
        line: what is counted of the line.
        first_timeout: seconds for requests while nothing was answered yet: a unit that was silent is not waited for
            long where others wait.
        hasty: whether others wait: one time-out before any answer ends the poll.
    """

    def __init__(
        self,
        config: ModbusConfig,
        stats: CollectorStats,
        line: LineStats,
        *,
        first_timeout: float | None = None,
        hasty: bool = False,
    ) -> None:
        self.silent_s = 0.0
        """Seconds that the line was held up by requests without an answer."""
        self.slowest_s = 0.0
        """The longest time an answer took."""
        self._config = config
        self._stats = stats
        self._line = line
        self._first_timeout = first_timeout
        self._hasty = hasty
        self._good = 0
        self._unanswered = 0
        self._lost = 0
        self._began = self._idle_s = 0.0
        self._over: Unavailable | None = None
        self._last: Unavailable | None = None

    async def read(self, turn: Turn[ModbusLink], readings: Sequence[Reading]) -> None:
        """Ask for the blocks; the outcome of each stands in its reading afterwards."""
        done = 0
        while done < len(readings):
            if turn.blocks_others():
                await turn.step_aside()
            await turn.ready()
            link = await self._link(turn)
            if link is None:
                assert self._over is not None  # _link says why there is none
                for reading in readings[done:]:
                    reading.failed(f"bad:{self._over.reason}", time.monotonic(), asked=False)
                return
            done += await self._read_in_a_row(turn, link, readings[done:])

    async def _read_in_a_row(self, turn: Turn[ModbusLink], link: ModbusLink, readings: Sequence[Reading]) -> int:
        """Ask until somebody else has the right to the line, or one request fails; how many have an outcome."""
        config = self._config
        answers = iter(readings)
        done = 0

        def took(answer: bytes | DeviceException) -> bool:
            nonlocal done
            done += 1
            now = self._ended(turn, link, answered=True)
            if isinstance(answer, bytes):
                next(answers).came(answer, now)
                self._good += 1
                self._unanswered = 0
            else:
                self._refused(next(answers), now, answer.code)
            return not turn.paced and not turn.blocks_others()

        self._began, self._idle_s = time.monotonic(), 0.0
        timeout = config.timeout if self._good or self._first_timeout is None else self._first_timeout
        try:
            await link.read(config.unit_id, [reading.request for reading in readings], timeout, took)
        except NoAnswer:
            self._no_answer(readings[done], self._ended(turn, link), timeout)
            # Whoever was due meanwhile goes first: one silent unit must not hold the line for a whole poll.
            await turn.step_aside(time.monotonic())
        except BadReply as error:
            self._bad_reply(readings[done], self._ended(turn, link), error, timeout)
            await turn.step_aside(time.monotonic())
        except LinkLost as error:
            self._link_lost(readings[done], self._ended(turn, link), error)
            if error.cause == "closed_by_peer" and self._good == 0 and self._over is None:
                # Most likely the device closed an idle connection just as this poll began: that costs no reading.
                return done
        else:
            return done
        return done + 1

    @property
    def was_answered(self) -> bool:
        """Whether the device answered anything."""
        return self._good > 0

    def raise_if_nothing_came(self) -> None:
        """Raise what kept every request from being answered, if that is so."""
        if self._good == 0 and self._last is not None:
            raise self._last

    async def _link(self, turn: Turn[ModbusLink]) -> ModbusLink | None:
        """The connection, opened if need be; None once this poll is over."""
        if self._over is not None:
            return None
        try:
            return await turn.connection(self._config.timeout)
        except Unavailable as error:
            self._over = self._last = error
            return None

    def _ended(self, turn: Turn[ModbusLink], link: ModbusLink, *, answered: bool = False) -> float:
        """Count a request that has its outcome, and the time it took; returns the time."""
        now = time.monotonic()
        took, idle = now - self._began, link.idle_s - self._idle_s
        self._stats.requests += 1
        self._stats.wire_s += took
        turn.used(took, idle)
        if answered:
            self._line.slowest_s = max(took - idle, 0.99 * self._line.slowest_s)
            self.slowest_s = max(took - idle, self.slowest_s)
        self._began, self._idle_s = now, link.idle_s  # of the next one, if there is one
        return now

    def _no_answer(self, reading: Reading, at: float, timeout: float) -> None:
        reading.failed("bad:timeout", at)
        config = self._config
        text = f"unit {config.unit_id} at {config.where} did not answer within {timeout:g} s"
        self._last = self._unavailable("timeout", "no_answer", text)
        self._held_up(timeout)

    def _bad_reply(self, reading: Reading, at: float, error: BadReply, timeout: float) -> None:
        reading.failed("bad:decode", at)
        self._last = self._unavailable("decode", "bad_reply", error.text, error.detail)
        self._held_up(timeout)

    def _held_up(self, timeout: float) -> None:
        # On a serial line silence of as long again follows.
        self.silent_s += timeout * (2 if self._config.settings.is_rtu else 1)
        self._unanswered += 1
        if (self._hasty and self._good == 0) or self._unanswered >= GIVE_UP_AFTER:
            self._over = self._last

    def _refused(self, reading: Reading, at: float, code: int) -> None:
        reading.failed(f"bad:exception-{code}", at, code=code)
        self._unanswered = 0
        if code in GATEWAY_EXCEPTIONS:
            config = self._config
            text = f"the gateway {config.where} cannot reach unit {config.unit_id} (exception {code})"
            self._last = self._unavailable(f"exception-{code}", "no_answer", text)
            self.silent_s += self._line.slowest_s
        else:
            self._good += 1

    def _link_lost(self, reading: Reading, at: float, error: LinkLost) -> None:
        reading.failed(f"bad:{error.reason}", at)
        self._last = self._unavailable(error.reason, error.cause, error.text, error.detail)
        self._lost += 1
        if self._lost > REOPEN_IN_A_POLL:
            self._over = self._last

    def _unavailable(self, reason: str, cause: str, text: str, detail: str = "") -> Unavailable:
        config = self._config
        facts: dict[str, str | int | float] = {"where": config.where, "unit_id": config.unit_id}
        if detail:
            facts["detail"] = detail
        facts |= line_facts(config, self._line)
        return Unavailable(reason, cause, text, **facts)


def line_facts(config: ModbusConfig, line: LineStats) -> dict[str, str | int | float]:
    """What a sentence about a unit on a serial line can add: which line, and how many others on it answer."""
    if not config.settings.is_rtu:
        return {}
    others = len(line.answering - {config.name})
    return {"line": config.line_label} | ({"others": others} if others else {})
