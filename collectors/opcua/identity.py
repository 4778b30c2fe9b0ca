"""Who the gateway is to an OPC UA server: nobody, a user with a password, or the holder of a certificate.

Promises: a password never leaves in the clear. It goes encrypted for the server's trusted key, or inside a channel that
encrypts; a connection that does neither is refused before anything is sent. What is offered is read from the server's
signed answer, never from its unprotected endpoint list. No secret is in a text or a `repr`.

May import: `collectors.api`, `collectors.certificates`, `collectors.fields`,
`collectors.opcua.{certificate,config}`, cryptography (in functions); asyncua comes as arguments.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collectors.api import ActionNeeded, LoginRefused, Misconfigured
from collectors.certificates import Certificate
from collectors.fields import SecretText
from collectors.opcua.certificate import parse, weakness
from collectors.opcua.config import OpcuaConfig

POLICY_URI = "http://opcfoundation.org/UA/SecurityPolicy#"
SOUND = frozenset(POLICY_URI + name for name in ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"))
"""What may encrypt a password or sign for a user's certificate."""
LOGIN_FAULTS = frozenset(
    {"BadIdentityTokenInvalid", "BadIdentityTokenRejected", "BadUserAccessDenied", "BadUserSignatureInvalid"}
)
"""Faults that say: not this user."""


@dataclass(frozen=True, slots=True)
class UserName:
    """A user with a password."""

    name: str
    password: SecretText


@dataclass(frozen=True, slots=True)
class UserCertificate:
    """A user with a certificate and its key."""

    certificate: Certificate
    key: Any = field(repr=False)


def load(config: OpcuaConfig) -> UserName | UserCertificate | None:
    """Read the files that the configuration names; None = no user. Blocks.

    Raises:
        Misconfigured: a file cannot be used.
    """
    if config.username is not None and config.password_file is not None:
        password = _read(config.password_file, "password_file")
        try:
            return UserName(config.username, SecretText(password.decode().removesuffix("\n").removesuffix("\r")))
        except UnicodeDecodeError:
            raise _unusable("password_file", "is not UTF-8 text") from None
    if config.user_cert_file is not None and config.user_key_file is not None:
        return _certificate(config.user_cert_file, config.user_key_file)
    return None


def parameters(
    library: Any, security: Any, created: Any, user: UserName | UserCertificate, endpoint: Any, where: str
) -> Any:
    """Return the parameters of ActivateSession for a user.

    Args:
        library: `session.Library`.
        security: the library's policy of the open channel, never None.
        created: the server's answer to CreateSession, signed by it.
        user: who.
        endpoint: of `created`, the one in use.
        where: for messages.

    Raises:
        ActionNeeded: the server offers no way to log in like this.
        Misconfigured: it does, but only one that would give the password away.
    """
    ua = library.ua
    found = ua.ActivateSessionParameters()
    challenge = security.peer_certificate + (created.ServerNonce or b"")
    found.ClientSignature.Algorithm = security.AsymmetricSignatureURI
    found.ClientSignature.Signature = security.asymmetric_cryptography.signature(challenge)
    found.LocaleIds = ["en"]
    offers = [(offer, offer.SecurityPolicyUri or security.URI) for offer in endpoint.UserIdentityTokens or ()]
    if isinstance(user, UserName):
        offers = _of_type(offers, ua.UserTokenType.UserName, "user names", where)
        _name(library, found, user, offers, security, created.ServerNonce or b"", where)
    else:
        offers = _of_type(offers, ua.UserTokenType.Certificate, "user certificates", where)
        _signed(library, found, user, offers, challenge, where)
    return found


def refused(detail: str, config: OpcuaConfig, where: str) -> ActionNeeded:
    """The server does not take this user; `detail` is its fault."""
    if config.username is not None:
        text = f"{where} refuses the user {config.username} ({detail}): check username, and the password in the file"
    elif config.user_cert_file is not None:
        text = f"{where} refuses the user certificate {config.user_cert_file} ({detail}): register it at the server"
    else:
        text = f"{where} takes no anonymous session ({detail}): write username and password_file"
        return ActionNeeded("not-connected", "login_needed", text, where=where, detail=detail)
    return LoginRefused("not-connected", "login_refused", text, where=where, detail=detail)


