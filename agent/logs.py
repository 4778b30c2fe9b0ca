"""Sets up logging: events of our own (structlog) and lines of libraries (stdlib), through one renderer, one a line.

    structlog.get_logger().warning("device_lost", device="press-3", cause="no_route", where="192.168.10.21")

Promises: a line is one JSON object with the keys ts, level, event, device, then the rest as called - Chinese readable,
control characters escaped, secrets as `***` - or one sentence (`agent.sentences`). Logging never waits, never raises
for trouble of disk or terminal, and writes at most 60 lines a minute of one event; the life of the agent itself is
never suppressed. Under systemd each line carries its level (`<4>`).

May import: the standard library, structlog, `agent.log_file`, `agent.sentences`, `agent.columns`.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, TypeAlias
from zoneinfo import ZoneInfo

import structlog

from agent.columns import clean, escape_json
from agent.log_file import RotatingFile, Stream, Writer
from agent.sentences import LogLines

LINES_A_MINUTE = 60
_WINDOW_S = 60.0
_MAX_EVENTS = 256
_MAX_TEXT = 4096
_MAX_ITEMS = 50
_MAX_DEPTH = 4

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LIBRARIES: Final = {  # the least level at which each may speak: what they say below it is about every attempt
    "pymodbus": "CRITICAL",
    "asyncua": "WARNING",
    "paho": "WARNING",
    "amqtt": "ERROR",
    "transitions": "ERROR",
    "asyncio": "WARNING",
}
_NEVER_SUPPRESSED: Final = ("agent_", "config_", "previous_run_lost", "restart_needed", "log_")
_SECRET_KEYS: Final = frozenset({"password", "passwd", "secret", "token", "private_key"})
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@")

Fields: TypeAlias = dict[str, object]
Render: TypeAlias = Callable[[datetime, str, Fields], str]


class LogSettings(Protocol):
    """The `log` section of the configuration."""

    @property
    def level(self) -> str:
        """Least level: debug, info, warning, error."""

    @property
    def format(self) -> str:
        """Auto, json or sentences."""

    @property
    def file(self) -> str | Path | None:
        """Where to write beside (terminal) or instead of (service) stderr."""

    @property
    def max_size(self) -> int:
        """Bytes of one file."""

    @property
    def keep(self) -> int:
        """How many old files stay."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults of the `log` section, for commands that run without a configuration."""

    level: str = "info"
    format: Literal["auto", "json", "sentences"] = "auto"
    file: Path | None = None
    max_size: int = 10_000_000
    keep: int = 5


