from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.control import MAX_CONNECTIONS, MAX_REQUEST, ControlError, ControlServer, request


async def answer(body: dict[str, Any]) -> dict[str, Any]:
    if body["command"] == "values":
        return {"devices": {"press-3": {"label": "三号冲床", "state": "ok", "tags": []}}}
    if body["command"] == "slow":
        await asyncio.sleep(30)
    raise ControlError("unknown_command", f"unknown command {body['command']}")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlServer]:
    server = ControlServer(tmp_path / "c.sock", answer, idle_s=0.3)
    await server.start()
    yield server
    await server.close()


async def ask(path: Path, body: dict[str, Any], timeout_s: float = 2.0) -> dict[str, Any]:
    return await asyncio.to_thread(request, path, body, timeout_s=timeout_s)


@pytest.mark.usefixtures("server")
class TestServing:
    async def test_requests_are_answered(self, tmp_path: Path) -> None:
        assert stat.S_IMODE((tmp_path / "c.sock").stat().st_mode) == 0o660
        reply = await ask(tmp_path / "c.sock", {"command": "values", "device": None})
        assert reply["devices"]["press-3"]["label"] == "三号冲床"
        with pytest.raises(ControlError, match="unknown command explode") as caught:
            await ask(tmp_path / "c.sock", {"command": "explode"})
        assert caught.value.cause == "unknown_command"

    async def test_several_requests_on_one_connection_and_bad_ones(self, tmp_path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "c.sock")
        for line in (b'{"command":"values"}', b"nonsense", b"[1]", b'{"command":7}', b"[" * 5000, b"\xff\xfe"):
            writer.write(line + b"\n")
        replies = [json.loads(await reader.readline()) for _ in range(6)]
        assert [reply["ok"] for reply in replies] == [True, False, False, False, False, False]
        assert {reply["error"] for reply in replies[1:]} == {"bad_request"}
        writer.close()

    async def test_a_request_above_the_limit_is_refused(self, tmp_path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "c.sock")
        writer.write(b" " * (MAX_REQUEST + 10) + b"\n")
        reply = json.loads(await reader.readline())
        assert (reply["ok"], reply["error"]) == (False, "bad_request")
        writer.close()

    async def test_the_silent_are_shown_out_and_the_rest_served(self, tmp_path: Path) -> None:
        silent = [await asyncio.open_unix_connection(tmp_path / "c.sock") for _ in range(MAX_CONNECTIONS)]
        silent[0][1].write(b'{"command"')  # half a request is silence too
        with pytest.raises(ControlError) as caught:
            await ask(tmp_path / "c.sock", {"command": "values"})
        assert caught.value.cause == "busy"
        async with asyncio.timeout(2):
            for reader, _ in silent:
                assert await reader.read() == b""
        assert (await ask(tmp_path / "c.sock", {"command": "values"}))["ok"]
        for _, writer in silent:
            writer.close()

    async def test_a_client_waits_no_longer_than_it_said(self, tmp_path: Path) -> None:
        with pytest.raises(ControlError) as caught:
            await ask(tmp_path / "c.sock", {"command": "slow"}, timeout_s=0.2)
        assert caught.value.cause == "timeout"

    async def test_a_living_socket_is_not_taken_over(self, tmp_path: Path) -> None:
        with pytest.raises(ControlError) as caught:
            await ControlServer(tmp_path / "c.sock", answer).start()
        assert caught.value.cause == "in_use"
        assert (await ask(tmp_path / "c.sock", {"command": "values"}))["ok"]


async def test_closing_removes_the_socket(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "c.sock", answer)
    await server.close()
    await server.start()
    await server.close()
    await server.close()
    assert not (tmp_path / "c.sock").exists()


async def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    server = ControlServer(path, answer)
    await server.start()
    assert (await ask(path, {"command": "values"}))["ok"]
    await server.close()


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c.sock").write_text("mine")
    with pytest.raises(ControlError) as caught:
        await ControlServer(tmp_path / "c.sock", answer).start()
    assert caught.value.cause == "not_a_socket"
    assert (tmp_path / "c.sock").read_text() == "mine"


async def test_a_path_too_long_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / ("深" * 40) / "c.sock"
    with pytest.raises(ControlError, match="at most 107 bytes") as caught:
        await ControlServer(path, answer).start()
    assert caught.value.cause == "path_too_long"
    with pytest.raises(ControlError, match="at most 107 bytes"):
        request(path, {})


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="is it running") as caught:
        request(tmp_path / "c.sock", {"command": "values"})
    assert caught.value.cause == "not_running"


async def test_no_permission_names_the_group(tmp_path: Path) -> None:
    if os.getuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o000)
        with pytest.raises(ControlError, match="group shopfloor"):
            request(tmp_path / "locked" / "c.sock", {})
        return
    # As root nothing is forbidden: ask as an ordinary user, in a child that drops its rights.
    server = ControlServer(tmp_path / "c.sock", answer)
    await server.start()
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and directory != Path("/") and directory.is_relative_to("/tmp/pytest-of-root"):
            directory.chmod(0o755)
    code = (
        "import os,sys;from pathlib import Path\n"
        "from agent.control import ControlError,request\n"
        "os.setgroups([]);os.setgid(65534);os.setuid(65534)\n"
        "try: request(Path(sys.argv[1]),{})\n"
        "except ControlError as error: print(error.cause,error)\n"
    )
    import sys

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path / "c.sock"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    await server.close()
    assert out.decode().startswith("permission")
    assert "group shopfloor" in out.decode()
