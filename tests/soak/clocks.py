"""The wall clock goes wrong: steps back an hour and forward a day, a start in 1970 that is corrected or never is, and
the question whether it is synchronised where the unit keeps the agent from asking the kernel.

The PLC answers with the machine's monotonic time, so that the truth about every reading is in the reading. libfaketime
lies to the daemon about the wall clock alone. A label tells when the answer came: on a busy machine that is later than
the PLC gave it, so beside the daemon runs a thread that does nothing but wake up, and by how much it overslept around a
reading is the machine's share of that reading's error.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.works import STAMP_TAGS
from tests.daemon import ROOT, Daemon, data_topic, eventually, modbus, site
from tests.soak.beside import Beside
from tests.soak.claims import Claim, Options
from tests.soak.plant import Witness

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
INTERVAL_S = 1.0
HOUR_S, DAY_S = 3600.0, 86_400.0
MOST_OFF_MS = 100.0
_EARLY_MS = 10.0
_NEAR_S, _WAKE_S = 0.3, 0.02
HOLD_S = 120.0
LOOKED_AT_EVERY_S = 20.0
"""A clock that is set right again sooner may go untold."""
EARLIEST_MS = datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000

HARDENED = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def done(answer):
    if answer: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
done(libc.unshare(0x20000))  # CLONE_NEWNS
done(libc.mount(b"none", b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
done(libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None))
os.makedirs("/run/systemd/timesync")
numbers = {"x86_64": (159, 227, 305), "aarch64": (171, 112, 266)}[os.uname().machine]
rules = [(0x20, 0, 0, 0)]  # load the number of the system call
rules += [(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
rules += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)]  # allow, EPERM
code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
done(libc.prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS
done(libc.prctl(22, 2, ctypes.byref(Program(len(rules), code)), 0, 0))  # PR_SET_SECCOMP, a filter
from agent.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""A launcher (`-c`): what ProtectClock= does (adjtimex, clock_settime and clock_adjtime are refused with EPERM), and a
/run of its own in which timesyncd runs and is not yet synchronised."""


@dataclass(frozen=True)
class Reading:
    """One message: when it was sampled (truth, epoch ms), what it says, when it arrived, and its mark."""

    truth: float
    ts: int
    arrived: float
    seq: int
    clock: str | None
    stalled_ms: float
    """What the machine was late by around it."""

    def within(self, off_ms: float) -> bool:
        """Whether a label this far off is right; one before the answer was given never is."""
        return -_EARLY_MS <= off_ms <= MOST_OFF_MS + self.stalled_ms


class Stalls(Beside):
    """How late the machine wakes up who sleeps, while it is open."""

    def __init__(self) -> None:
        super().__init__(self._watch)
        self._late: list[tuple[float, float]] = []

    def near(self, at: float) -> float:
        """Milliseconds overslept within `_NEAR_S` of this monotonic instant; a few are nothing."""
        return sum(late for when, late in self._late if abs(when - at) <= _NEAR_S) * 1000

    def _watch(self, end: threading.Event) -> None:
        due = time.monotonic() + _WAKE_S
        while not end.wait(max(0.0, due - time.monotonic())):
            late = time.monotonic() - due
            if late > _WAKE_S:
                self._late.append((due, late))
            due = time.monotonic() + _WAKE_S


def run(options: Options) -> list[Claim]:
    """Run it."""
    if FAKETIME is None:
        raise AssertionError("libfaketime is not installed: apt-get install faketime")
    claims = _steps(options) + _boot_in_1970(options)
    if not options.short:
        claims += _never_corrected(options) + _hardened(options)
    return claims


