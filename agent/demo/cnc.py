"""A simulated machine tool: an OPC UA server such as a CNC brings. `python -m agent.demo.cnc PORT PARENT_PID`.

`Cnc` is the machine (pure: time only through `advance`), `serve` shows it on the loopback, without security, as
variables that clients cannot write. Only what changes is written, so subscribers are told of changes alone.
May import: asyncua (inside `serve`), `agent.demo.leash`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from agent.demo.leash import tie

NAMESPACE = "http://demo.shopfloor.example/cnc"
NODES = {
    "spindle_speed": '"Spindle"."Speed"',
    "spindle_load": '"Spindle"."Load"',
    "feed": '"Axes"."Feed"',
    "program": '"Program"."Name"',
    "parts": '"Program"."Parts"',
    "running": '"Machine"."Running"',
    "alarm": '"Machine"."Alarm"',
}
"""Name -> string identifier of its variable in `NAMESPACE`, spelt as the controllers of one big maker do."""

_PROGRAMS = ("O1204 法兰粗车", "O1205 法兰精车", "O2210 轴承座")
_ALARMS = ("", "1041 冷却液液位低", "", "2007 刀具寿命将到")
_STEP_S = 0.25
_CUT_S, _CHANGE_S = 9.0, 2.5

Phase = Literal["cutting", "changing"]


@dataclass(slots=True)
class Cnc:
    """One machine tool: it cuts a part, changes the workpiece, cuts the next; every fifth part the program changes."""

    seed: int = 7
    parts: int = 1_284
    spindle_speed: float = 0.0
    feed: float = 0.0
    phase: Phase = "cutting"
    _elapsed: float = field(default=0.0, init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self._elapsed += seconds
        if self.phase == "cutting" and self._elapsed >= _CUT_S:
            self.phase, self._elapsed = "changing", 0.0
            self.parts += 1
        elif self.phase == "changing" and self._elapsed >= _CHANGE_S:
            self.phase, self._elapsed = "cutting", 0.0
        cutting = self.phase == "cutting"
        speed, feed = (3_200.0, 840.0) if cutting else (0.0, 0.0)
        self.spindle_speed += (speed - self.spindle_speed) * min(1.0, seconds / 0.6)
        self.feed += (feed - self.feed) * min(1.0, seconds / 0.3)
        if cutting:
            self.spindle_speed += self._random.gauss(0, 6)
            self.feed += self._random.gauss(0, 4)

    def values(self) -> dict[str, float | int | str | bool]:
        """What the controller shows, by name of `NODES`."""
        load = 4.0 + self.feed / 840 * 38 if self.phase == "cutting" else 2.0
        return {
            "spindle_speed": float(max(0, round(self.spindle_speed))),
            "spindle_load": round(load, 1),
            "feed": float(max(0, round(self.feed))),
            "program": _PROGRAMS[self.parts // 5 % len(_PROGRAMS)],
            "parts": self.parts,
            "running": self.phase == "cutting",
            "alarm": _ALARMS[self.parts // 2 % len(_ALARMS)],
        }


async def serve(port: int) -> None:
    """Answer on this port of the loopback until cancelled; prints `ready` when it does.

    Raises:
        OSError: the port is taken.
    """
    from asyncua import Server, ua

    def variant(value: float | int | str | bool) -> ua.Variant:
        return ua.Variant(value, ua.VariantType.UInt32 if type(value) is int else None)

    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/")
    server.set_server_name("Simulated CNC")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    machine = await server.nodes.objects.add_object(ua.NodeId("CNC", index), ua.QualifiedName("CNC", index))
    cnc = Cnc()
    shown = cnc.values()
    variables = {
        name: await machine.add_variable(
            ua.NodeId(identifier, index), ua.QualifiedName(name, index), variant(shown[name])
        )
        for name, identifier in NODES.items()
    }
    async with server:
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        now = loop.time()
        while True:
            await asyncio.sleep(_STEP_S)
            now, before = loop.time(), now
            cnc.advance(now - before)
            scanned = datetime.now(UTC)  # a controller stamps all that it saw in one scan alike
            for name, value in cnc.values().items():
                if value != shown[name]:
                    shown[name] = value
                    stamped = ua.DataValue(variant(value), SourceTimestamp=scanned, ServerTimestamp=scanned)
                    await variables[name].write_value(stamped)


def main() -> None:
    """Run the machine as a child of the process in the arguments."""
    tie(int(sys.argv[2]))
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
