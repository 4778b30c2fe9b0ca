"""Where people stumble: the key they wrote, and the key that this configuration has.

Pure tables. May import: the standard library, `agent.mistakes`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from agent.mistakes import nearest

# What people write -> what they mean, in the order of likelihood; the first that is known where they wrote it counts.
_MEANT: dict[str, tuple[str, ...]] = {
    "unit": ("unit_id",),
    "slave": ("unit_id",), "slave_id": ("unit_id",), "slaveid": ("unit_id",), "station": ("unit_id",),
    "station_id": ("unit_id",), "device_id": ("unit_id",), "modbus_id": ("unit_id",), "id": ("unit_id", "name"),
    "host": ("url",), "ip": ("url",), "ip_address": ("url",), "hostname": ("url",), "port": ("url",),
    "address": ("url",), "addr": ("address", "url"), "endpoint": ("url",), "server": ("url",),
    "broker": ("url", "mqtt"),
    "uri": ("url",), "connection": ("url",), "protocol": ("type",),
    "scan_rate": ("interval",), "poll_interval": ("interval",), "polling": ("interval",), "poll": ("interval",),
    "cycle": ("interval",), "period": ("interval",), "rate": ("interval",), "frequency": ("interval",),
    "publishing_interval": ("interval",), "every": ("interval",),
    "byte_order": ("word_order",), "byteorder": ("word_order",), "endian": ("word_order",),
    "endianness": ("word_order",), "order": ("word_order",), "swap": ("word_order",),
    "registers": ("tags",), "points": ("tags",), "variables": ("tags",), "items": ("tags",), "nodes": ("tags",),
    "signals": ("tags",), "metrics": ("sets", "tags"), "groups": ("sets",),
    "register": ("address",), "reg": ("address",), "node_id": ("node",), "nodeid": ("node",),
    "datatype": ("type",), "data_type": ("type",), "format": ("type",), "kind": ("type",),
    "units": ("unit",), "uom": ("unit",), "factor": ("scale",), "multiplier": ("scale",), "ratio": ("scale",),
    "gain": ("scale",), "coefficient": ("scale",), "precision": ("decimals",), "digits": ("decimals",),
    "round": ("decimals",), "len": ("length",), "size": ("length", "max_size"), "values": ("map",), "enum": ("map",),
    "comment": ("description", "label"), "desc": ("description",), "title": ("label",), "alias": ("label",),
    "display_name": ("label",), "tag": ("name",), "key": ("name", "client_key_file"),
    "heartbeat": ("report",), "password": ("password_file",), "passwd": ("password_file",),
    "pass": ("password_file",), "pwd": ("password_file",), "user": ("username",), "login": ("username",),
    "clientid": ("client_id",), "ca": ("ca_file",), "cafile": ("ca_file",), "ca_cert": ("ca_file",),
    "ca_certs": ("ca_file",), "cert": ("client_cert_file",), "certfile": ("client_cert_file",),
    "cert_file": ("client_cert_file",), "keyfile": ("client_key_file",), "key_file": ("client_key_file",),
    "prefix": ("topic",), "base_topic": ("topic",), "topic_prefix": ("topic",), "version": ("protocol",),
    "keep_alive": ("keepalive",), "max_inflight": ("window",), "inflight": ("window",),
    "path": ("directory", "file"), "dir": ("directory",), "folder": ("directory",), "max_bytes": ("max_size",),
    "tz": ("timezone",), "lang": ("language",), "device": ("devices",), "sources": ("devices",),
    "machines": ("devices",), "logging": ("log",), "plant": ("site",), "factory": ("site",), "hostname_": ("gateway",),
    "logs": ("log",), "storage": ("buffer",), "queue": ("buffer",), "store": ("buffer",),
}  # fmt: skip
_EXPLAINED = {
    "unit": "the Modbus station number; a unit of measurement belongs to a tag",
    "password": "the name of a file that holds it: no secret stands in this file",
    "host": "host and port in one: {example}",
    "ip": "host and port in one: {example}",
    "port": "host and port in one: {example}",
    "address": "host and port in one: {example}",
    "server": "host and port in one: {example}",
    "broker": "mqtts://HOST:8883",
    "heartbeat": "report: {heartbeat: 60 s}",
}
for _same, _as in (("passwd", "password"), ("pass", "password"), ("pwd", "password"), ("ip_address", "ip"),
                   ("hostname", "host")):  # fmt: skip
    _EXPLAINED[_same] = _EXPLAINED[_as]
_NEEDLESS = {
    "qos": "QoS is always 1",
    "retain": "readings are never retained; status and meta always are",
    "tls": "write url: mqtts://HOST:8883",
    "ssl": "write url: mqtts://HOST:8883",
    "clean_session": "sessions are always clean: what was not acknowledged is sent again from the buffer",
    "enabled": "put # before the lines of what is not wanted",
    "enable": "put # before the lines of what is not wanted",
    "function": "the function code follows from the address: 40001, 30001, coil:0, discrete:0, input:0, holding:0",
    "function_code": "the function code follows from the address: 40001, 30001, coil:0, discrete:0, input:0, holding:0",
    "area": "the area is part of the address: holding:100",
    "bit": "the bit is part of the address: 40010.3",
    "writable": "this agent never writes",
    "write": "this agent never writes",
    "<<": "merging is not supported: write the keys out, or use defaults:",
}


# Values of a list of valid ones, as PLC programs and other tools name them.
_SYNONYMS = {
    "real": "float32", "float": "float32", "single": "float32", "lreal": "float64", "double": "float64",
    "int": "int16", "short": "int16", "word": "uint16", "uint": "uint16", "ushort": "uint16", "dint": "int32",
    "long": "int32", "udint": "uint32", "dword": "uint32", "ulong": "uint32", "lint": "int64", "ulint": "uint64",
    "lword": "uint64", "boolean": "bool", "bit": "bool", "bcd": "bcd16", "text": "sentences", "char": "string",
    "big": "ABCD", "big_endian": "ABCD", "little": "DCBA", "little_endian": "DCBA", "cn": "zh", "zh_cn": "zh",
    "chinese": "zh", "中文": "zh", "english": "en", "en_us": "en", "4": "3.1.1", "3": "3.1.1", "311": "3.1.1",
    "汇川": "inovance-h5u", "inovance": "inovance-h5u", "h5u": "inovance-h5u", "easy": "inovance-h5u",
    "h3u": "inovance-h3u", "am400": "inovance-am", "am600": "inovance-am", "ac800": "inovance-am",
    "信捷": "xinje-xd", "xinje": "xinje-xd", "xl": "xinje-xd", "xd": "xinje-xd", "xc": "xinje-xc",
    "台达": "delta-dvp", "delta": "delta-dvp", "dvp": "delta-dvp", "三菱": "mitsubishi-fx5", "fx5u": "mitsubishi-fx5",
    "mitsubishi": "mitsubishi-fx5", "施耐德": "schneider", "m221": "schneider", "m241": "schneider",
    "西门子": "siemens-s7-200-smart", "siemens": "siemens-s7-200-smart", "s7_200": "siemens-s7-200-smart",
    "s7_200_smart": "siemens-s7-200-smart", "smart": "siemens-s7-200-smart",
    "v5": "5", "5.0": "5", "mqttv5": "5", "mqtt5": "5", "warn": "warning", "fifo": "in-order",
}  # fmt: skip
_TIME_UNITS = {
    "ms": ("ms", "msec", "msecs", "millis", "millisecond", "milliseconds", "毫秒"),
    "s": ("s", "sec", "secs", "second", "seconds", "秒", "秒钟"),
    "min": ("min", "mins", "minute", "minutes", "分", "分钟"),
    "h": ("h", "hr", "hrs", "hour", "hours", "时", "小时"),
    "d": ("d", "day", "days", "天", "日"),
}  # fmt: skip
_SIZE_UNITS = {
    "KB": ("k", "kb"), "MB": ("m", "mb"), "GB": ("g", "gb"), "KiB": ("kib",), "MiB": ("mib",), "GiB": ("gib",),
}  # fmt: skip
_WITH_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([^\W\d_]+)\.?\s*")


def meant_value(text: str, valid: Collection[str]) -> str | None:
    """Return the valid value that was probably meant by `text`, or None."""
    synonym = _SYNONYMS.get(text.casefold().replace("-", "_"))
    return synonym if synonym in valid else nearest(text, valid)


def unit_hint(text: str, *, of_time: bool) -> str:
    """Return `; did you mean ...` for a duration or size whose unit is written in another way, or nothing."""
    match = _WITH_UNIT.fullmatch(text)
    if match is not None:
        for unit, words in (_TIME_UNITS if of_time else _SIZE_UNITS).items():
            if match[2].casefold() in words:
                return f"; did you mean {match[1]} {unit}?"
    return plain_hint(text)


def plain_hint(text: str) -> str:
    """Return `; type ...` for a text in full-width letters or with blanks that are none, or nothing."""
    plain = unicodedata.normalize("NFKC", text).strip()
    return f"; type it in plain letters: {plain}" if plain != text.strip(" ") and plain.isascii() else ""


def unknown_key_hint(key: str, known: Collection[str]) -> str | None:
    """Return `; did you mean ...` for a key that people use elsewhere, or None if nothing is known about it.

    Args:
        key: the unknown key.
        known: the keys that are valid where it stands.
    """
    if (hint := plain_hint(key)) and unicodedata.normalize("NFKC", key).strip() in known:
        return hint
    word = key.casefold().replace("-", "_")
    if word in _NEEDLESS:
        return f"; {_NEEDLESS[word]}"
    for meant in _MEANT.get(word, ()):
        if meant in known:
            explained = _EXPLAINED.get(word, "")
            example = "tcp://192.168.10.21:502" if "unit_id" in known else "mqtts://HOST:8883"
            example = "opc.tcp://192.168.10.50:4840" if "security" in known else example
            shown = f" ({explained.replace('{example}', example)})" if explained else ""
            return f"; did you mean '{meant}'{shown}?"
    return None


def value_hint(key: str, text: str) -> str:
    """Return `; ...` for a value of the wrong kind that people write elsewhere, or nothing."""
    if key == "deadband" and re.fullmatch(r"\d+(\.\d+)?\s*%", text):
        return "; a deadband in percent is not supported yet: write it in the tag's unit"
    if re.fullmatch(r"[-+]?\d+,\d+", text):
        return f"; did you mean {text.replace(',', '.')}?"
    if text.casefold() in {"yes", "on", "y"}:
        return "; did you mean true?"
    if text.casefold() in {"no", "off", "n"}:
        return "; did you mean false?"
    if re.match(r"[-+]?[\d.]+\s*[A-Za-z%°℃]", text):
        return "; write the number alone"
    if re.fullmatch(r"[-+]?0\d+", text):
        return "; without leading zeros"
    return plain_hint(text)
