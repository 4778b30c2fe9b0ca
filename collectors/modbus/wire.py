"""What requests cost in time on the wire, by transport: turn-around, silence, bytes.

Pure. May import: the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass

RTU_REQUEST_BYTES = 8
"""Unit, function, address, count, checksum."""
RTU_REPLY_BYTES = 5
"""What a reply carries beside its data: unit, function, byte count, checksum."""
FAST_BAUD = 19_200
FAST_SILENCE_S = 0.00175
"""Above 19,200 baud the standard fixes the silence between frames instead of deriving it from the character."""
TCP_ANSWER_S = 0.005
"""What one request over TCP takes with a PLC that answers within its cycle; nothing better is known offline."""
SERIAL_ANSWER_S = 0.02
"""What a meter or inverter takes from the end of the request to its first byte: 5 to 50 ms are usual."""
MODEM_ANSWER_S = 0.2
"""The same of a device behind a modem that dialled in: the mobile network comes on top."""
ANSWER_S = {"tcp": TCP_ANSWER_S, "rtu+tcp": SERIAL_ANSWER_S, "serial": SERIAL_ANSWER_S, "listen": MODEM_ANSWER_S}
"""Kind of endpoint -> answer time that is assumed where none is given."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A request takes `request_s` seconds and `byte_s` for each byte of data in its reply."""

    request_s: float
    byte_s: float

    def seconds(self, data_bytes: int) -> float:
        """How long the line is busy with a request whose reply carries so much data."""
        return self.request_s + self.byte_s * data_bytes


TCP = Wire(request_s=TCP_ANSWER_S, byte_s=1e-7)
"""Modbus TCP: the turn-around is all, bytes (at 100 Mbit/s) count for next to nothing."""


def serial_wire(
    baudrate: int, *, bits: int = 11, pause: float | None = None, answer_s: float = SERIAL_ANSWER_S
) -> Wire:
    """RTU frames on a serial line, behind a serial server or not.

    Args:
        baudrate: bits a second.
        bits: of a character, start, parity and stop bits included: 11 with parity or two stop bits, 10 without.
        pause: seconds of silence before each request; None = 3.5 characters, or 1.75 ms above 19,200 baud.
        answer_s: what the device takes from the end of the request to its first byte.
    """
    character = bits / baudrate
    silence = FAST_SILENCE_S if baudrate > FAST_BAUD else 3.5 * character
    # Before the request stands the pause; behind the reply its end is known only after a silence.
    before = silence if pause is None else max(pause, silence)
    frames = (RTU_REQUEST_BYTES + RTU_REPLY_BYTES) * character
    return Wire(request_s=before + silence + answer_s + frames, byte_s=character)
