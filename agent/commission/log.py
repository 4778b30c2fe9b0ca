"""`shopfloor log [-f] [DEVICE]`: the agent's log as sentences with local time, in the configured language.

It comes from `log.file` and its rotated predecessors where there is one, else from the journal. Lines that are no
event of the agent (systemd's, a traceback) are passed through. Follows a file through rotation.

May import: the standard library, `agent.config`, `agent.logs` (zone), `agent.sentences`, `agent.columns`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, tzinfo
from pathlib import Path
from typing import BinaryIO, TextIO

from agent.columns import clean
from agent.log_file import rotated
from agent.sentences import LogLines

UNIT = "shopfloor-agent"
POLL_S = 0.25
TAIL_LINES = 50
"""How much of the past `-f` shows first."""
_MAX_ROTATED = 1000
_CHUNK = 1 << 16
_WEEKDAYS = ("周一", "周二", "周三", "周四", "周五", "周六", "周日")


def log(config: Path, *, follow: bool = False, device: str | None = None) -> int:
    """Show the log of the agent that this configuration describes; returns the exit code.

    Without a usable configuration the journal is shown, in the language of the environment.
    """
    from agent.config import load
    from agent.logs import zone

    loaded = load(config)
    found = loaded.config
    if found is None:
        if loaded.mistakes:
            sys.stderr.write(f"shopfloor: {clean(str(loaded.mistakes[0]))} - so the journal is shown\n")
        lang = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG", "")
        return show(None, "zh" if lang.startswith("zh") else "en", None, follow=follow, device=device)
    file = Path(found.log.file) if found.log.file else None
    return show(file, found.language, zone(found.timezone), follow=follow, device=device)


def show(
    file: Path | None,
    language: str,
    zone: tzinfo | None,
    *,
    follow: bool,
    device: str | None,
    out: TextIO | None = None,
) -> int:
    """Write the log to `out` (D stdout); 1 when there is none to be read.

    Args:
        file: `log.file`; None = the journal.
        zone: for the time of each line; None = the system's.
        device: name or label; only lines of this device.
    """
    out = out or sys.stdout
    printer = Printer(language, zone, device)
    try:
        if file is None:
            return _show_journal(printer, out, language, follow=follow)
        lines = follow_file(file) if follow else read_files(file)
        count = _print(printer.render(lines), out, flush=follow)
    except KeyboardInterrupt:  # the usual end of -f
        return 0
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _complain(_unreadable(file, error, language))
    if not count and not file.exists():
        return _complain(f"{file} 还不存在。" if language == "zh" else f"{file} does not exist yet.")
    return 0


class Printer:
    """Turns lines of the log into lines for people; a heading where a new day begins."""

    def __init__(self, language: str, zone: tzinfo | None, device: str | None) -> None:
        self._lines = LogLines(language, zone)
        self._language = language
        self._device = device
        self._day: date | None = None

    def render(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines to print; lazily, so that it can follow."""
        for line in lines:
            event = parse(line)
            if event is None:
                if self._device is None and line.strip():
                    yield clean(line)
                continue
            when, name, fields = event
            if self._device is not None and self._device not in (fields.get("device"), fields.get("label")):
                continue
            day = self._lines.local(when).date()
            if day != self._day:
                self._day = day
                weekday = _WEEKDAYS[day.weekday()] if self._language == "zh" else day.strftime("%A")
                yield f"{day.isoformat()} {weekday}"
            yield self._lines.line(when, name, fields)


