"""The status for people: the verdict first, then devices, the way to the broker and the buffer; last values.

Pure. Promises: never raises, whatever an agent of another version wrote into the file; nothing in it can steer the
terminal. May import: the standard library, `agent.columns`, `agent.sentences`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.columns import clean, pad, table, width
from agent.sentences import duration, quality_words, size, why

_MAX_PROBLEMS = 12

_STATES: Final = {
    "starting": ("启动中", "starting"),
    "ok": ("正常", "ok"),
    "degraded": ("部分读不到", "degraded"),
    "bad": ("读不到", "bad"),
    "misconfigured": ("配置有误", "misconfigured"),
    "paused": ("已暂停", "paused"),
    "off": ("计划停用", "off"),
    "connected": ("已连接", "connected"),
    "connecting": ("正在连接", "connecting"),
    "refused": ("拒绝登录", "refused"),
    "unreachable": ("连不上", "unreachable"),
    "full": ("已满", "full"),
}
_STORE: Final = {"ok": ("正常", "ok"), "degraded": ("写不进磁盘", "degraded"), "full": ("已满", "full")}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong (worst first), and what is worth knowing though nothing is wrong."""

    problems: tuple[tuple[str, str], ...]
    """Who, and the sentence."""
    notes: tuple[str, ...]


def judge(status: Mapping[str, Any], language: str) -> Verdict:
    """Return what is wrong with a running agent."""
    zh = language == "zh"
    problems = [
        *_store_problems(_part(status, "buffer"), zh),
        *_broker_problems(_part(status, "broker"), language),
        *_device_problems(_part(status, "devices"), language),
    ]
    refused = _part(status, "agent").get("config_refused")
    if refused:
        text = f"新配置未采用，仍按原配置运行：{refused}" if zh else f"the new one was not taken: {refused}"
        problems.append(("配置" if zh else "configuration", text))
    findings = [finding for finding in _list(status, "findings") if isinstance(finding, Mapping)]
    texts = [(finding.get("severity"), _part(finding, "text").get(language, finding.get("id"))) for finding in findings]
    problems += [("体检" if zh else "check-up", str(text)) for severity, text in texts if severity == "crit"]
    notes = [str(text) for severity, text in texts if severity != "crit"]
    return Verdict(tuple((clean(who), clean(text)) for who, text in problems), (*_notes(status, zh), *notes))


def render_status(status: Mapping[str, Any], age_s: float, language: str) -> list[str]:
    """Return the page of a running agent; its first line says whether all is well, or what is wrong and what to do."""
    zh = language == "zh"
    verdict = judge(status, language)
    devices = _part(status, "devices")
    return [
        *_verdict_lines(verdict, devices, zh),
        "",
        _head(_part(status, "agent"), age_s, language),
        "",
        *_device_table(devices, language),
        "",
        *_line_table(_part(status, "lines"), zh=zh),
        _broker_line(_part(status, "broker"), language),
        _buffer_line(_part(status, "buffer"), language),
        _message_line(_part(status, "counters"), zh),
        *(clean(note) for note in verdict.notes),
    ]


def render_not_running(status: Mapping[str, Any], age_s: float, language: str) -> list[str]:
    """Return what to say of an agent that wrote its status and does not run any more."""
    state = _part(status, "agent").get("state")
    when = duration(age_s, language) if age_s != float("inf") else None
    if language == "zh":
        since = f"（{when}前）" if when else "（本机上次开机期间）"
        what = f"采集程序已正常停止{since}" if state == "stopped" else f"采集程序没有在运行，最后一次状态{since}"
        return [f"{what}：请IT用 systemctl status shopfloor-agent 和 shopfloor log 查看原因。"]
    since = f"{when} ago" if when else "before this boot"
    what = f"the agent was stopped {since}" if state == "stopped" else f"the agent is not running, last sign {since}"
    return [f"{what}: see systemctl status shopfloor-agent, and shopfloor log."]


def render_values(devices: Mapping[str, Any], language: str) -> list[str]:
    """Return the last values as one table per device."""
    head = ("点", "名称", "值", "单位", "质量", "多久前") if language == "zh" else (
        "tag", "label", "value", "unit", "quality", "age")  # fmt: skip
    lines: list[str] = []
    for name, device in devices.items():
        known = device if isinstance(device, Mapping) else {}
        label = f"  {known['label']}" if known.get("label") else ""
        lines.append(clean(f"{name}{label}  {_state(known.get('state'), language)}"))
        rows = [
            (
                str(tag.get("name")),
                str(tag.get("label") or ""),
                show_value(tag.get("value")),
                str(tag.get("unit") or ""),
                quality_words(str(tag.get("quality") or "good"), language),
                _age(tag.get("age_s"), language),
            )
            for tag in _list(known, "tags")
            if isinstance(tag, Mapping)
        ]
        lines += ["  " + line for line in table(head, rows, numbers=frozenset({2}))]
        lines.append("")
    return lines[:-1]


