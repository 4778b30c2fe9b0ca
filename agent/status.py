"""What the running agent tells about itself in files: `status.json` for commands and people, `metrics.prom`.

Both stand in the run directory, are readable by everybody, and are replaced atomically every few seconds. Whether the
agent runs is decided by the age of the file, measured on the monotonic clock of the same boot, so that a clock that is
set cannot make a dead agent look alive nor a living one dead.

May import: the standard library, orjson, `agent.metrics`. (Reading imports the standard library alone.)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, cast

STATUS_NAME = "status.json"
METRICS_NAME = "metrics.prom"
STALE_S = 15.0
_SERVICE = "shopfloor-agent"
_MAX_FILE = 16 * 1024 * 1024

DeviceState: TypeAlias = Literal["starting", "ok", "degraded", "bad", "misconfigured", "paused", "off"]


class AgentStatus(TypedDict):
    """The process: `started_at` in ms UTC, `since_s` seconds since then (monotonic), `config` "sha256:...".

    `language` zh or en, of the configuration, for whoever shows this. `config_refused` is the
    first mistake of a configuration that a reload refused, while the old one keeps running.
    """

    version: str
    run: str
    pid: int
    site: str
    gateway: str
    label: NotRequired[str | None]
    language: NotRequired[str]
    started_at: int
    since_s: float
    config: str
    state: Literal["starting", "running", "stopping", "stopped"]
    config_refused: NotRequired[str | None]


class BrokerStatus(TypedDict):
    """The way out: `url` without credentials, `since_s` seconds in this state, `cause`/`text` of the last failure."""

    state: Literal["connected", "connecting", "refused", "unreachable"]
    url: str
    protocol: str | None
    since_s: float
    cause: str | None
    text: str | None
    window: int
    in_flight: int
    plaintext: bool


class BufferStatus(TypedDict):
    """The store: `backlog` messages, `bytes` on disk, `cap` bytes, `oldest_s` age of the oldest message.

    `fills_in_s`: seconds until the cap at the rate of the moment; None = not growing, or not known.
    """

    state: Literal["ok", "degraded", "full"]
    backlog: int
    bytes: int
    cap: int
    oldest_s: float | None
    fills_in_s: float | None


class Counters(TypedDict, total=False):
    """Messages since the start, as on the agent topic, and the counters beside them."""

    produced: int
    carried_over: int
    delivered: int
    buffered: int
    in_flight: int
    dropped: dict[str, int]
    values: int
    missed_polls: int
    samples_lost: int
    bytes_written: int


class DeviceStatus(TypedDict):
    """One device: `since_s` seconds in this state, `last_read_age_s` None = never read.

    `cause`, `text` and `facts` say why it is not ok (see `agent.sentences`). `groups`: name -> seconds.
    `polls`, `missed`, `reconnects`, `requests` count since the start; `values_per_s` is the rate of the last minute.
    """

    type: str
    state: DeviceState
    since_s: float
    label: NotRequired[str | None]
    line: NotRequired[str | None]
    cause: NotRequired[str | None]
    text: NotRequired[str | None]
    facts: NotRequired[dict[str, str | int | float]]
    paused_for_s: NotRequired[float | None]
    last_read_age_s: NotRequired[float | None]
    groups: NotRequired[dict[str, float]]
    tags: NotRequired[int]
    bad_tags: NotRequired[int]
    polls: NotRequired[int]
    missed: NotRequired[int]
    late_p99_ms: NotRequired[float | None]
    reconnects: NotRequired[int]
    requests: NotRequired[int]
    values_per_s: NotRequired[float]


class LineStatus(TypedDict, total=False):
    """What several devices share: `busy` share of its time (0 to 1) in the last minute, `users` device names.

    `state`: connected, closed, or the cause why it is not connected. `late`: polls that waited notably for their turn;
    `requests`, `late` and `reconnects` count since the start.
    """

    state: str
    busy: float
    users: list[str]
    reconnects: int
    requests: int
    late: int


class ClockStatus(TypedDict):
    """The gateway's clock; `synced` None = cannot be known here."""

    synced: bool | None


class Finding(TypedDict):
    """A check that found something; `text` by language."""

    id: str
    severity: Literal["warn", "crit"]
    text: dict[str, str]


class Snapshot(TypedDict):
    """All of it. `loop_lag_ms`: largest delay of the event loop since the last snapshot; `rss` bytes of memory."""

    agent: AgentStatus
    broker: BrokerStatus
    buffer: BufferStatus
    counters: Counters
    devices: dict[str, DeviceStatus]
    lines: dict[str, LineStatus]
    clock: ClockStatus
    loop_lag_ms: float
    rss: int
    findings: list[Finding]


