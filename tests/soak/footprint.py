"""What a Modbus-only daemon takes: memory, imports, and the time from its start to the first message."""

from __future__ import annotations

import time

from tests.daemon import TELL_MODULES, Daemon, data_topic, eventually, modbus, site
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness, megabytes, usage

TAGS = 1000
SETTLE_S = 30.0
STARTS = 5
FIRST_S = 5.0
UNWANTED = {"asyncua", "amqtt", "psutil", "cryptography", "numpy"}


def run(options: Options) -> list[Claim]:
    """Run it."""
    with Witness(options.disk) as witness, ModbusServer() as plc:
        config = site(witness.broker.url, [modbus("plc", plc.url, TAGS, interval="1 s")])
        starts = []
        for _ in range(STARTS):
            before = _count(witness)
            began = time.time()
            daemon = Daemon(options.disk, config, volatile=options.memory)
            daemon.launch()
            eventually(lambda before=before: _count(witness) > before, "a first message")  # type: ignore[misc]
            starts.append([at for at, topic, _ in witness.arrivals() if topic == data_topic("plc")][before] - began)
            daemon.stop()
        with Daemon(options.disk, config, launcher=("-c", TELL_MODULES), volatile=options.memory) as daemon:
            time.sleep(SETTLE_S)
            used = usage(daemon.pid)
            daemon.stop()
            names = set(daemon.wait_for("modules")["names"])
    starts.sort()
    return [
        Claim(
            "small",
            f"Modbus only, {TAGS} tags at 1 s, after {SETTLE_S:.0f} s",
            f"RSS {megabytes(used.rss)}, peak {megabytes(used.peak_rss)}, CPU {used.cpu_s:.1f} s with the start",
        ),
        Claim(
            "loads what it needs",
            "sys.modules at the end",
            f"{len(names)} top-level modules; unwanted: {', '.join(sorted(names & UNWANTED)) or 'none'}",
            not names & UNWANTED,
        ),
        Claim(
            "starts fast",
            f"{STARTS} starts, exec to the first message at a subscriber",
            f"median {starts[STARTS // 2]:.2f} s, at most {starts[-1]:.2f} s",
            starts[-1] < FIRST_S,
        ),
    ]


def _count(witness: Witness) -> int:
    return sum(topic == data_topic("plc") for _, topic, _ in witness.arrivals())
