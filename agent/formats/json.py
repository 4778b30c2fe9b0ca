"""`format: json`: the canonical bytes as they are; a re-delivery ends in `,"replayed":true`.

Pure. May import: `agent.message`, `agent.topics`.
"""

from __future__ import annotations

from agent.message import Message, mark_replayed
from agent.topics import expand


class JsonFormat:
    """One object per MQTT session.

    Args:
        topic: template with {site} {gateway} {device} {group}.
    """

    def __init__(self, topic: str, *, site: str, gateway: str) -> None:
        self._template = expand(topic, site=site, gateway=gateway)
        self._topics: dict[tuple[str, str], str] = {}

    def publication(self, message: Message) -> tuple[str, bytes]:
        """Return topic and payload of a message."""
        key = (message.device, message.group)
        topic = self._topics.get(key)
        if topic is None:
            # Grows with the devices and groups of the backlog and the configuration, within one session.
            topic = self._topics[key] = expand(self._template, device=message.device, group=message.group)
        return topic, mark_replayed(message.body) if message.replayed else message.body
