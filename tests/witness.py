"""The broker side of a short test: mosquitto, a subscriber that was there before, and the ledger of what it heard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.daemon import GATEWAY, SITE, data_topic, eventually
from tests.ledger import Account, Ledger, numbered
from tests.servers.mosquitto import Mosquitto, Received, Subscriber, remembering


class Witness:
    """The broker, and a subscriber that has listened since before anything was published.

    The broker has the subscription on disk and hands everything on at once: what it acknowledged, the subscriber gets,
    however the broker ends.
    """

    def __init__(self, directory: Path) -> None:
        self.broker = Mosquitto(directory, *remembering(directory))
        self.broker.start()
        self._subscriber = Subscriber(self.broker).__enter__()
        self.broker.write_down()
        eventually((directory / "mosquitto.db").exists, "the broker's memory")
        self.ledger = Ledger(SITE, GATEWAY)
        self._entered = 0

    def close(self) -> None:
        """End both."""
        self._subscriber.__exit__(None, None, None)
        self.broker.stop()

    @property
    def messages(self) -> list[Received]:
        """Everything heard so far."""
        return self._subscriber.messages

    def data(self, device: str) -> list[dict[str, Any]]:
        """The device's messages so far."""
        return [json.loads(payload) for payload in self._subscriber.payloads(data_topic(device))]

    def good(self, device: str, since: int = 0) -> list[dict[str, Any]]:
        """Of the messages after the first `since`, those in which every tag is good."""
        return [message for message in self.data(device)[since:] if message["values"] and "quality" not in message]

    def until(self, device: str, quality: str | None = None, since: int = 0, count: int = 1) -> None:
        """Wait until, after the first `since` messages, so many came that are good or, with a quality, all bad."""

        def found() -> bool:
            if quality is None:
                return len(self.good(device, since)) >= count
            new = self.data(device)[since:]
            return len([m for m in new if not m["values"] and m.get("quality") == {"*": quality}]) >= count

        eventually(found, f"{count} messages of {device}, {quality or 'good'}", 6)

    def until_retained(self, topic: str) -> dict[str, Any]:
        """Wait until something stands there."""
        found: dict[str, Any] = eventually(lambda: self.retained(topic), f"something at {topic}", 4)
        return found

    def retained(self, topic: str) -> dict[str, Any] | None:
        """What somebody who comes now finds there; None if nothing."""
        with Subscriber(self.broker, topic) as late:
            time.sleep(0.05)
            found = [message.payload for message in late.messages if message.retain]
        return json.loads(found[-1]) if found and found[-1] else None

    def settle(self, status: dict[str, Any] | None = None, ended: Mapping[str, int] | None = None) -> Account:
        """The account of what arrived; with the last status of an agent, of all that it produced.

        Args:
            ended: run -> last seq, of earlier runs.
        """
        arrived = self.messages[self._entered :]  # the list grows in another thread
        self._entered += len(arrived)
        for message in arrived:
            if not message.retain:
                self.ledger.take(message.topic, message.payload)
        if status is None:
            return self.ledger.settle()
        self.ledger.sample(status)
        return self.ledger.settle({**numbered(status), **(ended or {})})

    def settle_all(self, status: dict[str, Any], ended: Mapping[str, int] | None = None) -> Account:
        """The account when it comes out even: what the broker just took is given a moment to come through."""
        assert status["counters"]["buffered"] == status["counters"]["in_flight"] == 0, status["counters"]
        deadline = time.monotonic() + 3
        while not (account := self.settle(status, ended)).ok and time.monotonic() < deadline:
            time.sleep(0.02)
        assert account.ok, account
        return account
