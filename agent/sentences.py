"""Log events as sentences for people, in Chinese and English: what, where, and the next step for whoever can take it.

Operators are told to look at power, cables and lamps and to call IT; never to stop programs, delete files or restart.
Pure. Promises: `sentence` and `log_line` never raise, whatever they are given, return one line without control
characters, and fall back to the event's own `text`, then to its name and fields.

Templates: `{key}` is a field (`?` if missing); `{key:duration}`, `{key:size}`, `{key:host}` (without its port) and
`{key:tags}` (any plural: `1 tag`, `2 tags`) format it; a part in `[ ]` is left out when a field in it is missing.

May import: the standard library, `agent.columns`, `agent.sentences_table`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from agent.columns import clean, cut, pad, width
from agent.sentences_table import BROKER, DEVICE, EVENTS, QUALITY, REASONS, Pair

Language: TypeAlias = Literal["zh", "en"]

_PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_PORT = re.compile(r":\d+$")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_MAX_VALUE = 400
_MAX_LINE = 1500
_NAME_MAX = 24
_OUTAGES: Final = frozenset({"broker_lost", "broker_refused", "broker_unreachable"})
_META: Final = frozenset({"ts", "level", "event", "device", "label", "exception"})


def sentence(event: str, fields: Mapping[str, object], language: str) -> str:
    """Return what the event says to a person, on one line.

    Args:
        event: `device_lost`, `broker_refused`, ...
        fields: of the event; `cause` or `reason` picks the sentence where there are several.
        language: `zh`; everything else is English.
    """
    known = {str(key): value for key, value in fields.items() if value is not None and value != ""}
    index = 0 if language == "zh" else 1
    if event in ("device_lost", "device_misconfigured"):
        text = _why(DEVICE, event, known, index)
    else:
        if event in _OUTAGES:
            known["why"] = _why(BROKER, event, known, index)
        elif event == "device_degraded":
            event = _degraded(known, language)
        pair = REASONS.get(f"{event}.{_word(known, 'reason')}") or EVENTS.get(event)
        text = _fill(pair[index], known, index) if pair else _unknown(event, known)
    return cut(text, _MAX_LINE)


def why(cause: str, text: str, facts: Mapping[str, object], language: str, *, broker: bool = False) -> str:
    """Return the sentence for the cause of a lost device (or broker) alone; `text` where it has none."""
    known = {**facts, "cause": cause, "text": text}
    event = "broker_lost" if broker else "device_lost"
    return _why(BROKER if broker else DEVICE, event, known, 0 if language == "zh" else 1)


def quality_words(quality: str, language: str) -> str:
    """Return `bad:timeout` in words; the quality itself where there are none."""
    reason = quality.removeprefix("bad:").removeprefix("uncertain:")
    index = 0 if language == "zh" else 1
    pair = QUALITY.get(reason)
    if pair is None and reason.startswith("exception-"):
        pair = QUALITY["exception"]
    if pair is None and reason.startswith("status-"):
        pair = QUALITY["status"]
    return _fill(pair[index], {"code": reason.rpartition("-")[2]}, index) if pair else clean(quality)


def duration(seconds: object, language: str) -> str:
    """Return a span as a person says it: `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    if not isinstance(seconds, int | float) or not abs(seconds) < 1e12:  # also refuses NaN and infinity
        return "?"
    units = ("天", "小时", "分钟", "秒", "毫秒") if language == "zh" else ("d", "h", "min", "s", "ms")
    seconds = abs(float(seconds))
    if 0 < seconds < 1:
        return f"{round(seconds * 1000)} {units[4]}"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + f" {units[3]}"
    whole = round(seconds)
    for size, below, name, name_below in ((86_400, 3600, *units[0:2]), (3600, 60, *units[1:3])):
        if whole >= size:
            more = whole % size // below
            return f"{whole // size} {name}" + (f" {more} {name_below}" if more else "")
    if whole >= 60:
        more = whole % 60
        return f"{whole // 60} {units[2]}" + (f" {more} {units[3]}" if more and whole < 600 else "")
    return f"{whole} {units[3]}"


def size(number: object) -> str:
    """Return bytes as `12 KB`, `3.4 MB`, `1 GB` (powers of 1000, as in the configuration)."""
    if not isinstance(number, int | float) or not 0 <= number < 1e18:
        return "?"
    amount = float(number)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 999.5 or unit == "GB":
            break
        amount /= 1000
    return (f"{amount:.1f}".removesuffix(".0") if amount < 10 else f"{amount:.0f}") + f" {unit}"


class LogLines:
    """Renders events as aligned lines `08:15:03  1号冲床  网络不通（…）：…`; remembers the widest name so far."""

    def __init__(self, language: str, zone: tzinfo | None) -> None:
        self._language = language
        self._zone = zone
        self._columns = 0

    def line(self, when: datetime, event: str, fields: Mapping[str, object]) -> str:
        """Return the line of one event; `when` is aware, shown in the configured zone (None: the system's)."""
        name = subject(fields, self._language)
        self._columns = max(self._columns, min(width(name), _NAME_MAX))
        return f"{self.clock(when)}  {pad(name, self._columns)}  {sentence(event, fields, self._language)}"

    def local(self, when: datetime) -> datetime:
        """The time as the clock on the wall shows it."""
        try:
            return when.astimezone(self._zone)
        except (OverflowError, OSError, ValueError):  # the first and last hours of the calendar
            return when

    def clock(self, when: datetime) -> str:
        """Hours, minutes and seconds on the wall."""
        return self.local(when).strftime("%H:%M:%S")


def subject(fields: Mapping[str, object], language: str) -> str:
    """Return whom the line is about: the device's label, else its name; the agent itself where there is no device."""
    for key in ("label", "device", "line"):
        value = fields.get(key)
        if isinstance(value, str) and value:
            return clean(value)
    return "网关" if language == "zh" else "agent"


def _why(table: Mapping[str, Pair], event: str, known: Mapping[str, object], index: int) -> str:
    cause = _word(known, "cause")
    pair = table.get(cause)
    if pair and cause == "no_answer" and _on_a_line(known):
        pair = table.get("no_answer_line", pair)
    if pair is None:
        pair = table["other" if event != "device_misconfigured" else "misconfigured"]
        if "text" not in known:
            known = {**known, "text": cause or "?"}
    return _fill(pair[index], known, index)


def _degraded(known: dict[str, object], language: str) -> str:
    """Add the quality in words; returns the event, which is another one when not a single tag can be read."""
    if "quality" in known:
        known["why"] = quality_words(str(known["quality"]), language)
    if known.get("tag") == "*":
        del known["tag"]
        return "device_degraded.all"
    return (
        "device_degraded.all"
        if known.get("bad") is not None and known.get("bad") == known.get("of")
        else "device_degraded"
    )


def _on_a_line(known: Mapping[str, object]) -> bool:
    where = str(known.get("where", ""))
    return "line" in known or where.startswith(("serial:", "rtu+tcp:", "/dev/"))


def _word(known: Mapping[str, object], key: str) -> str:
    value = known.get(key)
    return value if isinstance(value, str) else ""


def _unknown(event: str, known: Mapping[str, object]) -> str:
    text = known.get("text")
    if isinstance(text, str):
        return clean(text)
    facts = " ".join(f"{clean(key)}={_show(value)}" for key, value in known.items() if key not in _META)
    return f"{clean(event)} {facts}".rstrip()


def _fill(template: str, known: Mapping[str, object], index: int) -> str:
    language = "en" if index else "zh"
    parts = []
    for part, keys, optional in _parts(template):
        if not optional or all(key in known for key in keys):
            parts.append(_PLACEHOLDER.sub(lambda match: _value(match[1], match[2], known, language), part))
    return "".join(parts)


@lru_cache(maxsize=512)
def _parts(template: str) -> tuple[tuple[str, tuple[str, ...], bool], ...]:
    pieces = _OPTIONAL.split(template)  # outside, inside, outside, ...
    return tuple(
        (piece, tuple(match[1] for match in _PLACEHOLDER.finditer(piece)), bool(i % 2))
        for i, piece in enumerate(pieces)
        if piece
    )


def _value(key: str, form: str | None, known: Mapping[str, object], language: str) -> str:
    value = known.get(key)
    if value is None:
        return "?"
    if form == "duration":
        return duration(value, language)
    if form == "size":
        return size(value)
    if form == "host":
        return _PORT.sub("", _show(value))
    if form is not None:  # a noun in the plural
        return f"{_show(value)} {form.removesuffix('s') if value == 1 else form}"
    return _show(value)


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "?"  # str() of a very long integer raises
    if isinstance(value, list | tuple):
        more = ", …" if len(value) > 5 else ""
        return ", ".join(_show(item) for item in value[:5] if not isinstance(item, list | tuple | dict)) + more
    if isinstance(value, Mapping):
        return "{…}" if value else "{}"
    return cut(clean(str(value)), _MAX_VALUE)
