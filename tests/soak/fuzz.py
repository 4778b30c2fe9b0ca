"""A coverage-guided fuzzer (atheris, `pip install atheris`, which the tests do not need) on all that comes from
outside: configurations, tag lists, Modbus replies, OPC UA notifications, MQTT packets. No crash, no hang over a second,
no value out of nowhere. Each target runs in a process of its own, `python -m tests.soak.fuzz TARGET SECONDS SEED`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

from collectors.opcua.sample import Message, to_datetime
from tests.daemon import ROOT
from tests.soak.claims import Claim, Options

Target = Callable[[bytes], None]


def run(options: Options) -> list[Claim]:
    """Run it."""
    if importlib.util.find_spec("atheris") is None:
        raise AssertionError("atheris is not installed: .venv/bin/pip install atheris")
    seconds = round(options.lasting(10, 0.2) * 60)
    claims = []
    for name in TARGETS:
        corpus = options.disk / name
        corpus.mkdir()
        for number, seed in enumerate(SEEDS[name]()):
            (corpus / f"seed-{number}").write_bytes(seed)
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.fuzz", name, str(seconds), str(options.seed), str(corpus)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + 120,
        )
        ran = re.search(r"Done (\d+) runs", done.stderr)
        figure = f"{ran[1]} inputs, exit {done.returncode}" if ran else f"exit {done.returncode}: {done.stderr[-1500:]}"
        claims.append(
            Claim(
                f"{name}: no crash, no hang over 1 s, no value out of nowhere",
                f"{seconds} s of atheris",
                figure,
                done.returncode == 0,
            )
        )
        if done.returncode:
            print(done.stderr[-3000:], flush=True)
    return claims


def _configuration() -> Target:
    from agent.config import load

    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "agent.yaml"

    def one(data: bytes) -> None:
        path.write_bytes(data)
        loaded = load(path)
        assert (loaded.config is None) == bool(loaded.mistakes)

    return one


def _tag_list() -> Target:
    from agent.config import load

    directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
    path = directory / "agent.yaml"
    head = "site: p\ngateway: gw-1\nmqtt: {url: 'mqtts://broker'}\ndevices:\n"
    path.write_text(head + "  - {name: d, type: modbus, url: 'tcp://10.0.0.1', report: {}, tags_file: list.csv}\n")

    def one(data: bytes) -> None:
        (directory / "list.csv").write_bytes(data)
        loaded = load(path)
        assert (loaded.config is None) == bool(loaded.mistakes)

    return one


def _opcua() -> Target:
    """The short way must say what the library says, or leave it to the library."""
    import asyncua
    from asyncua.common.utils import Buffer
    from asyncua.ua.ua_binary import struct_from_binary

    from collectors.opcua.fast import read
    from collectors.opcua.sample import message_of

    ua = asyncua.ua

    def one(data: bytes) -> None:
        found = read(data)
        if found is None:
            return
        answer = struct_from_binary(ua.PublishResponse, Buffer(data))  # raises: the short way read what is unreadable
        answer.ResponseHeader.ServiceResult.check()
        result = answer.Parameters
        slow = message_of(ua, result.SubscriptionId, result.NotificationMessage, answer.ResponseHeader.Timestamp)
        assert _told(found) == _told(slow), f"{found!r} is not {slow!r}"

    return one


def _told(message: Message) -> str:
    """As text, since NaN is no NaN; times as the library has them, to the microsecond and within its calendar."""
    samples = [(*sample[:4], *map(_time, sample[4:])) for sample in message.samples]
    server = _time(message.server_ticks)
    return repr((message.subscription, message.number, server, samples, message.statuses, message.news))


def _time(ticks: int | None) -> datetime | None:
    return to_datetime(ticks) if ticks is not None else None


def _modbus() -> Target:
    """Registers of any content: each tag has a finite value of its type, or none and a quality."""
    from math import isfinite

    from collectors.modbus.decode import Field, RegisterDecoder

    kinds = {"bool": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "int64": 4, "uint64": 4}
    kinds |= {"float64": 4, "bcd16": 1, "bcd32": 2, "string": 3}
    orders: tuple[Literal["ABCD", "CDAB", "BADC", "DCBA"], ...] = ("ABCD", "CDAB", "BADC", "DCBA")
    fields, at = [], 0
    for order in orders:
        for kind, registers in kinds.items():
            length, encoding = (registers, "gbk") if kind == "string" else (None, "utf-8")
            name = f"{kind}-{order}"
            fields.append(Field(name, at, kind, order, length=length, encoding=encoding, shortest=kind == "float32"))
            at += registers
    decoder, size = RegisterDecoder(fields), 2 * at
    plain = [(index, field.at) for index, field in enumerate(fields) if (field.type, field.order) == ("uint16", "ABCD")]

    def one(data: bytes) -> None:
        whole = data[:size].ljust(size, b"\0")
        values, bad = decoder.decode(whole)
        fresh = RegisterDecoder(fields).decode(whole)
        assert (list(values), dict(bad)) == (list(fresh[0]), dict(fresh[1])), "what came before makes a difference"
        for name, value in zip(decoder.names, values, strict=True):
            assert (value is None) == (name in bad), f"{name} is {value!r}, {bad.get(name)}"
            assert not isinstance(value, float) or isfinite(value), name
        for index, first in plain:
            assert values[index] == int.from_bytes(whole[2 * first : 2 * first + 2])

    return one


def _mqtt() -> Target:
    """Bytes of a broker at the client: it reads, or closes."""
    import socket
    import time

    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    def one(data: bytes) -> None:
        ours, theirs = socket.socketpair()
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="x", protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client._sock = ours
        ours.setblocking(False)
        theirs.sendall(data[:60_000])
        theirs.close()
        began = time.monotonic()
        for _ in range(200):
            if client.loop_read() != paho.MQTT_ERR_SUCCESS or client._sock is None:
                break
        assert time.monotonic() - began < 1
        ours.close()

    return one


def _publish_response() -> list[bytes]:
    from datetime import UTC, datetime

    from asyncua import ua
    from asyncua.ua.ua_binary import struct_to_binary

    seeds = []
    for value in (1.5, 7, True, "text", b"ab", [1.0, 2.0]):
        response = ua.PublishResponse()
        response.ResponseHeader.Timestamp = datetime(2026, 11, 23, tzinfo=UTC)
        response.Parameters.SubscriptionId = 7
        change = ua.DataChangeNotification()
        item = ua.MonitoredItemNotification()
        item.ClientHandle = 3
        item.Value = ua.DataValue(ua.Variant(value), SourceTimestamp=datetime(2026, 11, 23, tzinfo=UTC))
        change.MonitoredItems = [item, item]
        response.Parameters.NotificationMessage.NotificationData = [change]
        seeds.append(bytes(struct_to_binary(response)))
    return seeds


def _examples() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "config" / "examples").glob("*.yaml"))]


def _lists() -> list[bytes]:
    return [
        b"name,address,type\nt,holding:0,uint16\n",
        "名称;地址;类型;映射\n温度;40001;REAL;0=停止\n".encode("gb18030"),
    ]


def _packets() -> list[bytes]:
    return [
        b"\x20\x03\x00\x00\x00",
        b"\x20\x06\x00\x00\x03\x21\x00\x14",
        b"\x40\x04\x00\x01\x10\x00",
        b"\xd0\x00",
        b"\xe0\x02\x8e\x00",
        b"\x32\x07\x00\x01a\x00\x01\x00x",
    ]


TARGETS: dict[str, Callable[[], Target]] = {
    "configuration": _configuration,
    "tag list": _tag_list,
    "Modbus": _modbus,
    "OPC UA": _opcua,
    "MQTT": _mqtt,
}
SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "configuration": _examples,
    "tag list": _lists,
    "Modbus": lambda: [bytes(range(200)), b"\x7f\xc0\x00\x00" * 40],
    "OPC UA": _publish_response,
    "MQTT": _packets,
}


def main(name: str, seconds: str, seed: str, corpus: str) -> None:
    """Fuzz one target; ends the process."""
    atheris = importlib.import_module("atheris")  # only here; the tests do without it

    with atheris.instrument_imports(include=["agent", "collectors", "paho"]):
        target = TARGETS[name]()
    flags = [
        f"-max_total_time={seconds}",
        "-timeout=1",
        f"-seed={int(seed) % (1 << 31) or 1}",
        "-rss_limit_mb=2000",
        "-max_len=8192",
        f"-artifact_prefix={corpus}/",
    ]
    atheris.Setup([sys.argv[0], *flags, corpus], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
