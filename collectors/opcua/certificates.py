"""What `shopfloor cert` does with OPC UA devices (`collectors.certificates.Certificates`).

May import: `collectors.api`, `collectors.certificates`, `collectors.opcua.*`.
"""

from __future__ import annotations

from pathlib import Path

from collectors.api import Context
from collectors.certificates import Certificate
from collectors.opcua.certificate import parse
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.security import Security
from collectors.opcua.session import Session
from collectors.opcua.trust import TrustStore


class OpcuaCertificates:
    """The certificates in a state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._store = TrustStore(state_dir)

    @property
    def file(self) -> Path:
        """Where this gateway's certificate is."""
        return self._store.file

    def own(self) -> Certificate:
        """This gateway's certificate; made at the first call."""
        return self._store.own().certificate

    def renew(self) -> Certificate:
        """Make another certificate and key."""
        return self._store.renew().certificate

    def secures(self, config: OpcuaConfig) -> bool:
        """Whether the connection to this device uses certificates."""
        return config.security.policy != "None"

    def parse(self, data: bytes) -> Certificate:
        """What a certificate file (PEM or DER) says."""
        return parse(data)

    async def offered(self, config: OpcuaConfig) -> Certificate:
        """Ask the server for its certificate, unprotected. Raises CollectorError."""
        security = Security(config, Context(self._state_dir))
        return security.certificate_of(await Session(config.url, config.name, config.timeout).endpoints())

    def trusted(self, config: OpcuaConfig) -> Certificate | None:
        """The certificate that the server of this device must have."""
        return self._store.trusted(config.name)

    def rejected(self, config: OpcuaConfig) -> Certificate | None:
        """The one it showed last and that was refused."""
        return self._store.rejected(config.name)

    def trust(self, config: OpcuaConfig, certificate: Certificate) -> None:
        """From now on the server of this device must have this certificate."""
        self._store.trust(config.name, certificate)
