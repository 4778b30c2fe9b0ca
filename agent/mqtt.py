"""One MQTT session over paho-mqtt: connect, publish QoS 1, acknowledgements, the end. Used once and thrown away.

paho is only a socket here: it keeps nothing, reconnects never, and counts no window (the pump does). Its network
thread hands acknowledgements over in bursts, with one wake-up of the loop for all that came meanwhile.

Promises: nothing here blocks the loop (name look-up, connect and TLS handshake happen aside, at most one at a time);
the end of the network thread, for whatever reason, is the end of the session; over TLS nothing is sent before the
broker's certificate and name are checked.

May import: the standard library, `agent.aside`, `agent.mqtt_endpoint`, `agent.mqtt_errors`,
`agent.secret_files`, paho (lazily).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agent import mqtt_errors
from agent.aside import Aside, Died, Late, Stuck
from agent.mqtt_endpoint import Endpoint
from agent.mqtt_errors import SessionError
from agent.secret_files import FileUnusable, read_secret

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

Protocol: TypeAlias = Literal["5", "3.1.1"]

MAX_WINDOW = 65_535
USER_TIMEOUT_MS = 10_000
"""After so long without an acknowledgement by TCP the kernel gives the connection up."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes if the session ends without a goodbye; `retain` where the broker keeps such."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker allows in this session.

    Attributes:
        window: unacknowledged messages (Receive Maximum).
        packet_size: bytes of a whole packet, None = no limit (Maximum Packet Size).
        retain: retained messages are kept.
    """

    protocol: Protocol
    window: int = MAX_WINDOW
    packet_size: int | None = None
    retain: bool = True

    def fits(self, topic: str, payload: bytes) -> bool:
        """Whether a QoS 1 PUBLISH of this is within the broker's packet size."""
        if self.packet_size is None:
            return True
        body = 2 + len(topic.encode()) + 2 + 1 + len(payload)
        return 1 + (len(f"{body:b}") + 6) // 7 + body <= self.packet_size


