"""`shopfloor demo`: a plant, the real agent and a subscriber of its own, until it is enough; then the account.

May import: the standard library, `agent.columns`, `agent.demo.*`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from types import FrameType

from agent.columns import pad, width
from agent.demo import terminal
from agent.demo.board import Board
from agent.demo.broker import BrokerName, NoBroker, choose, installed
from agent.demo.cells import Paint
from agent.demo.children import ChildFailed
from agent.demo.configuration import DEVICES, GATEWAY, SITE
from agent.demo.ledger import Ledger
from agent.demo.plant import Plant
from agent.demo.subscriber import Heard, Subscriber
from agent.demo.terminal import Screen
from agent.demo.texts import Texts, language_of
from agent.demo.views import LineView, Scene, TableView, View, listen_command

_CONNECT_S = 10.0
_ALL_DELIVER_S = 20.0
_LAST_WORDS_S = 2.0

Inbox = SimpleQueue[Heard | None]
"""What the subscriber hears; None = stop."""


@dataclass(slots=True)
class Outcome:
    """How the demo went.

    Attributes:
        first_after: seconds from the start of the demo to the first reading; None = none came.
        awaited: the devices had time enough to deliver.
    """

    seconds: float
    first_after: float | None
    awaited: bool
    interruptions: int
    failure: ChildFailed | None = None

    def exit_code(self, ledger: Ledger) -> int:
        """0 when every message arrived and every device delivered, else 1."""
        silent = self.awaited and not all(delivered(ledger, name) for name in DEVICES)
        return int(bool(ledger.lost or silent or self.failure))


def delivered(ledger: Ledger, device: str) -> bool:
    """Whether a reading of the device with a value came."""
    return device in ledger.devices and ledger.devices[device].values > 0


def run_demo(seconds: float | None, wanted: BrokerName | None = None) -> int:
    """Run the demo; returns the exit code of the command.

    Args:
        seconds: end so long after the first reading (and not before every device has delivered, within limits);
            None = at Ctrl-C.
        wanted: the broker to use; None = mosquitto if installed, else amqtt.

    Raises:
        KeyboardInterrupt: a signal came before there was anything to give an account of, or a second one.
    """
    begun = time.monotonic()
    texts = Texts(language_of(os.environ))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # machines speak Chinese, whatever the locale of the terminal
    try:
        broker_name = choose(installed(), wanted)
    except NoBroker:
        print(texts("no_broker"), file=sys.stderr)
        return 2
    ledger = Ledger()
    inbox: Inbox = SimpleQueue()
    with TemporaryDirectory(prefix="shopfloor-demo-") as directory:
        plant = Plant(Path(directory), texts.language, broker_name)
        show = Show(plant, ledger, inbox, texts, begun)
        try:
            with stop_on_signals(show.stop):
                outcome = show.run(seconds)
        except ChildFailed as failure:
            outcome = show.outcome(failure)
        finally:
            plant.close()
    print(summary(outcome, ledger, show.board, texts))
    return outcome.exit_code(ledger)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGINT, SIGTERM or SIGHUP; a second one interrupts whatever is being done."""
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Show:
    """One run of the demo: starts the plant, hears, shows, stops."""

    def __init__(self, plant: Plant, ledger: Ledger, inbox: Inbox, texts: Texts, begun: float) -> None:
        self.board = Board(DEVICES)
        self._plant = plant
        self._ledger = ledger
        self._inbox = inbox
        self._texts = texts
        self._begun = begun
        self._subscriber = Subscriber(inbox, SITE, GATEWAY)
        self._agent_at: float | None = None
        self._first_at: float | None = None
        self._stopping = False

    def run(self, seconds: float | None) -> Outcome:
        """Run until it is enough.

        Raises:
            ChildFailed: a process of the plant ended.
        """
        self._start()
        try:
            with ExitStack() as stack:
                self._watch(self._view(stack), seconds)
            print(self._texts("stopping"), flush=True)
            self._plant.stop_agent(came_up=bool(self.board.agent_state))
            self._hear_last_words()
        finally:
            self._subscriber.stop()
        return self.outcome()

    def stop(self) -> None:
        """End the run soon; called by signal handlers.

        Raises:
            KeyboardInterrupt: it has hardly begun.
        """
        if self._agent_at is None:
            raise KeyboardInterrupt
        self._inbox.put(None)

    def outcome(self, failure: ChildFailed | None = None) -> Outcome:
        """How it went so far."""
        now = time.monotonic()
        since_agent = now - self._agent_at if self._agent_at is not None else 0.0
        return Outcome(
            seconds=now - self._begun,
            first_after=self._first_at - self._begun if self._first_at is not None else None,
            awaited=since_agent > _ALL_DELIVER_S or self._all_delivered(),
            interruptions=self._subscriber.interruptions,
            failure=failure,
        )

    def _start(self) -> None:
        texts = self._texts

        def say(key: str) -> None:
            print(texts("starting", what=texts(key, name=self._plant.broker_name)), flush=True)

        self._plant.start(say)
        try:
            self._subscriber.start(self._plant.broker_port, _CONNECT_S)
        except OSError as error:
            raise ChildFailed(self._plant.broker_name, None, str(error)) from error
        say("agent")
        self._agent_at = time.monotonic()
        self._plant.start_agent()
        print(texts("listen"), *listen_command(self._plant.broker_port), flush=True)

    def _view(self, stack: ExitStack) -> View:
        stream, environment = sys.stdout, os.environ
        if not terminal.is_screen(stream, environment):
            return LineView(stream, self._texts)
        screen = stack.enter_context(Screen(stream))
        paint = Paint(terminal.may_colour(stream, environment))
        return TableView(screen, self._texts, paint, trends=terminal.shows_braille(stream, environment))

    def _watch(self, view: View, seconds: float | None) -> None:
        scene = Scene(
            board=self.board,
            ledger=self._ledger,
            broker=self._plant.broker_name,
            port=self._plant.broker_port,
            configuration_file=str(self._plant.configuration_file),
            agent_log=self._plant.agent_log,
            started=time.monotonic(),
        )
        while not self._stopping and not self._is_enough(seconds):
            self._hear(time.monotonic() + view.interval)
            self._plant.check()
            scene.connected = self._subscriber.connected
            view.update(scene)

    def _is_enough(self, seconds: float | None) -> bool:
        if seconds is None or self._agent_at is None:
            return False
        now = time.monotonic()
        if not self._all_delivered() and now - self._agent_at <= _ALL_DELIVER_S:
            return False
        return self._first_at is None or now - self._first_at >= seconds

    def _all_delivered(self) -> bool:
        return all(delivered(self._ledger, name) for name in DEVICES)

    def _hear(self, until: float) -> None:
        """Enter what arrives, until this monotonic time or the wish to stop."""
        while not self._stopping:
            try:
                heard = self._inbox.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                return
            if heard is None:
                self._stopping = True
            else:
                self._enter(heard)

    def _enter(self, heard: Heard) -> None:
        if heard.kind == "data":
            self.board.data(heard.document)
            if self._ledger.take(heard.document) and self._first_at is None and self._ledger.values:
                self._first_at = time.monotonic()
        elif heard.kind == "meta":
            self.board.meta(heard.source, heard.document)
        elif heard.kind == "status":
            self.board.status(heard.document)

    def _hear_last_words(self) -> None:
        """Enter what is still on its way: the agent's last word is its status `stopped`, or its will."""
        self._stopping = False
        until = time.monotonic() + _LAST_WORDS_S
        while self.board.agent_state not in {"stopped", "lost"} and time.monotonic() < until and not self._stopping:
            self._hear(time.monotonic() + 0.1)


