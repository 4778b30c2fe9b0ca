"""How messages are written to the broker: one module per format, each pure, one object per MQTT session.

May import: its modules, `agent.message`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.formats.json import JsonFormat

if TYPE_CHECKING:
    from agent.message import Message


class Format(Protocol):
    """Turns canonical messages into what is published."""

    def publication(self, message: Message) -> tuple[str, bytes]:
        """Return topic and payload of a message."""


def make_format(name: str, topic: str, *, site: str, gateway: str) -> Format:
    """Return a fresh format for one session.

    Raises:
        ValueError: there is no format of this name.
    """
    if name == "json":
        return JsonFormat(topic, site=site, gateway=gateway)
    raise ValueError(f"there is no format {name}")
