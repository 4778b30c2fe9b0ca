from __future__ import annotations

import re
import string
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sentences import LogLines, duration, quality_words, sentence, size, why
from agent.sentences_table import BROKER, DEVICE, EVENTS, QUALITY, REASONS

AT = datetime(2026, 7, 1, 0, 15, 3, tzinfo=UTC)

# The events of the agent and what they carry; each must have a sentence of its own in both languages.
FIELDS: dict[str, dict[str, object]] = {
    "agent_started": {"version": "0.1.0", "run": "9f3c1a7be2d04c55", "config": "sha256:1", "devices": 3},
    "agent_ready": {},
    "agent_failed": {},
    "agent_stuck": {"part": "store", "seconds": 30},
    "data_directory_in_use": {"text": "held by process 812"},
    "control_socket_failed": {"text": "too long"},
    "device_bug": {"device": "press-3"},
    "device_close_failed": {"device": "press-3"},
    "device_clock_skew": {"device": "cnc-7", "offset_s": -400.0},
    "tag_unreadable": {"device": "cnc-7", "tag": "matrix", "what": "an array of 3 dimensions"},
    "own_certificate_expires": {"days": 29, "until": "2036-01-01", "file": "/d/opcua/own/certificate.der"},
    "server_certificate_expires": {"device": "cnc-7", "days": 1, "until": "2036-01-01"},
    "certificate_other_host": {"device": "cnc-7", "where": "10.0.0.1:4840", "hosts": "plc, 10.0.0.9"},
    "certificate_not_kept": {"device": "cnc-7", "text": "No space left on device"},
    "endpoints_differ": {"device": "cnc-7", "where": "10.0.0.1:4840"},
    "tag_silent": {"device": "cnc-7", "tag": "speed"},
    "browse_empty": {"device": "cnc-7", "tag": "line", "pattern": "/Objects/Line/*"},
    "browse_capped": {"device": "cnc-7", "tag": "line", "pattern": "/Objects/**", "tags": 1000},
    "deadband_without_range": {"device": "cnc-7", "tag": "speed"},
    "subscription_gap": {"device": "cnc-7", "missing": 2, "recovered": 1},
    "clock_stepped": {"stepped_ms": -5000},
    "agent_stopping": {"signal": "SIGTERM"},
    "agent_stopped": {"clean": True, "buffered": 12},
    "previous_run_lost": {"run": "9f3c1a7be2d04c55"},
    "config_reloaded": {"added": 1, "removed": 0, "changed": 2, "kept": 3},
    "config_refused": {"mistakes": 2, "first": "agent.yaml:6:5: devices.0.prot: unknown key"},
    "restart_needed": {"keys": ["site", "buffer"]},
    "device_ok": {"device": "press-3", "label": "三号冲床", "type": "modbus", "tags": 12},
    "device_lost": {"device": "press-3", "cause": "no_route", "text": "t", "where": "192.168.10.21:502", "retry_s": 2},
    "device_back": {"device": "press-3", "down_s": 94.0},
    "device_degraded": {"device": "p", "bad": 1, "of": 12, "tag": "torque", "quality": "bad:exception-2"},
    "device_recovered": {"device": "press-3"},
    "device_misconfigured": {"device": "press-3", "cause": "bad_layout", "text": "no register 7"},
    "device_paused": {"device": "press-3", "for_s": 1800},
    "device_resumed": {"device": "press-3"},
    "device_slow": {"device": "press-3", "missed": 7},
    "line_in_use": {"where": "/dev/ttyUSB0", "pid": 812},
    "broker_connected": {"url": "mqtts://b:8883", "protocol": "5", "session": 1},
    "broker_lost": {"url": "mqtts://b:8883", "cause": "silent", "text": "t", "buffered": 1},
    "broker_refused": {"url": "mqtts://b:8883", "cause": "bad_login", "text": "t", "retry_s": 60},
    "broker_unreachable": {"url": "mqtts://b:8883", "cause": "connect_timeout", "text": "t", "retry_s": 2},
    "broker_fallback": {"url": "mqtts://b:8883", "text": "unsupported"},
    "broker_twin": {"client_id": "shopfloor-gw-01", "times": 3},
    "message_parked": {"device": "press-3", "seq": 4, "reason": "refused", "code": 135},
    "message_dropped": {"device": "press-3", "seq": 4, "reason": "too-large"},
    "backlog_replay": {"messages": 5000},
    "backlog_done": {"seconds": 50.2},
    "store_degraded": {"reason": "disk-full", "text": "database or disk is full"},
    "store_ok": {"degraded_s": 61.0, "dropped": 0},
    "store_gone": {"directory": "/var/lib/shopfloor-agent"},
    "store_set_aside": {"file": "outbox.db.damaged", "reason": "corrupt"},
    "store_dropping": {"dropped": 9, "reason": "cap"},
    "clock_unsynced": {},
    "clock_synced": {"stepped_ms": 12},
    "plaintext_broker": {"url": "mqtt://b:1883"},
    "log_suppressed": {"of": "device_back", "lines": 10},
    "log_lost": {"lines": 3, "reason": "No space left on device"},
    "library_log": {"logger": "asyncua.client", "text": "closing"},
}


