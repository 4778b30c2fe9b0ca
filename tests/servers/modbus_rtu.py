"""Real Modbus RTU servers (pymodbus) in a child process: on one end of a pair of pseudo terminals, or over TCP.

    with RtuServer(units=(1, 4)) as server:                     # RTU over TCP, as a serial server does it: server.url
    with Cable() as cable, RtuServer(cable.far) as server:      # a serial line: cable.near is the agent's end
        cable.unplug(); cable.plug_in()

What a server can be told is that of `tests.servers.modbus.ModbusServer`. `Cable` needs socat.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.servers.modbus import Child, ModbusServer, serve

needs_socat = pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
TCP = "tcp"


class Cable:
    """Two serial ports joined by socat: what is written to one is read from the other."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.near = str(Path(self._directory.name, "usb-FTDI-port0"))
        """Path of the agent's end, a symbolic link as in /dev/serial/by-id."""
        self.far = str(Path(self._directory.name, "far"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"serial://{self.near}"

    def plug_in(self) -> None:
        """Make the ports; returns when they are there."""
        self._process = subprocess.Popen(
            ["socat", f"pty,raw,echo=0,link={self.near}", f"pty,raw,echo=0,link={self.far}"], stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        while not (Path(self.near).exists() and Path(self.far).exists()):
            assert time.monotonic() < until, "socat makes no ports"
            time.sleep(0.005)

    def unplug(self) -> None:
        """Take the ports away."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)
            for path in (self.near, self.far):
                Path(path).unlink(missing_ok=True)

    def __enter__(self) -> Cable:
        self.plug_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()
        self._directory.cleanup()


class RtuServer(ModbusServer):
    """A server process that speaks RTU.

    Args:
        place: path of its serial port, or `TCP`.
        units: unit ids that answer; others do not exist on the line.
    """

    def __init__(self, place: str = TCP, units: Iterable[int] = (1,), port: int = 0) -> None:
        super().__init__(units, port)
        self.place = place

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"rtu+tcp://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return ["tests.servers.modbus_rtu", self.place, *map(str, self.units)]


class _RtuChild(Child):
    def __init__(self, place: str, units: Sequence[int]) -> None:
        super().__init__(units)
        self.place = place

    async def start(self, port: int) -> int:
        from pymodbus import FramerType
        from pymodbus.server import ModbusSerialServer, ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        if self.server is not None:
            return port
        unused = SimDevice(1, [SimData(0, count=1, values=0, datatype=DataType.REGISTERS)])
        options: dict[str, Any] = {
            "ignore_missing_devices": True,
            "trace_pdu": self._pdu,
            "trace_connect": self._connect,
        }
        if self.place == TCP:
            self.server = ModbusTcpServer(unused, framer=FramerType.RTU, address=("127.0.0.1", port), **options)
        else:
            self.server = ModbusSerialServer(
                unused, framer=FramerType.RTU, port=self.place, baudrate=115_200, **options
            )
        self.server.context = self
        await self.server.serve_forever(background=True)
        return self.server.transport.sockets[0].getsockname()[1] if self.place == TCP else 0

    async def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            transport = server.transport
            await server.shutdown()
            if self.place == TCP:
                await transport.wait_closed()

    async def async_getValues(self, unit: int, function: int, address: int, count: int) -> Any:  # noqa: N802
        from pymodbus.exceptions import NoSuchIdException

        if unit not in self.units:
            raise NoSuchIdException
        return await super().async_getValues(unit, function, address, count)


if __name__ == "__main__":
    asyncio.run(serve(_RtuChild(sys.argv[1], [int(unit) for unit in sys.argv[2:]])))
