"""MQTT topics made of templates: `shopfloor/{site}/{gateway}/{device}/data`.

Pure. May import: the standard library, `agent.mistakes`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from agent.mistakes import nearest

DATA_PLACEHOLDERS = ("site", "gateway", "device", "group")
META_PLACEHOLDERS = ("site", "gateway", "device")
GATEWAY_PLACEHOLDERS = ("site", "gateway")
MAX_TOPIC_BYTES = 65_535
_LONGEST_NAME = 64
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def expand(template: str, **names: str) -> str:
    """Put names in for placeholders; a placeholder without a name stays as it is."""
    return _PLACEHOLDER.sub(lambda match: names.get(match[1], match[0]), template)


def template_mistake(template: str, allowed: Collection[str]) -> str | None:
    """Say what is wrong with a topic template, or None.

    Args:
        template: as the person wrote it.
        allowed: the placeholders that have a meaning here.
    """
    if not template:
        return "a topic cannot be empty; null means none"
    for wildcard in "+#":
        if wildcard in template:
            return f"'{wildcard}' is a wildcard for subscribers; a topic to publish to cannot contain it"
    if template.startswith("$"):
        return "a topic that begins with $ belongs to the broker"
    bad = next(
        (char for char in template if char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff"), None
    )
    if bad is not None:
        return f"a topic cannot contain the control character \\x{ord(bad):02x}"
    for word in _PLACEHOLDER.findall(template):
        if word not in allowed:
            near = nearest(word, allowed)
            hint = (
                f"; did you mean {{{near}}}?"
                if near
                else f"; known here: {' '.join(f'{{{name}}}' for name in allowed)}"
            )
            return f"unknown placeholder {{{word}}}{hint}"
    if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
        return "a brace { or } stands alone; placeholders are written {device}"
    longest = expand(template, **dict.fromkeys(DATA_PLACEHOLDERS, "x" * _LONGEST_NAME))
    if len(longest.encode()) > MAX_TOPIC_BYTES:
        return f"too long: MQTT allows {MAX_TOPIC_BYTES} bytes"
    return None
