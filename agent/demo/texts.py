"""The demo's own texts, Chinese and English. Pure; may import: the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Language = Literal["zh", "en"]

_EN = {
    "title": "Shopfloor Agent - demo",
    "starting": "starting: {what}",
    "broker": "MQTT broker ({name})",
    "press": "press (Modbus TCP)",
    "cnc": "CNC (OPC UA)",
    "agent": "agent",
    "device": "device",
    "tag": "tag",
    "label": "label",
    "value": "value",
    "unit": "unit",
    "age": "age",
    "quality": "quality",
    "trend": "trend",
    "good": "good",
    "more": "+ {n} more tags",
    "waiting": "waiting for readings",
    "yes": "yes",
    "no": "no",
    "messages": "messages {n}",
    "values": "values {n}",
    "rate": "{n}/s",
    "lost": "lost {n}",
    "duplicates": "repeated {n}",
    "broker_state": "broker {name} {where} {state}",
    "agent_state": "agent {state}",
    "connected": "connected",
    "disconnected": "disconnected",
    "listen": "listen along:",
    "leave": "Ctrl-C ends",
    "file": "configuration: {path}",
    "summary": "Summary: {text}",
    "after": "{seconds:.0f} s, first reading after {first:.1f} s",
    "after_nothing": "{seconds:.0f} s, no reading came",
    "readings": "{values} readings in {messages} messages",
    "never": "never delivered",
    "total": "{messages} messages, {values} readings; lost {lost}, repeated {duplicates}",
    "fine": "Every message arrived.",
    "stopping": "stopping ...",
    "died": "{what} ended unexpectedly (exit {code}); the end of its log:",
    "not_ready": "{what} was not ready within {seconds:.0f} s; the end of its log:",
    "no_broker": "The demo needs an MQTT broker of its own: `make demo` installs one (the extra: pip install "
    "'shopfloor-agent[demo]'), or install mosquitto (apt-get install mosquitto).",
    "watch_lost": "The demo's own subscriber lost its broker; messages may be missing from the account.",
}

_ZH = {
    "title": "Shopfloor Agent 演示",
    "starting": "正在启动：{what}",
    "broker": "MQTT 服务器（{name}）",
    "press": "冲床（Modbus TCP）",
    "cnc": "数控机床（OPC UA）",
    "agent": "采集程序",
    "device": "设备",
    "tag": "点位",
    "label": "名称",
    "value": "数值",
    "unit": "单位",
    "age": "时间差",
    "quality": "质量",
    "trend": "趋势",
    "good": "正常",
    "more": "另有 {n} 个点位",
    "waiting": "等待数据",
    "yes": "是",
    "no": "否",
    "messages": "消息 {n}",
    "values": "数值 {n}",
    "rate": "{n}/秒",
    "lost": "丢失 {n}",
    "duplicates": "重复 {n}",
    "broker_state": "服务器 {name} {where} {state}",
    "agent_state": "采集程序 {state}",
    "connected": "已连接",
    "disconnected": "已断开",
    "listen": "旁听命令：",
    "leave": "按 Ctrl-C 结束",
    "file": "配置文件：{path}",
    "summary": "小结：{text}",
    "after": "历时 {seconds:.0f} 秒，{first:.1f} 秒后收到首个数据",
    "after_nothing": "历时 {seconds:.0f} 秒，未收到数据",
    "readings": "{values} 个数据，{messages} 条消息",
    "never": "没有数据",
    "total": "共 {messages} 条消息，{values} 个数据；丢失 {lost}，重复 {duplicates}",
    "fine": "全部消息均已到达。",
    "stopping": "正在停止……",
    "died": "{what}意外退出（代码 {code}），日志末尾：",
    "not_ready": "{what}在 {seconds:.0f} 秒内未就绪，日志末尾：",
    "no_broker": "演示需要自带的 MQTT 服务器：`make demo` 会安装（即 pip install 'shopfloor-agent[demo]'），"
    "也可以安装 mosquitto（apt-get install mosquitto）。",
    "watch_lost": "演示的订阅端与服务器断开，统计可能不完整。",
}

_STATES_ZH = {
    "online": "在线",
    "stopped": "已停止",
    "lost": "失联",
    "starting": "启动中",
    "ok": "正常",
    "degraded": "部分异常",
    "bad": "异常",
    "misconfigured": "配置有误",
    "paused": "已暂停",
    "off": "已停用",
}


class Texts:
    """The texts of one language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._texts = _ZH if language == "zh" else _EN

    def __call__(self, key: str, **facts: object) -> str:
        """The text of this key with its facts filled in."""
        return self._texts[key].format(**facts)

    def state(self, word: str) -> str:
        """A state of the agent or of a device, as the status message spells it."""
        return _STATES_ZH.get(word, word) if self.language == "zh" else word


def language_of(environment: Mapping[str, str]) -> Language:
    """Chinese when the locale is, else English (the order of the locale variables is that of POSIX)."""
    locale = environment.get("LC_ALL") or environment.get("LC_MESSAGES") or environment.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"