def _of_type(offers: Sequence[tuple[Any, str]], kind: Any, what: str, where: str) -> list[tuple[Any, str]]:
    found = [offer for offer in offers if offer[0].TokenType == kind]
    if found:
        return found
    kinds = sorted({str(getattr(offer.TokenType, "name", offer.TokenType)) for offer, _ in offers})
    text = f"{where} takes no {what}, only: {', '.join(kinds) or 'nothing'}"
    raise ActionNeeded("not-connected", "login_not_offered", text, where=where, offered=", ".join(kinds) or "-")


def _name(
    library: Any,
    found: Any,
    user: UserName,
    offers: Sequence[tuple[Any, str]],
    security: Any,
    nonce: bytes,
    where: str,
) -> None:
    token = found.UserIdentityToken = library.ua.UserNameIdentityToken()
    token.UserName = user.name
    password = user.password.reveal().encode()
    for offer, uri in offers:
        if uri not in SOUND:
            continue
        token.PolicyId = offer.PolicyId
        # Part 4, 7.41.2: length, password and nonce in one block.
        block = struct.pack("<I", len(password) + len(nonce)) + password + nonce
        key = library.policies.uacrypto.x509_from_der(security.peer_certificate).public_key()
        try:
            token.Password, token.EncryptionAlgorithm = library.policies.encrypt_asymmetric(key, block, uri)
        except ValueError:
            raise _unusable("password_file", "holds a password that is too long for the server's key") from None
        return
    if security.Mode != library.ua.MessageSecurityMode.SignAndEncrypt:
        raise Misconfigured(
            "password_in_clear",
            f"{where} wants the password without encryption of its own, and mode Sign does not encrypt either: nothing"
            " was sent; write mode: SignAndEncrypt",
            where=where,
        )
    # In the clear inside the channel, which encrypts; not by a broken policy, which would add nothing to it.
    for offer, uri in offers:
        if uri == POLICY_URI + "None":
            token.PolicyId = offer.PolicyId
            token.Password, token.EncryptionAlgorithm = password, None
            return
    raise ActionNeeded(
        "not-connected",
        "login_not_offered",
        f"{where} takes passwords only in ways that are broken: {', '.join(sorted({uri for _, uri in offers}))}",
        where=where,
        offered=", ".join(sorted({uri.removeprefix(POLICY_URI) for _, uri in offers})),
    )


def _signed(
    library: Any, found: Any, user: UserCertificate, offers: Sequence[tuple[Any, str]], challenge: bytes, where: str
) -> None:
    for offer, uri in offers:
        if uri in SOUND:
            token = found.UserIdentityToken = library.ua.X509IdentityToken()
            token.PolicyId, token.CertificateData = offer.PolicyId, user.certificate.der
            signature = found.UserTokenSignature
            signature.Signature, signature.Algorithm = library.policies.sign_asymmetric(user.key, challenge, uri)
            return
    raise ActionNeeded(
        "not-connected",
        "login_not_offered",
        f"{where} takes user certificates only in ways that are broken",
        where=where,
        offered=", ".join(sorted({uri.removeprefix(POLICY_URI) for _, uri in offers})),
    )


def _certificate(cert_file: str, key_file: str) -> UserCertificate:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        certificate = parse(_read(cert_file, "user_cert_file"))
    except ValueError as error:
        raise _unusable("user_cert_file", f"is no certificate: {error}") from None
    if (why := weakness(certificate)) is not None:
        raise _unusable("user_cert_file", f"cannot be used: {why}")
    data = _read(key_file, "user_key_file")
    try:
        if b"-----BEGIN" in data:
            key: Any = serialization.load_pem_private_key(data, None)
        else:
            key = serialization.load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says may quote the file.
        raise _unusable("user_key_file", "is no private key in PEM or DER form without a passphrase") from None
    shape = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    from cryptography import x509

    if key.public_key().public_bytes(*shape) != x509.load_der_x509_certificate(
        certificate.der
    ).public_key().public_bytes(*shape):
        raise _unusable("user_key_file", "is not the key of the certificate in user_cert_file")
    return UserCertificate(certificate, key)


def _read(path: str, key: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unusable(key, f"cannot be read: {error.strerror}") from None


def _unusable(key: str, what: str) -> Misconfigured:
    return Misconfigured("user_file", f"{key} {what}", key=key)
