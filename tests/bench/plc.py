"""Simulated PLCs: one process, one port for each, as cheap as Python allows (one epoll, no object per request).

    python -m tests.bench.plc DEVICES KIND TAGS

Prints the ports as a JSON list and answers reads of holding registers until standard input closes. Every millisecond
all registers have other values; registers 0 to 2 carry the time of the answer (see `works`).
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from tests.bench.works import IMAGES, REGISTERS, images

_REQUEST = 12
_READ = b"\x03"
_ILLEGAL_ADDRESS = 2


class Plant:
    """All the PLCs."""

    def __init__(self, devices: int, states: list[bytes]) -> None:
        self._states = states
        self._listeners: dict[int, socket.socket] = {}
        self._connections: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        self._epoll = select.epoll()
        for _ in range(devices):
            listener = socket.create_server(("127.0.0.1", 0))
            self._listeners[listener.fileno()] = listener
            self._epoll.register(listener, select.EPOLLIN)

    @property
    def ports(self) -> list[int]:
        """Where the PLCs listen."""
        return [int(listener.getsockname()[1]) for listener in self._listeners.values()]

    def serve(self, until: int) -> None:
        """Answer until something comes in (or ends) on this file descriptor."""
        self._epoll.register(until, select.EPOLLIN | select.EPOLLHUP)
        while True:
            for descriptor, _ in self._epoll.poll():
                connection = self._connections.get(descriptor)
                if connection is not None:
                    self._answer(descriptor, connection)
                elif descriptor in self._listeners:
                    self._accept(self._listeners[descriptor])
                else:
                    return

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection, select.EPOLLIN)

    def _answer(self, descriptor: int, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._epoll.unregister(descriptor)
            del self._connections[descriptor]
            self._rest.pop(descriptor, None)
            connection.close()
            return
        if self._rest:
            data = self._rest.pop(descriptor, b"") + data
        replies = []
        while len(data) >= _REQUEST:
            replies.append(self._reply(data))
            data = data[_REQUEST:]
        if data:
            self._rest[descriptor] = data
        connection.sendall(b"".join(replies))

    def _reply(self, request: bytes) -> bytes:
        offset = request[8] << 8 | request[9]
        count = request[10] << 8 | request[11]
        if request[7:8] != _READ or offset + count > REGISTERS:
            return request[:5] + bytes((3, request[6], request[7] | 0x80, _ILLEGAL_ADDRESS))
        now = time.monotonic_ns() // 1000
        data = self._states[now // 1000 % IMAGES][2 * offset : 2 * (offset + count)]
        if offset == 0:
            data = (now & 0xFFFF_FFFF_FFFF).to_bytes(6, "big")[: 2 * count] + data[6:]
        return request[:4] + (2 * count + 3).to_bytes(2, "big") + request[6:8] + bytes((2 * count,)) + data


def main() -> None:
    devices, kind, tags = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    plant = Plant(devices, images("mixed" if kind == "mixed" else "uint16", tags))
    print(json.dumps(plant.ports), flush=True)
    plant.serve(sys.stdin.fileno())


if __name__ == "__main__":
    main()
