"""Why an MQTT session could not begin or ended: what the network, TLS and the broker say, as causes and sentences.

Pure. May import: the standard library.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

UNSUPPORTED_PROTOCOL = 0x84
TAKEN_OVER = 0x8E
RETAIN_UNSUPPORTED = 0x9A
TOO_FAST = frozenset({0x91, 0x93, 0x96, 0x97})
"""Reasons not about a message but about our pace: packet id in use, Receive Maximum exceeded, message rate, quota."""

# CONNACK reasons that are the broker's own trouble of the moment, not a verdict on us.
_BUSY = frozenset({0x88, 0x89, 0x97, 0x9F})
_VERDICTS = {
    UNSUPPORTED_PROTOCOL: "protocol",
    0x85: "client_id",
    0x86: "bad_login",
    0x87: "not_authorized",
    0x8A: "banned",
    0x8C: "bad_login",
}
_NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL})
# X.509 verification results (openssl/x509_vfy.h).
_CERTIFICATES = {
    9: ("certificate_not_yet_valid", "is not valid yet: most likely the gateway's clock is wrong"),
    10: ("certificate_expired", "has expired: renew it, and check the gateway's clock"),
    62: ("certificate_wrong_host", "is for another name: check url, or renew the certificate"),
    64: ("certificate_wrong_host", "is for another address: check url, or renew the certificate"),
}
_CLIENT_CERTIFICATE_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_EXPIRED",
)


class SessionError(Exception):
    """A session could not begin, or ended.

    Args:
        cause: stable snake_case word that picks the sentence for people (`agent.sentences`).
        text: one English sentence: what came, what to try next. No secrets.
        refused: the broker, its certificate or our files say no: trying again soon will not help.
        code: MQTT 5 reason code, where the broker gave one.
        where: `host:port`.
    """

    def __init__(
        self, cause: str, text: str, *, where: str = "", refused: bool = False, code: int | None = None
    ) -> None:
        super().__init__(text)
        self.cause = cause
        self.text = text
        self.where = where
        self.refused = refused
        self.code = code

    @property
    def unsupported_protocol(self) -> bool:
        """The broker said that it does not speak this version of MQTT."""
        return self.code == UNSUPPORTED_PROTOCOL

    @property
    def taken_over(self) -> bool:
        """The broker said that another client came with our client id."""
        return self.code == TAKEN_OVER


def unconnected(error: OSError | ValueError, where: str) -> SessionError:
    """Say why name look-up, TCP or TLS failed."""
    if isinstance(error, ssl.SSLError):
        return _tls_failure(error, where)
    if isinstance(error, socket.gaierror):
        return SessionError(
            "name_unknown", f"the name of {where} cannot be resolved: check DNS, or write the IP address", where=where
        )
    if isinstance(error, TimeoutError):
        return timed_out(where)
    if isinstance(error, ConnectionRefusedError):
        return SessionError(
            "refused", f"nothing listens on {where}: is the broker running, is the port right?", where=where
        )
    if isinstance(error, ConnectionError):
        return SessionError("closed_by_peer", f"{where} closed the connection: see the broker's log", where=where)
    if isinstance(error, OSError) and error.errno in _NO_ROUTE:
        return SessionError(
            "no_route", f"no way to {where} ({error.strerror}): check cable, router, address", where=where
        )
    return SessionError("other", f"no connection to {where}: {error}", where=where)


def timed_out(where: str) -> SessionError:
    """No connection in time."""
    return SessionError(
        "connect_timeout",
        f"no reply from {where}: check address, network, firewall, name server, and this service's address list",
        where=where,
    )


def _tls_failure(error: ssl.SSLError, where: str) -> SessionError:
    if isinstance(error, ssl.SSLCertVerificationError):
        cause, what = _CERTIFICATES.get(error.verify_code, ("certificate_unknown", "is not trusted: check ca_file"))
        return SessionError(
            cause, f"the certificate of {where} {what} ({error.verify_message})", where=where, refused=True
        )
    return alert(error.reason or str(error), where)


def alert(reason: str, where: str) -> SessionError:
    """Say what TLS said when it was not about the broker's certificate."""
    reason = reason.removeprefix("failed to receive on socket: ")
    if "ALERT" in reason.upper() and any(word in reason.upper() for word in _CLIENT_CERTIFICATE_ALERTS):
        return SessionError(
            "client_certificate",
            f"{where} does not accept this gateway's certificate ({reason}): check client_cert_file, client_key_file",
            where=where,
            refused=True,
        )
    return SessionError(
        "tls", f"TLS with {where} failed ({reason}): check port and certificates, ours too", where=where, refused=True
    )


def refusal(code: int, name: str, where: str) -> SessionError:
    """Say why CONNACK said no. `code` is an MQTT 5 reason code (those of 3.1.1 are translated before)."""
    if code in _BUSY:
        return SessionError("busy", f"{where} is busy or under maintenance ({name})", where=where, code=code)
    return SessionError(
        _VERDICTS.get(code, "other"),
        f"{where} refuses the login: {name} (0x{code:02x})",
        where=where,
        refused=True,
        code=code,
    )


def no_connack(where: str) -> SessionError:
    """TCP stands, CONNECT was not answered."""
    return SessionError(
        "not_mqtt",
        f"{where} accepts connections but does not answer: is it a broker, is it mqtts:// instead of mqtt://?",
        where=where,
    )


def ended(*, by_broker: bool, code: int, name: str, where: str, error: int = 0) -> SessionError:
    """Say why a session ended.

    Args:
        by_broker: with a DISCONNECT packet of the broker, whose reason `code` and `name` are.
        error: errno of the socket, 0 = none.
    """
    if by_broker and code == TAKEN_OVER:
        return SessionError("taken_over", f"another client came to {where} with this client_id", where=where, code=code)
    if by_broker:
        return SessionError(
            "closed_by_peer", f"{where} ended the session: {name} (0x{code:02x})", where=where, code=code
        )
    if code == 0x8D:
        return SessionError("silent", f"{where} answered nothing, not even a ping", where=where)
    if error == errno.ETIMEDOUT:  # the kernel gave up: nobody closed anything, and no twin is to blame
        return SessionError("silent", f"{where} does not even acknowledge packets any more", where=where)
    if error in _NO_ROUTE:
        text = f"no way to {where} any more ({os.strerror(error)}): check cable, router, address"
        return SessionError("no_route", text, where=where)
    return SessionError("closed_by_peer", f"the connection to {where} was closed", where=where)
