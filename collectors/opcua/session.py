"""One OPC UA session over one TCP connection, opened once and closed once; the only place that touches asyncua.

Promises: `connect` is one attempt; every request has a deadline; whatever goes wrong is `Unavailable` with a cause;
`close` ends within `CLOSE_S` also when the peer is frozen and leaves no task, socket or session of ours behind. The
library's own watchdogs, reconnection and publish loop are not used: they retry unseen, log each failure and hide a
subscription that is dead (facts of asyncua 2.1). There is no code path that writes to a server.

May import: `collectors.api`, `collectors.opcua.{bounds,reach,values}`, asyncua (in `connect`, in a thread: 1 s, 70 MB).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from collectors.api import Misconfigured, Unavailable
from collectors.opcua import bounds
from collectors.opcua.reach import turn_at, unreachable
from collectors.opcua.values import to_ms

if TYPE_CHECKING:
    from collectors.opcua.security import Security

CLOSE_S = 1.5
"""How long the goodbye to the server may take; the runner gives a collector two seconds to close."""
SESSION_S = 60.0
"""After so long without a request the server may forget the session: a crashed agent leaves nothing behind."""
CHANNEL_S = 3600.0
"""Life of the secure channel; renewed after three quarters of what the server grants."""
PROBE_S = 5.0
"""After so long without any answer the server is asked for a sign of life (slow subscriptions say nothing for long)."""
QUIET = logging.CRITICAL + 1

_ENDS = frozenset(
    {
        "BadConnectionClosed",
        "BadNoSubscription",
        "BadSecureChannelClosed",
        "BadSecureChannelIdInvalid",
        "BadSecureChannelTokenUnknown",
        "BadServerHalted",
        "BadSessionClosed",
        "BadSessionIdInvalid",
        "BadSessionNotActivated",
        "BadShutdown",
        "BadSubscriptionIdInvalid",
        "BadTimeout",
    }
)
"""Faults that say: what you refer to is gone. Any other one is a refusal."""
GARBLED = (struct.error, ValueError, LookupError, TypeError, OverflowError, RecursionError)
"""What the library's decoder raises on bytes that are no answer."""


@dataclass(frozen=True, slots=True)
class Library:
    """What we use of asyncua.

    Attributes:
        forged: what it raises when a signature is wrong.
    """

    ua: Any
    client: Any
    decode: Any
    policies: Any
    forged: tuple[type[Exception], ...]


def load() -> Library:
    """Import asyncua; blocks for about a second the first time.

    Raises:
        Misconfigured: it is not installed, or parts of it are missing.
    """
    try:
        import asyncua
        from asyncua.crypto import security_policies, uacrypto
        from asyncua.ua import ua_binary
        from cryptography.exceptions import InvalidSignature
    except ImportError as error:
        raise Misconfigured(
            "missing_package", f"asyncua cannot be loaded: {error}", package="asyncua", extra="opcua"
        ) from error
    logger = logging.getLogger("asyncua")
    if logger.level == logging.NOTSET:
        # It logs each failure of each attempt; the runner tells changes of state instead.
        logger.setLevel(QUIET)
    forged = (InvalidSignature, uacrypto.InvalidSignature)
    return Library(asyncua.ua, asyncua.Client, bounds.bind(ua_binary), security_policies, forged)


