"""Broken configurations and what each prints: place, path and message of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load

HEAD = "site: plant\ngateway: gw-1\nmqtt: {url: 'mqtts://broker'}\n"  # devices begin in line 4
BOX = "devices:\n  - {name: box, type: host}\n"
PRESS = "devices:\n  - name: press\n    type: modbus\n    url: tcp://10.0.0.1:502\n"  # more keys from line 8
TAG = "    tags: [{name: t, address: 40001, type: int16}]\n"
CNC = "devices:\n  - name: cnc\n    type: opcua\n    url: opc.tcp://10.0.0.1:4840\n    security: {policy: None}\n"
NODE = "    tags: [{name: t, node: 'ns=2;s=t'}]\n"

# name: (file, what each line of the output has: "line:column: path: part of the message")
CASES: dict[str, tuple[str, list[str]]] = {
    # -- the notation
    "tab": (HEAD + "devices:\n\t- {name: box, type: host}\n", ["5:1: yaml: a tab"]),
    "percent": (
        HEAD + PRESS + "    tags: [{name: t, address: 40001, type: int16, unit: %}]\n",
        ['8:57: yaml: a value cannot begin with % unless it stands in quotes: unit: "%"'],
    ),
    "duplicate key": (
        HEAD + "site: b\n" + BOX,
        ["4:1: yaml: the key 'site' stands here twice; the first is in line 1"],
    ),
    "alias": (
        HEAD + "label: &l x\ntimezone: *l\n" + BOX,
        ["5:11: yaml: aliases (*l) are not supported"],
    ),
    "merge": (
        HEAD + "devices:\n  - &d {name: box, type: host}\n  - <<: *d\n    name: b\n    type: host\n",
        ["6:9: yaml: aliases (*d) are not supported: write the values out"],
    ),
    "template without quotes": (
        "site: p\ngateway: g\nmqtt:\n  url: mqtts://b\n  topic: {site}/data\n" + BOX,
        ["5:16: yaml: a key: value pair was expected"],
    ),
    "colon without space": ("site:plant\ngateway: gw-1\n", ["1:1: yaml: a colon and a space were expected"]),
    "full-width colon": ("site： plant\ngateway: gw-1\n", ["1:1: yaml: full-width '：'"]),
    "only comments": ("# nothing\n", ["1:1: file: holds nothing but comments"]),
    "a list": ("- site: x\n", ["1:1: file: expected keys such as site:, mqtt:, devices:, got a list"]),
    "no key": ("plant-2\n", ["1:1: file: expected keys such as site:"]),
    # -- keys
    "misspelt keys": (
        "sit: plant\ngateway: gw-1\nmqtt: {url: 'mqtts://broker', keep-alive: 5 s}\nlog: {levl: info}\n" + BOX,
        [
            "1:1: sit: unknown key 'sit'; did you mean 'site'?",
            "3:31: mqtt.keep-alive: unknown key 'keep-alive'; did you mean 'keepalive'?",
            "4:7: log.levl: unknown key 'levl'; did you mean 'level'?",
        ],
    ),
    "missing keys": (
        "gateway: gw-1\nlabel: x\n",
        [
            "1:1: devices: 'devices:' is missing (what is read)",
            "1:1: mqtt: 'mqtt:' is missing (where readings go)",
            "1:1: site: 'site:' is missing (the plant; part of topics)",
        ],
    ),
    "missing in a device": (
        HEAD + "devices:\n  - {name: box}\n  - {type: host}\n",
        [
            "5:5: devices[box].type: 'type:' is missing: modbus, opcua, host",
            "6:5: devices[#2].name: 'name:' is missing",
        ],
    ),
    "unit of a device": (
        HEAD + PRESS + "    unit: 1\n" + TAG,
        ["8:5: devices[press].unit: unknown key 'unit'; did you mean 'unit_id' (the Modbus station number;"],
    ),
    "host and port": (
        HEAD + "devices:\n  - name: press\n    type: modbus\n    host: 10.0.0.1\n    port: 502\n" + TAG,
        [
            "7:5: devices[press].host: unknown key 'host'; did you mean 'url' (host and port in one: tcp://192.168.",
            "8:5: devices[press].port: unknown key 'port'; did you mean 'url'",
        ],
    ),
    "ip": (
        HEAD + "devices:\n  - {name: cnc, type: opcua, ip: 10.0.0.1, security: {policy: None},\n"
        "     tags: [{name: t, node: 'ns=2;s=t'}]}\n",
        ["5:30: devices[cnc].ip: unknown key 'ip'; did you mean 'url' (host and port in one: opc.tcp://192.168."],
    ),
    "broker by host and port": (
        "site: p\ngateway: g1\nmqtt: {host: broker, port: 1883}\n" + BOX,
        [
            "3:8: mqtt.host: unknown key 'host'; did you mean 'url' (host and port in one: mqtts://HOST:8883)?",
            "3:22: mqtt.port: unknown key 'port'; did you mean 'url'",
        ],
    ),
    "password in the file": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b', username: u, password: geheim}\n" + BOX,
        ["3:39: mqtt.password: unknown key 'password'; did you mean 'password_file' (the name of a file that holds it"],
    ),
    "password in the url": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://u:geheim@b'}\n" + BOX,
        ["3:13: mqtt.url: no user or password in the url: write username: and password_file:, got 'mqtts://***@b'"],
    ),
    "words of elsewhere": (
        HEAD + PRESS + "    scan_rate: 1 s\n    byte_order: ABCD\n"
        "    tags: [{name: t, register: 40001, datatype: int16, factor: 0.1}]\n",
        [
            "8:5: devices[press].scan_rate: unknown key 'scan_rate'; did you mean 'interval'?",
            "9:5: devices[press].byte_order: unknown key 'byte_order'; did you mean 'word_order'?",
            "10:22: devices[press].tags[t].register: unknown key 'register'; did you mean 'address'?",
            "10:39: devices[press].tags[t].datatype: unknown key 'datatype'; did you mean 'type'?",
            "10:56: devices[press].tags[t].factor: unknown key 'factor'; did you mean 'scale'?",
        ],
    ),
    "function code": (
        HEAD + PRESS + "    tags: [{name: t, address: 40001, type: int16, function_code: 3}]\n",
        ["8:51: devices[press].tags[t].function_code: unknown key 'function_code'; the function code follows from"],
    ),
    "key of another section": (
        HEAD + "window: 5\n" + BOX,
        ["4:1: window: unknown key 'window'; it belongs under mqtt:"],
    ),
    # -- values
    "unknown type": (
        HEAD + "devices:\n  - {name: a, type: modbuss}\n  - {name: b, type: s7}\n",
        [
            "5:21: devices[a].type: unknown device type 'modbuss'; did you mean 'modbus'?",
            "6:21: devices[b].type: unknown device type 's7'; known here: modbus, opcua, host",
        ],
    ),
    "wrong kinds": (
        HEAD + "buffer: {replay_rate: fast, replay: oldest}\nplugins: x\nlog: info\ndevices: box\n",
        [
            "4:23: buffer.replay_rate: expected a number, got 'fast'",
            "4:37: buffer.replay: expected live-first or in-order, got 'oldest'",
            "5:10: plugins: expected a list",
            "6:6: log: expected key: value pairs, got 'info'",
            "7:10: devices: expected a list",
        ],
    ),
    "yes is text": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtt://b', allow_plaintext: yes}\n" + BOX,
        [
            "3:13: mqtt.url: mqtt:// would send readings and password unencrypted",
            "3:42: mqtt.allow_plaintext: expected true or false, got 'yes'; did you mean true?",
        ],
    ),
    "numbers": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b', window: '5', keepalive: 0.5 s, max_payload: 10}\n"
        "log: {keep: 1.5}\nbuffer: {replay_rate: '1,5'}\n" + BOX,
        [
            "3:34: mqtt.window: expected a whole number, got '5'; remove the quotes",
            "3:50: mqtt.keepalive: expected at least 1 s, got '0.5 s'",
            "3:70: mqtt.max_payload: expected at least 1 KB, got '10'",
            "4:13: log.keep: expected a whole number, got '1.5'",
            "5:23: buffer.replay_rate: expected a number, got '1,5'; did you mean 1.5?",
        ],
    ),
    "durations and sizes": (
        HEAD + "defaults: {interval: 1 sec}\nbuffer: {max_size: 1 gb, commit_interval: -1 s}\n" + BOX,
        [
            "4:22: defaults.interval: expected a duration such as 500 ms, 1 s, 5 min, 1 h or 7 d, or a number of "
            "seconds; did you mean 1 s? (got '1 sec')",
            "5:20: buffer.max_size: expected a size such as 60 KB, 64 MB, 1 GB or 512 MiB; did you mean 1 GB?",
            "5:43: buffer.commit_interval: expected a duration",
        ],
    ),
    "interval of nothing": (
        HEAD + "devices:\n  - {name: box, type: host, interval: 0}\n",
        ["5:39: devices[box].interval: expected more than 0 s, got '0'"],
    ),
    "nothing after the colon": (
        "site:\ngateway: gw-1\nmqtt:\n  url:\n" + BOX,
        ["1:6: site: expected a text, got nothing", "4:7: mqtt.url: expected a text, got nothing"],
    ),
    "words of PLC programs": (
        HEAD + PRESS + "    word_order: big-endian\n"
        "    tags: [{name: t, address: 40001, type: REAL, scale: [0.1, x]}]\n",
        [
            "8:17: devices[press].word_order: expected ABCD, CDAB, BADC or DCBA, got 'big-endian'; did you mean 'ABCD'",
            "9:44: devices[press].tags[t].type: expected bool, int16, ",
            "9:63: devices[press].tags[t].scale[#2]: expected numbers that are multiplied",
        ],
    ),
    "full-width letters": (
        HEAD + "ｌａｂｅｌ: x\nbuffer: {replay_rate: １００, commit_interval: 5 秒}\n" + BOX,
        [
            "4:1: ｌａｂｅｌ: unknown key 'ｌａｂｅｌ'; type it in plain letters: label",
            "5:23: buffer.replay_rate: expected a number, got '１００'; type it in plain letters: 100",
            "5:45: buffer.commit_interval: expected a duration such as 500 ms, 1 s, 5 min, 1 h or 7 d, or a number of "
            "seconds; did you mean 5 s?",
        ],
    ),
    "limits": (
        HEAD + PRESS + "    tags: [{name: t, address: 40001, type: int16, min: 5, max: 1, decimals: 20}]\n",
        ["8:77: devices[press].tags[t].decimals: expected at most 15, got '20'"],
    ),
    "min above max": (
        HEAD + PRESS + "    tags: [{name: t, address: 40001, type: int16, min: 5, max: 1}]\n",
        ["8:56: devices[press].tags[t].min: min is above max, got '5'"],
    ),
    "timezone and language": (
        HEAD + "timezone: Asia/Shanghay\nlanguage: cn\n" + BOX,
        [
            "4:11: timezone: expected a time zone such as Asia/Shanghai or Europe/Berlin; did you mean 'Asia/Shanghai'",
            "5:11: language: expected zh or en, got 'cn'",
        ],
    ),
    "beijing": (HEAD + "timezone: Beijing\n" + BOX, ["4:11: timezone: expected a time zone", ]),
    # -- names
    "names": (
        "site: plant 2\ngateway: 网关\nmqtt: {url: 'mqtts://b'}\ndevices:\n  - {name: -x, type: host}\n",
        [
            "1:7: site: a name is 1 to 64 of A-Z a-z 0-9 _ . -",
            "2:10: gateway: a name is 1 to 64",
            "5:12: devices[-x].name: a name is 1 to 64",
        ],
    ),
    "stock name": (
        "site: plant\ngateway: RaspberryPi\nmqtt: {url: 'mqtts://b'}\n" + BOX,
        ["2:10: gateway: this is a name that systems come with; two gateways from one image would publish as one"],
    ),
    "device names": (
        HEAD + "devices:\n  - {name: Box, type: host}\n  - {name: box, type: host}\n  - {name: meta, type: host}\n"
        "  - {name: Box, type: host}\n",
        [
            "6:12: devices[box].name: the name 'box' is taken already, in line 5 as 'Box' (capital letters",
            "7:12: devices[meta].name: the name 'meta' is reserved",
            "8:12: devices[Box].name: the name 'Box' is taken already, in line 5",
        ],
    ),
    "tag names": (
        HEAD + CNC + "    tags:\n    - {name: t, node: i=1}\n    - {name: T, node: i=2}\n    - {name: t, node: i=3}\n",
        ["12:14: devices[cnc].tags[t].name: the name 't' is taken already in this device, in line 10"],
    ),
    # -- the broker
    "broker urls": (
        "site: p\ngateway: g1\nmqtt: {url: broker.example.com}\n" + BOX,
        ["3:13: mqtt.url: expected mqtts://HOST:8883 (with TLS) or mqtt://HOST:1883; did you mean 'mqtts://broker."],
    ),
    "scheme": (
        "site: p\ngateway: g1\nmqtt: {url: 'ssl://broker:8883'}\n" + BOX,
        ["3:13: mqtt.url: expected mqtts://HOST:8883 (with TLS) or mqtt://HOST:1883; did you mean mqtts://?"],
    ),
    "websocket": (
        "site: p\ngateway: g1\nmqtt: {url: 'wss://broker/mqtt'}\n" + BOX,
        ["3:13: mqtt.url: MQTT over WebSocket (wss://) is not supported yet"],
    ),
    "plaintext": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtt://10.0.0.5', ca_file: agent.yaml}\n" + BOX,
        [
            "3:13: mqtt.url: mqtt:// would send readings and password unencrypted through the network",
            "3:32: mqtt.ca_file: has no effect with mqtt://: use mqtts://",
        ],
    ),
    "files": (
        "site: p\ngateway: g1\nmqtt:\n  url: mqtts://b\n  ca_file: ca.pem\n  client_cert_file: agent.yaml\n"
        "  password_file: agent.yaml\n" + BOX,
        [
            "5:12: mqtt.ca_file: there is no file 'ca.pem' in ",
            "6:3: mqtt.client_cert_file: needs client_key_file: beside it",
            "7:3: mqtt.password_file: needs username: beside it",
        ],
    ),
    "open secret": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b', username: u, password_file: open-secret}\n" + BOX,
        ["3:54: mqtt.password_file: others can read or change the secret "],
    ),
    "topics": (
        "site: p\ngateway: g1\nmqtt:\n  url: mqtts://b\n  topic: a/{devise}\n  meta_topic: 'a/#'\n"
        "  status_topic: '{device}/s'\n  agent_topic: $SYS/x\n" + BOX,
        [
            "5:10: mqtt.topic: unknown placeholder {devise}; did you mean {device}?",
            "6:15: mqtt.meta_topic: '#' is a wildcard for subscribers",
            "7:17: mqtt.status_topic: unknown placeholder {device}; known here: {site} {gateway}",
            "8:16: mqtt.agent_topic: a topic that begins with $ belongs to the broker",
        ],
    ),
    "equal meta topics": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b', meta_topic: 'x/{gateway}/meta'}\n" + BOX
        + "  - {name: box2, type: host}\n",
        ["3:38: mqtt.meta_topic: becomes 'x/g1/meta', as meta_topic of device box does: put {device} into it"],
    ),
    "equal topics": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b', topic: 'shopfloor/{site}/{gateway}/status'}\n" + BOX,
        ["3:33: mqtt.topic: becomes 'shopfloor/p/g1/status', as status_topic of the gateway does"],
    ),
    "group like another": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b', topic: 'x/{group}', status_topic: x/5s}\n" + BOX,
        ["3:33: mqtt.topic: becomes 'x/5s', as status_topic of the gateway does"],
    ),
    # -- what later versions bring
    "lines": (
        HEAD + "lines:\n  a: {url: /dev/ttyUSB0, baudrat: 9600, max_load: 0 %}\n  b: {url: 'rtu+tcp://10.0.0.1'}\n"
        "  c: {url: 'tcp://10.0.0.1', baudrate: 9600}\n  d: {url: 'rtu+tcp://10.0.0.1:1', parity: E}\n"
        "  e: {url: 'RTU+TCP://10.0.0.1:1'}\n  f: {url: 'serial:///dev/ttyS0', bytesize: 7}\n" + BOX,
        [
            "5:12: lines.a.url: expected tcp://HOST or tcp://HOST:PORT; did you mean serial:///dev/ttyUSB0?",
            "5:26: lines.a.baudrat: unknown key 'baudrat'; did you mean 'baudrate'?",
            "5:51: lines.a.max_load: expected a share of the time from 1 % to 100 %, such as 60 %",
            "6:12: lines.b.url: expected rtu+tcp://HOST:PORT: there is no usual port, got 'rtu+tcp://10.0.0.1'",
            "7:40: lines.c.baudrate: Modbus TCP has no baud rate, got '9600'",
            "8:44: lines.d.parity: is set in the serial server or modem itself; here only with serial:// (got 'E')",
            "10:45: lines.f.bytesize: Modbus RTU needs 8 data bits; 7 are for Modbus ASCII, which is not supported yet",
        ],
    ),
    "lines that are one": (
        HEAD + "lines:\n  a: {url: 'rtu+tcp://10.0.0.1:1'}\n  b: {url: 'rtu+tcp://10.0.0.1:1/'}\n"
        "  c: {url: 'listen://0.0.0.0:5020'}\n  d: {url: 'listen://0.0.0.0:5020', registration: x}\n"
        "  box: {url: 'tcp://10.0.0.1'}\n" + BOX,
        [
            "6:12: lines.b.url: leads to the same place as line a: put its devices on that one",
            "8:12: lines.d.url: line c listens on the same port: both need a registration to tell their modems apart",
            "9:3: lines.box: a device is named 'box' too: `pause box` would mean both",
        ],
    ),
    "modems that cannot be told apart": (
        HEAD + "lines:\n  a: {url: 'listen://0.0.0.0:5020', registration: DTU-1}\n"
        "  b: {url: 'listen://0.0.0.0:5020', registration: '0x44 54 55 2D 31'}\n"
        "  c: {url: 'listen://0.0.0.0:5021', registration: DTU-12}\n"
        "  d: {url: 'listen://0.0.0.0:5021', registration: DTU-1}\n" + BOX,
        [
            "6:51: lines.b.registration: is the one of line a already",
            "8:51: lines.d.registration: cannot be told from the one of line c: one is the beginning of the other",
        ],
    ),
    "devices on lines": (
        HEAD + "lines: {meters: {url: 'serial:///dev/ttyUSB0'}}\ndevices:\n"
        "  - {name: a, type: modbus, line: metres, tags: [{name: t, address: 40001, type: int16}]}\n"
        "  - {name: b, type: modbus, line: meters, unit_id: 0, tags: [{name: t, address: 40001, type: int16}]}\n"
        "  - {name: c, type: modbus, line: meters, url: 'tcp://p', tags: [{name: t, address: 40001, type: int16}]}\n"
        "  - {name: d, type: modbus, tags: [{name: t, address: 40001, type: int16}]}\n"
        "  - {name: e, type: host, line: meters}\n",
        [
            "6:35: devices[a].line: no line is named 'metres'; did you mean 'meters'?",
            "7:52: devices[b].unit_id: on a serial line 0 calls everybody and nobody answers: units are 1 to 247",
            "8:35: devices[c].line: the line leads there already: leave url or line out, got 'meters'",
            "9:5: devices[d].url: 'url:' is missing (tcp://HOST:502, rtu+tcp://HOST:PORT (serial server),"
            " serial:///dev/serial/by-id/NAME (9600 baud, 8N1); or use `line`)",
            "10:27: devices[e].line: unknown key 'line'; known here: name, label, description, type, interval, timeout,"
            " report, template, vars, tags_file, sets",
        ],
    ),
    "templates": (
        HEAD + PRESS + "    vars: {ct: 40}\n    tags_file: t.csv\n    hours: x\n" + TAG,
        [
            "8:5: devices[press].vars: has no meaning without template:",
            "9:16: devices[press].tags_file: t.csv is not there: check the name",
            "10:5: devices[press].hours: working hours are not supported yet",
        ],
    ),
    "formats": (
        "site: p\ngateway: g1\nmqtt: {url: 'mqtts://b', format: sparkplug}\n" + BOX,
        ["3:34: mqtt.format: formats other than json are not supported yet, got 'sparkplug'"],
    ),
    "secure opcua": (
        HEAD + "devices:\n  - name: cnc\n    type: opcua\n    url: opc.tcp://10.0.0.1\n    username: u\n" + NODE,
        ["8:15: devices[cnc].username: needs password_file: beside it"],
    ),
    "opcua with a broken policy": (
        HEAD + "devices:\n  - name: cnc\n    type: opcua\n    url: opc.tcp://10.0.0.1\n"
        "    security: {policy: Basic128Rsa15}\n" + NODE,
        ["8:24: devices[cnc].security.policy: Basic128Rsa15 is broken (SHA-1) and withdrawn"],
    ),
    "percent deadband": (
        HEAD + CNC + "    tags: [{name: t, node: i=1, deadband: 200 %}]\n",
        ["9:43: devices[cnc].tags[t].deadband: expected a number, or 0 to 100 % of the variable's range, such as 2 %"],
    ),
    # -- devices
    "bare address": (
        HEAD + PRESS + "    tags: [{name: t, address: 100, type: int16}]\n",
        [
            "8:31: devices[press].tags[t].address: 100 alone can be the offset 100 counted from 0 (write holding:100) "
            "or the register number 100 counted from 1 (write 40100, the same as holding:99)"
        ],
    ),
    "deadband without report": (
        HEAD + PRESS + "    tags: [{name: t, address: 40001, type: int16, deadband: 1}]\n",
        ["8:51: devices[press].tags[t].deadband: needs report: {heartbeat: 60 s} on the device"],
    ),
    "plugins": (
        HEAD + "plugins: [modbus, s7x]\n" + BOX,
        [
            "4:11: plugins[#1]: 'modbus' is built in and needs no plugin",
            "4:19: plugins[#2]: no plugin of the name 's7x' is installed",
        ],
    ),
    "a device that is none": (HEAD + "devices:\n  - box\n", ["5:5: devices[#1]: expected key: value pairs"]),
    "no devices": (HEAD + "devices: []\n", ["4:10: devices: is empty; expected at least 1 entry"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_mistake_is_told_with_its_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open-secret").write_text("x")
    (tmp_path / "open-secret").chmod(0o644)
    file = tmp_path / "agent.yaml"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    loaded = load(Path("agent.yaml"))
    printed = [str(mistake) for mistake in loaded.mistakes]
    assert loaded.config is None
    assert len(printed) == len(expected), "\n".join(printed)
    for line, wanted in zip(printed, expected, strict=True):
        place = f"agent.yaml:{wanted}"
        assert line.startswith(place), "\n".join(printed)
    assert "geheim" not in "".join(printed)
    assert str(tmp_path) not in "".join(line.split(": ", 2)[0] for line in printed)
