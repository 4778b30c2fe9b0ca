"""Scenarios beside each other, each in a process of its own: one that dies, however it does, costs no other its result.

A process leads a group: what it started and did not end ends with it. Beside others it also has a network of its own
where that can be had, so that none takes a port which another has freed for a moment, and every line that it prints
begins with its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import connection, get_context
from typing import TextIO

from tests.soak import network
from tests.soak.claims import Claim, Options

END_S = 60.0
"""To tidy up, after the claims or an interrupt."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Scenario:
    """`module` has `run(options)`, which returns claims; `what` it does is for people."""

    name: str
    module: str
    what: str
    options: Options


def run(
    scenarios: Iterable[Scenario], jobs: int, begun: Callable[[Scenario], None], ended: Callable[..., None]
) -> dict[str, list[Claim]]:
    """Run them, at most `jobs` beside each other, in this order; their claims by name.

    Args:
        scenarios: of different names.
        jobs: >= 1.
        begun: called as one begins.
        ended: called with a scenario, its claims and the seconds that it took.

    Raises:
        KeyboardInterrupt: after all of them were interrupted too, and have ended.
    """
    waiting, running, claims = deque(scenarios), list[_Running](), dict[str, list[Claim]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                begun(waiting[0])
                running.append(_Running(waiting.popleft(), beside=jobs > 1))
            heard = connection.wait([one.claims for one in running])
            for one in [one for one in running if one.claims in heard]:
                running.remove(one)
                claims[one.scenario.name] = found = one.end()
                ended(one.scenario, found, time.monotonic() - one.began)
    except KeyboardInterrupt:
        for one in running:
            one.interrupt()
        for one in running:
            one.end()
        raise
    return claims


class _Running:
    def __init__(self, scenario: Scenario, *, beside: bool) -> None:
        self.scenario = scenario
        self.began = time.monotonic()
        self.claims, theirs = get_context("spawn").Pipe(duplex=False)
        self._process = get_context("spawn").Process(target=_inside, args=(scenario, beside, theirs))
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def interrupt(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGINT)

    def end(self) -> list[Claim]:
        """Its claims, or one that says how it ended without."""
        try:
            claims: list[Claim] | None = self.claims.recv()
        except EOFError:
            claims = None
        self.claims.close()
        connection.wait([self._process.sentinel], END_S)
        with contextlib.suppress(ProcessLookupError):
            assert self._process.pid is not None
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()
        if claims is None:
            died = f"ended with {self._process.exitcode} before it had a result"
            return [Claim(self.scenario.name, self.scenario.what, died, passed=False)]
        return claims


def _inside(scenario: Scenario, beside: bool, claims: connection.Connection) -> None:
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)  # nobody is left to be told
    if beside:
        sys.stdout = _Named(scenario.name, sys.stdout)
        if network.why_not() is None:
            network.leave()
    try:
        found: list[Claim] = import_module(scenario.module).run(scenario.options)
    except AssertionError as error:  # what was waited for did not come: a result
        found = [Claim(scenario.name, scenario.what, str(error).partition("\n")[0], passed=False)]
    claims.send(found)


class _Named(io.TextIOBase):
    """Whole lines with a name in front."""

    def __init__(self, name: str, out: TextIO) -> None:
        self._name, self._out, self._begun = name, out, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        self._out.write("".join(f"{self._name}: {line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        self._out.flush()