class Written(TypedDict):
    """When the file was written: `ts` ms UTC as a label, `monotonic` seconds of the boot `boot_id` for the age."""

    ts: int
    boot_id: str | None
    monotonic: float


class StatusFile(Snapshot):
    """What stands in `status.json`."""

    v: int
    written: Written


class StatusFiles:
    """Writes both files. Small and on a RAM disk where systemd makes the directory; it may block where it is not.

    Attributes:
        error: why the last `write` failed, None = it did not.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.error: str | None = None
        self._boot_id = boot_id()

    def write(self, snapshot: Snapshot) -> bool:
        """Replace both files; False (and `error`) when the disk refuses, which is no reason to stop."""
        import orjson  # here, so that the commands, which only read, do not load it

        from agent.metrics import render_metrics

        written = Written(ts=time.time_ns() // 1_000_000, boot_id=self._boot_id, monotonic=time.monotonic())
        body = orjson.dumps({"v": 1, "written": written, **snapshot}, option=orjson.OPT_APPEND_NEWLINE)
        try:
            self.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            _replace(self.run_dir / STATUS_NAME, body)
            _replace(self.run_dir / METRICS_NAME, render_metrics(snapshot).encode("utf-8", "replace"))
        except OSError as error:
            self.error = str(error)
            return False
        self.error = None
        return True


def read_status(run_dir: Path) -> StatusFile | None:
    """Return what `status.json` in this directory says; None when there is none or it cannot be understood.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with (run_dir / STATUS_NAME).open("rb") as file:
            found = json.loads(file.read(_MAX_FILE))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return cast("StatusFile", found) if isinstance(found, dict) else None


def age_s(status: Mapping[str, Any], run_dir: Path) -> float:
    """Return how many seconds ago the file was written; infinite when that was before this boot."""
    written = status.get("written")
    if isinstance(written, dict):
        then, boot = written.get("monotonic"), written.get("boot_id")
        here = boot_id()
        if isinstance(then, int | float) and boot is not None and here is not None:
            if boot != here:
                return float("inf")
            elapsed = time.monotonic() - then
            if elapsed >= 0:
                return elapsed
    try:  # another name space of time, or no /proc: the wall clock is all that is left
        return abs(time.time() - (run_dir / STATUS_NAME).stat().st_mtime)
    except OSError:
        return float("inf")


def is_running(status: Mapping[str, Any], run_dir: Path) -> bool:
    """Whether the agent that wrote this lives: the file is fresh and does not say that it stopped."""
    agent = status.get("agent")
    stopped = isinstance(agent, dict) and agent.get("state") == "stopped"
    return not stopped and age_s(status, run_dir) <= STALE_S


def choose_data_dir() -> Path:
    """Where the agent keeps its data: `$STATE_DIRECTORY`, else under /var/lib if writable, else in the home."""
    given = _from_environment("STATE_DIRECTORY")
    if given is not None:
        return given
    shared = Path("/var/lib") / _SERVICE
    return shared if _writable(shared) else _home_data_dir()


def choose_run_dir(data_dir: Path) -> Path:
    """Where the agent keeps its run-time files: `$RUNTIME_DIRECTORY`, else /run if writable, else in `data_dir`."""
    given = _from_environment("RUNTIME_DIRECTORY")
    if given is not None:
        return given
    shared = Path("/run") / _SERVICE
    return shared if _writable(shared) else data_dir / "run"


def find_run_dir(data_dir: Path | None = None) -> Path | None:
    """Return the run directory of the agent on this machine: the first candidate that holds a `status.json`.

    Args:
        data_dir: `buffer.directory` of the configuration, where it names one.
    """
    return next((path for path in _run_dir_candidates(data_dir) if (path / STATUS_NAME).exists()), None)


def boot_id() -> str | None:
    """What tells this boot from every other; None where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _run_dir_candidates(data_dir: Path | None) -> Iterator[Path]:
    given = _from_environment("RUNTIME_DIRECTORY")
    if given is not None:
        yield given
    yield Path("/run") / _SERVICE
    for data in (data_dir, _from_environment("STATE_DIRECTORY"), Path("/var/lib") / _SERVICE, _home_data_dir()):
        if data is not None:
            yield data / "run"


def _from_environment(name: str) -> Path | None:
    first = os.environ.get(name, "").split(":")[0]  # systemd lists several with colons
    return Path(first) if first else None


def _home_data_dir() -> Path:
    try:
        return Path.home() / ".local" / "state" / _SERVICE
    except RuntimeError:  # no home: a user without an entry and without $HOME
        return Path("/var/lib") / _SERVICE  # which then says plainly that it cannot be written


def _writable(path: Path) -> bool:
    """Whether the directory can be written, or made where it is missing."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _replace(path: Path, body: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(body)
        draft.chmod(0o644)  # not left to the umask: ordinary users and node_exporter read it
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
