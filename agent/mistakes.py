"""What is wrong in a file that a person wrote: one `Mistake` each, and the wording that they share.

Promises that secrets never enter a message: `quote` hides user information in URLs, and callers never quote the value
of a key that may hold a secret. Pure. May import: the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

_USER_INFO = re.compile(r"(?:(?<=://)|^)[^/@\s]+@")
_SHOWN = 60
"""Longest text that is quoted in a message, in characters."""


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One mistake and where it stands.

    Attributes:
        file: the file as the person named it.
        line, column: from 1, in characters; 1:1 when the file as a whole is meant.
        path: which setting, e.g. `devices[press-3].tags[temperature].address`; `yaml` for the notation itself, `file`
            for the file as a whole.
        message: what was expected, what came, what to try. Never a secret.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.message}"


def quote(value: object) -> str:
    """Show what came, as in the file, shortened, in one line and without the user information of a URL."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping (key: value)"
    if isinstance(value, list | tuple):
        return "a list"
    text = redact(str(value))
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    return f"'{text}'" if isinstance(value, str) else text


def redact(text: str) -> str:
    """Hide the user information of URLs."""
    return _USER_INFO.sub("***@", text)


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """Return the valid word that was probably meant, or None."""
    words = {candidate.casefold().replace("-", "_"): candidate for candidate in valid}
    found = get_close_matches(word.casefold().replace("-", "_"), words, n=1, cutoff=0.6)
    return words[found[0]] if found else None


def one_of(valid: Iterable[str]) -> str:
    """`a, b or c`."""
    *firsts, last = valid
    return f"{', '.join(firsts)} or {last}" if firsts else last


def did_you_mean(word: str, valid: Iterable[str], *, listed: int = 12) -> str:
    """Return `; did you mean 'x'?`, or the valid words if none is near and they are few, or nothing."""
    words = list(valid)
    near = nearest(word, words)
    if near is not None:
        return f"; did you mean '{near}'?"
    return f"; known here: {', '.join(words)}" if 0 < len(words) <= listed else ""
