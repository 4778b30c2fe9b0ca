"""How the connection to one server is secured: which certificate it must show, what the channel does, who we are.

Promises: policy and mode are the configured ones or there is no connection: nothing is chosen from what the server, or
somebody in between, says without protection. A server must show the very certificate that was trusted for its device,
and it must be valid now; the channel is made for that certificate's key, so nobody else can answer. Neither key nor
password is in any text. When a server does not want us, it is asked for its endpoints, unprotected, only to explain.

May import: `collectors.api`, `collectors.certificates`, `collectors.opcua.{certificate,config,identity,trust}`,
structlog, cryptography (in functions); asyncua comes as arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from collectors.api import ActionNeeded, CollectorError, Context, Misconfigured, Unavailable
from collectors.certificates import Certificate
from collectors.opcua import identity
from collectors.opcua.certificate import describe, is_for, weakness
from collectors.opcua.config import OpcuaConfig
from collectors.opcua.identity import LOGIN_FAULTS, POLICY_URI
from collectors.opcua.trust import Own, TrustStore

log = structlog.get_logger("shopfloor.device")

WARN_BEFORE = timedelta(days=30)
"""A certificate that ends within this time is told once a day."""
MOST_TOLD = 8
"""Of what a server offers, so many entries are told."""

_CLASSES = {
    "Basic256Sha256": "SecurityPolicyBasic256Sha256",
    "Aes128_Sha256_RsaOaep": "SecurityPolicyAes128Sha256RsaOaep",
    "Aes256_Sha256_RsaPss": "SecurityPolicyAes256Sha256RsaPss",
}
_NOT_US = frozenset(
    {
        "BadCertificateChainIncomplete",
        "BadCertificateHostNameInvalid",
        "BadCertificateInvalid",
        "BadCertificateIssuerRevocationUnknown",
        "BadCertificatePolicyCheckFailed",
        "BadCertificateRevocationUnknown",
        "BadCertificateRevoked",
        "BadCertificateUntrusted",
        "BadCertificateUriInvalid",
        "BadCertificateUseNotAllowed",
        "BadNoValidCertificates",
        "BadSecurityChecksFailed",
    }
)
"""Faults that say: not with this certificate. A cautious server says BadSecurityChecksFailed to anybody unknown."""
_OTHER_POLICY = frozenset({"BadSecurityModeRejected", "BadSecurityPolicyRejected"})
_TIME = frozenset({"BadCertificateTimeInvalid", "BadCertificateIssuerTimeInvalid"})

Ask = Callable[[], Awaitable[Sequence[Any]]]
"""Asks the server for its endpoints over a connection of its own, without security. Raises CollectorError."""


@dataclass(slots=True)
class Remembered:
    """What the next attempts inherit, so that it is told once."""

    offered: frozenset[tuple[Any, ...]] | None = None
    other_hosts: str = ""
    reminded: dict[str, date] = field(default_factory=dict)


class Security:
    """Secures the sessions of one device, one at a time.

    Args:
        config: the device.
        context: lends the state directory and memory.
    """

    def __init__(self, config: OpcuaConfig, context: Context) -> None:
        parts = urlsplit(config.url)
        self._config = config
        self._host = parts.hostname or ""
        self._where = f"{self._host}:{parts.port}"
        self._on = config.security.policy != "None"
        self._store = TrustStore(context.state_dir) if context.state_dir is not None else None
        self._kept = context.kept(("opcua security", config.name), Remembered)
        self._all = context.kept(("opcua security",), Remembered)
        self._own: Own | None = None
        self._server: Certificate | None = None
        self._user: identity.UserName | identity.UserCertificate | None = None
        self._policy: Any = None

    async def prepare(self, library: Any, ask: Ask) -> None:
        """Read certificates and secrets, and check the server's before anything is sent.

        Raises:
            Unavailable: the server's certificate is not trusted, or not valid now; our own cannot be used.
            Misconfigured: a file of the user cannot be used.
        """
        if not self._on:
            return
        if self._store is None:
            raise Misconfigured("no_state_directory", "there is no state directory to keep certificates in")
        try:
            own, server, self._user = await asyncio.to_thread(self._read, self._store)
        except (OSError, ValueError) as error:
            raise self._trouble(
                "own_certificate_unusable",
                f"the certificates in {self._store.file.parent.parent} cannot be used: {error}",
                detail=str(error),
            ) from error
        self._own = own
        now = datetime.now(UTC)
        if now > own.certificate.not_after:
            until = own.certificate.not_after
            raise self._trouble(
                "own_certificate_expired",
                f"this gateway's certificate ended on {until:%Y-%m-%d}, or its clock is wrong: shopfloor cert renew",
                until=f"{until:%Y-%m-%d}",
            )
        if server is None:
            raise await self._unknown(await ask())
        self._check_time(server, now)
        if (why := weakness(server)) is not None:
            raise self._trouble("certificate_unusable", f"the certificate of {self._where}: {why}", detail=why)
        self._server = server
        self._policy = await asyncio.to_thread(self._build, library, own, server)
        self.look_ahead()

    def apply(self, client: Any) -> None:
        """Let a client of the library open a channel like this; after `prepare`, before the connection."""
        if self._on:
            assert self._own is not None
            client.application_uri = self._own.certificate.application_uri
            client.security_policy = self._policy
            client.uaclient.set_security(self._policy)

    async def activate(self, library: Any, client: Any, created: Any) -> None:
        """Log in to the session that `created` is the answer of. Raises what the library does, and CollectorError."""
        if not self._on:
            await client.activate_session()
            return
        endpoint = self._check_session(library.ua, created)
        if self._store is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._store.forget_rejected, self._config.name)
        if self._user is None:
            await client.activate_session()
            return
        parameters = identity.parameters(library, self._policy, created, self._user, endpoint, self._where)
        await client.uaclient.activate_session(parameters)

    async def explained(self, error: Unavailable, stage: Literal["channel", "session"], ask: Ask) -> Unavailable:
        """Return the reason behind a connection that was not to be.

        Args:
            error: how it failed.
            stage: when: while the channel was opened, or after.
            ask: see `Ask`.
        """
        status = str(error.facts.get("detail", "")).partition(" ")[0]
        if error.cause == "session_refused" and status in LOGIN_FAULTS:
            return identity.refused(status, self._config, self._where)
        ours = status in _NOT_US or status in _TIME or status in _OTHER_POLICY
        hangs_up = stage == "channel" and error.cause in ("closed_by_peer", "no_answer", "bad_reply")
        if not (ours or hangs_up or (error.cause == "session_refused" and not status.startswith("Bad"))):
            return error
        try:
            endpoints = await ask()
        except CollectorError:
            return self._not_us(error, status, False)
        try:
            offered = self._choose(endpoints)
        except Unavailable as other:
            return other
        if offered is not None and self._server is not None and offered.der != self._server.der:
            return await self._changed(offered, self._server)
        return self._not_us(error, status, hangs_up)

    def look_ahead(self) -> None:
        """Tell once a day of certificates that end soon."""
        device = {"device": self._config.name, "label": self._config.label}
        if self._own is not None:
            self._remind(self._all, "own_certificate_expires", self._own.certificate, self._own_facts())
        if self._server is not None:
            self._remind(self._kept, "server_certificate_expires", self._server, device)

    def certificate_of(self, endpoints: Sequence[Any]) -> Certificate:
        """The certificate that a server shows for the configured policy and mode.

        Raises:
            Unavailable: it does not offer them, or shows no certificate.
        """
        found = self._choose(endpoints)
        if found is None:
            raise self._trouble("certificate_unusable", f"{self._where} shows no certificate", detail="-")
        return found

    def _remind(self, kept: Remembered, event: str, certificate: Certificate, facts: Mapping[str, str | None]) -> None:
        now = datetime.now(UTC)
        if certificate.not_after - now <= WARN_BEFORE and kept.reminded.get(event) != now.date():
            kept.reminded[event] = now.date()
            days = max(0, (certificate.not_after - now).days)
            log.warning(event, **facts, days=days, until=f"{certificate.not_after:%Y-%m-%d}")

    def _read(self, store: TrustStore) -> tuple[Own, Certificate | None, Any]:
        return store.own(), store.trusted(self._config.name), identity.load(self._config)

    def _build(self, library: Any, own: Own, server: Certificate) -> Any:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        policy = getattr(library.policies, _CLASSES[self._config.security.policy])
        return policy(
            x509.load_der_x509_certificate(server.der),
            x509.load_der_x509_certificate(own.certificate.der),
            serialization.load_pem_private_key(own.key, None),
            getattr(library.ua.MessageSecurityMode, self._config.security.applied_mode),
        )

    def _choose(self, endpoints: Sequence[Any]) -> Certificate | None:
        """The certificate of the endpoint that the configuration asks for; raises `policy_not_offered`."""
        security = self._config.security
        wanted = (POLICY_URI + security.policy, security.applied_mode if self._on else "None_")
        known = [(str(one.SecurityPolicyUri), one.SecurityMode.name, one) for one in endpoints]
        fitting = [one for uri, mode, one in known if (uri, mode) == wanted]
        if not fitting:
            names = sorted({_shown(uri, mode) for uri, mode, _ in known})
            offered = ", ".join(names[:MOST_TOLD]) or "-"
            asked = f"{security.policy} {security.applied_mode}" if self._on else "None"
            raise self._trouble(
                "policy_not_offered",
                f"{self._where} does not offer {asked}; it offers: {offered}",
                asked=asked,
                offered=offered,
            )
        if not self._on:
            return None
        self._kept.offered = _secure(endpoints)
        if not fitting[0].ServerCertificate:
            return None
        try:
            return describe(fitting[0].ServerCertificate)
        except ValueError as error:
            raise self._trouble(
                "certificate_unusable", f"{self._where} shows a certificate that is none: {error}", detail=str(error)
            ) from error

    def _check_session(self, ua: Any, created: Any) -> Any:
        """Compare what the server signs with what was asked, and with what somebody said unprotected before."""
        assert self._server is not None
        mode = getattr(ua.MessageSecurityMode, self._config.security.applied_mode)
        uri = POLICY_URI + self._config.security.policy
        fitting = [one for one in created.ServerEndpoints if (one.SecurityPolicyUri, one.SecurityMode) == (uri, mode)]
        # Whose key it is was proved by the signature over our nonce, which the library checks. Here servers may leave
        # certificates out (Part 4, 5.6.2.2); what is there must be the one that was trusted.
        for endpoint in fitting:
            if not endpoint.ServerCertificate or self._is_trusted(endpoint.ServerCertificate):
                self._compare(created.ServerEndpoints)
                return endpoint
        text = f"the endpoints of {self._where} do not agree with the connection: it is not what it says"
        raise self._trouble("bad_reply", text, detail="endpoints do not agree with the connection")

    def _is_trusted(self, der: bytes) -> bool:
        try:
            return self._server is not None and describe(der).der == self._server.der
        except ValueError:
            return False

    def _compare(self, endpoints: Sequence[Any]) -> None:
        before, self._kept.offered = self._kept.offered, None
        if before is not None and before != _secure(endpoints):
            # Nothing was chosen from it, so nothing is lost; but somebody may have tried.
            log.warning("endpoints_differ", device=self._config.name, label=self._config.label, where=self._where)

    def _check_time(self, server: Certificate, now: datetime) -> None:
        shown = {"thumbprint": server.thumbprint, "now": f"{now:%Y-%m-%d %H:%M} UTC"}
        if now > server.not_after:
            until = f"{server.not_after:%Y-%m-%d}"
            raise self._trouble(
                "certificate_expired",
                f"the certificate of {self._where} ended on {until}; clock skew is possible, it is {shown['now']} here",
                until=until,
                **shown,
            )
        if now < server.not_before:
            since = f"{server.not_before:%Y-%m-%d %H:%M} UTC"
            raise self._trouble(
                "certificate_not_yet_valid",
                f"the certificate of {self._where} is valid from {since} on, and it is {shown['now']} here: most likely"
                " clock skew",
                since=since,
                **shown,
            )
        if not is_for(server, self._host) and self._kept.other_hosts != server.thumbprint:
            # The very certificate was trusted, so its names add nothing; they may tell of a swapped cable.
            self._kept.other_hosts = server.thumbprint
            log.warning(
                "certificate_other_host",
                device=self._config.name,
                label=self._config.label,
                where=self._where,
                hosts=", ".join(server.hosts[:MOST_TOLD]),
            )

    async def _unknown(self, endpoints: Sequence[Any]) -> Unavailable:
        shown = self.certificate_of(endpoints)
        await self._reject(shown)
        return self._trouble(
            "untrusted",
            f"the certificate of {self._where} is not trusted yet: thumbprint {shown.thumbprint}; compare it with the"
            f" server's, then: shopfloor cert trust {self._config.name}",
            thumbprint=shown.thumbprint,
            subject=shown.subject,
            until=f"{shown.not_after:%Y-%m-%d}",
        )

    async def _changed(self, shown: Certificate, trusted: Certificate) -> Unavailable:
        await self._reject(shown)
        return self._trouble(
            "certificate_changed",
            f"{self._where} shows another certificate than the trusted one: thumbprint {shown.thumbprint} instead of"
            f" {trusted.thumbprint}; if it was renewed there: shopfloor cert trust {self._config.name}",
            thumbprint=shown.thumbprint,
            trusted=trusted.thumbprint,
        )

    async def _reject(self, shown: Certificate) -> None:
        assert self._store is not None
        try:
            await asyncio.to_thread(self._store.reject, self._config.name, shown)
        except OSError as error:
            log.warning("certificate_not_kept", device=self._config.name, label=self._config.label, text=str(error))

    def _not_us(self, error: Unavailable, status: str, hung_up: bool) -> Unavailable:
        """The server shows what it should, so the trouble is what we show."""
        if not self._on or self._own is None or not (status in _NOT_US or status in _TIME or hung_up):
            return error
        silent = "no answer" if error.cause == "no_answer" else "it hangs up"
        own, detail = self._own.certificate, status or silent
        facts = {"thumbprint": own.thumbprint, **self._own_facts(), "detail": detail}
        if status in _TIME:
            text = f"{self._where} finds this gateway's certificate not valid at this time: its clock or ours is wrong"
            return self._trouble("own_certificate_time", text, **facts)
        return self._trouble(
            "client_untrusted",
            f"{self._where} does not accept this gateway's certificate ({detail}): copy {facts['file']} to the server's"
            f" trusted certificates, or accept it there; thumbprint {own.thumbprint}",
            **facts,
        )

    def _own_facts(self) -> dict[str, str]:
        return {"file": str(self._store.file)} if self._store is not None else {}

    def _trouble(self, cause: str, text: str, **facts: str) -> ActionNeeded:
        return ActionNeeded("not-connected", cause, text, where=self._where, **facts)


def _shown(uri: str, mode: str) -> str:
    return uri.removeprefix(POLICY_URI) + (f" {mode}" if mode != "None_" else "")


def _secure(endpoints: Sequence[Any]) -> frozenset[tuple[Any, ...]]:
    """What endpoints say about security, as far as a session's answer repeats it (Part 4, 5.6.2.2)."""
    return frozenset(
        (
            one.SecurityPolicyUri,
            one.SecurityMode.name,
            frozenset((offer.TokenType.name, offer.SecurityPolicyUri) for offer in one.UserIdentityTokens or ()),
        )
        for one in endpoints
    )
