"""A real Modbus TCP server (pymodbus) in a child process on a free loopback port, driven line by line over its stdin.

    with ModbusServer(units=(1, 4)) as server:
        server.set("holding", 0, [1, 2, 3])            # unit 1 unless said
        server.refuse("holding", 100, 101, code=2)     # a request that touches 100 gets exception 2
        server.delay(0.2, unit=4)                      # answers late
        server.stop(); server.start()                  # same port; clients are disconnected

Every unit has 65,536 addresses in each of the four areas, all zero. `freeze` stops the process (half-open connections),
`seen` tells which function codes arrived and how many connections stood at once. Starting takes about a second, `stop`
and `start` milliseconds: share one in a module fixture and call `reset` before each test.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.servers.child import ServerProcess, obey

READ = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}


@dataclass(frozen=True)
class Seen:
    """What arrived since the last `reset`.

    Attributes:
        functions: function code -> requests.
        requests: (unit, function, address, count), the newest last, at most 10,000.
        connections: made; `open` of them stand now, at most `peak` stood at once.
    """

    functions: dict[int, int]
    requests: list[tuple[int, int, int, int]]
    connections: int
    open: int
    peak: int


class ModbusServer(ServerProcess):
    """A server process.

    Args:
        units: unit ids that answer; others are refused with exception 11, as by a gateway.
        port: default a free one.
    """

    def __init__(self, units: Iterable[int] = (1,), port: int = 0) -> None:
        super().__init__()
        self.units = tuple(units)
        self.port = port

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"tcp://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Module and arguments of the child."""
        return ["tests.servers.modbus", *map(str, self.units)]

    def start(self) -> None:
        """Listen; the first time on a free port unless one was given, then on the same."""
        if self._process is None:
            self.spawn([sys.executable, "-m", *self.command()])
        self.port = self.call("start", port=self.port)

    def stop(self) -> None:
        """Disconnect all clients and stop listening; values stay."""
        self.call("stop")

    def reset(self) -> None:
        """Listen, with all values zero and nothing seen, refused or delayed; clients are disconnected."""
        self.call("reset")
        self.start()

    def set(self, area: str, offset: int, values: Sequence[int | bool], unit: int = 1) -> None:
        """Put values into registers (0..65535) or bits."""
        self.call("set", unit=unit, area=area, offset=offset, values=list(values))

    def set_struct(self, area: str, offset: int, layout: str, *values: float, unit: int = 1) -> None:
        """Put numbers into registers, as `struct` packs them."""
        data = struct.pack(layout, *values)
        self.set(area, offset, struct.unpack(f">{len(data) // 2}H", data), unit)

    def refuse(self, area: str, first: int, last: int, code: int, unit: int = 1) -> None:
        """Answer requests that touch first..last with an exception; code 0 = answer again."""
        self.call("refuse", unit=unit, area=area, first=first, last=last, code=code)

    def limit(self, count: int, *, mute: bool = False, unit: int = 1) -> None:
        """Refuse requests of more than so many registers or bits with exception 3, or do not answer them at all."""
        self.call("limit", unit=unit, count=count, mute=mute)

    def delay(self, seconds: float, unit: int = 1) -> None:
        """Answer so much later from now on. Only for less than the client's time-out: pymodbus's server puts the
        transaction of the newest request on every reply. For silence there is `mute`."""
        self.call("delay", unit=unit, seconds=seconds)

    def mute(self, silent: bool = True, unit: int = 1) -> None:
        """Do not answer from now on, or answer again."""
        self.call("mute", unit=unit, silent=silent)

    def seen(self) -> Seen:
        """What arrived."""
        found = self.call("seen")
        found["functions"] = {int(code): count for code, count in found["functions"].items()}
        found["requests"] = [tuple(request) for request in found["requests"]]
        return Seen(**found)


