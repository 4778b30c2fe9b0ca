"""SIGTERM with a backlog of 10,000 messages: the end within 5 s, and what stands at the broker afterwards."""

from __future__ import annotations

import json
import time

from tests.daemon import STATUS_TOPIC, Daemon, fill_backlog, modbus, site
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness

BACKLOG = 10_000
MOST_S = 5.0


def run(options: Options) -> list[Claim]:
    """Run it."""
    claims = []
    with Witness(options.disk) as witness, ModbusServer() as plc:
        run = fill_backlog(options.disk / "data", BACKLOG)
        config = site(witness.broker.url, [modbus("press", plc.url)])
        for frozen, wanted in ((False, "stopped"), (True, "lost")):
            with Daemon(options.disk, config, volatile=options.memory) as daemon:
                daemon.wait_for("backlog_replay", within=40)
                time.sleep(1)
                if frozen:
                    witness.broker.freeze()
                began = time.monotonic()
                code = daemon.stop(20)
                took = time.monotonic() - began
                left = daemon.status()["counters"]["buffered"]
            witness.broker.thaw()
            time.sleep(0.5)
            state = json.loads(witness.retained(STATUS_TOPIC))["state"]
            claims.append(
                Claim(
                    f"ends in time and says `{wanted}`",
                    f"SIGTERM with {left} messages left" + (", broker frozen" if frozen else ""),
                    f"exit {code} after {took:.1f} s, status `{state}`",
                    (code, state) == (0, wanted) and took <= MOST_S,
                )
            )
        with Daemon(
            options.disk, site(witness.broker.url, [modbus("press", plc.url)], buffer={"replay_rate": 0})
        ) as last:
            last.wait_for("backlog_done", within=60)
            last.stop()
            counters = last.status()["counters"]
            ended = {run: BACKLOG, last.status()["agent"]["run"]: counters["produced"] - counters["carried_over"]}
        time.sleep(1)
        account = witness.settle(ended)
    print(account, flush=True)
    claims.append(
        Claim(
            "nothing of the backlog is lost",
            "all of it after the next start",
            f"{account.missing} missing of {account.messages}, {account.duplicates} duplicates",
            account.ok,
        )
    )
    return claims
