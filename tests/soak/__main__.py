"""`python -m tests.soak [SCENARIO ...]`: run scenarios one after the other and print one table. Exit 1 if one fails."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from tests.soak.claims import Claim, Options, table

SCENARIOS = {
    "acceptance": "ten minutes of the whole job, with trouble",
    "crash": "kill -9 at random moments",
    "powercut": "power cuts below SQLite",
    "damage": "databases damaged while the agent was off",
    "disk": "syncs that fail or take 200 ms, a read-only and a broken file system",
    "diskfull": "a neighbour fills the disk during an outage: tmpfs and ext4",
    "memory": "ten million readings wait, and the kernel kills for lack of memory",
    "stop": "SIGTERM with a backlog of 10,000 messages, broker up and frozen",
    "terminate": "SIGTERM at random moments",
    "watchdog": "a hanging process, and a hanging disk",
    "uptime": "a monotonic clock of 400 days, and where counters overflow",
    "reload": "forty broken configurations",
    "outage": "ten million readings wait for the broker; a slow broker",
    "link": "the link to the broker cut at each of the first 200 bytes, sliced, half-open",
    "login": "refused logins, certificates not to be trusted, replaced files, a twin",
    "limits": "Receive Maximum 1, packets too large, topics denied",
    "clocks": "the wall clock steps, starts in 1970, cannot be asked",
    "devices": "one mute of fifty, 5,000 bad tags, a thousand reconnects",
    "lines": "dead units, reloads, unplugging, another master, modems that dial in, hostile Modbus peers: 40 minutes",
    "opcua": "servers that restart, fall silent, change certificates; 5,000 values a second; another make",
    "readplan": "requests and wire time of a poll, and simulated odd devices (computed)",
    "canaries": "secrets in every place where one can be given",
    "fuzz": "a coverage-guided fuzzer on all that comes from outside",
    "footprint": "memory, imports and start of a Modbus-only daemon",
    "leak": "two hours at twenty times the load, a fault every 30 s: memory, descriptors, threads, tasks",
}
SHORT = (
    "crash",
    "lines",
    "login",
    "opcua",
    "reload",
)
"""What `make test` runs in the short form: together at most 90 s."""
MEMORY = Path("/dev/shm")  # what a gateway keeps in /run


def main() -> int:
    """Run what the command line names; all of it by default."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="scenarios:\n" + "\n".join(f"  {name:12}{text}" for name, text in SCENARIOS.items()),
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="default: all")
    parser.add_argument("--short", action="store_true", help="a few seconds of each, as `make test` does")
    parser.add_argument("--minutes", type=float, metavar="N", help="of runs that have a length")
    parser.add_argument("--cycles", type=int, metavar="N", help="of repeated faults")
    parser.add_argument("--seed", type=int, default=int(time.time()), metavar="N", help="of all randomness")
    parser.add_argument("--keep", action="store_true", help="keep the working directories, and say where they are")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    print(
        f"{os.cpu_count()} cores, {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB, "
        f"{platform.platform()}, Python {platform.python_version()}, seed {arguments.seed}",
        flush=True,
    )
    claims: list[Claim] = []
    for name in arguments.scenarios or SCENARIOS:
        claims += _scenario(name, arguments)
    print(f"\n{table(claims)}")
    return int(any(claim.passed is False for claim in claims))


def _scenario(name: str, arguments: argparse.Namespace) -> list[Claim]:
    disk = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
    memory = Path(tempfile.mkdtemp(prefix=f"soak-{name}-", dir=MEMORY))
    options = Options(disk, memory, arguments.seed, arguments.short, arguments.minutes, arguments.cycles)
    print(f"\n{name}: {SCENARIOS[name]}", flush=True)
    began = time.monotonic()
    try:
        claims: list[Claim] = import_module(f"tests.soak.{name}").run(options)
    except AssertionError as error:  # what was waited for did not come: a result, and the others go on
        claims = [Claim(name, SCENARIOS[name], str(error).splitlines()[0], passed=False)]
    print(f"{time.monotonic() - began:.0f} s, {sum(claim.passed is False for claim in claims)} failed", flush=True)
    if arguments.keep:
        print(f"kept: {disk} {memory}", flush=True)
    else:
        shutil.rmtree(disk, ignore_errors=True)
        shutil.rmtree(memory, ignore_errors=True)
    return claims


if __name__ == "__main__":
    sys.exit(main())
