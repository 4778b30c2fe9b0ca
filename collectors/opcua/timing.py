"""How often an OPC UA connection is looked after. May import: `collectors.opcua.session`."""

from __future__ import annotations

from dataclasses import dataclass

from collectors.opcua.session import CHANNEL_S, PROBE_S


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; tests make them short.

    Attributes:
        keepalive: a subscription without news shows life this often (at least every interval).
        silence: how many keep-alives may be missing.
        retry_first, retry_longest: delays between attempts to monitor a node, doubling.
        first_value: how long a node that is monitored may send nothing at all before it is read instead (at least
            two intervals).
        verify, verify_soonest: how often every node is read, to see whether it still exists and whether its news still
            come: at least so often, at most so often (see `items.VERIFIED_PER_S`).
        tick: how often silence and retries are looked at.
        channel, probe: see `session.CHANNEL_S`, `session.PROBE_S`.
    """

    keepalive: float = 3.0
    silence: int = 3
    retry_first: float = 5.0
    retry_longest: float = 60.0
    first_value: float = 5.0
    verify: float = 60.0
    verify_soonest: float = 15.0
    tick: float = 1.0
    channel: float = CHANNEL_S
    probe: float = PROBE_S


DEFAULT_TIMING = Timing()
