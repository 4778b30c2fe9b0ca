"""Counts what arrives at the broker, independently of who publishes: a bare MQTT 3.1.1 client in a process of its own.

    python -m tests.bench.subscriber PORT FILTER READER

Prints `{"ready": true}` when subscribed (QoS 1). For each line on standard input it prints what came since the last
such line: messages, values, bytes, of them re-sent ones, ages of the values' stamps, and when the first and the last
came. Ends when standard input does.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import orjson

from tests.bench.works import STAMP_TAGS

_CONNECT = 0x10
_CONNACK = 0x20
_PUBLISH = 3
_PUBACK = 0x40
_SUBSCRIBE = 0x82
_SUBACK = 0x90

Reading: TypeAlias = tuple[int, int | None, bool]
"""Values in a payload; its time stamp in microseconds, if it carries one; whether it is marked as re-sent."""


def read_shopfloor(topic: str, payload: bytes) -> Reading:
    """Count a message of this agent, or of another that writes `{"values": {name: value}}`."""
    if not topic.endswith("/data"):
        return 0, None, False
    message = orjson.loads(payload)
    values = message["values"]
    high, middle, low = (values.get(name) for name in STAMP_TAGS)
    stamp = None if high is None or middle is None or low is None else high << 32 | middle << 16 | low
    return len(values), stamp, "replayed" in message


READERS: dict[str, Callable[[str, bytes], Reading]] = {"shopfloor": read_shopfloor}


class Tally:
    """What came since the last report."""

    def __init__(self) -> None:
        self.messages = self.values = self.bytes = self.resent = 0
        self.ages: list[float] = []
        self.first: float | None = None
        self.last: float | None = None

    def add(self, reading: Reading, size: int, now: float) -> None:
        """Count a message."""
        values, stamp, resent = reading
        if not values:
            return
        self.messages += 1
        self.bytes += size
        self.last = now
        if self.first is None:
            self.first = now
        if resent:
            self.resent += 1
            return
        self.values += values
        if stamp is not None:
            self.ages.append(now - stamp / 1e6)

    def report(self) -> dict[str, float | None]:
        """As JSON."""
        ages = sorted(self.ages)
        return {
            "messages": self.messages,
            "values": self.values,
            "bytes": self.bytes,
            "resent": self.resent,
            "first": self.first,
            "last": self.last,
            "age_p50": ages[len(ages) // 2] if ages else None,
            "age_p99": ages[min(len(ages) - 1, len(ages) * 99 // 100)] if ages else None,
            "age_max": ages[-1] if ages else None,
        }


class Client:
    """One connection to the broker."""

    def __init__(self, port: int, topics: str, read: Callable[[str, bytes], Reading]) -> None:
        self._read = read
        self._buffer = bytearray()
        self.subscribed = False
        self.tally = Tally()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = b"bench-subscriber"
        self._send(_CONNECT, b"\0\4MQTT\4\2\0\0" + len(name).to_bytes(2, "big") + name)
        self._send(_SUBSCRIBE, b"\0\1" + len(topics).to_bytes(2, "big") + topics.encode() + b"\1")

    def _send(self, kind: int, body: bytes) -> None:
        assert len(body) < 128
        self.socket.sendall(bytes((kind, len(body))) + body)

    def receive(self) -> None:
        """Take what came.

        Raises:
            EOFError: the broker closed the connection.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError("the broker closed the connection")
        now = time.monotonic()
        buffer = self._buffer
        buffer += data
        at = 0
        acks = bytearray()
        while (packet := self._packet(at)) is not None:
            start, end = packet
            kind = buffer[at]
            if kind >> 4 == _PUBLISH:
                acks += self._published(kind, start, end, now)
            elif kind == _SUBACK:
                self.subscribed = True
            at = end
        del buffer[:at]
        if acks:
            self.socket.sendall(acks)

    def _packet(self, at: int) -> tuple[int, int] | None:
        """Where the body of the packet at this place begins and ends; None while it is incomplete."""
        buffer = self._buffer
        size = shift = 0
        for place in range(at + 1, min(at + 5, len(buffer))):
            size |= (buffer[place] & 0x7F) << shift
            shift += 7
            if buffer[place] < 0x80:
                end = place + 1 + size
                return (place + 1, end) if end <= len(buffer) else None
        return None

    def _published(self, kind: int, start: int, end: int, now: float) -> bytes:
        buffer = self._buffer
        after = start + 2 + int.from_bytes(buffer[start : start + 2], "big")
        topic = buffer[start + 2 : after].decode()
        ack = b""
        if kind & 6:
            ack = bytes((_PUBACK, 2)) + buffer[after : after + 2]
            after += 2
        self.tally.add(self._read(topic, bytes(buffer[after:end])), end - after, now)
        return ack


def main() -> None:
    client = Client(int(sys.argv[1]), sys.argv[2], READERS[sys.argv[3]])
    while not client.subscribed:
        client.receive()
    print('{"ready": true}', flush=True)
    orders = sys.stdin.buffer
    poll = select.poll()
    poll.register(client.socket, select.POLLIN)
    poll.register(orders, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == client.socket.fileno():
                client.receive()
            elif orders.readline():
                print(json.dumps(client.tally.report()), flush=True)
                client.tally = Tally()
            else:
                return


if __name__ == "__main__":
    main()