class Session:
    """A session; made anew for every attempt.

    Args:
        url: `opc.tcp://host:port[/path]`.
        name: shown in the server's list of sessions.
        timeout: seconds for each request.
        security: how it is secured and who logs in; None = not at all, and nobody.
        channel_s, probe_s: see `CHANNEL_S`, `PROBE_S`; for tests.
    """

    def __init__(
        self,
        url: str,
        name: str,
        timeout: float,
        security: Security | None = None,
        *,
        channel_s: float = CHANNEL_S,
        probe_s: float = PROBE_S,
    ) -> None:
        self._url = url
        self._name = name
        self._timeout = timeout
        self._security = security
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self.where = f"{self._host}:{parts.port}"
        self._turn = turn_at(self.where)
        self.requests = 0
        self.heard = time.monotonic()
        """Monotonic time of the last answer to anything."""
        self.server_ms: int | None = None
        """The server's clock as its last answer told it, milliseconds UTC."""
        self._library: Library | None = None
        self._client: Any = None
        self._has_channel = self._has_session = False
        self._renew_at = float("inf")
        self._channel_s = channel_s
        self._probe_s = probe_s

    @property
    def ua(self) -> Any:
        """The library's types; only after `connect`."""
        assert self._library is not None
        return self._library.ua

    async def connect(self) -> None:
        """Connect, open a channel, create and activate a session, all as `security` says.

        Raises:
            Unavailable: not now.
            Misconfigured: asyncua is missing, or what the configuration names cannot be used.
        """
        library = self._library = await asyncio.to_thread(load)
        security = self._security
        if security is not None:
            await security.prepare(library, self.endpoints)
        client = self._client = self._make(library)
        if security is not None:
            security.apply(client)
        await self._dial(client)
        try:
            with self._translated():
                await _open_channel(client)
            self._has_channel = True
            async with self._turn:
                with self._translated(refusal=True):
                    created = await client.create_session()
                    self._has_session = True
                    await (security.activate(library, client, created) if security else client.activate_session())
        except Unavailable as error:
            if security is None:
                raise
            stage: Literal["channel", "session"] = "session" if self._has_channel else "channel"
            # A server that takes one connection answers no other while this one stands.
            await self.close()
            raise await security.explained(error, stage, self.endpoints) from error
        self.requests += 4
        self.heard = time.monotonic()
        self._renew_at = self.heard + client.secure_channel_timeout / 1000 * 0.75
        # A server may forget a session sooner than asked: three signs of life fit into what it grants.
        self._probe_s = min(self._probe_s, client.session_timeout / 1000 / 3)

    async def endpoints(self) -> list[Any]:
        """Ask the server for its endpoints, over a connection of its own and unprotected: a hint, never a proof.

        Raises:
            Unavailable: not now.
            Misconfigured: asyncua is missing.
        """
        library = self._library
        if library is None:
            library = self._library = await asyncio.to_thread(load)
        client = self._client = self._make(library)
        try:
            await self._dial(client)
            self.requests += 3
            with self._translated(refusal=True):
                await _open_channel(client)
                self._has_channel = True
                found: list[Any] = await client.get_endpoints()
            return found
        finally:
            await self.close()

    def _make(self, library: Library) -> Any:
        client = library.client(self._url, timeout=self._timeout, auto_reconnect=False)
        client.name = "Shopfloor Agent"
        client.description = self._name
        client.application_uri = f"urn:{socket.gethostname()}:shopfloor-agent"
        client.product_uri = "urn:shopfloor-agent"
        client.session_timeout = SESSION_S * 1000
        client.secure_channel_timeout = round(self._channel_s * 1000)
        return client

    async def _dial(self, client: Any) -> None:
        """Connect, and say hello."""
        try:
            await client.connect_socket()
        except socket.gaierror as error:
            raise Unavailable(
                "not-connected", "name_unknown", f"the name {self._host} is not known: {error}", host=self._host
            ) from error
        except OSError as error:
            raise unreachable(error, self.where, self._timeout) from error
        with self._translated():
            await client.send_hello()

    async def call(
        self, request: Any, response: Any, *, waits: bool = False, quick: Callable[[bytes], Any] | None = None
    ) -> Any:
        """Send a request and return the decoded response (a class of `ua`).

        Args:
            request: the request.
            response: class of the answer.
            waits: the server answers when it has something to tell (publish): no deadline.
            quick: asked first; what it returns is the answer, unless it is None.

        Raises:
            Unavailable: no answer, a fault, or the connection is gone.
        """
        raw = await self.send(request, waits=waits)
        if quick is not None and (answer := quick(bytes(raw))) is not None:
            return answer
        with self._translated():
            assert self._library is not None
            answer = self._library.decode(response, raw)
            answer.ResponseHeader.ServiceResult.check()
        self.server_ms = to_ms(answer.ResponseHeader.Timestamp)
        return answer

    async def send(self, request: Any, *, waits: bool = False) -> Any:
        """Send a request and return the bytes of the answer; see `call`."""
        self.requests += 1
        with self._translated():
            protocol = self._client.uaclient.protocol
            if protocol is None:
                raise ConnectionError("connection lost")
            raw = await protocol.send_request(request, 0 if waits else None)
        self.heard = time.monotonic()
        return raw

    async def namespaces(self) -> list[str | None]:
        """Return the namespace array as it is now."""
        (value,) = await self.read([self.ua.NodeId(self.ua.ObjectIds.Server_NamespaceArray)])
        names = value.Value.Value if value.Value is not None else None
        if not isinstance(names, list):
            raise self.bad_reply("the server has no namespace array")
        return names

    async def read(self, nodes: list[Any], attribute: int | None = None, timestamps: Any = None) -> list[Any]:
        """Return the data value of an attribute of each node, by default Value; without times unless asked for."""
        ua = self.ua
        request = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = timestamps if timestamps is not None else ua.TimestampsToReturn.Neither
        wanted = ua.AttributeIds(attribute) if attribute is not None else ua.AttributeIds.Value
        request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=wanted) for node in nodes]
        values: list[Any] = (await self.call(request, ua.ReadResponse)).Results
        if len(values) != len(nodes):
            raise self.bad_reply(f"{len(nodes)} nodes were read and {len(values)} values came")
        return values

    async def keep(self) -> None:
        """Renew the channel when it is time, and ask for a sign of life after a silence. Raises Unavailable."""
        now = time.monotonic()
        if now >= self._renew_at:
            self.requests += 1
            with self._translated():
                await _open_channel(self._client, renew=True)
                self._client.uaclient.revolve_security_token()
            if self._security is not None:
                self._security.look_ahead()
            self._renew_at = now + self._client.secure_channel_timeout / 1000 * 0.75
        if now - self.heard >= self._probe_s:
            await self.read([self.ua.NodeId(self.ua.ObjectIds.Server_ServerStatus_State)])

    async def close(self) -> None:
        """Say goodbye if the server still listens, and drop the connection. Safe twice, and at any time."""
        client, self._client = self._client, None
        has_session, self._has_session = self._has_session, False
        has_channel, self._has_channel = self._has_channel, False
        if client is None:
            return
        protocol = client.uaclient.protocol
        try:
            if protocol is not None and not protocol.is_closed:
                async with asyncio.timeout(CLOSE_S):
                    if has_session:
                        await client.uaclient.close_session(True)
                    if has_channel:
                        await client.uaclient.close_secure_channel()
        except (OSError, self.ua.UaError) as error:
            # TimeoutError is an OSError; the server will forget the session by itself.
            logging.getLogger("asyncua").info("no goodbye: %r", error)
        finally:
            transport = protocol.transport if protocol is not None else None
            client.uaclient.disconnect_socket()
            if transport is not None:
                transport.abort()  # close() alone would wait for ever for a frozen peer to take the rest
                await asyncio.sleep(0)  # one turn of the loop, in which the transport closes its socket

    def bad_reply(self, detail: str) -> Unavailable:
        """The answer cannot be what was asked for."""
        return Unavailable(
            "not-connected", "bad_reply", f"{self.where} answered nonsense: {detail}", where=self.where, detail=detail
        )

    def ended(self, status: str) -> Unavailable:
        """The server ended session or subscription."""
        return Unavailable(
            "not-connected",
            "closed_by_peer",
            f"{self.where} ended the session ({status})",
            where=self.where,
            detail=status,
        )

    @contextmanager
    def _translated(self, *, refusal: bool = False) -> Iterator[None]:
        """Turn what the library raises into Unavailable.

        Args:
            refusal: a fault means that the server does not want us.
        """
        assert self._library is not None
        forged = self._library.forged
        try:
            yield
        except self.ua.UaStatusCodeError as error:
            status = type(error).__name__
            if not refusal and status in _ENDS:
                raise self.ended(status) from error
            raise self._refused(f"{status} 0x{error.code:08X}", status=status, code=error.code) from error
        except self.ua.UaError as error:
            if refusal:
                # "No matching endpoints": the server offers no endpoint without security.
                raise self._refused(str(error)) from error
            raise self.bad_reply(str(error)) from error
        except TimeoutError as error:
            if error.errno is not None:
                raise self._closed(error) from error
            raise Unavailable(
                "timeout",
                "no_answer",
                f"{self.where} did not answer within {self._timeout:g} s",
                where=self.where,
                seconds=self._timeout,
            ) from error
        except OSError as error:
            raise self._closed(error) from error
        except GARBLED as error:
            raise self.bad_reply(f"{type(error).__name__}: {error}") from error
        except forged as error:
            raise self.bad_reply("a signature that is not the server's") from error

    def _closed(self, error: OSError) -> Unavailable:
        return Unavailable(
            "not-connected", "closed_by_peer", f"{self.where} closed the connection: {error}", where=self.where
        )

    def _refused(self, detail: str, **facts: str | int) -> Unavailable:
        return Unavailable(
            "not-connected",
            "too_many_sessions" if facts.get("status") == "BadTooManySessions" else "session_refused",
            f"{self.where} refused: {detail}",
            where=self.where,
            detail=detail,
            **facts,
        )


async def _open_channel(client: Any, *, renew: bool = False) -> None:
    """Open or renew the secure channel; see asyncua for what it raises."""
    try:
        await client.open_secure_channel(renew=renew)
    except AssertionError as error:
        # The server answered with a fault: the library drops it, and then misses the answer.
        raise ConnectionError("the secure channel was refused") from error
