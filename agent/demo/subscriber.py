"""An MQTT subscriber of its own: what it hears has really been through the broker.

May import: paho (inside functions), orjson.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

TOPICS = "shopfloor/#"
_CLIENT_ID = "shopfloor-demo-subscriber"


@dataclass(frozen=True, slots=True)
class Heard:
    """A message: last word of its topic (`data`, `meta`, `status`, `agent`), the one before, its JSON object."""

    kind: str
    source: str
    document: dict[str, Any]


class Subscriber:
    """Listens to everything below `shopfloor/`; what it hears of one gateway waits in `inbox`.

    It speaks MQTT 3.1.1, which every broker understands. Readings stay with the broker while it is reconnecting.
    """

    def __init__(self, inbox: SimpleQueue[Heard | None], site: str, gateway: str) -> None:
        self._inbox = inbox
        self._prefix = ["shopfloor", site, gateway]
        self._client: Client | None = None
        self._listening = False
        self.interruptions = 0

    @property
    def connected(self) -> bool:
        """Whether the broker has it as a subscriber now."""
        return self._listening

    def start(self, port: int, timeout: float) -> None:
        """Subscribe at the broker on this port of the loopback.

        Raises:
            OSError: the broker refuses the connection (ConnectionError) or does not answer in time (TimeoutError).
        """
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        client = Client(
            CallbackAPIVersion.VERSION2, _CLIENT_ID, clean_session=False, protocol=MQTTProtocolVersion.MQTTv311
        )
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.reconnect_delay_set(1, 5)
        client.connect("127.0.0.1", port)
        client.loop_start()
        self._client = client
        deadline = time.monotonic() + timeout
        while not self._listening:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no subscription at 127.0.0.1:{port} within {timeout:.0f} s")
            time.sleep(0.01)

    def stop(self) -> None:
        """Leave the broker; safe without `start`."""
        if self._client is not None:
            self._listening = False  # this end is no interruption
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _on_connect(self, client: Client, _data: object, _flags: ConnectFlags, _reason: ReasonCode, _p: object) -> None:
        client.subscribe(TOPICS, qos=1)

    def _on_subscribe(self, _client: Client, _data: object, _mid: int, _reasons: list[ReasonCode], _p: object) -> None:
        self._listening = True

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: DisconnectFlags, _reason: ReasonCode, _p: Properties | None
    ) -> None:
        self.interruptions += self._listening
        self._listening = False

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        words = message.topic.split("/")
        if words[: len(self._prefix)] != self._prefix or not message.payload:
            return  # somebody else's; or a retained topic was cleared
        self._inbox.put(Heard(words[-1], words[-2], orjson.loads(message.payload)))
