"""The OPC UA server of `tests.servers.opcua` with certificates, policies and users, all changed while it runs.

    with SecureServer({"speed": 1.5}) as server:
        server.secure(pair(directory, "plc"), policies=["Basic256Sha256_SignAndEncrypt"])

`secure` restarts it on the same port. What asyncua's own server hides: it checks clients' certificates when a session
is created, not when the channel is opened; and it tells its endpoints, and lets in, over None although None is not
offered.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.servers.opcua import OpcuaServer, Plant, serve

ALL = tuple(
    f"{policy}_{mode}"
    for policy in ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
    for mode in ("Sign", "SignAndEncrypt")
)
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, on disk."""

    certificate: Path
    key: Path

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.read_bytes()


def pair(
    directory: Path,
    name: str,
    *,
    days: tuple[float, float] = (-1, 365),
    hosts: Sequence[str] = ("127.0.0.1",),
    bits: int = 2048,
) -> Pair:
    """Make a certificate that signs itself; valid from and to so many days from now."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier("urn:freeopcua:python:server"),
                    *(x509.IPAddress(ipaddress.ip_address(host)) for host in hosts),
                ]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    made = Pair(directory / f"{name}.der", directory / f"{name}-key.pem")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.key.chmod(0o600)
    return made


class SecureServer(OpcuaServer):
    """A server process whose security is set anew for each test."""

    module: ClassVar[str] = "tests.servers.opcua_secure"

    def secure(
        self,
        own: Pair,
        *,
        policies: Sequence[str] = ALL,
        tokens: Sequence[str] = ("Anonymous", "UserName", "X509"),
        users: Mapping[str, str] | None = None,
        user_certificates: Sequence[Pair] = (),
        trusted: Sequence[bytes] | None = None,
        token_policies: Mapping[str, str] | None = None,
        bare: bool = False,
    ) -> None:
        """Restart with other security.

        Args:
            own: the server's certificate.
            policies: what it offers, names of `ua.SecurityPolicyType`.
            tokens: how users may log in.
            users: name -> password; None = anybody.
            user_certificates: of users; with any, nobody else.
            trusted: clients' certificates (DER); None = any.
            token_policies: kind of token -> policy URI that its entry in the endpoints names, instead of a sound one.
            bare: a session's answer tells of endpoints only what the specification recommends, so no certificate.
        """
        self.call(
            "secure",
            certificate=str(own.certificate),
            key=str(own.key),
            policies=list(policies),
            tokens=list(tokens),
            users=users,
            user_certificates=[one.der.hex() for one in user_certificates],
            trusted=[der.hex() for der in trusted] if trusted is not None else None,
            token_policies=token_policies or {},
            bare=bare,
        )

    def seen(self) -> list[dict[str, Any]]:
        """The users that came since `secure`: kind, name, algorithm, and the secret as it stood in the request, hex."""
        found: list[dict[str, Any]] = self.call("seen")
        return found


class SecurePlant(Plant):
    """The child's side."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._seen: list[dict[str, Any]] = []
        self._bare = False
        self._shorten()

    async def do_secure(
        self,
        certificate: str,
        key: str,
        policies: list[str],
        tokens: list[str],
        users: dict[str, str] | None,
        user_certificates: list[str],
        trusted: list[str] | None,
        token_policies: dict[str, str],
        bare: bool,
    ) -> None:
        ua, server = self.ua, self._server
        inner = server.iserver
        await server.bserver.stop()
        for session in list(inner._external_sessions.values()):
            await session.close_session()
        await server.load_certificate(Path(certificate), "der")
        await server.load_private_key(Path(key), None, "pem")
        server.set_security_policy([getattr(ua.SecurityPolicyType, name) for name in policies])
        server.set_identity_tokens([getattr(ua, f"{name}IdentityToken") for name in tokens])
        server._policies.clear()
        inner.endpoints.clear()
        await server._setup_server_nodes()
        for endpoint in inner.endpoints:
            for token in endpoint.UserIdentityTokens:
                token.SecurityPolicyUri = token_policies.get(token.TokenType.name, token.SecurityPolicyUri)
        inner.user_manager = _Users(users, [bytes.fromhex(one) for one in user_certificates])
        inner.certificate_validator = (
            _validator([bytes.fromhex(one) for one in trusted]) if trusted is not None else None
        )
        self._seen = []
        self._bare = bare
        self._watch(inner)
        await self._listen_again()

    async def do_seen(self) -> list[dict[str, Any]]:
        return self._seen

    def _shorten(self) -> None:
        """Let a session's answer leave out of its endpoints what `bare` says."""
        from asyncua.server.internal_session import InternalSession

        whole = InternalSession.create_session

        async def create_session(session: Any, *given: Any, **named: Any) -> Any:
            result = await whole(session, *given, **named)
            if self._bare:
                result.ServerEndpoints = [replace(one, ServerCertificate=None) for one in result.ServerEndpoints]
            return result

        InternalSession.create_session = create_session

    def _watch(self, inner: Any) -> None:
        """Note the passwords as they come, before they are decrypted."""
        cls = type(inner)

        def decrypt(session: Any, token: Any) -> Any:
            self._seen.append(
                {
                    "name": token.UserName,
                    "algorithm": token.EncryptionAlgorithm,
                    "secret": (token.Password or b"").hex(),
                }
            )
            return cls.decrypt_user_token(inner, session, token)

        inner.decrypt_user_token = decrypt


class _Users:
    def __init__(self, users: dict[str, str] | None, certificates: list[bytes]) -> None:
        self._users = users
        self._certificates = certificates

    def get_user(self, _server: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        from asyncua.crypto.permission_rules import User, UserRole

        if username is not None and self._users is not None and self._users.get(username) != password:
            return None
        if self._certificates and certificate not in self._certificates:
            return None
        return User(role=UserRole.User)


def _validator(trusted: list[bytes]) -> Any:
    from asyncua.common.utils import ServiceError
    from asyncua.ua import StatusCodes

    async def validate(certificate: Any, _application: Any) -> None:
        if certificate.public_bytes(serialization.Encoding.DER) not in trusted:
            raise ServiceError(StatusCodes.BadCertificateUntrusted)

    return validate


if __name__ == "__main__":
    asyncio.run(serve(SecurePlant(int(sys.argv[1]))))
