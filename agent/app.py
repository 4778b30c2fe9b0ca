"""The daemon: puts the parts together, and lives their life - start, reload, stop.

Promises: it starts with every device and the broker absent; READY means that the configuration is valid, the store open
(or degraded) and the runners started; a reload checks the whole file first and keeps what did not change; a stop ends
within 5 s. A device never ends the process; a failure of the core does, and systemd starts it again.

May import: everything below `cli`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from agent import __version__, announce, logs, topics
from agent.buffer.outbox import DataDirectoryInUse, Outbox
from agent.clock import Clock
from agent.config import Loaded, fingerprint, load
from agent.config_model import AgentConfig
from agent.control import SOCKET_NAME, ControlError, ControlServer
from agent.fleet import Entry, Fleet
from agent.intake import Intake
from agent.notify import Notifier
from agent.overview import Overview
from agent.publisher import Publisher
from agent.retained import Retained
from agent.status import StatusFiles, choose_run_dir
from collectors.api import TagInfo
from collectors.fields import DeviceConfig
from collectors.host.clock import clock_synchronised
from collectors.registry import collector_type

log = structlog.get_logger("shopfloor.agent")

TICK_S = 1.0
FILES_EVERY_S = 5.0
CLOCK_EVERY_S = 10.0
STUCK_S = 20.0
"""The watchdog is not fed when poller, store or publisher did not come round for so long."""
LONGEST_PAUSE_S = 7 * 86_400.0


def run_daemon(path: Path) -> int:
    """Run until told to stop. Returns the exit code: 0 stopped, 1 failed, 2 bad configuration."""
    loaded = load(path)
    if loaded.config is None:
        for mistake in loaded.mistakes:
            sys.stderr.write(f"{mistake}\n")
        return 2
    config = loaded.config
    logs.configure(config.log, language=config.language, timezone=config.timezone)
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_live(path, config, loaded.digest or ""))


async def _live(path: Path, config: AgentConfig, digest: str) -> int:
    app = App(path, config, digest)
    try:
        return await app.run()
    except DataDirectoryInUse as error:
        event, text = "data_directory_in_use", str(error)
    except ControlError as error:
        event, text = "control_socket_failed", error.text
    except BaseExceptionGroup as group:
        log.critical("agent_failed", exc_info=group)
        return 1
    log.error(event, text=text)
    return 1


def entries(config: AgentConfig) -> list[Entry]:
    """The devices to run, as configured."""
    return [
        Entry(device, collector_type(device.type, config.plugins), fingerprint(device)) for device in config.devices
    ]


class App:
    """The process and its parts."""

    def __init__(self, path: Path, config: AgentConfig, digest: str) -> None:
        self._path = path
        self._config = config
        self._clock = Clock()
        self._notifier = Notifier()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._signal = ""
        directory = Path(config.buffer.directory)
        self._outbox = Outbox(
            directory,
            site=config.site,
            gateway=config.gateway,
            max_size=config.buffer.size_limit(),
            commit_interval=config.buffer.commit_interval,
            max_payload=config.mqtt.max_payload,
            replay=config.buffer.replay,
        )
        self._retained = Retained(directory / "retained.json")
        self._intake = Intake(self._outbox, self._clock)
        self._fleet = Fleet(sink=self._intake.put, announce=self._announce)
        self._overview = Overview(
            config, digest, outbox=self._outbox, fleet=self._fleet, intake=self._intake, clock=self._clock
        )
        self._publisher = Publisher(
            config.mqtt,
            site=config.site,
            gateway=config.gateway,
            replay_rate=config.buffer.replay_rate,
            outbox=self._outbox,
            retained=self._retained,
            status=self._overview.status_document,
            agent_message=self._overview.agent_document,
            on_session=self._fleet.refresh,
        )
        self._run_dir = choose_run_dir(directory)
        self._files = StatusFiles(self._run_dir)
        self._control = ControlServer(self._run_dir / SOCKET_NAME, self._answer)
        # What may block on a sick disk or a silent system service: one thread, one call at a time, never waited for.
        self._side = ThreadPoolExecutor(1, thread_name_prefix="side")
        self._side_busy: asyncio.Future[Any] | None = None

    async def run(self) -> int:
        """Run until a signal ends it."""
        log.info(
            "agent_started",
            version=__version__,
            run=self._outbox.run,
            config=str(self._path),
            devices=len(self._config.devices),
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        await self._outbox.open()
        previous = self._outbox.previous
        if previous is not None and previous.ended == "lost":
            log.warning("previous_run_lost", run=previous.run)
        if self._config.mqtt.plaintext:
            log.warning("plaintext_broker", url=self._config.mqtt.url)
        self._retained.keep_only(self._retained_topics(self._config))
        if not self._run_dir.exists():
            self._run_dir.mkdir(parents=True)
            self._run_dir.chmod(0o755)  # not left to the umask: everybody may read the status
        await self._control.start()
        try:
            async with asyncio.TaskGroup() as core:
                await self._run_core(core)
        finally:
            await self._control.close()
            self._side.shutdown(wait=False, cancel_futures=True)
        return 0

    async def _run_core(self, core: asyncio.TaskGroup) -> None:
        fleet = core.create_task(self._fleet.run(entries(self._config)), name="fleet")
        loops = [
            core.create_task(self._outbox.commit_loop(), name="outbox"),
            core.create_task(self._publisher.run(), name="publisher"),
            core.create_task(self._intake.release_loop(), name="intake"),
            core.create_task(self._tick_loop(), name="tick"),
            core.create_task(self._reload_loop(), name="reload"),
        ]
        self._overview.state = "running"
        # Whoever waited for READY may ask for the status at once.
        self._aside(self._files.write, self._overview.snapshot(self._publisher))
        self._notifier.ready()
        log.info("agent_ready")
        await self._stop.wait()
        self._overview.state = "stopping"
        self._notifier.stopping()
        log.info("agent_stopping", signal=self._signal)
        self._fleet.stop()
        await fleet
        await self._intake.release()
        for task in loops:
            if task.get_name() != "publisher":
                task.cancel()
        await self._outbox.commit_now()
        clean = await self._publisher.stop(self._overview.status_document("stopped"))
        loops[1].cancel()
        await self._outbox.close(clean=True)
        self._overview.state = "stopped"
        self._files.write(self._overview.snapshot(self._publisher))
        log.info("agent_stopped", clean=clean, buffered=self._outbox.counters()["buffered"])

    def _on_stop(self, name: str) -> None:
        if self._stop.is_set():
            # A second signal: whoever sends it does not want to wait. What is committed is safe.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        self._signal = name
        self._stop.set()

    def _announce(self, device: DeviceConfig, groups: Mapping[str, float], tags: Sequence[TagInfo]) -> str:
        rev, document = announce.meta(
            site=self._config.site,
            gateway=self._config.gateway,
            device=device.name,
            label=device.label,
            description=device.description,
            groups=groups,
            tags=tags,
        )
        topic = self._meta_topic(device.name)
        if topic is not None:
            self._retained.set(topic, document)
        return rev

    def _meta_topic(self, device: str) -> str | None:
        template = self._config.mqtt.meta_topic
        return self._expand(template, device=device) if template is not None else None

    def _retained_topics(self, config: AgentConfig) -> list[str]:
        """Every retained topic that a configuration wants; what else stands at the broker from us is cleared."""
        found = [] if config.mqtt.status_topic is None else [self._expand(config.mqtt.status_topic)]
        if config.mqtt.meta_topic is not None:
            found += [self._expand(config.mqtt.meta_topic, device=device.name) for device in config.devices]
        return found

    def _expand(self, template: str, **names: str) -> str:
        return topics.expand(template, site=self._config.site, gateway=self._config.gateway, **names)

    async def _tick_loop(self) -> None:
        files_at = clock_at = watchdog_at = float("-inf")
        states: dict[str, str] = {}
        store = self._outbox.state
        while True:
            began = time.monotonic()
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self._overview.loop_lag_s = max(self._overview.loop_lag_s, now - began - TICK_S)
            if now >= clock_at + CLOCK_EVERY_S and self._aside(self._look_at_clock):
                clock_at = now
            if now >= files_at + FILES_EVERY_S and self._aside(
                self._files.write, self._overview.snapshot(self._publisher)
            ):
                files_at = now
            if (self._overview.device_states(), self._outbox.state) != (states, store):
                states, store = self._overview.device_states(), self._outbox.state
                self._tell_status()
            interval = self._notifier.watchdog_interval
            if interval is not None and now >= watchdog_at + min(interval, FILES_EVERY_S) and self._healthy(now):
                self._notifier.watchdog()
                watchdog_at = now

    def _healthy(self, now: float) -> bool:
        """Poller, store and publisher come round; that they get errors is no matter."""
        return (
            now - self._outbox.alive_at < STUCK_S
            and now - self._publisher.alive_at < STUCK_S
            and self._fleet.stuck_s() < STUCK_S
        )

    def _aside(self, call: Any, *arguments: Any) -> bool:
        """Start a call that may block in the side thread; False when the last one still has not come back."""
        if self._side_busy is not None and not self._side_busy.done():
            return False
        self._side_busy = asyncio.get_running_loop().run_in_executor(self._side, call, *arguments)
        return True

    def _look_at_clock(self) -> None:
        before = self._clock.mark
        self._clock.synchronised = clock_synchronised()
        stepped = self._clock.stepped()
        mark = self._clock.mark
        if mark is not None and before is None:
            log.warning("clock_unsynced")
        elif mark is None and before is not None:
            log.info("clock_synced", stepped_ms=round(stepped * 1000))
        elif stepped:
            log.warning("clock_stepped", stepped_ms=round(stepped * 1000))

    def _tell_status(self) -> None:
        """Bring the retained status and systemd's status line up to date."""
        self._publisher.status_changed()
        states = list(self._overview.device_states().values())
        fine = sum(state == "ok" for state in states)
        self._notifier.status(f"{fine} of {len(states)} devices ok, broker {self._publisher.state}")

    async def _reload_loop(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notifier.reloading()
            try:
                loaded = await asyncio.to_thread(load, self._path)
                await self._take_over(loaded)
            finally:
                self._notifier.ready()

    async def _take_over(self, loaded: Loaded) -> None:
        if loaded.config is None:
            first = str(loaded.mistakes[0])
            self._overview.config_refused = first
            log.error("config_refused", mistakes=len(loaded.mistakes), first=first)
            return
        self._overview.config_refused = None
        old, new = self._config, loaded.config
        fixed = [key for key in ("site", "gateway", "buffer") if getattr(old, key) != getattr(new, key)]
        if old.mqtt.max_payload != new.mqtt.max_payload:
            fixed.append("mqtt.max_payload")
        if fixed:
            log.warning("restart_needed", keys=", ".join(fixed))
            new = new.model_copy(update={"site": old.site, "gateway": old.gateway, "buffer": old.buffer})
        if (old.log, old.language, old.timezone) != (new.log, new.language, new.timezone):
            logs.configure(new.log, language=new.language, timezone=new.timezone)
        self._config = self._overview.config = new
        self._overview.digest = loaded.digest or ""
        if old.mqtt.meta_topic != new.mqtt.meta_topic:
            await self._fleet.apply([])  # every device announces itself anew
        change = await self._fleet.apply(entries(new))
        self._retained.keep_only(self._retained_topics(new))
        for name in change.removed:
            self._overview.forget(name)
        if fingerprint(old.mqtt) != fingerprint(new.mqtt):
            self._publisher.reconfigure(new.mqtt)
        self._tell_status()
        log.info(
            "config_reloaded",
            added=len(change.added),
            removed=len(change.removed),
            changed=len(change.changed),
            kept=len(change.kept),
        )

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request:
            case {"command": "values"}:
                names = self._targets(request.get("device"))
                return {"devices": {name: self._overview.values(name) for name in names}}
            case {"command": "pause", "target": str(target), "for_s": float() | int() as seconds}:
                if isinstance(seconds, bool) or not 0 < seconds <= LONGEST_PAUSE_S:
                    raise ControlError("bad_request", "a pause lasts more than 0 s and at most 7 days")
                names = self._targets(target)
                for name in names:
                    self._fleet.runners[name].pause(float(seconds))
                return {"paused": names, "for_s": seconds}
            case {"command": "resume"}:
                names = [name for name in self._targets(request.get("target")) if self._fleet.runners[name].paused_s]
                for name in names:
                    self._fleet.runners[name].resume()
                return {"resumed": names}
        raise ControlError("bad_request", "known commands: values, pause, resume")

    def _targets(self, target: object) -> list[str]:
        if target is None:
            return list(self._fleet.runners)
        if isinstance(target, str) and target in self._fleet.runners:
            return [target]
        names = ", ".join(self._fleet.runners)
        raise ControlError("unknown_target", f"no device is named {target}; there are: {names}")
