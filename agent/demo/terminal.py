"""The terminal the demo draws on: alternate screen without flicker, given back as it was.

May import: the standard library, `agent.columns`, `agent.demo.cells`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TextIO

from agent.columns import width
from agent.demo.cells import bare

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # alternate screen, no cursor, no automatic line break
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # show a picture only when it is complete; ignored where unknown
_DEFAULT_SIZE = (80, 24)


def is_screen(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal on which the cursor can be moved."""
    return stream.isatty() and environment.get("TERM", "dumb") != "dumb"


def may_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether colours are wanted (NO_COLOR, see no-color.org) and possible."""
    return is_screen(stream, environment) and not environment.get("NO_COLOR")


def shows_braille(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the terminal probably has the characters of the trend column: UTF-8, and not the kernel's console."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8" and environment.get("TERM") != "linux"


class Screen:
    """The whole window, between `with` and its end.

    Args:
        stream: a terminal, see `is_screen`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Screen:
        self._stream.write(_ENTER)
        self._stream.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.write(_LEAVE)
        self._stream.flush()

    def size(self) -> tuple[int, int]:
        """Columns and lines of the window now."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except OSError:
            return _DEFAULT_SIZE
        return (size.columns, size.lines) if size.columns and size.lines else _DEFAULT_SIZE

    def draw(self, lines: Sequence[str], columns: int) -> None:
        """Show these lines, no wider than `columns`, in place of those before."""
        # What is left of the line before is erased; after a full line that would take its last character away.
        ends = ("\x1b[K" if width(bare(line)) < columns else "" for line in lines)
        picture = "\r\n".join(line + end for line, end in zip(lines, ends, strict=True))
        self._stream.write(f"{_BEGIN}\x1b[H{picture}\x1b[J{_END}")
        self._stream.flush()
