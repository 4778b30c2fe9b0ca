"""Lines: serial ports, serial servers, modems that dial in, and how devices share them. Real time, real servers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.fleet import Entry, Fleet
from collectors.api import Batch, Collector, Context, Unavailable
from collectors.line_config import LineConfig
from collectors.line_lock import LineLocks
from collectors.modbus import TYPE, connector
from tests.faulty import modbus_rtu as faulty
from tests.faulty.modbus_rtu import RtuAsked, RtuPeer, checksum, honest
from tests.servers.modbus_rtu import Cable, RtuServer, needs_socat


@pytest.fixture(scope="module")
def gateway() -> Iterator[RtuServer]:
    """A serial server with units 1 to 10 behind it."""
    running = RtuServer(units=range(1, 11))
    with running:
        yield running


@pytest.fixture
def server(gateway: RtuServer) -> RtuServer:
    gateway.reset()
    for unit in gateway.units:
        gateway.set("holding", 0, [unit], unit=unit)
    return gateway


def configured(name: str, unit: int = 1, settings: LineConfig | None = None, **more: Any) -> Any:
    tags = [{"name": "unit", "address": "holding:0", "type": "uint16"}]
    fields = {"name": name, "type": "modbus", "unit_id": unit, "tags": tags, "timeout": 0.2, **more}
    if settings is not None:
        fields["line"] = "meters"
    device = TYPE.config_model.model_validate(fields)
    if settings is not None:
        device.join_line("meters", settings)
    return device


async def once(device: Collector) -> Batch:
    [batch] = await device.collect(frozenset(device.groups))
    return batch


class Plant:
    """A fleet and what it brings."""

    def __init__(self, locks: LineLocks | None = None) -> None:
        self.batches: list[Batch] = []
        self.fleet = Fleet(sink=self._sink, announce=lambda *_: "rev", locks=locks)

    async def _sink(self, batches: Any, rev: str) -> None:
        self.batches += batches

    def good(self, device: str) -> list[Batch]:
        return [batch for batch in self.batches if batch.device == device and batch.values.get("unit") is not None]

    def cause(self, device: str) -> str | None:
        runner = self.fleet.runners.get(device)
        return runner.state.cause if runner is not None else None

    @staticmethod
    def entry(device: Any) -> Entry:
        return Entry(device, TYPE, f"{device.model_dump_json()} {device.joined}")

    async def until(self, wanted: Any, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not wanted():  # noqa: ASYNC110  # what is waited for happens in another process
                await asyncio.sleep(0.02)


def asked_of(server: RtuServer, unit: int) -> int:
    return sum(request[0] == unit for request in server.seen().requests)


# -- turns -----------------------------------------------------------------------------------------------------------


async def test_a_dead_unit_of_ten_costs_the_others_next_to_nothing(server: RtuServer) -> None:
    settings = LineConfig(url=server.url, baudrate=115_200)
    server.mute(unit=7)
    plant = Plant()
    devices = [configured(f"m{unit}", unit, settings, interval="500 ms") for unit in range(1, 11)]
    running = asyncio.create_task(plant.fleet.run([plant.entry(device) for device in devices]))
    await asyncio.sleep(4.6)
    polls = {name: (runner.state.polls, runner.state.missed) for name, runner in plant.fleet.runners.items()}
    dead = plant.fleet.runners["m7"].state
    [(name, (line, users))] = plant.fleet.lines().items()
    answering = len(line.answering)
    plant.fleet.stop()
    await running
    assert dead.state == "bad"
    assert dead.facts["line"] == "meters"
    assert dead.facts["others"] == 9
    for unit in (1, 2, 3, 4, 5, 6, 8, 9, 10):
        done, missed = polls[f"m{unit}"]
        assert done >= 0.95 * (done + missed), f"m{unit}: {missed} missed of {done + missed}"
        assert done >= 8
        assert {batch.values["unit"] for batch in plant.good(f"m{unit}")} == {unit}
    assert server.seen().connections == 1
    assert (name, len(users), line.connects) == ("meters", 10, 1)
    assert line.busy_s > 0.3
    assert answering == 9


async def test_a_silent_unit_comes_back_when_it_answers(server: RtuServer) -> None:
    settings = LineConfig(url=server.url)
    server.mute(unit=2)
    plant = Plant()
    devices = [configured(f"m{unit}", unit, settings, interval="200 ms") for unit in (1, 2)]
    running = asyncio.create_task(plant.fleet.run([plant.entry(device) for device in devices]))
    await plant.until(lambda: plant.cause("m2") == "no_answer")
    server.mute(False, unit=2)
    await plant.until(lambda: plant.good("m2"))
    plant.fleet.stop()
    await running


async def test_a_reload_in_mid_poll_harms_no_other_and_keeps_the_one_connection(server: RtuServer) -> None:
    settings = LineConfig(url=server.url)
    plant = Plant()
    devices = {unit: configured(f"m{unit}", unit, settings, interval="100 ms") for unit in (1, 2, 3)}
    running = asyncio.create_task(plant.fleet.run([plant.entry(device) for device in devices.values()]))
    await plant.until(lambda: plant.good("m1"))
    server.delay(0.1, unit=1)
    for timeout in (0.5, 0.6, 0.7):
        before = asked_of(server, 1)
        await plant.until(lambda before=before: asked_of(server, 1) > before)
        devices[1] = configured("m1", 1, settings, interval="100 ms", timeout=timeout)
        change = await plant.fleet.apply([plant.entry(device) for device in devices.values()])
        assert (change.changed, change.kept) == (["m1"], ["m2", "m3"])
    count = len(plant.good("m1"))
    await plant.until(lambda: len(plant.good("m1")) > count)
    for name in ("m2", "m3"):
        state = plant.fleet.runners[name].state
        assert state.state == "ok"
        assert state.reconnects == 0
        assert all(batch.quality == {} for batch in plant.batches if batch.device == name)
    plant.fleet.stop()
    await running
    assert server.seen().connections == 1
    assert {batch.values["unit"] for batch in plant.good("m1")} == {1}


async def test_max_load_and_pause_leave_the_line_to_others(server: RtuServer) -> None:
    context = Context()
    settings = LineConfig(url=server.url, max_load=0.4, pause=0.01)
    tags = [{"name": f"t{n}", "address": f"holding:{50 * n}", "type": "uint16"} for n in range(10)]
    device = TYPE.create(configured("m1", 1, settings, tags=tags), context)
    await device.open()
    await once(device)
    began = time.monotonic()
    for _ in range(3):
        await once(device)
    took = time.monotonic() - began
    stats: Any = context.kept(("line", "meters"), lambda: None)
    assert device.stats().wire_s < 0.55 * took
    assert stats.requests == 40
    await device.close()


async def test_a_pause_of_a_line_closes_its_connection(server: RtuServer) -> None:
    settings = LineConfig(url=server.url)
    plant = Plant()
    server.mute(unit=2)
    devices = [configured(f"m{unit}", unit, settings, interval="100 ms") for unit in (1, 2)]
    running = asyncio.create_task(plant.fleet.run([plant.entry(device) for device in devices]))
    await plant.until(lambda: plant.good("m1") and plant.cause("m2") == "no_answer")
    assert server.seen().open == 1
    await plant.fleet.pause(["m1", "m2"], 60)
    await plant.until(lambda: server.seen().open == 0)
    [(line, _)] = plant.fleet.lines().values()
    assert line.state == "closed"
    count = len(plant.good("m1"))
    for runner in plant.fleet.runners.values():
        runner.resume()
    await plant.until(lambda: len(plant.good("m1")) > count)
    assert line.connects == 2
    plant.fleet.stop()
    await running


# -- serial ports ----------------------------------------------------------------------------------------------------


@needs_socat
async def test_unplugged_and_plugged_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "LISTEN_S", 0.1)
    with Cable() as cable:
        settings = LineConfig(url=cable.url, baudrate=115_200)
        plant = Plant()
        async with RtuPeer(faulty.well, cable.far):
            running = asyncio.create_task(plant.fleet.run([plant.entry(configured("m1", 1, settings, interval=0.1))]))
            await plant.until(lambda: plant.good("m1"))
        cable.unplug()
        state = plant.fleet.runners["m1"].state
        await plant.until(lambda: state.state == "bad")
        await plant.until(lambda: state.cause == "port_missing")
        descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        used = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - used < 0.1, "no busy loop while it is away"
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= descriptors
        count = len(plant.good("m1"))
        cable.plug_in()
        async with RtuPeer(faulty.well, cable.far):
            await plant.until(lambda: len(plant.good("m1")) > count, 12)
            plant.fleet.stop()
            await running
        assert {batch.values["unit"] for batch in plant.good("m1")} == {honest(0)}


@needs_socat
async def test_another_master_on_the_wire_is_told_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "OTHER_MASTER_S", 0.5)
    with Cable() as cable:
        settings = LineConfig(url=cable.url, baudrate=115_200)
        context = Context()
        async with RtuPeer(faulty.well, cable.far) as peer:
            body = bytes.fromhex("05 03 00 00 00 0a")
            talking = asyncio.create_task(_talk(peer, body + checksum(body)))
            device = TYPE.create(configured("m1", 1, settings), context)
            with pytest.raises(Unavailable) as caught:
                await device.open()
            assert caught.value.cause == "other_master"
            talking.cancel()
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await device.open()
            assert time.monotonic() - began < 0.2, "left alone for a while, without being opened"
            assert not peer.asked, "nothing was said on a wire that is not ours"
            await asyncio.sleep(0.5)
            await device.open()
            assert (await once(device)).values == {"unit": honest(0)}
            await device.close()


async def _talk(peer: RtuPeer, frame: bytes) -> None:
    while True:
        peer.write(frame)
        await asyncio.sleep(0.02)


@needs_socat
async def test_another_master_is_heard_however_small_the_pieces_that_the_port_hands_over() -> None:
    body = bytes.fromhex("05 03 00 00 00 0a")

    async def trickle(peer: RtuPeer) -> None:
        while True:
            for byte in body + checksum(body):
                peer.write(bytes([byte]))
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.1)

    with Cable() as cable:
        device = TYPE.create(configured("m1", 1, LineConfig(url=cable.url, baudrate=1200)), Context())
        async with RtuPeer(faulty.well, cable.far) as peer:
            talking = asyncio.create_task(trickle(peer))
            with pytest.raises(Unavailable) as caught:
                await device.open()
            assert caught.value.cause == "other_master"
            talking.cancel()


@needs_socat
async def test_one_process_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "LISTEN_S", 0.02)
    with Cable() as cable:
        settings = LineConfig(url=cable.url, parity="E", stopbits=2)
        agent, tool, other = (
            Context(None, LineLocks(tmp_path, agent=True)),
            Context(None, LineLocks(tmp_path)),
            Context(),
        )
        async with RtuPeer(faulty.well, cable.far):
            holder = TYPE.create(configured("m1", 1, settings), agent)
            await holder.open()
            for context, cause in ((tool, "line_held_by_agent"), (other, "line_in_use")):
                device = TYPE.create(configured("m1", 1, settings), context)
                with pytest.raises(Unavailable) as caught:
                    await device.open()
                assert caught.value.cause == cause
                await device.close()
                await context.unpark(["m1"])
            assert (await once(holder)).quality == {}
            await holder.close()
            device = TYPE.create(configured("m1", 1, settings), tool)
            await device.open()
            assert (await once(device)).quality == {}
            await device.close()


@needs_socat
async def test_a_serial_port_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, cause in ((tmp_path / "none", "port_missing"), (tmp_path / "file", "port_failed")):
        device = TYPE.create(configured("m1", url=f"serial://{path}"), Context())
        with pytest.raises(Unavailable) as caught:
            await device.open()
        assert caught.value.cause == cause, caught.value.text
        await device.close()


# -- devices that dial in --------------------------------------------------------------------------------------------


class Modem:
    """A 4G modem: dials, names itself, beats, and passes on what comes to the units behind it."""

    def __init__(self, port: int, registration: bytes = b"", heartbeat: bytes = b"") -> None:
        self.port = port
        self.registration = registration
        self.heartbeat = heartbeat
        self.answers = 0
        self.hung_up = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def dial(self) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        for byte in self.registration:
            self._writer.write(bytes([byte]))
            await asyncio.sleep(0)
        self._task = asyncio.create_task(self._serve(reader, self._writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while raw := await reader.readexactly(8):
                asked = RtuAsked(raw, raw[0], raw[1], int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[4:6], "big"))
                self.answers += 1
                heartbeat = self.heartbeat if self.answers % 2 else b""
                writer.write(heartbeat + asked.frame(asked.registers([asked.unit] * asked.count)) + self.heartbeat)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()

    async def hang_up(self) -> None:
        assert self._writer is not None
        assert self._task is not None
        self._writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_modems_dial_in_and_are_told_apart() -> None:
    port = free_port()
    lines = [
        LineConfig(url=f"listen://127.0.0.1:{port}", registration=name, heartbeat_bytes="0x00 FE")
        for name in ("DTU-1", "0x44 54 55 2D 32")
    ]
    plant = Plant()
    devices = []
    for number, settings in enumerate(lines, start=1):
        device = configured(f"m{number}", number, interval="100 ms", line=f"dtu{number}", timeout=0.3)
        device.join_line(f"dtu{number}", settings)
        devices.append(device)
    running = asyncio.create_task(plant.fleet.run([plant.entry(device) for device in devices]))
    await plant.until(lambda: plant.cause("m1") == plant.cause("m2") == "not_called")
    modems = [Modem(port, b"DTU-2", b"\x00\xfe"), Modem(port, b"\x00\xfeDTU-1", b"\x00\xfe")]
    stranger = Modem(port, b"GET / HTTP/1.1")
    for modem in (*modems, stranger):
        await modem.dial()
    await plant.until(lambda: len(plant.good("m1")) > 3 and len(plant.good("m2")) > 3)
    await asyncio.wait_for(stranger.hung_up.wait(), 5)
    again = Modem(port, b"DTU-1", b"\x00\xfe")
    await again.dial()
    await asyncio.wait_for(modems[1].hung_up.wait(), 5)
    count = len(plant.good("m1"))
    await plant.until(lambda: len(plant.good("m1")) > count and again.answers)
    assert {batch.values["unit"] for batch in plant.good("m1")} == {1}
    assert {batch.values["unit"] for batch in plant.good("m2")} == {2}
    plant.fleet.stop()
    await running
    for modem in (*modems, stranger, again):
        await modem.hang_up()


async def test_a_modem_whose_units_are_silent_is_not_hung_up_on() -> None:
    port = free_port()
    settings = LineConfig(url=f"listen://127.0.0.1:{port}")
    plant = Plant()
    running = asyncio.create_task(plant.fleet.run([plant.entry(configured("m1", 1, settings, timeout=0.1))]))
    await plant.until(lambda: plant.cause("m1") == "not_called")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await plant.until(lambda: plant.cause("m1") == "no_answer")
    for _ in range(2):
        assert len(await asyncio.wait_for(reader.readexactly(8), 10)) == 8
    plant.fleet.stop()
    await running
    writer.close()


async def caller(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def test_a_modem_whose_heartbeat_is_its_name_is_known() -> None:
    port = free_port()
    settings = LineConfig(url=f"listen://127.0.0.1:{port}", registration="DTU-1", heartbeat_bytes="DTU-1")
    device = TYPE.create(configured("m1", 1, settings), Context())
    with pytest.raises(Unavailable):
        await device.open()
    modem = Modem(port, b"DTU-1", b"DTU-1")
    await modem.dial()
    await device.open()
    assert (await once(device)).values == {"unit": 1}
    await device.close()
    await modem.hang_up()


async def test_a_heartbeat_in_the_middle_of_a_reply_is_taken_out() -> None:
    port = free_port()
    settings = LineConfig(url=f"listen://127.0.0.1:{port}", heartbeat_bytes="beat")
    tags = [{"name": f"t{n}", "address": f"holding:{n}", "type": "uint16"} for n in range(8)]
    device = TYPE.create(configured("m1", 1, settings, tags=tags), Context())
    with pytest.raises(Unavailable):
        await device.open()
    reader, writer = await caller(port)
    await device.open()
    for cut in (1, 3, 4, 9, 20):
        polling = asyncio.create_task(once(device))
        raw = await reader.readexactly(8)
        asked = RtuAsked(raw, raw[0], raw[1], int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[4:6], "big"))
        frame = asked.frame(asked.good())
        writer.write(frame[:cut] + b"beat" + frame[cut:])
        assert (await polling).values == {f"t{n}": honest(n) for n in range(8)}
    await device.close()
    writer.close()


async def test_who_called_and_was_never_asked_is_hung_up_on_with_the_line() -> None:
    port = free_port()
    context = Context()
    device = TYPE.create(configured("m1", 1, LineConfig(url=f"listen://127.0.0.1:{port}")), context)
    with pytest.raises(Unavailable):
        await device.open()
    reader, writer = await caller(port)
    await device.open()
    again, second = await caller(port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    await device.close()
    await context.unpark(["m1"])
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(again.read(), 5) == b""
    writer.close()
    second.close()


async def test_lines_of_one_port_that_come_together_listen_once() -> None:
    port, context = free_port(), Context()
    devices = []
    for at in (1, 2, 3):
        settings = LineConfig(url=f"listen://127.0.0.1:{port}", registration=f"DTU-{at}")
        devices.append(TYPE.create(configured(f"m{at}", at, settings), context))
    outcomes = await asyncio.gather(*(device.open() for device in devices), return_exceptions=True)
    assert [getattr(one, "cause", one) for one in outcomes] == ["not_called"] * 3
    for device in devices:
        await device.close()
    await context.unpark(["m1", "m2", "m3"])
    with pytest.raises(ConnectionRefusedError):
        await caller(port)


async def test_two_modems_of_one_name_are_not_believed() -> None:
    port = free_port()
    settings = LineConfig(url=f"listen://127.0.0.1:{port}", registration="DTU-1")
    plant = Plant()
    running = asyncio.create_task(plant.fleet.run([plant.entry(configured("m1", 1, settings, interval="50 ms"))]))
    await plant.until(lambda: plant.cause("m1") == "not_called")
    modems = []
    for _ in range(5):  # each calls again as soon as the other took its place
        count = len(plant.good("m1"))
        modems.append(Modem(port, b"DTU-1"))
        await modems[-1].dial()
        await plant.until(lambda count=count: len(plant.good("m1")) > count or plant.cause("m1") == "two_callers")
    assert plant.cause("m1") == "two_callers"
    await asyncio.wait_for(modems[-1].hung_up.wait(), 5)
    plant.fleet.stop()
    await running
    for modem in modems:
        await modem.hang_up()
