"""What several devices share, as configured: serial ports, serial servers, PLCs behind one address, devices that
dial in.

Promises: an address that passes here can be opened or connected to as it is; two texts that mean the same place have
equal endpoints. May import: pydantic, `collectors.fields`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from collectors.fields import DeviceConfig, DurationOrZero, Model, Name

Kind: TypeAlias = Literal["tcp", "rtu+tcp", "serial", "listen"]

_PORTS: dict[str, int | None] = {"tcp": 502, "rtu+tcp": None, "listen": None}
_FORMS = {
    "tcp": "tcp://HOST or tcp://HOST:PORT",
    "rtu+tcp": "rtu+tcp://HOST:PORT",
    "serial": "serial:///dev/serial/by-id/NAME",
    "listen": "listen://0.0.0.0:PORT",
}
_LATER = {
    "ascii+tcp": "Modbus ASCII",
    "tls": "Modbus over TLS",
    "tcps": "Modbus over TLS",
    "udp": "Modbus over UDP",
}
_MEANT = {
    "rtu": "serial", "serial+rtu": "serial", "tty": "serial", "com": "serial", "modbus": "tcp", "tcp+rtu": "rtu+tcp",
    "rtutcp": "rtu+tcp", "rtuovertcp": "rtu+tcp", "tcp-listen": "listen", "server": "listen",
}  # fmt: skip
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_HEX = re.compile(r"^0[xX](?:\s*[0-9A-Fa-f]{2})+\s*$")
MAX_REGISTRATION = 128
"""Bytes; what serial modems allow is shorter."""


def _wrong(kind: str, text: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{text}", {"text": text})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a line leads to.

    Attributes:
        kind: how it is reached, and how requests are framed there: `tcp` is Modbus TCP, all others RTU.
        host, port: of a network address, the port of `listen` is ours; of a serial port "" and 0.
        path: of a serial port.
    """

    kind: Kind
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def where(self) -> str:
        """For people: `192.168.10.21:502`, `/dev/ttyUSB0`."""
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")

    def __str__(self) -> str:
        return f"{self.kind}://{self.where}"


def parse_endpoint(url: str) -> Endpoint:
    """Return where a url leads to, defaults filled in.

    Raises:
        PydanticCustomError: none of the known forms, or one that later versions bring.
    """
    scheme, separator, rest = url.partition("://")
    kind = scheme.lower()
    if not separator:
        meant = f"serial://{url}" if url.startswith("/dev/") else f"tcp://{url}"
        raise _wrong("url", f"expected {_FORMS['tcp']}; did you mean {meant}?")
    if kind in _LATER:
        raise _wrong("not_supported", f"{_LATER[kind]} ({scheme}://) is not supported yet")
    if kind == "serial":
        return _serial(rest)
    if kind not in _PORTS:
        hint = f"; did you mean {_MEANT[kind]}://?" if kind in _MEANT else ""
        raise _wrong("url", f"expected tcp://, rtu+tcp://, serial:// or listen://, not {scheme}://{hint}")
    assert kind in {"tcp", "rtu+tcp", "listen"}
    form = _FORMS[kind]
    try:
        parts = urlsplit(f"tcp://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _wrong("url", f"expected {kind}://HOST:PORT with a port from 1 to 65535") from None
    if not host or port == 0 or "@" in rest or re.search(r"\s", rest):
        raise _wrong("url", f"expected {form}")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise _wrong("url", f"expected {form} and nothing after it; the unit goes into unit_id")
    port = port or _PORTS[kind]
    if port is None:
        raise _wrong("url", f"expected {form}: there is no usual port")
    return Endpoint(kind, host, port)  # type: ignore[arg-type]  # asserted above


def _serial(path: str) -> Endpoint:
    if re.fullmatch(r"(?i)com\d+", path.strip("/")):
        raise _wrong(
            "url", "this is a port of Windows; here ports are /dev/serial/by-id/..., see ls -l /dev/serial/by-id"
        )
    if not path.startswith("/") or re.search(r"[\s?#]", path) or path.endswith("/"):
        raise _wrong(
            "url", f"expected {_FORMS['serial']} (three slashes); baudrate, parity and stopbits are keys beside it"
        )
    return Endpoint("serial", path=path)


def _check_url(value: str) -> str:
    parse_endpoint(value)
    return value


def parse_bytes(text: str) -> bytes:
    """Return the bytes that a text stands for: hex after `0x` (`0x41 42`), else the text itself."""
    return bytes.fromhex(text.strip()[2:]) if _HEX.match(text) else text.encode()


def _check_bytes(value: str) -> str:
    if value[:2] in {"0x", "0X"} and not _HEX.match(value):
        raise _wrong("bytes", "expected pairs of hex digits after 0x, such as 0x0D0A; or plain text")
    if not 1 <= len(parse_bytes(value)) <= MAX_REGISTRATION:
        raise _wrong("bytes", f"expected 1 to {MAX_REGISTRATION} bytes: plain text, or hex after 0x")
    return value


def parse_share(value: object) -> float:
    """Return the share from `60 %`, or from a number between 0 and 1.

    Raises:
        PydanticCustomError: neither.
    """
    match = _PERCENT.match(value) if isinstance(value, str) else None
    share = float(match[1]) / 100 if match is not None else value
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0.01 <= share <= 1:
        raise _wrong("share", "expected a share of the time from 1 % to 100 %, such as 60 %")
    return float(share)


Share = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=str | float)]
Bytes = Annotated[str, AfterValidator(_check_bytes)]


