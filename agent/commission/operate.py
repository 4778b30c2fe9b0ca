"""The commands that ask the running agent: `status`, `pause`, `resume`.

They read `status.json` and the control socket alone and need no configuration; what they print is in the language of
the agent's configuration. Each returns its exit code: 0 fine, 1 not running or something is wrong, 2 usage.

May import: the standard library, `agent.status`, `agent.status_text`, `agent.control`, `collectors.fields` (pause).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.sentences import duration
from agent.status import STATUS_NAME, StatusFile, age_s, find_run_dir, is_running, read_status
from agent.status_text import judge, render_not_running, render_status, render_values

MAX_PAUSE_S = 7 * 86_400.0

_ERRORS = {
    "not_running": "采集程序没有应答：它在运行吗？（systemctl status shopfloor-agent）",
    "permission": "没有权限访问采集程序的控制接口：请把当前用户加入 shopfloor 组，或用 sudo 执行。",
    "timeout": "采集程序没有及时应答：稍后再试；一直这样请看 shopfloor log。",
    "path_too_long": "控制接口的路径太长：请换一个更短的目录。",
    "busy": "采集程序正忙：稍后再试。",
    "unknown_command": "运行中的采集程序版本不支持这个命令：请IT升级。",
}


def status(*, as_json: bool = False, values: str | None = None) -> int:
    """Show how the running agent is doing.

    Args:
        as_json: for programs: `status.json` with `running` and `age_s`, or the reply to `values`.
        values: show last values instead, of this device; empty = of all.
    """
    found = _find()
    if found is None:
        return 1
    run_dir, known = found
    language = _language(known)
    age = age_s(known, run_dir)
    running = is_running(known, run_dir)
    if values is not None:
        return _values(run_dir, known, values, as_json=as_json)
    if as_json:
        shown_age = None if age == float("inf") else round(age, 1)
        _print_json({"running": running, "age_s": shown_age, **known})
    elif running:
        print("\n".join(render_status(known, age, language)))
    else:
        print("\n".join(render_not_running(known, age, language)))
    return 0 if running and not judge(known, language).problems else 1


def pause(target: str, span: str) -> int:
    """Leave a device, or all devices of a line, alone for so long (`30m`); it comes back by itself."""
    from pydantic_core import PydanticCustomError

    from collectors.fields import parse_duration

    found = _find()
    language = _language(found[1] if found else {})
    try:
        seconds = parse_duration(span)
    except PydanticCustomError as error:
        return _complain(f"--for {span}：时间写法如 30m、1h" if language == "zh" else f"--for {span}: {error}", 2)
    if not 0 < seconds <= MAX_PAUSE_S:
        return _complain("--for：最长 7 天" if language == "zh" else "--for: more than 0 and at most 7 days", 2)
    if found is None:
        return 1
    reply = _ask(found, {"command": "pause", "target": target, "for_s": seconds})
    if reply is None:
        return 1
    names, left = _names(reply.get("paused")) or target, duration(reply.get("for_s", seconds), language)
    print(
        f"已暂停：{names}，{left}后自动恢复（提前恢复：shopfloor resume）。"
        if language == "zh"
        else f"paused: {names}, for {left} (sooner: shopfloor resume)."
    )
    if reply.get("connection_kept"):
        print(
            "同一连接上还有别的设备在采集，连接没有断开。"
            if language == "zh"
            else "the connection stays open: other devices use it."
        )
    return 0


def resume(target: str | None = None) -> int:
    """End the pause of a device or line; None ends every pause."""
    found = _find()
    if found is None:
        return 1
    reply = _ask(found, {"command": "resume", "target": target})
    if reply is None:
        return 1
    names = _names(reply.get("resumed"))
    if _language(found[1]) == "zh":
        print(f"已恢复采集：{names}。" if names else "没有暂停中的设备。")
    else:
        print(f"reading goes on: {names}." if names else "nothing was paused.")
    return 0


def _values(run_dir: Path, known: StatusFile, device: str, *, as_json: bool) -> int:
    reply = _ask((run_dir, known), {"command": "values", "device": device or None})
    if reply is None:
        return 1
    devices = reply.get("devices")
    devices = devices if isinstance(devices, Mapping) else {}
    if as_json:
        _print_json({"devices": devices})
    else:
        print("\n".join(render_values(devices, _language(known))))
    return 0


def _find() -> tuple[Path, StatusFile] | None:
    """The run directory and what the agent says there; None after saying why there is none."""
    zh = _language({}) == "zh"
    run_dir = find_run_dir()
    if run_dir is None:
        _complain("没有找到运行中的采集程序。" if zh else "no running agent was found.", 1)
        return None
    try:
        known = read_status(run_dir)
    except OSError as error:
        _complain(f"{run_dir / STATUS_NAME}: {error.strerror or error}", 1)
        return None
    if known is None:
        path = run_dir / STATUS_NAME
        _complain(f"{path}：内容读不懂。" if zh else f"{path} cannot be understood.", 1)
        return None
    return run_dir, known


def _ask(found: tuple[Path, StatusFile], body: dict[str, Any]) -> dict[str, Any] | None:
    from agent.control import SOCKET_NAME, ControlError, request  # asyncio, which `status` alone does without

    run_dir, known = found
    language = _language(known)
    try:
        return request(run_dir / SOCKET_NAME, body)
    except ControlError as error:
        if error.cause == "not_running" and not is_running(known, run_dir):
            _complain(render_not_running(known, age_s(known, run_dir), language)[0], 1)
        elif error.cause == "unknown_target":
            _complain(_unknown_target(body, known, language), 1)
        else:
            _complain(_ERRORS.get(error.cause, error.text) if language == "zh" else error.text, 1)
    return None


def _unknown_target(body: Mapping[str, Any], known: Mapping[str, Any], language: str) -> str:
    name = body.get("target") or body.get("device")
    names = [*_keys(known.get("devices")), *_keys(known.get("lines"))]
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"没有叫 {name} 的设备或线路；现有：{listed}" if language == "zh" else f"no {name}; there are: {listed}"


def _keys(found: object) -> list[str]:
    return [str(key) for key in found] if isinstance(found, Mapping) else []


def _names(found: object) -> str:
    return ", ".join(str(name) for name in found) if isinstance(found, list) else ""


def _language(known: Mapping[str, Any]) -> str:
    agent = known.get("agent")
    configured = agent.get("language") if isinstance(agent, Mapping) else None
    if configured in ("zh", "en"):
        return str(configured)
    lang = next((os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), "")
    return "zh" if lang.casefold().startswith("zh") else "en"


def _print_json(body: Mapping[str, Any]) -> None:
    print(json.dumps(body, ensure_ascii=False, indent=2))


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"shopfloor: {text}\n")
    return code