class Bench:
    """Broker, listener, a PLC that tells the time, and a daemon whose wall clock can be set."""

    def __init__(self, witness: Witness, daemon: Daemon, lie: Path, stalls: Stalls) -> None:
        self.witness, self.daemon = witness, daemon
        self._stalls = stalls
        self._lie = lie

    def lie(self, offset_s: float) -> None:
        """Let the daemon's wall clock be off by so much."""
        _lie(self._lie, offset_s)

    def readings(self) -> list[Reading]:
        """All that arrived so far."""
        # Read again and again: the machine may take the processor away between the two, which makes it smaller.
        offset_ms = max(time.time() - time.monotonic() for _ in range(100)) * 1000
        found = []
        for at, topic, payload in self.witness.arrivals():
            message = json.loads(payload)
            if topic == data_topic("plc") and all(message["values"].get(tag) is not None for tag in STAMP_TAGS):
                high, middle, low = (message["values"][tag] for tag in STAMP_TAGS)
                answered = (high << 32 | middle << 16 | low) / 1e6
                stalled = self._stalls.near(answered)
                truth = offset_ms + answered * 1000
                found.append(Reading(truth, message["ts"], at, message["seq"], message.get("clock"), stalled))
        return found

    def end(self) -> tuple[dict[str, Any], bool]:
        """Stop; the last status, and whether the ledger found all in order."""
        self.daemon.stop()
        status = self.daemon.status()
        time.sleep(0.5)
        account = self.witness.settle({status["agent"]["run"]: status["counters"]["produced"]})
        print(account, flush=True)
        return status, account.ok and account.messages == status["counters"]["produced"]


def _lie(path: Path, offset_s: float) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{offset_s:+.3f}")
    fresh.replace(path)


@contextmanager
def _bench(
    options: Options, name: str, offset_s: float = 0.0, launcher: Sequence[str] = ("-m", "agent")
) -> Iterator[Bench]:
    disk, memory = options.disk / name, options.memory / name
    disk.mkdir()
    memory.mkdir()
    lie = memory / "clock"
    _lie(lie, offset_s)
    environment: Mapping[str, str] = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(lie),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [sys.executable, "-m", "tests.bench.plc", "1", "uint16", "10"]
    with (
        Witness(disk) as witness,
        Stalls() as stalls,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as plc,
    ):
        try:
            assert plc.stdout is not None
            (port,) = json.loads(plc.stdout.readline())
            config = site(witness.broker.url, [modbus("plc", f"tcp://127.0.0.1:{port}", 10, interval="1 s")])
            daemon = Daemon(disk, config, environment=environment, launcher=launcher, volatile=memory)
            with daemon:
                yield Bench(witness, daemon, lie, stalls)
        finally:
            plc.kill()
    shutil.rmtree(disk, ignore_errors=True)


def _steps(options: Options) -> list[Claim]:
    """Back an hour, forward a day, and right again."""
    each = options.lasting(1.0, 0.1) * 60
    offsets = (0.0, -HOUR_S, DAY_S, 0.0)
    with _bench(options, "steps") as bench:
        eventually(bench.readings, "a first reading")
        changes = []
        for offset in offsets:
            bench.lie(offset)
            changes.append(time.time())
            time.sleep(each)
        told = [round(event["stepped_ms"] / 1000) for event in bench.daemon.events("clock_stepped")]
        status, whole = bench.end()
        readings = bench.readings()
    off, unsettled, right = [], 0, True
    for reading in readings:
        since = [at for at in changes if at * 1000 <= reading.truth]
        if any(abs(reading.truth - at * 1000) < 100 for at in changes):
            unsettled += 1  # sampled while the clock was being set
        else:
            off.append(reading.ts - reading.truth - offsets[max(0, len(since) - 1)] * 1000)
            right = right and reading.within(off[-1])
    ordered = [reading.truth for reading in sorted(readings, key=lambda reading: reading.seq)]
    spans = [later - earlier for earlier, later in pairwise(ordered)]
    span_s = (ordered[-1] - ordered[0]) / 1000
    plc = status["devices"]["plc"]
    done = f"-1 h, +1 day, right again, {each:.0f} s each, polls every {INTERVAL_S:g} s"
    return [
        Claim(
            "a clock that is set costs no poll and makes none",
            done,
            f"{len(readings)} readings in {span_s:.1f} s, {plc['missed']} missed, "
            f"{min(spans):.0f} to {max(spans):.0f} ms apart",
            abs(len(readings) - 1 - span_s / INTERVAL_S) <= 1 and plc["missed"] == 0,
        ),
        Claim(
            "order by seq is the order of sampling",
            done,
            f"{len(ordered)} in order",
            ordered == sorted(ordered) and whole,
        ),
        Claim(
            f"each label is the clock's of its moment, to {MOST_OFF_MS:.0f} ms",
            done,
            f"{min(off):.0f} to {max(off):.0f} ms, of which the machine's stalls {_stalls(readings)}; "
            f"{unsettled} sampled as it was set; told as steps: {told} s",
            right and (len(told) == len(offsets) - 1 or each < LOOKED_AT_EVERY_S),
        ),
    ]


