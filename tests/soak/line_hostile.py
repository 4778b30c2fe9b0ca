"""Hostile Modbus peers, each behaviour for so many polls, on TCP, behind a serial server and on a serial pair.

A process for each transport: the peers' own time counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

from collectors.api import Collector, Context, Unavailable
from collectors.modbus import TYPE
from tests.faulty import modbus as tcp
from tests.faulty import modbus_rtu as rtu
from tests.faulty.modbus import honest
from tests.servers.modbus_rtu import Cable
from tests.soak.claims import Claim

PLACES = {f"{name}{n}": start + n for name, start in (("a", 0), ("b", 100), ("c", 200)) for n in range(4)} | {"d": 300}
"""Three requests whose replies look the same, and one of a single register."""
TIMEOUT_S = 0.1
PATIENT_S = 3.0
"""For peers whose every reply counts, on a busy machine."""
MOST_TRIES = 2
"""Two steps of the delay between attempts."""
GIVE_UP_AFTER = 20
UNDERSTOOD = 0.95
"""Share of the polls of a peer that is only odd; on a busy machine two of its replies may come as one."""


@dataclass(frozen=True)
class Outcome:
    """What came of one behaviour.

    Attributes:
        good: polls that brought every value; they must be all, none or any.
        tries: polls that were needed after the peer had begun to behave.
        last: what was the matter with the last poll that was not good.
    """

    behaviour: str
    polls: int
    wrong: int
    good: int
    tries: int
    last: str


class _Reader:
    """Polls as the agent's runner does, a fresh collector after each failure, without its delays."""

    def __init__(self, url: str, peer: Any) -> None:
        self.wrong = self.good = 0
        self.last = ""
        self._url = url
        self._peer = peer
        self._context = Context()
        self._collector: Collector | None = None

    async def poll(self) -> bool:
        """Whether every value came."""
        try:
            if self._collector is None:
                self._collector = TYPE.create(self._config(), self._context)
                await self._collector.open()
            [batch] = await self._collector.collect(frozenset(self._collector.groups))
        except Unavailable as error:
            self.last = error.text
            await self.close()
            return False
        for name, value in batch.values.items():
            self.wrong += value != honest(PLACES[name]) if value is not None else name not in batch.quality
        self.good += not batch.quality
        self.last = str(batch.quality) if batch.quality else self.last
        return not batch.quality

    def _config(self) -> Any:
        tags = [{"name": name, "address": f"holding:{offset}", "type": "uint16"} for name, offset in PLACES.items()]
        fields = {"name": "d", "type": "modbus", "url": self._url, "timeout": self._peer.timeout, "tags": tags}
        return TYPE.config_model.model_validate(fields)

    async def close(self) -> None:
        if self._collector is not None:
            await self._collector.close()
            self._collector = None


async def _torment(reader: _Reader, peer: Any, polls: int) -> Outcome:
    name = peer.behaviour.__name__
    for _ in range(polls):
        await reader.poll()
    good = reader.good
    await reader.close()  # the next one takes its time-out from the peer
    if isinstance(peer, rtu.RtuPeer):
        await peer.behave()
        peer.timeout = PATIENT_S
    else:
        peer.behave()
    tries = 1
    while not await reader.poll() and tries < GIVE_UP_AFTER:
        tries += 1
    await reader.close()
    return Outcome(name, polls, reader.wrong, good, tries, reader.last)


def _timeout(behaviour: Any) -> float:
    return PATIENT_S if behaviour.__name__ in _ALWAYS else TIMEOUT_S


async def _tcp(behaviour: tcp.Behaviour, polls: int) -> Outcome:
    async with tcp.Peer(behaviour, timeout=_timeout(behaviour)) as peer:
        return await _torment(_Reader(peer.url, peer), peer, polls)


async def _rtu_over_tcp(behaviour: rtu.Behaviour, polls: int) -> Outcome:
    async with rtu.RtuPeer(behaviour, timeout=_timeout(behaviour)) as peer:
        return await _torment(_Reader(peer.url, peer), peer, polls)


