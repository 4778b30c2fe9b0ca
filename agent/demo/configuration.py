"""The demo's configuration: the file a person would write for these machines, every tag included. Pure.

May import: the standard library, `agent.demo.press`, `agent.demo.cnc` (names and addresses).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from agent.demo import cnc, press
from agent.demo.texts import Language

SITE, GATEWAY = "demo", "demo-gw"
PRESS, CNC, HOST = "press-3", "cnc-7", "this-host"
DEVICES = (PRESS, CNC, HOST)

_TEMPLATE = """\
# {about}
site: {site}
gateway: {gateway}
label: {gateway_label}
language: {language}
mqtt:
  url: mqtt://127.0.0.1:{broker_port}
  protocol: {protocol}
buffer: {{max_size: 64 MB}}
log: {{format: sentences}}
devices:
  - name: {press}
    label: 三号冲床
    type: modbus
    url: tcp://127.0.0.1:{press_port}
    unit_id: {unit_id}
    interval: 1 s
    tags:
      - {{name: running, label: {t[running]}, address: "coil:{running}"}}
      - {{name: state, label: {t[state]}, address: "holding:{state}", type: uint16, map: {states}}}
      - {{name: temperature, label: {t[temperature]}, address: {temperature}, type: float32, unit: Cel}}
      - {{name: pressure, label: {t[pressure]}, address: "input:{pressure}", type: int16, scale: 0.1, unit: bar}}
      - {{name: strokes, label: {t[strokes]}, address: "holding:{strokes}", type: uint16, unit: /min}}
      - {{name: parts, label: {t[parts]}, address: "holding:{parts}", type: uint32, word_order: CDAB}}
      - {{name: fault, label: {t[fault]}, address: "{fault}"}}
      - {{name: lot, label: {t[lot]}, address: "holding:{lot}", type: string, length: 8, encoding: gbk}}
  - name: {cnc}
    label: 七号加工中心
    type: opcua
    url: opc.tcp://127.0.0.1:{cnc_port}
    security: {{policy: None}}
    interval: 500 ms
    tags:
{cnc_tags}
  - name: {host}
    label: {t[host]}
    type: host
    interval: 2 s
"""

_CNC_UNITS = {"spindle_speed": "r/min", "spindle_load": '"%"', "feed": "mm/min"}

_ZH = {
    "about": "演示用配置：一台模拟冲床（Modbus）、一台模拟加工中心（OPC UA）和本机。",
    "gateway": "演示网关",
    "running": "运行",
    "state": "状态",
    "temperature": "模具温度",
    "pressure": "液压压力",
    "strokes": "冲次",
    "parts": "产量",
    "fault": "故障",
    "lot": "批次",
    "host": "本机",
    "spindle_speed": "主轴转速",
    "spindle_load": "主轴负载",
    "feed": "进给",
    "program": "程序",
    "cnc_parts": "工件数",
    "alarm": "报警",
}
_EN = {
    "about": "Configuration of the demo: a simulated press (Modbus), a simulated machine tool (OPC UA) and this host.",
    "gateway": "demo gateway",
    "running": "running",
    "state": "state",
    "temperature": "die temp.",
    "pressure": "hydraulics",
    "strokes": "strokes",
    "parts": "good parts",
    "fault": "fault",
    "lot": "lot",
    "host": "this machine",
    "spindle_speed": "spindle speed",
    "spindle_load": "spindle load",
    "feed": "feed rate",
    "program": "program",
    "cnc_parts": "workpieces",
    "alarm": "alarm",
}
_STATES: dict[Language, tuple[str, str, str]] = {"zh": ("停机", "运行", "故障"), "en": ("idle", "running", "fault")}


def configuration(*, language: Language, broker_port: int, protocol: str, press_port: int, cnc_port: int) -> str:
    """The text of the file.

    Args:
        language: of labels and log sentences; the machines keep their Chinese names, as they would.
        broker_port, press_port, cnc_port: on the loopback.
        protocol: MQTT version, `auto` or `3.1.1`.
    """
    texts = _ZH if language == "zh" else _EN
    states = dict(zip((press.IDLE, press.RUNNING, press.FAULT), _STATES[language], strict=True))
    return _TEMPLATE.format(
        t=texts,
        about=texts["about"],
        gateway_label=texts["gateway"],
        site=SITE,
        gateway=GATEWAY,
        language=language,
        broker_port=broker_port,
        protocol=json.dumps(protocol),
        press=PRESS,
        press_port=press_port,
        unit_id=press.UNIT_ID,
        running=press.RUNNING_COIL,
        state=press.STATE,
        states="{" + ", ".join(f"{number}: {text}" for number, text in states.items()) + "}",
        temperature=40_001 + press.TEMPERATURE,
        pressure=press.PRESSURE,
        strokes=press.STROKES,
        parts=press.PARTS,
        fault=f"{40_001 + press.FAULT_WORD}.{press.FAULT_BIT}",
        lot=press.LOT,
        cnc=CNC,
        cnc_port=cnc_port,
        cnc_tags="\n".join(_cnc_tag(name, identifier, texts) for name, identifier in cnc.NODES.items()),
        host=HOST,
    )


def _cnc_tag(name: str, identifier: str, texts: Mapping[str, str]) -> str:
    label = texts["cnc_parts" if name == "parts" else name]
    unit = f", unit: {_CNC_UNITS[name]}" if name in _CNC_UNITS else ""
    return f"      - {{name: {name}, label: {label}, node: 'nsu={cnc.NAMESPACE};s={identifier}'{unit}}}"
