"""Retained messages: what must stand at the broker, what must go from it, and what is due to be sent.

They live outside the outbox: only the latest of each topic counts, and all of them are sent anew in each session.

Promises: every topic is remembered on disk before it is first published, so that it is cleared later even if the
thing was renamed while the agent was not running; a damaged or unwritable file costs that memory and nothing else;
one topic is not published more often than once per `settle` seconds, and then with its latest content.

May import: the standard library, `agent.aside`, orjson, structlog.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import orjson
import structlog

from agent.aside import Aside, Late, Stuck

log = structlog.get_logger("shopfloor.broker")

Payload: TypeAlias = bytes | Callable[[], bytes]
"""A document, or what makes it at the moment of sending (a time of day in it is then right)."""

Topics: TypeAlias = set[str]

SAVE_S = 2.0
"""Topics wait no longer than this for the disk to remember them."""
RETRY_S = 10.0
MAX_FILE = 4_000_000


class Retained:
    """The retained topics of this gateway. To be used from one event loop.

    Args:
        path: the file that remembers topics; its directory need not exist yet.
        settle: see above, seconds.
    """

    def __init__(self, path: Path, settle: float = 1.0) -> None:
        self._path = path
        self._settle = settle
        self._wanted: dict[str, Payload] = {}
        self._unwanted: dict[str, None] = {}
        self._due: dict[str, None] = {}
        self._sent_at: dict[str, float] = {}
        self._aside: Aside[OSError | None] = Aside("retained-save")
        self._unsaved = asyncio.Event()
        self._wake: Callable[[], None] = lambda: None
        self._written: Topics | None = None
        """Topics in the file; None = it cannot be trusted to hold any, and nothing waits for it."""
        self._known = self._load()
        """Topics that may stand at the broker."""
        self._written = set(self._known)

    def set(self, topic: str, payload: Payload) -> None:
        """Publish this on the topic, now and in every session to come; an equal document is not published again."""
        if isinstance(payload, bytes) and self._wanted.get(topic) == payload:
            return
        self._wanted[topic] = payload
        self._unwanted.pop(topic, None)
        if topic not in self._known:
            self._known.add(topic)
            self._unsaved.set()
        self.touch(topic)

    def touch(self, topic: str) -> None:
        """Publish the topic's document again."""
        self._due[topic] = None
        self._wake()

    def clear(self, topic: str) -> None:
        """The topic is no longer wanted: what stands there at the broker is removed."""
        self._wanted.pop(topic, None)
        self._due.pop(topic, None)
        if topic in self._known:
            self._unwanted[topic] = None
            self.touch(topic)

    def keep_only(self, topics: Iterable[str]) -> None:
        """Clear every topic, remembered from earlier runs too, that is not among these."""
        for topic in self._known.difference(topics):
            self.clear(topic)

    # For the publisher.

    def on_due(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever something becomes due."""
        self._wake = wake

    def begin_session(self, first: str | None) -> None:
        """Make every document due, and every removal that was not acknowledged; `first` goes first."""
        order: dict[str, None] = {first: None} if first is not None and first in self._wanted else {}
        self._due = order | dict.fromkeys(self._wanted) | self._unwanted
        self._sent_at.clear()

    def next(self, now: float) -> tuple[str, bytes] | None:
        """Return a topic and its document (empty: to be removed) that may be sent now, None if there is none.

        Args:
            now: monotonic seconds.
        """
        for topic in self._due:
            if self._may_go(topic, now):
                del self._due[topic]
                self._sent_at[topic] = now
                payload = self._wanted.get(topic, b"")
                return topic, payload if isinstance(payload, bytes) else payload()
        return None

    def wait_s(self, now: float) -> float | None:
        """Seconds until `next` may have something, None = not before `on_due` tells."""
        waits = [self._sent_at.get(topic, float("-inf")) + self._settle - now for topic in self._due]
        return max(0.05, min(waits)) if waits else None

    def answered(self, topic: str, payload: bytes, *, accepted: bool) -> None:
        """The broker acknowledged the document, or refused it (then it is tried again in the next session)."""
        if payload or topic not in self._unwanted:
            return
        if not accepted:
            log.warning("retained_not_cleared", topic=topic)
            return
        del self._unwanted[topic]
        self._known.discard(topic)
        self._sent_at.pop(topic, None)
        self._unsaved.set()

    def _may_go(self, topic: str, now: float) -> bool:
        if self._written is not None and topic in self._wanted and topic not in self._written:
            return False
        return self._sent_at.get(topic, float("-inf")) + self._settle <= now

    # The file.

    async def save_loop(self) -> None:
        """Write the file whenever topics came or went; runs until cancelled."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            topics = sorted(self._known)
            try:
                error = await self._aside.run(partial(self._save, topics), SAVE_S)
            except (Late, Stuck):
                error = OSError("the disk does not answer")
            if error is None:
                self._written = set(topics)
            else:
                if self._written is not None:
                    log.warning("retained_not_saved", text=str(error))
                self._written = None
            self._wake()
            if error is not None:
                self._unsaved.set()
                await asyncio.sleep(RETRY_S)

    def _save(self, topics: list[str]) -> OSError | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                file.write(orjson.dumps({"v": 1, "topics": topics}))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            return error
        return None

    def _load(self) -> Topics:
        try:
            with self._path.open("rb") as file:
                document = orjson.loads(file.read(MAX_FILE))
            return {topic for topic in document["topics"] if isinstance(topic, str) and 0 < len(topic) < 65_536}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError) as error:
            log.warning("retained_forgotten", file=str(self._path), text=str(error))
        return set()
