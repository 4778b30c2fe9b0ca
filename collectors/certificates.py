"""What a device type has to offer whose connections are secured by certificates, for `shopfloor cert`.

May import: the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Certificate:
    """What people compare of a certificate (X.509).

    Attributes:
        der: the certificate itself.
        thumbprint: SHA-1 in capital hex, as OPC UA tools and servers show it.
        sha256: the same by SHA-256.
        subject: whose it is (`CN=S7-1500,O=Plant`).
        not_before, not_after: when it is valid, UTC.
        hosts: host names and addresses that it is for.
        application_uri: which program it is for; None = it does not say.
        key: kind and size of its public key (`RSA 2048`).
    """

    der: bytes
    thumbprint: str
    sha256: str
    subject: str
    not_before: datetime
    not_after: datetime
    hosts: tuple[str, ...]
    application_uri: str | None
    key: str


class Certificates(Protocol):
    """The certificates that secure the connections of a device type: this gateway's, and those of servers it trusts.

    All but `offered` block on files. They raise OSError when files cannot be read or written, and ValueError when
    what they hold is no certificate.
    """

    @property
    def file(self) -> Path:
        """Where this gateway's certificate is: what is copied to servers."""

    def own(self) -> Certificate:
        """This gateway's certificate; made at the first call."""

    def renew(self) -> Certificate:
        """Make another certificate and key; the old ones are kept aside. Every server has to trust the new one."""

    def secures(self, config: Any) -> bool:
        """Whether the connection to this device uses certificates."""

    def parse(self, data: bytes) -> Certificate:
        """What a certificate file (PEM or DER) says."""

    async def offered(self, config: Any) -> Certificate:
        """Ask the server for its certificate, unprotected: somebody has to compare it. Raises CollectorError."""

    def trusted(self, config: Any) -> Certificate | None:
        """The certificate that the server of this device must have; None = none yet."""

    def rejected(self, config: Any) -> Certificate | None:
        """The one it showed last and that was refused; None = none."""

    def trust(self, config: Any, certificate: Certificate) -> None:
        """From now on the server of this device must have this certificate."""