class Session:
    """One connection to the broker, from CONNECT to its end.

    Args:
        endpoint: where and as whom.
        protocol: MQTT version.
        will: last will, or None.
        aside: where the blocking part of connecting is done; shared by all sessions of a publisher, so that a
            hanging name look-up never becomes two.
        on_news: called in the loop when acknowledgements came or the session ended; must not raise.
        connect_s: seconds for name look-up, TCP and TLS; the answer to CONNECT has as long again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        protocol: Protocol,
        *,
        will: Will | None,
        aside: Aside[SessionError | None],
        on_news: Callable[[], None],
        connect_s: float = 8.0,
    ) -> None:
        self.endpoint = endpoint
        self.protocol = protocol
        self.lost: SessionError | None = None
        """Why the session ended; None while it may still be used."""
        self.patient = False
        """Acknowledgements are not told of: who uses the session takes them when it suits."""
        self._will = will
        self._aside = aside
        self._on_news = on_news
        self._connect_s = connect_s
        self._loop = asyncio.get_running_loop()
        self._client: Client | None = None
        self._closing = False
        self._acks: deque[tuple[int, int]] = deque()
        self._told = False
        self._answer: asyncio.Future[Limits] = self._loop.create_future()
        self._ended = asyncio.Event()
        # Written by the network thread before it ends, read by the loop after that.
        self._parting: SessionError | None = None
        self._socket_error = 0

    async def connect(self) -> Limits:
        """Connect, at most one attempt of at most twice `connect_s`; return what the broker allows.

        Raises:
            SessionError: no session; this object is of no further use and needs no close.
        """
        try:
            return await self._connect()
        except BaseException:
            await self.close(goodbye=False)
            raise

    async def _connect(self) -> Limits:
        where = self.endpoint.where
        try:
            failure = await self._aside.run(self._dial, self._connect_s)
        except (Late, Stuck):
            raise mqtt_errors.timed_out(where) from None
        except Died:
            raise SessionError("other", f"connecting to {where} failed in an unforeseen way, see stderr") from None
        if failure is not None:
            raise failure
        await asyncio.wait({self._answer}, timeout=self._connect_s)
        if not self._answer.done():
            raise mqtt_errors.no_connack(where)
        return self._answer.result()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Hand a QoS 1 message to the network thread; return its packet id, which `take_acks` names later.

        The caller keeps within `Limits`: at most `window` unacknowledged, each of them `fits`.
        """
        assert self._client is not None
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def take_acks(self) -> list[tuple[int, int]]:
        """Return what was acknowledged since the last call: packet id and reason code (>= 0x80 is a refusal)."""
        acks = self._acks
        return [acks.popleft() for _ in range(len(acks))]

    @property
    def has_acks(self) -> bool:
        """Whether `take_acks` would return any."""
        return bool(self._acks)

    async def close(self, *, goodbye: bool, within: float = 1.0) -> None:
        """End the session; safe without `connect`, safe twice.

        Args:
            goodbye: send DISCONNECT, so that the will is not published. Without it the socket is just closed.
            within: seconds for the DISCONNECT to get out.
        """
        self._closing = True
        client = self._client
        if client is None:
            return
        if goodbye and self.lost is None:
            client.disconnect()
            await self._wait_for_end(within)
        if not self._ended.is_set():
            _shut(client)
            await self._wait_for_end(1.0)
        self._release(client)

    def _release(self, client: Client) -> None:
        # Client and session name each other; a client let go at once closes its wake-up sockets at once.
        client.on_connect = client.on_publish = client.on_disconnect = client.on_socket_open = client.on_log = None
        client.disable_logger()
        self._client = None
        if not self._answer.done():
            self._answer.cancel()

    async def _wait_for_end(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    # In the thread of `aside`.

    def _dial(self) -> SessionError | None:
        """Connect and start the network thread; return what went wrong."""
        endpoint = self.endpoint
        try:
            client = _make_client(self)
            if endpoint.tls:
                client.tls_set_context(endpoint.tls_context())
            if endpoint.username is not None:
                secret = read_secret(endpoint.password_file) if endpoint.password_file is not None else None
                client.username_pw_set(endpoint.username, secret.reveal() if secret is not None else None)
        except FileUnusable as error:
            return SessionError("other", str(error), where=endpoint.where, refused=True)
        except OSError as error:  # ssl.SSLError is one: files of the wrong kind, a key that does not fit
            text = f"{error.filename}: {error.strerror}" if error.filename else f"TLS files cannot be used: {error}"
            return SessionError("other", text, where=endpoint.where, refused=True)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=self._will.retain)
        keepalive = max(1, round(endpoint.keepalive_s))
        try:
            if self.protocol == "5":
                client.connect(endpoint.host, endpoint.port, keepalive, clean_start=True)
            else:
                client.connect(endpoint.host, endpoint.port, keepalive)
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA cannot encode, a NUL in it
            # The frames hold the socket that paho leaves open when a handshake fails.
            traceback.clear_frames(error.__traceback__)
            return mqtt_errors.unconnected(error, endpoint.where)
        self._client = client
        if not self._closing:  # looked at after the line above, as `close` looks at them the other way round
            client.loop_start()
        return None

    def socket_opened(self, sock: socket.socket) -> None:
        """Set the options of a connected socket; called before CONNECT is written.

        Raises:
            ConnectionAbortedError: the session was given up meanwhile: a late CONNECT would be our own twin.
        """
        if self._closing:
            raise ConnectionAbortedError(errno.ECONNABORTED, "given up")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    # In paho's network thread.

    def connect_answered(self, code: int, name: str, properties: Properties) -> None:
        """CONNACK came."""
        where = self.endpoint.where
        if code >= 0x80:
            self._parting = mqtt_errors.refusal(code, name, where)
            return
        if getattr(properties, "MaximumQoS", 2) < 1:
            text = f"{where} does not offer QoS 1, without which readings get lost"
            self._parting = SessionError("other", text, where=where, refused=True)
            raise ConnectionAbortedError(errno.ECONNABORTED, text)
        limits = Limits(
            self.protocol,
            window=getattr(properties, "ReceiveMaximum", MAX_WINDOW),
            packet_size=getattr(properties, "MaximumPacketSize", None),
            retain=bool(getattr(properties, "RetainAvailable", 1)),
        )
        self._call_loop(self._connected, limits)

    def trouble(self, text: str) -> None:
        """The network said this before CONNACK. In TLS 1.3 the verdict on our certificate comes only then."""
        where = self.endpoint.where
        if self.endpoint.tls and self._parting is None:
            self._parting = mqtt_errors.alert(text, where)

    def socket_failed(self, number: int) -> None:
        """A read or write failed with this errno; the connection is about to end."""
        self._socket_error = number

    def acknowledged(self, mid: int, code: int) -> None:
        """PUBACK came."""
        self._acks.append((mid, code))
        # Looked at after the line above, as the pump looks at them the other way round.
        if not self._told and not self.patient:
            self._told = True
            self._call_loop(self._news)

    def parted(self, *, by_broker: bool, code: int, name: str) -> None:
        """The connection ended; `by_broker`: with a DISCONNECT packet of its own."""
        if self._parting is None:
            self._parting = mqtt_errors.ended(
                by_broker=by_broker, code=code, name=name, where=self.endpoint.where, error=self._socket_error
            )

    def thread_ended(self, error: BaseException | None) -> None:
        """The network thread is about to end."""
        if error is not None and self._parting is None:
            text = f"{self.endpoint.where} sent what is not MQTT ({error!r})"
            self._parting = SessionError("not_mqtt", text, where=self.endpoint.where)
        self._call_loop(self._end)

    def _call_loop(self, call: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(call, *args)

    # In the loop.

    def _connected(self, limits: Limits) -> None:
        if not self._answer.done():
            self._answer.set_result(limits)

    def _news(self) -> None:
        self._told = False  # before the acknowledgements are taken: one that comes now brings its own wake-up
        self._on_news()

    def _end(self) -> None:
        self._ended.set()
        self.lost = self._parting or mqtt_errors.ended(by_broker=False, code=0, name="", where=self.endpoint.where)
        if not self._answer.done():
            self._answer.set_exception(self.lost)
            self._answer.exception()  # seen: connect may have been given up
        self._on_news()


class _SocketErrors(logging.Logger):
    """Takes from paho's log what it tells nowhere else: which error ended the connection. Formats nothing."""

    def __init__(self, session: Session) -> None:
        super().__init__("paho", logging.ERROR)
        self._session = session

    def handle(self, record: logging.LogRecord) -> None:
        """Take the number of the error, if the line has one; the error itself holds on to frames and sockets."""
        for argument in record.args or ():
            if isinstance(argument, OSError):
                self._session.socket_failed(argument.errno or 0)


def _make_client(session: Session) -> Client:
    from paho.mqtt.client import MQTT_LOG_ERR, Client, MQTTv5, MQTTv311
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
    from paho.mqtt.packettypes import PacketTypes

    class Watched(Client):
        """Tells when the network thread ends, and what of a broken packet paho does not catch."""

        def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
            failure: BaseException | None = None
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
                failure = error
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            finally:
                session.thread_ended(failure)

    v5 = session.protocol == "5"
    client = Watched(
        CallbackAPIVersion.VERSION2,
        client_id=session.endpoint.client_id,
        protocol=MQTTv5 if v5 else MQTTv311,
        clean_session=None if v5 else True,
        reconnect_on_failure=False,
    )
    client.connect_timeout = 5.0  # for each address of the name, and for the handshake
    client.max_inflight_messages = 0  # the pump has the window
    client.enable_logger(_SocketErrors(session))

    def on_connect(
        client: Client, _u: Any, _f: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        client.on_log = None  # from here on it would format a line for each message
        session.connect_answered(reason.value, reason.getName(), properties)  # type: ignore[arg-type]

    def on_publish(_c: Client, _u: Any, mid: int, reason: ReasonCode, _p: Properties) -> None:
        if reason.packetType != PacketTypes.PUBACK:
            raise ValueError(f"no PUBACK for message {mid}, but what ends another quality of service")
        session.acknowledged(mid, reason.value)

    def on_disconnect(_c: Client, _u: Any, flags: DisconnectFlags, reason: ReasonCode, _p: Properties | None) -> None:
        session.parted(by_broker=flags.is_disconnect_packet_from_server, code=reason.value, name=reason.getName())

    def on_log(_c: Client, _u: Any, level: int, text: str) -> None:
        if level == MQTT_LOG_ERR:
            session.trouble(text)

    client.on_connect = on_connect
    client.on_publish = on_publish
    client.on_disconnect = on_disconnect
    client.on_socket_open = lambda _c, _u, sock: session.socket_opened(sock)  # type: ignore[arg-type] # a socket: no websockets
    client.on_log = on_log
    return client


def _shut(client: Client) -> None:
    """Close the connection under the network thread's feet: it ends at once, and no DISCONNECT is sent."""
    sock = client.socket()
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: that takes TLS off, and the other thread would write on in the clear.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