class Child:
    """The side of the child process: pymodbus's server over a store of our own.

    pymodbus's simulated devices give wrong bits from separate tables of coils (3.16), so they are not used.
    """

    def __init__(self, units: Sequence[int]) -> None:
        self.units = units
        self.server: Any = None
        self.forget()

    def forget(self) -> None:
        self.values = {(unit, code): [0] * 65536 for unit in self.units for code in READ.values()}
        self.refused: list[tuple[int, int, int, int, int]] = []
        self.delays: dict[int, float] = {}
        self.silent: set[int] = set()
        self.limits: dict[int, tuple[int, bool]] = {}
        self.functions: Counter[int] = Counter()
        self.requests: list[tuple[int, int, int, int]] = []
        self.connections = self.open = self.peak = 0

    async def start(self, port: int) -> int:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        if self.server is not None:
            return port
        unused = SimDevice(1, [SimData(0, count=1, values=0, datatype=DataType.REGISTERS)])
        self.server = ModbusTcpServer(
            unused,
            address=("127.0.0.1", port),
            ignore_missing_devices=True,
            trace_pdu=self._pdu,
            trace_connect=self._connect,
        )
        self.server.context = self
        await self.server.serve_forever(background=True)
        bound: int = self.server.transport.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            transport = server.transport
            await server.shutdown()
            await transport.wait_closed()

    async def reset(self) -> None:
        await self.stop()
        self.forget()

    async def set(self, unit: int, area: str, offset: int, values: list[int]) -> None:
        self.values[unit, READ[area]][offset : offset + len(values)] = values

    async def refuse(self, unit: int, area: str, first: int, last: int, code: int) -> None:
        self.refused = [rule for rule in self.refused if rule[:4] != (unit, READ[area], first, last)]
        if code:
            self.refused.append((unit, READ[area], first, last, code))

    async def limit(self, unit: int, count: int, mute: bool) -> None:
        self.limits[unit] = count, mute

    async def delay(self, unit: int, seconds: float) -> None:
        self.delays[unit] = seconds

    async def mute(self, unit: int, silent: bool) -> None:
        (self.silent.add if silent else self.silent.discard)(unit)

    async def seen(self) -> dict[str, Any]:
        return {
            "functions": self.functions,
            "requests": self.requests,
            "connections": self.connections,
            "open": self.open,
            "peak": self.peak,
        }

    async def async_getValues(self, unit: int, function: int, address: int, count: int) -> Any:  # noqa: N802
        """What pymodbus asks its data store."""
        from pymodbus.constants import ExcCodes
        from pymodbus.exceptions import NoSuchIdException

        if unit in self.silent:
            raise NoSuchIdException
        longest, mute = self.limits.get(unit, (count, False))
        if count > longest:
            if mute:
                raise NoSuchIdException
            return ExcCodes.ILLEGAL_VALUE
        if delay := self.delays.get(unit):
            await asyncio.sleep(delay)
        for its_unit, its_function, first, last, code in self.refused:
            if (its_unit, its_function) == (unit, function) and address <= last and first < address + count:
                return ExcCodes(code)
        table = self.values.get((unit, function))
        if table is None:
            return ExcCodes.GATEWAY_NO_RESPONSE
        found = table[address : address + count]
        return found if len(found) == count else ExcCodes.ILLEGAL_ADDRESS

    async def async_setValues(self, *_: Any) -> Any:  # noqa: N802
        """Writes are counted and refused: nobody may write."""
        from pymodbus.constants import ExcCodes

        return ExcCodes.ILLEGAL_FUNCTION

    def _pdu(self, sending: bool, pdu: Any) -> Any:
        if not sending:
            self.functions[pdu.function_code] += 1
            self.requests.append((pdu.dev_id, pdu.function_code, pdu.address, pdu.count))
            del self.requests[:-10_000]
        return pdu

    def _connect(self, connected: bool) -> None:
        self.connections += connected
        self.open += 1 if connected else -1
        self.peak = max(self.peak, self.open)


async def serve(child: Child) -> None:
    """Do what the parent says until it ends."""
    import logging

    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
    await obey(lambda do: getattr(child, do))


if __name__ == "__main__":
    asyncio.run(serve(Child([int(unit) for unit in sys.argv[1:]])))
