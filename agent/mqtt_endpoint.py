"""Where the broker is, as whom the agent comes, and what it trusts there.

May import: the standard library, `agent.config_model`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.config_model import MqttConfig


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and as whom. Files are read anew for each session."""

    host: str
    port: int
    tls: bool
    client_id: str
    keepalive_s: float = 15.0
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None

    @property
    def where(self) -> str:
        """`host:port` for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext:
        """Verify chain and name against `ca_file` or the system's store; TLS 1.2 at least.

        Raises:
            OSError: a file cannot be read or used (ssl.SSLError is one).
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_cert_file is not None:
            # An empty password: an encrypted key is an error, not a question on the terminal.
            context.load_cert_chain(self.client_cert_file, self.client_key_file, password="")
        return context


def endpoint_of(mqtt: MqttConfig) -> Endpoint:
    """What this section of the configuration says."""

    def path(name: str | None) -> Path | None:
        return Path(name) if name is not None else None

    return Endpoint(
        host=mqtt.host,
        port=mqtt.port,
        tls=mqtt.tls,
        client_id=mqtt.client_id,
        keepalive_s=mqtt.keepalive,
        username=mqtt.username,
        password_file=path(mqtt.password_file),
        ca_file=path(mqtt.ca_file),
        client_cert_file=path(mqtt.client_cert_file),
        client_key_file=path(mqtt.client_key_file),
    )
