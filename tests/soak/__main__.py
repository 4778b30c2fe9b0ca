"""`python -m tests.soak [SCENARIO ...]`: run scenarios and print one table. Exit 1 if one fails.

Each runs in a process of its own, and what it claims is printed as soon as it ends.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.soak import processes
from tests.soak.claims import Claim, Options, table
from tests.soak.processes import Scenario

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
LONG = (
    "leak",
    "outage",
    "lines",
    "opcua",
    "crash",
    "login",
    "memory",
    "devices",
    "damage",
    "fuzz",
    "acceptance",
    "link",
)
"""What takes longest, the longest first: from two hours to ten minutes."""
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
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="scenarios beside each other: quicker, busier")
    parser.add_argument("--minutes", type=float, metavar="N", help="of runs that have a length")
    parser.add_argument("--cycles", type=int, metavar="N", help="of repeated faults")
    parser.add_argument("--seed", type=int, default=int(time.time()), metavar="N", help="of all randomness")
    parser.add_argument("--keep", action="store_true", help="keep the working directories, and say where they are")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    if arguments.jobs < 1:
        parser.error("--jobs: at least 1")
    print(
        f"{os.cpu_count()} cores, {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB, "
        f"{platform.platform()}, Python {platform.python_version()}, seed {arguments.seed}",
        flush=True,
    )
    names = list(dict.fromkeys(arguments.scenarios or SCENARIOS))
    if arguments.jobs > 1:  # the long ones first: else the last of them runs alone
        names.sort(key=lambda name: LONG.index(name) if name in LONG else len(LONG))
    done: dict[str, list[Claim]] = {}

    def ended(scenario: Scenario, claims: list[Claim], seconds: float) -> None:
        done[scenario.name] = claims
        failed = sum(claim.passed is False for claim in claims)
        print(f"{table(claims)}\n{scenario.name}: {seconds:.0f} s, {failed} failed", flush=True)
        _tidy(scenario, keep=arguments.keep)

    scenarios = [_scenario(name, arguments) for name in names]
    try:
        processes.run(scenarios, arguments.jobs, _begun, ended)
    except KeyboardInterrupt:
        for scenario in scenarios:
            if scenario.name not in done:
                _tidy(scenario, keep=arguments.keep)
        print(f"\ninterrupted: {len(names) - len(done)} of {len(names)} scenarios have no result")
    claims = [claim for name in SCENARIOS for claim in done.get(name, ())]
    print(f"\n{table(claims)}")
    return int(len(done) < len(names) or any(claim.passed is False for claim in claims))


def _scenario(name: str, arguments: argparse.Namespace) -> Scenario:
    disk = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
    memory = Path(tempfile.mkdtemp(prefix=f"soak-{name}-", dir=MEMORY))
    options = Options(disk, memory, arguments.seed, arguments.short, arguments.minutes, arguments.cycles)
    return Scenario(name, f"tests.soak.{name}", SCENARIOS[name], options)


def _begun(scenario: Scenario) -> None:
    print(f"\n{scenario.name}: {scenario.what}", flush=True)


def _tidy(scenario: Scenario, *, keep: bool) -> None:
    for directory in (scenario.options.disk, scenario.options.memory):
        if keep:
            print(f"kept: {directory}", flush=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
