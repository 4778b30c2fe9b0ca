"""What to tell a person whose YAML does not parse, and where it can be mended to look for further mistakes.

Pure. May import: PyYAML's exceptions, `agent.mistakes`.
"""

from __future__ import annotations

import re

import yaml

from agent.mistakes import quote

_FULL_WIDTH = dict(zip("：，“”‘’【】｛｝＃", ":,\"\"''[]{}#", strict=True))
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_NO_COLON = "could not find expected ':'"
_KEY = re.compile(r"([\w.-]+)\s*:\s*$")


def misprint(lines: list[str], error: yaml.MarkedYAMLError) -> tuple[int, int, str | None]:
    """Say where the mistake really stands, and by what it can be replaced so that reading goes on.

    Returns:
        Line and column from 0, and a replacement of equal length, or None when there is no safe one.
    """
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    problem = error.problem or ""
    line = min(line, len(lines) - 1)
    here = lines[line]
    indent = here[: len(here) - len(here.lstrip())]
    if "\t" in indent and ("tab" in problem or column <= len(indent)):
        return line, indent.index("\t"), " "
    char = here[column : column + 1]
    if problem.startswith("found character that cannot start any token") and char in {"%", "@", "`"}:
        return line, column, "_"
    context = error.context_mark
    if problem == _NO_COLON and context is not None:
        return context.line, context.column, None
    if problem.startswith("mapping values") and line > 0 and _is_lone_text(lines[line - 1]):
        above = lines[line - 1]
        return line - 1, len(above) - len(above.lstrip()), None
    if context is not None and ("end of stream" in problem or "scanning an alias" in (error.context or "")):
        repair = "_" if "alias" in (error.context or "") else None
        return context.line, context.column, repair
    return line, column, None


def hint_for(lines: list[str], error: yaml.MarkedYAMLError, line: int, column: int) -> str:
    """Return the message for a parser's error: what is wrong in the reader's words, and what to try."""
    here = lines[line] if line < len(lines) else ""
    char = here[column : column + 1]
    problem = error.problem or "cannot be read"
    wide = next((c for c in here.split("#")[0] if c in _FULL_WIDTH), None)
    if char == "\t" or "tab" in problem.split():
        return "a tab: YAML allows only spaces for indentation; replace it by spaces"
    if wide is not None:
        return f"full-width '{wide}': type the plain '{_FULL_WIDTH[wide]}' (English input), or put the text in quotes"
    if char in {"%", "@", "`", "*"}:
        return f"a value cannot begin with {char} unless it stands in quotes{_example(here, column)}"
    if problem.startswith("mapping values") and _is_lone_text(here):
        problem = _NO_COLON
    for part, text in _HINTS:
        if part in problem:
            return text + _shown(here)
    return f"{problem}{_shown(here)}"


_HINTS = (
    (
        "mapping values are not allowed",
        "a ': ' stands where no key can be; put a text that contains ': ' in quotes, check that every key has a "
        "space after its colon and that the keys of one block begin in the same column",
    ),
    (
        "did not find expected key",
        "a key: value pair was expected; check that the keys of one block begin in the same column, and put a value "
        'that begins with { [ or a quote in quotes as a whole ("{site}/...")',
    ),
    (
        "did not find expected '-'",
        "a list item was expected; check that every '- ' of one list begins in the same column",
    ),
    ("block sequence entries are not allowed", "a list item '- ' cannot stand here; begin it on a line of its own"),
    ("expected ',' or '}'", "the brace { is not closed, or a comma is missing before this point"),
    ("expected ',' or ']'", "the bracket [ is not closed, or a comma is missing before this point"),
    ("end of stream", "the quote that begins here is never closed"),
    (_NO_COLON, "a colon and a space were expected after the key"),
    ("unknown escape", "in \"...\" a backslash begins an escape; write '...' around texts with backslashes"),
    ("did not find expected node content", "a value was expected here"),
    ("end of document", "the document ends here, but more text follows; check the indentation"),
)


def _is_lone_text(line: str) -> bool:
    """Whether a line looks like a key whose colon is missing, or has no space after it."""
    text = line.strip()
    return bool(text) and text[0] not in "#-[{\"'" and not re.search(r":(\s|$)", text)


def _example(here: str, column: int) -> str:
    key = _KEY.search(here[:column])
    value = re.match(r"[^,}\]#\s]+", here[column:])
    if key is None or value is None or _SECRET.search(here):
        return ""
    return f': {key[1]}: "{value[0]}"'


def _shown(here: str) -> str:
    text = here.strip()
    if not text or _SECRET.search(text):
        return ""
    return f" (in: {quote(text)})"
