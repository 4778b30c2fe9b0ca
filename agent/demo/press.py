"""A simulated press: a Modbus TCP server that behaves like a small PLC. `python -m agent.demo.press PORT PARENT_PID`.

`Press` is the machine (pure: time only through `advance`), `registers` lays it out as a PLC would, `serve` answers
requests on the loopback. Read-only: writes are refused with exception 1. How it is read: `agent/demo/configuration.py`.
May import: pymodbus (inside `serve`), `agent.demo.leash`.
"""

from __future__ import annotations

import asyncio
import random
import struct
import sys
from dataclasses import dataclass, field

from agent.demo.leash import tie

UNIT_ID = 1
IDLE, RUNNING, FAULT = 0, 1, 2

TEMPERATURE, FAULT_WORD, STATE, STROKES, PARTS, LOT = 0, 9, 30, 31, 100, 200  # holding registers, 0-based
FAULT_BIT = 10
PRESSURE = 7  # input register: tenths of a bar
RUNNING_COIL = 0

_LOT_REGISTERS = 8
_STEP_S = 0.1
_FIRST_RUN_S = 20.0  # long enough that a short demo sees a machine that runs
_STROKES_PER_MIN = 48.0
_AMBIENT_C, _WORKING_C = 24.0, 64.0
_WARMING_S, _COOLING_S = 35.0, 120.0


@dataclass(slots=True)
class Press:
    """One press. It runs for half a minute or so, trips, is reset, waits for material, runs again.

    Attributes:
        parts: good parts since the machine was built; never falls.
        temperature: of the tool, degrees Celsius; follows the state with the inertia of a block of steel.
        pressure: hydraulic, bar.
        strokes: per minute, 0 unless it runs.
    """

    seed: int = 3
    state: int = RUNNING
    parts: int = 48_211
    temperature: float = 52.0
    pressure: float = 118.0
    strokes: float = _STROKES_PER_MIN
    _left: float = field(default=_FIRST_RUN_S, init=False)
    _stroke: float = field(default=0.0, init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @property
    def running(self) -> bool:
        """Whether it makes parts."""
        return self.state == RUNNING

    @property
    def lot(self) -> str:
        """The lot on the machine; a new one every 500 parts."""
        return f"批次{self.parts // 500:06d}"

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self._left -= seconds
        if self._left <= 0:
            self._next_state()
        self._move(seconds)

    def _next_state(self) -> None:
        draw = self._random
        if self.state == RUNNING:
            self.state = FAULT if draw.random() < 0.6 else IDLE
            self._left = draw.uniform(4, 7)
        elif self.state == FAULT:
            self.state, self._left = IDLE, draw.uniform(2, 4)
        else:
            self.state, self._left = RUNNING, draw.uniform(25, 45)

    def _move(self, seconds: float) -> None:
        draw = self._random
        self.strokes = max(0.0, draw.gauss(_STROKES_PER_MIN, 0.7)) if self.running else 0.0
        self._stroke += self.strokes / 60 * seconds
        if self._stroke >= 1:
            self._stroke -= 1
            self.parts += 1
        goal, inertia = (_WORKING_C, _WARMING_S) if self.running else (_AMBIENT_C, _COOLING_S)
        self.temperature += (goal - self.temperature) * seconds / inertia + draw.gauss(0, 0.03)
        pressing = 118.0 + 14.0 * (self._stroke > 0.7) if self.running else 42.0
        self.pressure += (pressing - self.pressure) * min(1.0, seconds / 0.4) + draw.gauss(0, 0.15)


def registers(press: Press) -> tuple[bool, dict[int, list[int]], dict[int, list[int]]]:
    """The machine as its PLC lays it out: running coil, blocks of holding registers, blocks of input registers.

    The temperature is big-endian (ABCD), the words of the parts are swapped (CDAB), the lot is GBK: as in the field.
    """
    high, low = divmod(press.parts, 0x10000)
    lot = press.lot.encode("gbk").ljust(2 * _LOT_REGISTERS, b"\0")[: 2 * _LOT_REGISTERS]
    holding = {
        TEMPERATURE: list(struct.unpack(">HH", struct.pack(">f", round(press.temperature, 1)))),
        FAULT_WORD: [(press.state == FAULT) << FAULT_BIT],
        STATE: [press.state, round(press.strokes)],
        PARTS: [low, high],
        LOT: list(struct.unpack(f">{_LOT_REGISTERS}H", lot)),
    }
    return press.running, holding, {PRESSURE: [round(press.pressure * 10)]}


async def serve(port: int) -> None:
    """Answer on this port of the loopback until cancelled; prints `ready` when it does.

    Raises:
        OSError, RuntimeError: the port is taken.
    """
    from pymodbus.constants import ExcCodes
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    async def refuse_writes(code: int, _start: int, _at: int, _n: int, _now: list[int], new: object) -> ExcCodes | None:
        # The simulation itself enters its values under the codes of reading.
        return ExcCodes.ILLEGAL_FUNCTION if new is not None and code > 4 else None

    def bits() -> list[SimData]:
        return [SimData(0, values=[False] * 16, datatype=DataType.BITS)]

    def words(count: int) -> list[SimData]:
        return [SimData(0, values=[0] * count, datatype=DataType.REGISTERS)]

    device = SimDevice(UNIT_ID, simdata=(bits(), bits(), words(256), words(16)), action=refuse_writes)
    server = ModbusTcpServer([device], address=("127.0.0.1", port))
    press = Press()

    async def show() -> None:
        running, holding, inputs = registers(press)
        await server.async_setValues(UNIT_ID, 1, RUNNING_COIL, [running])
        for address, block in holding.items():
            await server.async_setValues(UNIT_ID, 3, address, block)
        for address, block in inputs.items():
            await server.async_setValues(UNIT_ID, 4, address, block)

    await show()
    await server.serve_forever(background=True)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    now = loop.time()
    while True:
        await asyncio.sleep(_STEP_S)
        now, before = loop.time(), now
        press.advance(now - before)
        await show()


def main() -> None:
    """Run the press as a child of the process in the arguments."""
    tie(int(sys.argv[2]))
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