def _boot_in_1970(options: Options) -> list[Claim]:
    """A start without a battery; the time comes a while later."""
    corrected_s = options.lasting(1.0, 0.1) * 60
    with _bench(options, "boot", 10.0 - time.time()) as bench:
        time.sleep(corrected_s)
        early = len(bench.readings())
        state = bench.daemon.status()["devices"]["plc"]["state"]
        bench.lie(0.0)
        corrected = time.time()
        eventually(lambda: len(bench.readings()) > corrected_s / INTERVAL_S, "the held readings", 10)
        time.sleep(2)
        status, whole = bench.end()
        readings = bench.readings()
    held = [reading for reading in readings if reading.truth < corrected * 1000]
    off = [reading.ts - reading.truth for reading in readings]
    done = f"start in 1970, right after {corrected_s:.0f} s"
    return [
        Claim(
            "read at once, held until the time is known",
            done,
            f"{early} published before, {len(held)} held, device {state}, {status['devices']['plc']['missed']} missed",
            early == 0 and state == "ok" and len(held) >= (corrected_s - 2) / INTERVAL_S and whole,
        ),
        Claim(
            f"held messages are stamped right, to {MOST_OFF_MS:.0f} ms",
            done,
            f"{sum(-_EARLY_MS <= one <= MOST_OFF_MS for one in off)} of {len(off)}, "
            f"{min(off):.0f} to {max(off):.0f} ms, of which the machine's stalls {_stalls(readings)}; "
            f"{sum(reading.ts < EARLIEST_MS for reading in readings)} before 2020",
            all(map(Reading.within, readings, off)),
        ),
    ]


def _stalls(readings: Sequence[Reading]) -> str:
    return f"up to {max(reading.stalled_ms for reading in readings):.0f} ms"


def _never_corrected(options: Options) -> list[Claim]:
    """After two minutes they go as they are, and say so; when the time comes after all, it is right from then on."""
    with _bench(options, "never", 10.0 - time.time()) as bench:
        time.sleep(HOLD_S - 20)
        early = len(bench.readings())
        eventually(bench.readings, "readings, marked", 40)
        time.sleep(5)
        bench.lie(0.0)
        corrected = time.time()
        time.sleep(15)
        _, whole = bench.end()
        readings = bench.readings()
    before = [reading for reading in readings if reading.truth < (corrected - 0.3) * 1000]
    after = [reading for reading in readings if reading.truth > (corrected + 0.3) * 1000]
    off = [reading.ts - reading.truth for reading in after]
    return [
        Claim(
            "a clock that is never set: held two minutes, then sent and marked",
            f"1970 for {HOLD_S + 20:.0f} s, then right",
            f"{early} before, {sum(reading.clock == 'unsynced' for reading in before)} of {len(before)} marked; "
            f"right afterwards to {max(off):.0f} ms",
            early == 0
            and all(one.clock == "unsynced" for one in before)
            and all(map(Reading.within, after, off))
            and whole,
        )
    ]


def _hardened(options: Options) -> list[Claim]:
    """The kernel may not be asked."""
    with _bench(options, "hardened", launcher=("-c", HARDENED)) as bench:
        eventually(bench.readings, "a first reading")
        time.sleep(6)
        before = bench.daemon.status()["clock"]["synced"]
        marks = {reading.clock for reading in bench.readings()}
        (Path("/proc") / str(bench.daemon.pid) / "root/run/systemd/timesync/synchronized").touch()
        set_at = time.monotonic()
        eventually(lambda: bench.daemon.status()["clock"]["synced"] is True, "synchronised", 30)
        took = time.monotonic() - set_at
        time.sleep(1)
        last = bench.readings()[-1].clock
        _, whole = bench.end()
    return [
        Claim(
            "synchronisation is seen where adjtimex is forbidden",
            "seccomp as ProtectClock=; timesyncd says so later",
            f"synced {before} and marked {marks}; seen after {took:.0f} s, then marked {last}",
            before is False and marks == {"unsynced"} and last is None and whole,
        )
    ]
