"""The floor: Modbus to MQTT in bare Python. No time-outs, no checks, no buffer, no reconnects: never use it for work.

    python -m tests.bench.floor BROKER_PORT TAGS INTERVAL PLC_PORT ...

The same requests of 125 registers, one after the other, the same message, one a device and interval, QoS 1.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from typing import cast

import orjson

from tests.bench.works import Work, tags_of


class Device(asyncio.Protocol):
    """Polls one PLC: the next request goes out in the callback that the last reply came in."""

    def __init__(self, name: str, tags: int, interval: float, broker: Broker) -> None:
        self._names = [tag.name for tag in tags_of(Work(devices=1, tags=tags))]
        self._topic = f"shopfloor/bench/gw/{name}/data".encode()
        self._head = {"v": 1, "ts": 0, "site": "bench", "gateway": "gw", "device": name, "group": "1s", "seq": 0}
        self._interval = interval
        self._broker = broker
        self._layout = struct.Struct(f">{tags}H")
        self._requests = [struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, at, min(125, tags - at)) for at in range(0, tags, 125)]
        self._replies: list[bytes] = []
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._poll()

    def _poll(self) -> None:
        self._replies = []
        self._transport.write(self._requests[0])

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if len(data) < 9 or len(data) < 9 + data[8]:
            self._rest = data
            return
        self._rest = b""
        self._replies.append(data[9:])
        if len(self._replies) < len(self._requests):
            self._transport.write(self._requests[len(self._replies)])
            return
        values = dict(zip(self._names, self._layout.unpack(b"".join(self._replies)), strict=True))
        self._head["seq"] = cast("int", self._head["seq"]) + 1
        self._head["ts"] = time.time_ns() // 1_000_000
        self._broker.publish(self._topic, orjson.dumps({**self._head, "values": values}))
        self._due = max(self._due + self._interval, self._loop.time())
        self._loop.call_at(self._due, self._poll)


class Broker(asyncio.Protocol):
    """Publishes; what is acknowledged is not looked at."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._mid = 0
        self._transport.write(b"\x10\x11\0\4MQTT\4\2\0\0\0\5floor")

    def publish(self, topic: bytes, payload: bytes) -> None:
        self._mid = self._mid % 0xFFFF + 1
        size = 4 + len(topic) + len(payload)
        length = bytearray()
        while size > 127:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        length.append(size)
        head = b"\x32" + length + len(topic).to_bytes(2, "big") + topic + self._mid.to_bytes(2, "big")
        self._transport.writelines((head, payload))


async def main() -> None:
    broker, tags, interval = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    loop = asyncio.get_running_loop()
    _, out = await loop.create_connection(Broker, "127.0.0.1", broker)
    for at, port in enumerate(sys.argv[4:]):
        device = Device(f"plc{at}", tags, interval, out)
        await loop.create_connection(lambda device=device: device, "127.0.0.1", int(port))  # type: ignore[misc]  # a default is typed as such
        await asyncio.sleep(interval / len(sys.argv[4:]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