class LineConfig(Model):
    """What several devices share: one owner, one request at a time."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="serial:///dev/serial/by-id/NAME, rtu+tcp://HOST:PORT (serial server), tcp://HOST:PORT,"
        " or listen://0.0.0.0:PORT (devices dial in)"
    )
    baudrate: int = Field(
        9600, ge=110, le=4_000_000, description="bits a second; behind a serial server or modem only for silences"
    )
    bytesize: Literal[7, 8] = Field(8, description="data bits; Modbus RTU needs 8")
    parity: Literal["N", "E", "O"] = Field("N", description="of a serial port: none, even, odd")
    stopbits: Literal[1, 2] = Field(1, description="of a serial port")
    pause: DurationOrZero = Field(
        0.0, le=10, description="silence between requests; on serial lines 3.5 characters at least"
    )
    max_load: Share = Field(1.0, description="share of the time that is used; the rest stays free for another master")
    registration: Bytes | None = Field(
        None, description="listen: what the modem sends first, text or hex after 0x; tells lines of one port apart"
    )
    heartbeat_bytes: Bytes | None = Field(
        None, description="listen: what the modem sends to stay connected, text or hex after 0x; taken out"
    )

    @cached_property
    def endpoint(self) -> Endpoint:
        """Where it leads to."""
        return parse_endpoint(self.url)

    @property
    def is_rtu(self) -> bool:
        """Whether requests carry no transaction: all but native Modbus TCP."""
        return self.endpoint.kind != "tcp"

    @property
    def character_s(self) -> float:
        """Seconds that one character takes on the wire."""
        return (2 + self.bytesize + (self.parity != "N") + (self.stopbits - 1)) / self.baudrate

    @model_validator(mode="after")
    def _fits_together(self) -> LineConfig:
        kind = self.endpoint.kind
        for key in ("registration", "heartbeat_bytes"):
            if getattr(self, key) is not None and kind != "listen":
                raise PydanticCustomError("listen", "only devices that dial in (listen://) send such", {"key": key})
        for key in ("parity", "stopbits", "bytesize"):
            if key in self.model_fields_set and kind != "serial":
                raise PydanticCustomError(
                    "serial", "is set in the serial server or modem itself; here only with serial://", {"key": key}
                )
        if kind == "tcp" and "baudrate" in self.model_fields_set:
            raise PydanticCustomError("serial", "Modbus TCP has no baud rate", {"key": "baudrate"})
        if self.bytesize == 7:
            raise PydanticCustomError(
                "bytesize", "Modbus RTU needs 8 data bits; 7 are for Modbus ASCII, which is not supported yet",
                {"key": "bytesize"},
            )  # fmt: skip
        return self


class OnLine(DeviceConfig):
    """A device that may share a line: `line` names it, or `url` leads to it."""

    line: Name | None = Field(None, description="one of `lines`, instead of `url`")
    _joined: tuple[str, LineConfig] | None = PrivateAttr(None)

    def join_line(self, name: str, settings: LineConfig) -> None:
        """Take note of the line that was meant; called once, by the loader, before anything else is asked."""
        self._joined = (name, settings)

    @property
    def joined(self) -> LineConfig | None:
        """The line of the configuration that this device is on; None if it is not named there."""
        return self._joined[1] if self._joined is not None else None

    @property
    def joined_name(self) -> str | None:
        """The name of that line."""
        return self._joined[0] if self._joined is not None else None

    def _settings(self) -> str:
        """The line that a device is on counts as its own setting."""
        line = f" {self.joined_name} {self.joined.model_dump_json()}" if self.joined is not None else ""
        return super()._settings() + line

    @property
    def line_label(self) -> str | None:
        """The line's name, or the address of one without a name; None = this device shares nothing."""
        return self.joined_name

    def line_mistakes(self, settings: LineConfig) -> dict[str, str]:
        """Key -> what does not fit the line."""
        return {}