async def _serial(behaviour: rtu.Behaviour, polls: int) -> Outcome:
    with Cable() as cable:
        async with rtu.RtuPeer(behaviour, cable.far, timeout=_timeout(behaviour)) as peer:
            return await _torment(_Reader(cable.url, peer), peer, polls)


_ALWAYS = {behaviour.__name__ for behaviour in (*tcp.STILL_GOOD, *rtu.STILL_GOOD)}
_NEVER = {behaviour.__name__ for behaviour in (*tcp.NEVER_GOOD, *rtu.NEVER_GOOD, *rtu.OF_CONNECTIONS)}
_TRANSPORTS: dict[str, tuple[Any, Any, Sequence[Any]]] = {
    "TCP": (_tcp, tcp.well, (*tcp.NEVER_GOOD, *tcp.STILL_GOOD)),
    "RTU over TCP": (
        _rtu_over_tcp,
        rtu.well,
        (*rtu.NEVER_GOOD, *rtu.OF_CONNECTIONS, *rtu.SOMETIMES_GOOD, *rtu.STILL_GOOD),
    ),
    "serial pair": (_serial, rtu.well, (*rtu.NEVER_GOOD, *rtu.SOMETIMES_GOOD, *rtu.STILL_GOOD)),
}
_QUICK = {"late", "twice", "wrong_unit", "wrong_checksum", "slow_queue", "close_mid_reply", "byte_by_byte"}
QUICK_POLLS = 3


async def _together(transport: str, polls: int, *, short: bool) -> list[Outcome]:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # peers write to connections that were closed meanwhile
    torment, well, behaviours = _TRANSPORTS[transport]
    await torment(well, 1)  # all is loaded now, which takes longer than a time-out
    chosen = [one for one in behaviours if not short or one.__name__ in _QUICK]
    return list(await asyncio.gather(*(torment(one, polls) for one in chosen)))


async def _some(polls: int) -> list[list[Outcome]]:
    return list(await asyncio.gather(*(_together(transport, polls, short=True) for transport in _TRANSPORTS)))


def _all(transport: str, polls: int) -> list[Outcome]:
    return asyncio.run(_together(transport, polls, short=False))


def hostile(polls: int, *, short: bool) -> list[Claim]:
    """Every misbehaviour for so many polls; `short` = some, for a few."""
    if short:
        found = asyncio.run(_some(polls))
    else:
        with ProcessPoolExecutor(len(_TRANSPORTS), mp_context=get_context("spawn")) as processes:
            found = list(processes.map(partial(_all, polls=polls), _TRANSPORTS))
    return [
        claim for transport, outcomes in zip(_TRANSPORTS, found, strict=True) for claim in _claims(transport, outcomes)
    ]


def _claims(transport: str, outcomes: Sequence[Outcome]) -> list[Claim]:
    wrong = sum(one.wrong for one in outcomes)
    believed = [one.behaviour for one in outcomes if one.behaviour in _NEVER and one.good]
    slowest = max(outcomes, key=lambda one: one.tries)
    good = sum(one.good for one in outcomes)
    missed = [
        f"{one.behaviour} ({one.good})"
        for one in outcomes
        if one.behaviour in _ALWAYS and one.good < UNDERSTOOD * one.polls
    ]
    done = f"{transport}: {len(outcomes)} behaviours x {outcomes[0].polls} polls, then honest"
    slow = [f"{one.behaviour} ({one.last})" for one in outcomes if one.tries > MOST_TRIES]
    return [
        Claim(
            "never a wrong value",
            done,
            f"{wrong} wrong values"
            + _named("wrong", [one.behaviour for one in outcomes if one.wrong])
            + _named("believed", believed),
            not wrong and not believed,
        ),
        Claim(
            "good again at once, and odd but honest peers are read",
            done,
            f"{good} polls good; good again at attempt {slowest.tries} at most"
            + _named("not understood", missed)
            + _named("slow", slow),
            not missed and not slow,
            timing=True,
        ),
    ]


def _named(what: str, names: Sequence[str]) -> str:
    return f"; {what}: {', '.join(names)}" if names else ""