def parse(line: str) -> tuple[datetime, str, dict[str, object]] | None:
    """Return time, event and fields of a line that the agent wrote; None = it is something else."""
    start = line.find("{", 0, 5)  # after `<6>`, where something copied the stream raw
    if start < 0:
        return None
    try:
        fields = json.loads(line[start:])
        when = datetime.fromisoformat(fields["ts"])
        event = fields["event"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(event, str) or when.tzinfo is None:
        return None
    return when, event, fields


def read_files(file: Path) -> Iterator[str]:
    """All lines there are, oldest file first.

    Raises:
        OSError: the file is there and cannot be read.
    """
    last = next((number for number in range(_MAX_ROTATED) if not rotated(file, number + 1).exists()), _MAX_ROTATED)
    for number in range(last, -1, -1):
        try:
            with rotated(file, number).open("rb") as opened:
                for line in opened:
                    yield line.decode("utf-8", "replace").rstrip("\n")
        except FileNotFoundError:
            continue  # rotated away between the look and the opening


def follow_file(file: Path, idle: Callable[[], bool] | None = None) -> Iterator[str]:
    """The last lines, and each new one as it is written, through any number of rotations.

    Args:
        idle: called when there is nothing new; waits, and returns False to end. D: waits `POLL_S`, never ends.

    Raises:
        OSError: the file is there and cannot be read.
    """
    idle = idle or _wait
    opened: BinaryIO | None = None
    rest = b""
    try:
        while True:
            if opened is None:
                opened = _open_tail(file)
            successor = _successor(file, opened) if opened else None  # looked for first: then the rest is the rest
            while opened and (chunk := opened.read(_CHUNK)):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
            if opened and successor is not None:
                opened.close()
                opened, rest = successor, b""
            elif not idle():
                return
    finally:
        if opened:
            opened.close()


def _wait() -> bool:
    time.sleep(POLL_S)
    return True


def _open_tail(file: Path) -> BinaryIO | None:
    """The file, at its last lines; None while there is none."""
    try:
        opened = file.open("rb")
    except FileNotFoundError:
        return None
    size = opened.seek(0, os.SEEK_END)
    start = max(0, size - _CHUNK)
    opened.seek(start)
    ends = [i for i, byte in enumerate(opened.read(size - start)) if byte == 10]
    # A line begins after each line end, and at the very start of the file.
    begins = ([0] if start == 0 else []) + [end + 1 for end in ends if end + 1 < size - start]
    opened.seek(start + (begins[-TAIL_LINES:][0] if begins else 0))
    return opened


def _successor(file: Path, opened: BinaryIO) -> BinaryIO | None:
    """What was written next when the file at hand was moved or cut; None = it is still the one being written."""
    mine = os.fstat(opened.fileno())
    try:
        there = file.stat()
    except FileNotFoundError:
        return None
    if (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev):
        if there.st_size >= opened.tell():
            return None
        opened.seek(0)  # cut by somebody: begin again
        return None
    number = next((number for number in range(1, _MAX_ROTATED) if _inode(rotated(file, number)) == mine.st_ino), 1)
    try:
        return rotated(file, number - 1).open("rb")
    except FileNotFoundError:
        return None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _show_journal(printer: Printer, out: TextIO, language: str, *, follow: bool) -> int:
    zh = language == "zh"
    program = shutil.which("journalctl")
    if program is None:
        return _complain(
            "本机没有 systemd 日志：请在配置里写 log.file，或查看启动采集程序的终端。"
            if zh
            else "there is no systemd journal here: set log.file in the configuration, or look where the agent runs."
        )
    command = [program, "-u", UNIT, "-o", "cat", "--no-pager", "-q", *(["-f", "-n", str(TAIL_LINES)] if follow else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - fixed arguments, no shell
        assert process.stdout is not None
        lines = (line.decode("utf-8", "replace").rstrip("\n") for line in process.stdout)
        try:
            count = _print(printer.render(lines), out, flush=follow)
        finally:
            process.terminate()
    if count:
        return 0
    return _complain(
        "系统日志里没有采集程序的记录：服务启动过吗？没有权限时请用 sudo，或把当前用户加入 systemd-journal 组。"
        if zh
        else "nothing in the journal: was the service started? Without permission use sudo, or add yourself to the "
        "group systemd-journal."
    )


def _print(lines: Iterable[str], out: TextIO, *, flush: bool) -> int:
    count = 0
    for line in lines:
        count += 1
        out.write(line + "\n")
        if flush:
            out.flush()
    out.flush()
    return count


def _unreadable(file: Path | None, error: OSError, language: str) -> str:
    if isinstance(error, PermissionError):
        hint = "把当前用户加入 shopfloor 组，或用 sudo" if language == "zh" else "join the group shopfloor or use sudo"
        return f"{file}：没有权限，请{hint}。" if language == "zh" else f"{file}: no permission, {hint}."
    return f"{file or UNIT}: {error.strerror or error}"


def _complain(text: str) -> int:
    sys.stderr.write(f"shopfloor: {text}\n")
    return 1
