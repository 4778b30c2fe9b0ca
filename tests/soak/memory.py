"""Ten million readings wait, and the kernel kills the agent for lack of memory: it starts again as if none did.

100,000 messages of 100 readings, in a memory group of 80 MB (cgroup v1 or v2; needs root).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collectors.api import Value
from tests.daemon import Daemon, eventually, fill_backlog, modbus, site
from tests.ledger import numbered
from tests.servers.modbus import ModbusServer
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness, megabytes, usage

READINGS_EACH = 100
LIMIT = 80_000_000
START_S = 5.0
IN_GROUP = """
import os, sys
with open("/proc/self/oom_score_adj", "w") as score:
    score.write("1000")
with open(f"{sys.argv[1]}/cgroup.procs", "w") as group:
    group.write("0")
os.execv(sys.executable, [sys.executable, "-m", "agent", *sys.argv[2:]])
"""
"""A launcher (`-c`): the daemon in a memory group, and the one that the kernel ends there."""
EATER = """
import sys
with open(f"{sys.argv[1]}/cgroup.procs", "w") as group:
    group.write("0")
eaten = []
print("ready", flush=True)
sys.stdin.readline()
for _ in range(75):
    eaten.append(b"x" * 1_000_000)
sys.stdin.readline()
"""
"""Takes what memory the group has."""


def run(options: Options) -> list[Claim]:
    """Run it."""
    messages = options.times(100_000, 5_000)
    began = time.monotonic()
    run = fill_backlog(options.disk / "data", messages, _values, max_size=2_000_000_000)
    size = sum(path.stat().st_size for path in (options.disk / "data").iterdir())
    print(f"filled in {time.monotonic() - began:.0f} s: {megabytes(size)}", flush=True)
    with _group() as group, Witness(options.disk) as witness, ModbusServer() as plc:
        if group is None:
            return [Claim("killed for lack of memory", "skipped: needs a memory cgroup of its own", "")]
        buffer = {"max_size": "2 GB", "replay_rate": 0}
        config = site(witness.broker.url, [modbus("press", plc.url)], buffer=buffer)
        daemon = Daemon(options.disk, config, launcher=("-c", IN_GROUP, str(group)), volatile=options.memory)
        witness.broker.stop()  # the backlog shall still be there for the second start
        try:
            starts = [_start(daemon)]
            witness.broker.start()
            daemon.wait_for("broker_connected", within=20)
            time.sleep(1)
            code = _starve(daemon, group)
            starts.append(_start(daemon))
            daemon.wait_for("backlog_replay", within=60)
            left, began = daemon.events("backlog_replay")[-1]["messages"], time.monotonic()
            daemon.wait_for("backlog_done", within=600)
            took = time.monotonic() - began
            peak = usage(daemon.pid).peak_rss
            daemon.stop()
        finally:
            daemon.kill()
        status = daemon.status()
        time.sleep(2)
        account = witness.settle({run: messages, **numbered(status)})
    print(account, flush=True)
    readings = f"{messages * READINGS_EACH / 1e6:g} million readings waiting ({megabytes(size)})"
    return [
        Claim(
            "starts at once, however much waits",
            f"{readings}, a memory group of {megabytes(LIMIT)}",
            f"ready after {starts[0][0]:.1f} and {starts[1][0]:.1f} s, {starts[1][1]:.1f} s of a CPU; "
            f"peak RSS of the whole replay {megabytes(peak)}",
            max(seconds for seconds, _ in starts) <= START_S and peak <= LIMIT,
        ),
        Claim(
            "nothing is lost when the kernel kills it",
            "out of memory in the first seconds of the replay, then all of it",
            f"exit {code}; {account.missing} missing of {account.messages}, {account.duplicates} duplicates; "
            f"{left} left replayed in {took:.0f} s",
            code == -signal.SIGKILL and account.ok and account.crashes == 1,
        ),
    ]


def _start(daemon: Daemon) -> tuple[float, float]:
    """Start it; seconds until it says that it is ready, and seconds of a CPU."""
    ready = len(daemon.events("agent_ready"))
    began = time.monotonic()
    daemon.launch()
    daemon.wait_for("agent_ready", within=30, count=ready + 1)
    return time.monotonic() - began, usage(daemon.pid).cpu_s


def _values(number: int) -> dict[str, Value]:
    return {f"t{at}": (number * 31 + at * at) % 65536 for at in range(READINGS_EACH)}


@contextmanager
def _group() -> Iterator[Path | None]:
    """A memory group of its own with the limit; None where none can be made."""
    group = None
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        found = Path(parent, f"shopfloor-soak-{os.getpid()}")
        with contextlib.suppress(OSError):
            found.mkdir()
            if (found / limit).exists():
                (found / limit).write_text(str(LIMIT))
                group = found
                break
            found.rmdir()
    try:
        yield group
    finally:
        if group is not None:
            eventually(lambda: not (group / "cgroup.procs").read_text(), "an empty memory group")
            group.rmdir()


def _starve(daemon: Daemon, group: Path) -> int:
    """Take memory until the kernel kills the daemon; its exit code."""
    assert daemon.process is not None
    eater = subprocess.Popen(
        [sys.executable, "-c", EATER, str(group)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert eater.stdin is not None
    assert eater.stdout is not None
    try:
        eater.stdout.readline()
        eater.stdin.write("\n")
        eater.stdin.flush()
        return daemon.process.wait(30)
    finally:
        eater.kill()
        eater.wait()
        eater.stdin.close()
        eater.stdout.close()
