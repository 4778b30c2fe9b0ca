"""The daemon as a child process, as an operator meets it: a configuration file, signals, commands, files, its log.

    with Daemon(tmp_path, site(broker.url, [plc])) as daemon:
        daemon.wait_for("device_ok", device="plc")
        daemon.reload(site(broker.url, [plc, cnc]))
        assert daemon.stop() == 0

Configurations are written as JSON, which is YAML. Everything it needs - data, run-time files, log - stands in one
directory, which a second object may share (a restart, a second owner).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from agent.buffer.outbox import Outbox
from collectors.api import Batch, Value

ROOT = Path(__file__).resolve().parents[1]
START_S = 20.0
TELL_MODULES = """
import json, sys
from agent.cli import main
code = main(sys.argv[1:])
print()
print(json.dumps({"event": "modules", "names": sorted({name.split(".")[0] for name in sys.modules})}))
sys.exit(code)
"""
"""A launcher (`-c`): ends as the command does, and then says which modules were loaded."""
TELL_INSIDE = """
import asyncio, collections, gc, json, signal, sys, threading
from agent.cli import main
def tell(*_):
    kinds = collections.Counter(type(found).__name__ for found in gc.get_objects())
    print(json.dumps({"event": "inside", "tasks": len(asyncio.all_tasks()), "threads": threading.active_count(),
        "objects": sum(kinds.values()), "kinds": dict(kinds.most_common(60))}), flush=True)
signal.signal(signal.SIGUSR1, tell)
sys.exit(main(sys.argv[1:]))
"""
"""A launcher (`-c`): says at SIGUSR1 how many tasks, threads and objects there are."""
SITE, GATEWAY = "test", "gw"
STATUS_TOPIC = f"shopfloor/{SITE}/{GATEWAY}/status"
AGENT_TOPIC = f"shopfloor/{SITE}/{GATEWAY}/agent"


def data_topic(device: str) -> str:
    """Where a device's messages go."""
    return f"shopfloor/{SITE}/{GATEWAY}/{device}/data"


def meta_topic(device: str) -> str:
    """Where a device's description stands."""
    return f"shopfloor/{SITE}/{GATEWAY}/{device}/meta"


def site(url: str, devices: Sequence[Mapping[str, Any]], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration; `mqtt` and `buffer` are merged into the sections that every test needs."""
    more = dict(sections)
    return {
        "site": SITE,
        "gateway": GATEWAY,
        "language": "en",
        "mqtt": {"url": url, **more.pop("mqtt", {})},
        "buffer": {"directory": "data", "max_size": "200 MB", **more.pop("buffer", {})},
        **more,
        "devices": list(devices),
    }


def modbus(name: str, url: str, tags: int = 3, *, interval: str = "100 ms", **keys: Any) -> dict[str, Any]:
    """A Modbus device with `tags` holding registers from 0 on, named t0, t1, ..."""
    listed = [{"name": f"t{at}", "address": f"holding:{at}", "type": "uint16"} for at in range(tags)]
    return {"name": name, "type": "modbus", "url": url, "interval": interval, "tags": listed, **keys}


def opcua(name: str, url: str, nodes: Mapping[str, str], *, interval: str = "100 ms", **keys: Any) -> dict[str, Any]:
    """An OPC UA device; `nodes`: tag -> node id."""
    listed = [{"name": tag, "node": node} for tag, node in nodes.items()]
    security = {"policy": "None"}
    return {
        "name": name,
        "type": "opcua",
        "url": url,
        "security": security,
        "interval": interval,
        "tags": listed,
        **keys,
    }


async def open_outbox(directory: Path, *, gateway: str = GATEWAY, max_size: int = 200_000_000) -> Outbox:
    """An open outbox of this data directory, set as that of a daemon."""
    outbox = Outbox(
        directory,
        site=SITE,
        gateway=gateway,
        max_size=max_size,
        commit_interval=1.0,
        max_payload=60_000,
        replay="live-first",
    )
    await outbox.open()
    return outbox


def fill_backlog(
    directory: Path,
    count: int,
    values: Callable[[int], dict[str, Value]] = lambda number: {"t0": number},
    *,
    max_size: int = 200_000_000,
) -> str:
    """Leave so many messages of the device `press` in this data directory, as a run in an outage does; the run."""

    async def fill() -> str:
        outbox = await open_outbox(directory, max_size=max_size)
        now = int(time.time() * 1000)
        for number in range(count):
            batch = Batch(device="press", group="100ms", at=time.monotonic(), values=values(number))
            await outbox.append(batch, ts=now, rev="0badcafe")
            if number % 2000 == 0:
                await outbox.commit_now()
        await outbox.close(clean=True)
        return outbox.run

    return asyncio.run(fill())


def eventually(condition: Callable[[], Any], what: str, within: float = 10.0) -> Any:
    """Wait until this is true, and return it.

    Raises:
        AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.01)
    return found


class Daemon:
    """A child process `shopfloor run`.

    Args:
        directory: for its configuration (`agent.yaml`), its data, run-time files and log.
        config: None = the one that is already there.
        environment: beside that of this process.
        launcher: what stands between `python` and `run`.
        volatile: where run-time files and log go, as on a gateway they go to memory; default `directory`.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = ("-m", "agent"),
        volatile: Path | None = None,
    ) -> None:
        self.directory = directory
        self.path = directory / "agent.yaml"
        self.data = directory / "data"
        self.run_dir = (volatile or directory) / "run"
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, "RUNTIME_DIRECTORY": str(self.run_dir), **(environment or {})}
        self._launcher = launcher
        self._log = (volatile or directory) / f"log-{time.monotonic_ns()}.jsonl"
        self._read = 0
        self._events: list[dict[str, Any]] = []
        if config is not None:
            self.configure(config)

    def configure(self, config: Mapping[str, Any] | str) -> None:
        """Write the configuration file."""
        self.path.write_text(config if isinstance(config, str) else json.dumps(config, ensure_ascii=False))

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self.launch()
        self.wait_for("agent_ready", within=START_S)

    def launch(self) -> None:
        """Start it."""
        with self._log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *self._launcher, "run", "-c", str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=ROOT,
                env=self._environment,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self, config: Mapping[str, Any] | str) -> None:
        """Write this configuration and say so; does not wait."""
        self.configure(config)
        self.signal(signal.SIGHUP)

    def stop(self, within: float = 6.0) -> int:
        """SIGTERM; its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        """SIGKILL; nothing if it has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def text(self) -> str:
        """All it wrote on standard error and output."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def events(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Lines of its log so far: all, or those of this event with these fields."""
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._read)
                new = log.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self._events += [json.loads(line) for line in whole.splitlines() if line.startswith(b'{"')]
        wanted = {**fields, **({"event": event} if event is not None else {})}
        return [line for line in self._events if all(line.get(key) == value for key, value in wanted.items())]

    def wait_for(self, event: str, *, within: float = 10.0, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait for the `count`-th line of this event with these fields.

        Raises:
            AssertionError: it did not come in time, or the process ended without it.
        """
        deadline = time.monotonic() + within
        while len(found := self.events(event, **fields)) < count:
            ended = not self.alive()
            if ended and len(self.events(event, **fields)) >= count:
                continue
            assert not ended, f"ended before {event} {fields}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {event} {fields} within {within:g} s:\n{self.text()}"
            time.sleep(0.01)
        return found[count - 1]

    def status(self) -> dict[str, Any]:
        """What `status.json` says; empty before it is written."""
        path = self.run_dir / "status.json"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `shopfloor ARGUMENTS` as a user of this machine does."""
        return subprocess.run(
            [sys.executable, "-m", "agent", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