@pytest.mark.parametrize("event", FIELDS)
@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_event_has_a_whole_sentence(event: str, language: str) -> None:
    text = sentence(event, FIELDS[event], language)
    assert "?" not in text
    assert not re.search(r"[\[\]{}]", text)
    assert event not in text
    assert (re.search(r"[\u4e00-\u9fff]", text) is not None) == (language == "zh")


def test_the_sentences_of_the_contract() -> None:
    shanghai = ZoneInfo("Asia/Shanghai")
    fields = {"device": "press-1", "label": "1号冲床", "cause": "no_route", "text": "t", "where": "192.168.10.21:502"}
    assert LogLines("zh", shanghai).line(AT, "device_lost", fields) == (
        "08:15:03  1号冲床  网络不通（192.168.10.21）：先看机床是否开机，再查网线。"
    )
    fields = {"device": "meter-04", "cause": "no_answer", "text": "t", "unit_id": "4", "line": "meters", "others": "11"}
    assert LogLines("en", shanghai).line(AT, "device_lost", fields) == (
        "08:15:03  meter-04  no answer from unit 4 on line meters: check unit id, baud rate, A/B wires; "
        "the other 11 devices on it go on."
    )


def test_names_are_aligned_by_columns() -> None:
    lines = LogLines("zh", UTC)
    lines.line(AT, "device_ok", {"device": "meter-04"})
    assert lines.line(AT, "device_ok", {"device": "p", "label": "1号"}).startswith("00:15:03  1号       已连上")
    assert lines.line(AT, "agent_ready", {}).startswith("00:15:03  网关      采集")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_connect_timeout_names_machine_firewall_and_address_list(language: str) -> None:
    text = sentence("device_lost", {"cause": "connect_timeout", "where": "10.0.0.1:502"}, language)
    assert "IPAddressAllow" in text
    assert ("防火墙" if language == "zh" else "firewall") in text
    assert ("开机" if language == "zh" else "switched on") in text
    assert "IPAddressAllow" in sentence("broker_unreachable", {"cause": "connect_timeout"}, language)


def test_no_answer_differs_on_a_network_and_on_a_serial_line() -> None:
    on_network = sentence("device_lost", {"cause": "no_answer", "where": "10.0.0.1:502", "unit_id": 4}, "zh")
    on_serial = sentence("device_lost", {"cause": "no_answer", "where": "serial:///dev/ttyUSB0", "unit_id": 4}, "zh")
    assert "A/B线" not in on_network
    assert "A/B线" in on_serial


def test_operators_are_never_told_to_stop_programs() -> None:
    for table in (DEVICE, BROKER, EVENTS, REASONS):
        for zh, en in table.values():
            for forbidden in ("断电重启", "删除文件", "结束程序", "停止程序"):
                assert forbidden not in zh
            assert "delete the" not in en


