"""X.509 certificates as OPC UA uses them: what one says, and the one that a gateway makes for itself.

Promises: whatever is not a certificate with a key is a ValueError; the clock is read only by `make`.
May import: the standard library, `collectors.certificates`, cryptography (in functions: it costs 13 MB).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from collectors.certificates import Certificate

if TYPE_CHECKING:
    from cryptography import x509

LIFE = timedelta(days=3650)
"""Ten years. Nobody renews certificates on a shop floor, and trust is by thumbprint, so a short life protects nothing;
a longer one would pass January 2038, where servers that count seconds in 32 bits take a certificate for expired."""
MARGIN = timedelta(days=1)
"""How long before it is made a certificate is valid: clocks of servers are late."""
KEY_BITS = 2048
"""The size that every server takes; small PLCs need seconds for larger ones."""
FEWEST_KEY_BITS = 2048
"""What all three policies demand of a key."""
LONGEST_NAME = 64
"""Of a common name (X.520)."""


def describe(der: bytes) -> Certificate:
    """Return what a certificate says.

    Args:
        der: its DER form; what follows the first certificate (a chain) is left out.

    Raises:
        ValueError: it is no certificate.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    der = first(der)
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        kind = (
            "RSA" if isinstance(key, rsa.RSAPublicKey) else "EC" if isinstance(key, ec.EllipticCurvePublicKey) else ""
        )
        bits = getattr(key, "key_size", 0)
        hosts, uri = _names(certificate)
        return Certificate(
            der=der,
            thumbprint=hashlib.sha1(der, usedforsecurity=False).hexdigest().upper(),
            sha256=hashlib.sha256(der).hexdigest().upper(),
            subject=certificate.subject.rfc4514_string(),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            hosts=hosts,
            application_uri=uri,
            key=f"{kind} {bits}" if kind else type(key).__name__,
        )
    except (UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(f"a certificate that cannot be used: {error}") from error


def parse(data: bytes) -> Certificate:
    """Return what the certificate of a file says, in PEM or DER form. Raises ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    if b"-----BEGIN" in data:
        return describe(x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER))
    return describe(data)


def first(der: bytes) -> bytes:
    """The first certificate of a chain in DER form: servers send theirs with the authorities' behind it."""
    if len(der) < 4 or der[0] != 0x30:
        raise ValueError("no certificate in DER form")
    length, head = der[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, head = int.from_bytes(der[2 : 2 + count], "big"), 2 + count
    if len(der) < head + length:
        raise ValueError("a certificate that is cut short")
    return der[: head + length]


def weakness(certificate: Certificate) -> str | None:
    """Why no policy takes the key of this certificate; None = they do."""
    kind, _, bits = certificate.key.partition(" ")
    if kind != "RSA":
        return f"its key is {certificate.key}, and the supported policies need RSA"
    if int(bits) < FEWEST_KEY_BITS:
        return f"its key is {certificate.key}, and the supported policies need {FEWEST_KEY_BITS} bits or more"
    return None


def is_for(certificate: Certificate, host: str) -> bool:
    """Whether the certificate names this host; one that names none is for all."""
    names = {name.casefold().rstrip(".") for name in certificate.hosts}
    return not names or host.casefold().rstrip(".") in names


def make(host: str) -> tuple[bytes, bytes]:
    """Make a key and a certificate for this gateway, signed by itself; takes a tenth of a second of the processor.

    Args:
        host: its name; the certificate is for the application `urn:HOST:shopfloor-agent`.

    Returns:
        The key in PEM form, without a passphrase, and the certificate in DER form.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    public = key.public_key()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Shopfloor Agent {host}"[:LONGEST_NAME]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Shopfloor Agent"),
        ]
    )
    now = datetime.now(UTC).replace(microsecond=0)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    hosts: list[x509.GeneralName] = [x509.DNSName(host)]
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    # What OPC UA part 6, 6.2.2 asks of an application's certificate; a self-signed one is its own authority.
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - MARGIN)
        .not_valid_after(now + LIFE)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(application_uri(host)), *hosts]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(usage, True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .add_extension(identifier, False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, certificate.public_bytes(serialization.Encoding.DER)


def application_uri(host: str) -> str:
    """What this gateway calls itself in the certificate and to servers, which compare the two."""
    return f"urn:{host}:shopfloor-agent"


def clean_host(host: str) -> str:
    """A host name as certificates take it: letters, digits, dots and hyphens."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in ".-") else "-" for char in host).strip(".-")
    return kept[:63] or "gateway"


def _names(certificate: x509.Certificate) -> tuple[tuple[str, ...], str | None]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), None
    hosts = [*names.get_values_for_type(x509.DNSName)]
    addresses = [address for address in names.get_values_for_type(x509.IPAddress) if not hasattr(address, "netmask")]
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return (*hosts, *(str(address) for address in addresses)), (uris[0] if uris else None)