def summary(outcome: Outcome, ledger: Ledger, board: Board, texts: Texts) -> str:
    """The account, for people."""
    lines = []
    if outcome.failure is not None:
        failure = outcome.failure
        what = texts(failure.name, name=failure.name) if failure.name in {"press", "cnc", "agent"} else failure.name
        key = "not_ready" if failure.code is None else "died"
        lines += [texts(key, what=what, code=failure.code, seconds=outcome.seconds), failure.log, ""]
    after = "after" if outcome.first_after is not None else "after_nothing"
    lines.append(texts("summary", text=texts(after, seconds=outcome.seconds, first=outcome.first_after)))
    names = [f"{view.name} {view.label}".rstrip() for view in board.devices.values()]
    column = max(map(width, names), default=0)
    for name, view in zip(names, board.devices.values(), strict=True):
        tally = ledger.devices.get(view.name)
        if tally is not None and tally.values:
            account = texts("readings", values=tally.values, messages=tally.messages)
        else:
            account = texts("never")
        lines.append(f"  {pad(name, column)}  {account}")
    lost, repeated = ledger.lost, ledger.duplicates
    lines.append("  " + texts("total", messages=ledger.messages, values=ledger.values, lost=lost, duplicates=repeated))
    if outcome.interruptions:
        lines.append("  " + texts("watch_lost"))
    if ledger.messages and outcome.exit_code(ledger) == 0:
        lines.append("  " + texts("fine"))
    return "\n".join(lines)