def test_templates_are_complete_and_use_the_same_fields() -> None:
    names = re.compile(r"\{(\w+)")
    for table in (DEVICE, BROKER, EVENTS, REASONS, QUALITY):
        for key, (zh, en) in table.items():
            assert set(names.findall(zh)) <= set(names.findall(en)) | {"text"}, key
            for text in (zh, en):
                assert text.count("[") == text.count("]"), key
                assert text.count("{") == text.count("}"), key


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("cause", ["untrusted", "certificate_changed"])
def test_a_server_to_be_trusted_is_told_with_thumbprint_and_command(cause: str, language: str) -> None:
    fields = {"device": "cnc-7", "cause": cause, "where": "10.0.0.1:4840", "thumbprint": "AB12", "trusted": "CD34"}
    text = sentence("device_lost", fields, language)
    assert "AB12" in text
    assert "shopfloor cert trust cnc-7" in text


@pytest.mark.parametrize("cause", ["certificate_expired", "certificate_not_yet_valid"])
def test_certificates_out_of_time_name_clock_skew(cause: str) -> None:
    for language in ("zh", "en"):
        assert "clock skew" in sentence("device_lost", {"cause": cause, "now": "2026-01-01"}, language).casefold()


def test_unknown_causes_show_their_text_and_unknown_events_their_fields() -> None:
    assert sentence("device_lost", {"cause": "gremlin", "text": "gears jammed"}, "en") == "cannot be read: gears jammed"
    assert sentence("gears_jammed", {"device": "x", "teeth": 4}, "zh") == "gears_jammed teeth=4"
    assert sentence("gears_jammed", {"text": "plain words"}, "zh") == "plain words"
    assert why("no_route", "t", {"where": "h:1"}, "en") == (
        "no way to the machine (h): see whether the machine is switched on, then check the network cable."
    )


def test_when_no_tag_can_be_read_none_goes_on() -> None:
    text = sentence("device_degraded", {"bad": 12, "of": 12, "tag": "*", "quality": "bad:timeout"}, "zh")
    assert text == "全部 12 个点都读不到（超时）。请IT核对点表和设备状态。"


def test_what_a_device_sends_cannot_break_the_line() -> None:
    text = sentence("device_lost", {"cause": "bad_reply", "detail": "x\r\n\x1b[2Jy", "where": "h"}, "en")
    assert "\\r\\n\\x1b[2Jy" in text
    assert text.isprintable()


keys = st.sampled_from([*sorted({f for fields in FIELDS.values() for f in fields}), "cause", "why", "others", "line"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30) | st.binary(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
events = st.sampled_from(sorted(FIELDS)) | st.text(string.printable, max_size=20)
causes = st.sampled_from([*DEVICE, *BROKER, "disk-full", "too-large", "weird"])


@given(events, st.dictionaries(keys, values, max_size=8), causes | values, st.sampled_from(["zh", "en", "xx", ""]))
@settings(max_examples=200)
def test_never_raises_and_stays_on_one_line(
    event: str, fields: dict[str, object], cause: object, language: str
) -> None:
    fields |= {"cause": cause, "reason": cause}
    line = LogLines(language, None).line(AT, event, fields)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)
    assert len(line) < 2000


@pytest.mark.parametrize(
    ("seconds", "zh", "en"),
    [
        (0, "0 秒", "0 s"),
        (0.25, "250 毫秒", "250 ms"),
        (3.26, "3.3 秒", "3.3 s"),
        (59.6, "1 分钟", "1 min"),
        (95, "1 分钟 35 秒", "1 min 35 s"),
        (3599, "59 分钟", "59 min"),
        (11_100, "3 小时 5 分钟", "3 h 5 min"),
        (187_200, "2 天 4 小时", "2 d 4 h"),
        (float("nan"), "?", "?"),
        ("x", "?", "?"),
    ],
)
def test_spans(seconds: object, zh: str, en: str) -> None:
    assert duration(seconds, "zh") == zh
    assert duration(seconds, "en") == en


def test_sizes_and_qualities() -> None:
    assert [size(n) for n in (0, 999, 1500, 12_345_678, 999_999_999, 10**12, None, -1)] == [
        "0 B", "999 B", "1.5 KB", "12 MB", "1 GB", "1000 GB", "?", "?",
    ]  # fmt: skip
    assert quality_words("bad:exception-2", "zh") == "设备拒绝，异常码 2"
    assert quality_words("bad:status-0x80340000", "en") == "OPC UA status 0x80340000"
    assert quality_words("bad:new\x1b", "en") == "bad:new\\x1b"