def show_value(value: object) -> str:
    """A value as it stands in a message; `-` where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _verdict_lines(verdict: Verdict, devices: Mapping[str, Any], zh: bool) -> list[str]:
    if not verdict.problems:
        states = [_part(devices, name).get("state") for name in devices]
        count, reading = len(states), states.count("ok")
        if reading < count:
            rest = f"一切正常：{count} 台设备中 {reading} 台在采集，其余正在启动或已暂停。"
            return [rest if zh else f"all well: {reading} of {count} devices are read, the others start or are paused."]
        return [f"一切正常：{count} 台设备都在采集。" if zh else f"all well: {_count(count, 'device')} read."]
    shown = verdict.problems[:_MAX_PROBLEMS]
    columns = max(width(who) for who, _ in shown)
    lines = [f"! {pad(who, columns)}  {text}" for who, text in shown]
    more = len(verdict.problems) - len(shown)
    if more:
        lines.append(f"! 另有 {more} 处问题，见下表。" if zh else f"! and {more} more, see below.")
    return lines


def _store_problems(buffer: Mapping[str, Any], zh: bool) -> list[tuple[str, str]]:
    who = "缓存" if zh else "buffer"
    match buffer.get("state"):
        case "degraded":
            text = (
                "数据写不进磁盘，暂存内存，断电会丢：请IT检查磁盘。"
                if zh
                else "cannot write to the disk; data is kept in memory, a power cut would lose it: check the disk."
            )
            return [(who, text)]
        case "full":
            text = (
                "缓存已满，最旧的数据正在丢失：请IT尽快恢复到MQTT服务器的网络。"
                if zh
                else "is full and the oldest data is being lost: bring the broker's connection back."
            )
            return [(who, text)]
    return []


def _broker_problems(broker: Mapping[str, Any], language: str) -> list[tuple[str, str]]:
    zh = language == "zh"
    state = broker.get("state")
    cause = broker.get("cause")
    if state == "connected" or (state == "connecting" and not cause):
        return []
    reason = why(str(cause or ""), str(broker.get("text") or ""), {}, language, broker=True) if cause else ""
    span = duration(broker.get("since_s"), language)
    what = f"{_state(state, language)}（已 {span}）" if zh else f"{_state(state, language)} for {span}"
    kept = "。数据先存在本机，恢复后自动补传。" if zh else ". Data is kept here and sent when it is back."
    colon = "：" if zh else ": "
    return [("MQTT服务器" if zh else "broker", what + (colon + reason if reason else "") + kept)]


def _device_problems(devices: Mapping[str, Any], language: str) -> list[tuple[str, str]]:
    zh = language == "zh"
    found: list[tuple[int, str, str]] = []
    for name in devices:
        device = _part(devices, name)
        state = device.get("state")
        if state not in ("bad", "misconfigured", "degraded"):
            continue
        bad, of = device.get("bad_tags"), device.get("tags")
        if device.get("cause"):
            text = why(str(device["cause"]), str(device.get("text") or ""), _part(device, "facts"), language)
        elif zh:
            text = f"{of} 个点中有 {bad} 个读不到：请IT核对点表（shopfloor status --values {name}）。"
        else:
            text = f"{bad} of {of} tags cannot be read: check the tag list (shopfloor status --values {name})."
        found.append((0 if state != "degraded" else 1, str(device.get("label") or name), text))
    return [(who, text) for _, who, text in sorted(found, key=lambda entry: entry[0])]


def _notes(status: Mapping[str, Any], zh: bool) -> list[str]:
    notes = []
    if _part(status, "clock").get("synced") is False:
        notes.append(
            "注意：网关时间未同步，数据带有标记，请IT设置授时服务器（NTP）。"
            if zh
            else "note: the clock is not synchronised, and data is marked so: set a time server (NTP)."
        )
    if _part(status, "broker").get("plaintext") is True:
        notes.append(
            "注意：到MQTT服务器的数据没有加密（mqtt://）。"
            if zh
            else "note: data to the broker is not encrypted (mqtt://)."
        )
    return notes


def _head(agent: Mapping[str, Any], age_s: float, language: str) -> str:
    zh = language == "zh"
    name = f"{agent.get('site', '?')}/{agent.get('gateway', '?')}"
    if agent.get("label"):
        name += f"（{agent['label']}）" if zh else f" ({agent['label']})"
    up, age = duration(agent.get("since_s"), language), duration(round(age_s), language)
    version = agent.get("version", "?")
    return clean(
        f"{name}  版本 {version}  已运行 {up}  （{age}前的状态）"
        if zh
        else f"{name}  version {version}  up {up}  (as of {age} ago)"
    )


def _device_table(devices: Mapping[str, Any], language: str) -> list[str]:
    zh = language == "zh"
    if not devices:
        return ["没有配置设备。" if zh else "no devices are configured."]
    head: tuple[str, ...] = (
        ("设备", "名称", "类型", "状态", "多久前读到", "点数", "读不到", "值/秒", "漏采", "重连")
        if zh
        else ("device", "label", "type", "state", "last read", "tags", "bad", "values/s", "missed", "reconnects")
    )
    rows: list[tuple[str, ...]] = []
    for name in devices:
        device = _part(devices, name)
        state = _state(device.get("state"), language)
        if device.get("paused_for_s"):
            left = duration(device["paused_for_s"], language)
            state += f"（还有 {left}）" if zh else f" ({left} left)"
        rows.append(
            (
                name,
                str(device.get("label") or ""),
                str(device.get("type", "")),
                state,
                _age(device.get("last_read_age_s"), language),
                *(_figure(device.get(key)) for key in ("tags", "bad_tags", "values_per_s", "missed", "reconnects")),
            )
        )
    if not any(row[1] for row in rows):
        head, rows = head[:1] + head[2:], [row[:1] + row[2:] for row in rows]
    numbers = frozenset(range(len(head) - 6, len(head)))
    return table(head, rows, numbers=numbers)


def _line_table(lines: Mapping[str, Any], *, zh: bool) -> list[str]:
    """The lines that several devices share; one device on a line of its own says all of it itself."""
    head = ("线路", "设备数", "占用", "迟到", "重连") if zh else ("line", "devices", "busy", "late polls", "reconnects")
    rows = []
    for name in lines:
        line = _part(lines, name)
        users, busy = line.get("users"), line.get("busy")
        if not isinstance(users, list) or len(users) < 2:
            continue
        share = f"{busy:.0%}" if isinstance(busy, int | float) else "-"
        rows.append((name, str(len(users)), share, _figure(line.get("late")), _figure(line.get("reconnects"))))
    return [*table(head, rows, numbers=frozenset({1, 2, 3, 4})), ""] if rows else []


def _broker_line(broker: Mapping[str, Any], language: str) -> str:
    zh = language == "zh"
    state, span = _state(broker.get("state"), language), duration(broker.get("since_s"), language)
    protocol = f"MQTT {broker['protocol']}" if broker.get("protocol") else ""
    if broker.get("protocol") == "3.1.1":  # it acknowledges what its access list denies
        protocol += "（看不到被权限拒收的消息）" if zh else " (denied messages cannot be seen)"
    flight = f"{_figure(broker.get('in_flight'))}/{_figure(broker.get('window'))}"
    url = broker.get("url", "?")
    parts = (
        (f"{url} {state} {span}", protocol, f"待确认 {flight}")
        if zh
        else (f"{url} {state} for {span}", protocol, f"unacknowledged {flight}")
    )
    return clean(("MQTT服务器  " if zh else "broker    ") + "  ".join(part for part in parts if part))


def _buffer_line(buffer: Mapping[str, Any], language: str) -> str:
    zh = language == "zh"
    pair = _STORE.get(str(buffer.get("state")))
    state = pair[0 if zh else 1] if pair else str(buffer.get("state", "?"))
    used, backlog = f"{size(buffer.get('bytes'))} / {size(buffer.get('cap'))}", _figure(buffer.get("backlog"))
    parts = [state, f"待补传 {backlog} 条" if zh else f"{backlog} messages wait", used]
    if buffer.get("backlog") and buffer.get("oldest_s"):
        oldest = duration(buffer["oldest_s"], language)
        parts.append(f"最早的是 {oldest}前" if zh else f"the oldest is {oldest} old")
    if buffer.get("fills_in_s"):
        left = duration(buffer["fills_in_s"], language)
        parts.append(f"按当前速度 {left}后写满" if zh else f"full in {left} at this rate")
    return clean(("缓存        " if zh else "buffer    ") + "  ".join(parts))


def _message_line(counters: Mapping[str, Any], zh: bool) -> str:
    dropped = _part(counters, "dropped")
    lost = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count)
    delivered = _figure(counters.get("delivered"))
    if zh:
        return clean(f"消息        已送达 {delivered} 条  丢弃 {lost or '0'}")
    return clean(f"messages  {delivered} delivered  dropped {lost or '0'}")


def _state(state: object, language: str) -> str:
    pair = _STATES.get(str(state))
    return pair[0 if language == "zh" else 1] if pair else str(state or "?")


def _age(seconds: object, language: str) -> str:
    return "-" if seconds is None else duration(seconds, language)


def _figure(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "-" if value is None else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"


def _part(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = whole.get(key)
    return found if isinstance(found, Mapping) else {}


def _list(whole: Mapping[str, Any], key: str) -> list[Any]:
    found = whole.get(key)
    return found if isinstance(found, list) else []
