"""The daemon: puts the parts together, and lives their life - start, reload, stop.

Promises: it starts with every device and the broker absent; READY means that the configuration is valid, the store open
(or degraded) and the runners started; a reload checks the whole file first and keeps what did not change; a stop ends
within 5 s, whatever hangs. A device never ends the process, nor do its run-time files; a failure of the core does, and
systemd starts it again.

May import: everything below `cli`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from agent import __version__, announce, logs, topics
from agent.aside import Aside, Died, Late, Stuck
from agent.buffer.outbox import DataDirectoryInUse, Outbox
from agent.buffer.room import default_max_size
from agent.clock import Clock
from agent.config_apart import load_apart
from agent.config_model import AgentConfig, Loaded
from agent.control import SOCKET_NAME, ControlError, ControlServer
from agent.fleet import Entry, Fleet
from agent.intake import Intake
from agent.last_resort import LastResort
from agent.notify import Notifier
from agent.overview import Overview
from agent.publisher import Publisher
from agent.retained import Retained
from agent.status import StatusFiles, choose_run_dir
from agent.upkeep import Upkeep
from collectors.api import TagInfo
from collectors.fields import DeviceConfig
from collectors.line_lock import LineLocks
from collectors.registry import collector_type

log = structlog.get_logger("shopfloor.agent")

STOP_WITHIN_S = 4.8
"""From the signal to the end of the process, at most. It is shared out so that what hangs costs its own share alone:"""
_FLEET_S, _COMMIT_S, _GOODBYE_S, _STORE_S = 1.3, 1.7, 3.9, 4.2
"""until then, from the signal, the devices, the head of the outbox, the broker, the store have time."""
CLOCK_WAIT_S = 0.5
LOAD_S = 30.0
"""A configuration on a disk that does not answer for so long is refused."""
LONGEST_PAUSE_S = 7 * 86_400.0


def run_daemon(path: Path, loaded: Loaded) -> int:
    """Run until told to stop. Returns the exit code: 0 stopped, 1 failed, 2 bad configuration.

    Args:
        loaded: what became of this file.
    """
    if loaded.config is None:
        for mistake in loaded.mistakes:
            sys.stderr.write(f"{mistake}\n")
        return 2
    config = loaded.config
    os.umask(0o027)  # readings on disk are not everybody's; what is for everybody says so itself
    written = logs.configure(config.log, language=config.language, timezone=config.timezone)
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    app = App(path, config, loaded.digest or "", written)
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_live(app))


async def _live(app: App) -> int:
    try:
        return await app.run()
    except DataDirectoryInUse as error:
        event, text = "data_directory_in_use", str(error)
    except ControlError as error:
        event, text = "control_socket_failed", error.text
    except BaseExceptionGroup as group:
        log.critical("agent_failed", exc_info=group)
        return 1
    finally:
        # What still hangs in threads must not keep the process from ending.
        app.last_resort.arm(STOP_WITHIN_S)
    log.error(event, text=text)
    return 1


def entries(config: AgentConfig) -> list[Entry]:
    """The devices to run, as configured."""
    return [Entry(device, collector_type(device.type, config.plugins), device.fingerprint) for device in config.devices]


class App:
    """The process and its parts."""

    def __init__(self, path: Path, config: AgentConfig, digest: str, written: logs.Logging) -> None:
        self._path = path
        self._written = written
        self.last_resort = LastResort(lambda: self._written.flush(0.2))
        self._config = config
        self._clock = Clock()
        self._notifier = Notifier()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._signal = ""
        self._stopped_at = 0.0
        directory = Path(config.buffer.directory)
        self._outbox = Outbox(
            directory,
            site=config.site,
            gateway=config.gateway,
            max_size=config.buffer.max_size or default_max_size(directory),
            commit_interval=config.buffer.commit_interval,
            max_payload=config.mqtt.max_payload,
            replay=config.buffer.replay,
        )
        self._retained = Retained(directory / "retained.json")
        self._intake = Intake(self._outbox, self._clock)
        self._run_dir = choose_run_dir(directory)
        self._fleet = Fleet(
            sink=self._intake.put,
            announce=self._announce,
            state_dir=directory,
            locks=LineLocks(self._run_dir, agent=True),
        )
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
        self._control = ControlServer(self._run_dir / SOCKET_NAME, self._answer)
        self._upkeep = Upkeep(
            overview=self._overview,
            files=StatusFiles(self._run_dir),
            clock=self._clock,
            notifier=self._notifier,
            outbox=self._outbox,
            publisher=self._publisher,
            fleet=self._fleet,
        )
        self._loader: Aside[Loaded] = Aside("reload")

    async def run(self) -> int:
        """Run until a signal ends it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came while all was being loaded
        log.info(
            "agent_started",
            version=__version__,
            run=self._outbox.run,
            config=str(self._path),
            devices=len(self._config.devices),
        )
        await self._upkeep.look_at_clock(CLOCK_WAIT_S)
        await self._outbox.open()
        try:
            previous = self._outbox.previous
            if previous is not None and previous.ended == "lost":
                log.warning("previous_run_lost", run=previous.run)
            if self._config.mqtt.plaintext:
                log.warning("plaintext_broker", url=self._config.mqtt.url)
            self._retained.keep_only(self._retained_topics(self._config))
            await self._open_socket()
            async with asyncio.TaskGroup() as core:
                await self._run_core(core)
        finally:
            await self._control.close()
            await self._outbox.close(clean=False)  # without effect after an orderly end
        return 0

    async def _open_socket(self) -> None:
        """Make the run directory and open the control socket; what is in the way there stops no reading."""
        try:
            if not self._run_dir.exists():
                self._run_dir.mkdir(parents=True)
                self._run_dir.chmod(0o755)  # not left to the umask: everybody may read the status
            await self._control.start()
        except ControlError as error:
            if error.cause == "in_use":
                raise
            text = error.text
        except OSError as error:
            text = str(error)
        else:
            return
        log.error("control_socket_unusable", text=text)

    async def _run_core(self, core: asyncio.TaskGroup) -> None:
        fleet = core.create_task(self._fleet.run(entries(self._config)), name="fleet")
        publisher = core.create_task(self._publisher.run(), name="publisher")
        store = core.create_task(self._outbox.commit_loop(), name="outbox")
        others = [
            core.create_task(self._intake.release_loop(), name="intake"),
            core.create_task(self._upkeep.run(), name="upkeep"),
            core.create_task(self._reload_loop(), name="reload"),
        ]
        self._overview.state = "running"
        await self._upkeep.write_files(1.0)  # whoever waited for READY may ask for the status at once
        self._notifier.ready()
        log.info("agent_ready")
        await self._stop.wait()
        self._overview.state = "stopping"
        self._notifier.stopping()
        log.info("agent_stopping", signal=self._signal)
        for task in others:
            task.cancel()
        clean = await self._end(fleet)
        for task in (store, publisher, fleet):
            task.cancel()
        self._overview.state = "stopped"
        await self._upkeep.write_files(0.1)
        log.info("agent_stopped", clean=clean, buffered=self._outbox.counters()["buffered"])
        self.last_resort.code = 0

    async def _end(self, fleet: asyncio.Task[None]) -> bool:
        """End the parts, one after the other, none later than its time; True if the broker took the last word."""
        began = self._stopped_at
        self._fleet.stop()
        await asyncio.wait({fleet}, timeout=began + _FLEET_S - asyncio.get_running_loop().time())
        clean = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(began + _COMMIT_S):
                await self._intake.release()
                await self._outbox.commit_now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(began + _GOODBYE_S):
                clean = await self._publisher.stop(self._overview.status_document("stopped"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(began + _STORE_S):
                await self._outbox.close(clean=True)
        return clean

    def _on_stop(self, name: str) -> None:
        if self._stop.is_set():
            # A second signal: whoever sends it does not want to wait. What is committed is safe.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        self.last_resort.arm(STOP_WITHIN_S)
        self._signal = name
        self._stopped_at = asyncio.get_running_loop().time()
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

    async def _reload_loop(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notifier.reloading()
            try:
                loaded = await self._loader.run(partial(load_apart, self._path, LOAD_S), LOAD_S + 5.0)
            except (Late, Stuck, Died) as error:
                self._refuse(f"{self._path} could not be read ({type(error).__name__})", 1)
            else:
                await self._take_over(loaded)
            self._notifier.ready()

    def _refuse(self, first: str, mistakes: int) -> None:
        self._overview.config_refused = first
        log.error("config_refused", mistakes=mistakes, first=first)

    async def _take_over(self, loaded: Loaded) -> None:
        if loaded.config is None:
            self._refuse(str(loaded.mistakes[0]), len(loaded.mistakes))
            return
        self._overview.config_refused = None
        old, new = self._config, loaded.config
        fixed = [key for key in ("site", "gateway", "buffer") if getattr(old, key) != getattr(new, key)]
        if old.mqtt.max_payload != new.mqtt.max_payload:
            fixed.append("mqtt.max_payload")
        if fixed:
            log.warning("restart_needed", keys=", ".join(fixed))
            mqtt = new.mqtt.model_copy(update={"max_payload": old.mqtt.max_payload})
            kept = {"site": old.site, "gateway": old.gateway, "buffer": old.buffer, "mqtt": mqtt}
            new = new.model_copy(update=kept)
        if (old.log, old.language, old.timezone) != (new.log, new.language, new.timezone):
            self._written = logs.configure(new.log, language=new.language, timezone=new.timezone)
        self._config = self._overview.config = new
        self._overview.digest = loaded.digest or ""
        change = await self._fleet.apply(entries(new))
        if old.mqtt.meta_topic != new.mqtt.meta_topic:
            self._fleet.announce()
        self._retained.keep_only(self._retained_topics(new))
        for name in (*change.removed, *change.changed):
            self._overview.forget(name)
        if old.mqtt.fingerprint != new.mqtt.fingerprint:
            self._publisher.reconfigure(new.mqtt)
        self._upkeep.tell_status()
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
                await self._fleet.pause(names, float(seconds))
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
        lines = self._fleet.lines()
        if isinstance(target, str) and target in lines:
            return lines[target][1]
        names = ", ".join([*self._fleet.runners, *(f"line {name}" for name in lines)])
        raise ControlError("unknown_target", f"no device or line is named {target}; there are: {names}")