def configure(
    config: LogSettings,
    language: str,
    timezone: str | None,
    *,
    stream: IO[str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Logging:
    """Send every event and every library's lines where the configuration says; replaces what was set up before.

    With a file, stderr gets all lines too on a terminal and errors alone elsewhere (the journal must not hold the log
    twice); while the file cannot be written, stderr gets everything.

    Args:
        config: the `log` section, or `Settings()`.
        language: `zh` or `en`, for sentences.
        timezone: IANA name for sentences; None = the system's.
        stream: in place of stderr.
        clock: monotonic seconds, for the limit of lines a minute.
    """
    for before in _active:
        before.close()
    _active[:] = [Logging(config, language, zone(timezone), stream or sys.stderr, clock)]
    return _active[0]


def zone(name: str | None) -> tzinfo | None:
    """The zone of this name; None, the system's, where the name is not known here (no tzdata)."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


_active: list[Logging] = []  # none or one: the logging of this process


class Logging:
    """What `configure` set up. `lost`: lines that could not be written; `flush` before a process is left hard."""

    def __init__(
        self, config: LogSettings, language: str, at: tzinfo | None, stream: IO[str], clock: Callable[[], float]
    ) -> None:
        terminal = stream.isatty()
        self._level = _LEVELS.get(config.level, 20)
        self._stream = Stream(stream)
        self._file = RotatingFile(Path(config.file), config.max_size, config.keep) if config.file else None
        self._stream_level = 40 if self._file and not terminal else 0
        sentences = _sentences(LogLines(language, at), terminal)
        as_text = config.format == "sentences" or (config.format == "auto" and terminal)
        self._render_stream = sentences if as_text else _json_line
        self._render_file = _sentences(LogLines(language, at), False) if config.format == "sentences" else _json_line
        self._prefix = _journal(self._stream.fd)
        self._limit = RateLimit(clock)
        self._lock = threading.RLock()  # re-entered when a finalizer logs while a line is being made
        self._writer = Writer(self._lost_line, self._tell_suppressed)
        self._install()
        atexit.register(self.close)

    @property
    def lost(self) -> int:
        """Lines that could not be written since the start."""
        return self._writer.lost

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until everything logged so far is written, at most `timeout_s`."""
        return self._writer.flush(timeout_s)

    def close(self) -> None:
        """Write what is left and end the thread. Safe twice."""
        atexit.unregister(self.close)
        logging.captureWarnings(False)
        self._writer.close()
        if self._file:
            self._file.close()

    def emit(self, level: str, event: str, fields: Fields) -> None:
        """Write one event unless its level or the limit forbids; from any thread."""
        if _LEVELS.get(level, 40) < self._level:
            return
        exempt = event.startswith(_NEVER_SUPPRESSED)
        key = f"{event}:{fields.get('logger')}" if event == "library_log" else event
        with self._lock:  # a line's place and its count belong together, and libraries log from their own threads
            self._tell_suppressed_locked()
            if exempt or self._limit.admit(key):
                self._write(level, event, fields)

    def _install(self) -> None:
        structlog.configure(
            processors=[self._deliver],
            wrapper_class=structlog.make_filtering_bound_logger(self._level),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        root = logging.getLogger()
        root.handlers = [handler for handler in root.handlers if not isinstance(handler, _LibraryHandler)]
        root.addHandler(_LibraryHandler(self))
        root.setLevel(max(self._level, logging.WARNING))
        for name, level in _LIBRARIES.items():
            logging.getLogger(name).setLevel(level)
        logging.captureWarnings(True)

    def _deliver(self, _logger: object, method: str, event_dict: MutableMapping[str, Any]) -> str:
        level = {"warn": "warning", "exception": "error", "fatal": "critical"}.get(method, method)
        fields: Fields = dict(event_dict)
        event = str(fields.pop("event", ""))
        error = fields.pop("exc_info", None)
        if error or method == "exception":
            fields["exception"] = _traceback(error)
        self.emit(level, event, fields)
        return ""

    def _write(self, level: str, event: str, fields: Fields) -> None:
        now = datetime.now(UTC)
        safe: Fields = {"level": level, **{str(key): plain(value, str(key)) for key, value in fields.items()}}
        if self._file:
            self._writer.put(self._file, self._render_file(now, event, safe))
        file_failed = self._file is not None and self._file.error is not None
        if file_failed or _LEVELS.get(level, 40) >= self._stream_level:
            prefix = f"<{_PRIORITY.get(level, 3)}>" if self._prefix else ""
            self._writer.put(self._stream, prefix + self._render_stream(now, event, safe))

    def _tell_suppressed(self) -> None:
        with self._lock:
            self._tell_suppressed_locked()

    def _tell_suppressed_locked(self) -> None:
        for key, lines in self._limit.ended():
            self._write("warning", "log_suppressed", {"of": key, "lines": lines})

    def _lost_line(self, lines: int, reason: str) -> str:
        return self._render_file(datetime.now(UTC), "log_lost", {"level": "error", "lines": lines, "reason": reason})


@dataclass(slots=True)
class _Window:
    begun: float
    lines: int = 0
    suppressed: int = 0


@dataclass(slots=True)
class RateLimit:
    """At most `LINES_A_MINUTE` lines of one event within a minute; at most 256 events are told apart."""

    clock: Callable[[], float]
    _windows: dict[str, _Window] = field(default_factory=dict)

    def admit(self, event: str) -> bool:
        """Whether a line of this event may be written now."""
        if event not in self._windows and len(self._windows) >= _MAX_EVENTS:
            event = "other"
        window = self._windows.setdefault(event, _Window(self.clock()))
        window.lines += 1
        if window.lines <= LINES_A_MINUTE:
            return True
        window.suppressed += 1
        return False

    def ended(self) -> list[tuple[str, int]]:
        """Forget the minutes that are over; returns the events of which lines were suppressed, and how many."""
        now = self.clock()
        over = [(event, window) for event, window in self._windows.items() if now - window.begun >= _WINDOW_S]
        for event, _ in over:
            del self._windows[event]
        return [(event, window.suppressed) for event, window in over if window.suppressed]


class _LibraryHandler(logging.Handler):
    """Takes what libraries log."""

    def __init__(self, target: Logging) -> None:
        super().__init__()
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError, AttributeError):  # arguments that do not fit the library's format
            text = str(record.msg)
        fields: Fields = {"logger": record.name, "text": text}
        if record.exc_info:
            fields["exception"] = _traceback(record.exc_info)
        self._target.emit(record.levelname.lower(), "library_log", fields)


def plain(value: object, key: str = "", depth: int = 0) -> object:
    """Return the value as JSON can show it: bounded, without secrets, never raising."""
    if key.lower() in _SECRET_KEYS and value is not None:
        return "***"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 10**30 else "?"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        return {_text(k): plain(v, str(k), depth + 1) for k, v in list(value.items())[:_MAX_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset) and depth < _MAX_DEPTH:
        return [plain(item, "", depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return _text(value)


def _text(value: object) -> str:
    try:
        text = str(value)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return f"<{type(value).__name__}>"
    return _USERINFO.sub("***@", text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…")


def _json_line(when: datetime, event: str, fields: Fields) -> str:
    ordered: Fields = {
        "ts": when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": fields.get("level"),
        "event": event,
    }
    if fields.get("device") is not None:
        ordered["device"] = fields["device"]
    ordered |= {key: value for key, value in fields.items() if key not in ordered and value is not None}
    return escape_json(json.dumps(ordered, ensure_ascii=False, separators=(",", ":")))


def _sentences(lines: LogLines, terminal: bool) -> Render:
    def render(when: datetime, event: str, fields: Fields) -> str:
        line = lines.line(when, event, fields)
        detail = fields.get("exception")
        if isinstance(detail, str) and terminal:  # a person at a terminal is looking for it; elsewhere one line each
            return line + "".join(f"\n    {clean(part)}" for part in detail.splitlines())
        return line

    return render


def _journal(fd: int | None) -> bool:
    """Whether this descriptor is systemd's journal, which reads `<N>` at the start of a line as its level."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if fd is None or not (device.isdigit() and inode.isdigit()):
        return False
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


def _traceback(error: object) -> str:
    """The traceback as text, its end if it is long."""
    if isinstance(error, tuple) and len(error) == 3:
        error = error[1]
    if not isinstance(error, BaseException):
        error = sys.exc_info()[1]
    if error is None:
        return ""
    return "".join(traceback.format_exception(error))[-_MAX_TEXT:]
