"""The ledger checker: from what a subscriber heard and what the agent says of itself, proves that nothing is missing,
nothing invented, nothing changed and every hole told. Independent of the agent: it shares no code with it.

    ledger = Ledger("plant-2", "gw-01")
    ledger.take(topic, payload)          # in the order of arrival, data and agent messages alike
    ledger.sample(status_json)           # whenever one was read
    account = ledger.settle(ended={run: last_seq})
    assert account.ok, account

What it proves of (run, seq), the key of a message:
- every one up to `complete_to`, and up to `ended` where the caller knows the end, arrived or lies in a told gap;
- a second arrival is byte-identical but for a final `,"replayed":true`;
- first arrivals rise by seq among live messages of a run, and among replayed ones;
- none beyond what was produced, none of a run that the agent never named, none in a foreign shape;
- holes of a run that was killed (a gap without bounds, reason `crash`) are no longer than `crash_s`;
- `produced = delivered + buffered + in_flight + sum(dropped)` in every agent message and every status.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

REPLAYED = b',"replayed":true}'
REQUIRED = ("v", "ts", "site", "gateway", "device", "group", "run", "seq", "rev", "values")
OPTIONAL = ("quality", "age_ms", "clock")
REASONS = frozenset({"cap", "refused", "too-large", "store-failing", "store-damaged", "crash"})
_MOST_FAULTS = 50


@dataclass(slots=True)
class Run:
    """One start of the agent, as seen from the broker.

    Attributes:
        seen: seq -> digest and `ts` of its message.
        forgotten: all up to this seq arrived, and are no longer in `seen`.
    """

    seen: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    forgotten: int = 0
    highest_live: int = 0
    highest_replayed: int = 0
    complete_to: int = 0
    named: bool = False

    @property
    def last(self) -> int:
        """Highest seq that arrived."""
        return max(self.seen, default=self.forgotten)

    @property
    def last_ts(self) -> int:
        """Newest `ts` that arrived, ms UTC."""
        return max((ts for _, ts in self.seen.values()), default=0)


@dataclass
class Account:
    """What a ledger comes to.

    Attributes:
        messages: that arrived, each once; `replayed` of them on the way of the backlog; `values` in them.
        duplicates: arrivals beyond the first.
        missing: numbered, not arrived and not told: the crime. `told`: not arrived, but told in a gap.
        needless: told as a gap, and arrived all the same.
        crashes: runs that ended without a word.
        agent_messages, samples: in which the counters were checked.
        faults: everything that must not be, in words; at most fifty.
    """

    messages: int = 0
    replayed: int = 0
    values: int = 0
    duplicates: int = 0
    missing: int = 0
    told: int = 0
    needless: int = 0
    runs: int = 0
    crashes: int = 0
    agent_messages: int = 0
    samples: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No fault at all."""
        return not self.faults

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in vars(self).items() if name != "faults")
        return "\n  ".join([figures, *self.faults])


class Ledger:
    """Takes what arrives and settles the account.

    Args:
        site, gateway: whose messages; others are ignored.
        crash_s: how much of a killed run may be missing: the commit interval, and a polling interval.
    """

    def __init__(self, site: str, gateway: str, *, crash_s: float = 1.5) -> None:
        self.runs: dict[str, Run] = {}
        self.gaps: set[tuple[str | None, int | None, int | None, str]] = set()
        self.counters: dict[str, Mapping[str, Any]] = {}
        self._site, self._gateway = site, gateway
        self._prefix = f"shopfloor/{site}/{gateway}/"
        self._crash_ms = crash_s * 1000
        self._account = Account()
        self._told: set[bytes] = set()

    def take(self, topic: str, payload: bytes) -> None:
        """Enter one arrival."""
        if not topic.startswith(self._prefix):
            return
        words = topic[len(self._prefix) :].split("/")
        if words == ["agent"]:
            self._take_counters(payload)
        elif len(words) == 2 and words[1] == "data":
            self._take_data(words[0], payload)

    def sample(self, status: Mapping[str, Any]) -> None:
        """Check the counters of a `status.json`; an empty one is none."""
        if status:
            self._account.samples += 1
            self._take_balance(status["agent"]["run"], status["counters"], "status.json")

    def forget(self, keep: int = 20_000) -> None:
        """Give up what is known of messages before the last `keep` of each run, as far as none is missing.

        One of those that comes again is a fault: nobody could tell whether it is the same.
        """
        for run in self.runs.values():
            until = run.last - keep
            while run.forgotten < until and run.seen.pop(run.forgotten + 1, None) is not None:
                run.forgotten += 1

    def settle(self, ended: Mapping[str, int] | None = None) -> Account:
        """The account so far.

        Args:
            ended: run -> last seq that it numbered: so many must have arrived or been told, and no more; also of a run
                of which nothing was heard.
        """
        account = Account(**{**vars(self._account), "faults": list(self._account.faults)})
        account.runs = len(self.runs)
        gaps: dict[str, list[tuple[int, int]]] = {}
        crashed = {gone for gone, _, _, reason in self.gaps if reason == "crash"}
        unbounded = {gone for gone, first, _, reason in self.gaps if first is None and reason != "crash"}
        for gone, first, last, _ in self.gaps:
            if gone is not None and first is not None and last is not None:
                gaps.setdefault(gone, []).append((first, last))
        account.crashes = len(crashed)
        unheard = {name: Run() for name in ended or () if name not in self.runs}
        for name, run in {**self.runs, **unheard}.items():
            wanted = max(run.complete_to, run.last, (ended or {}).get(name, 0))
            told = {seq for first, last in gaps.get(name, ()) for seq in range(first, min(last, wanted) + 1)}
            account.needless += sum(seq in run.seen or seq <= run.forgotten for seq in told)
            holes = [seq for seq in range(run.forgotten + 1, wanted + 1) if seq not in run.seen]
            untold = [seq for seq in holes if seq not in told]
            account.told += len(holes) - len(untold)
            if name in unbounded or None in unbounded:
                account.told += len(untold)
            elif name in crashed:
                account.told += len(untold)
                self._check_crash(account, name, run, untold)
            elif untold:
                account.missing += len(untold)
                _fault(account, f"{name}: {len(untold)} missing and not told: {_ranges(untold)}")
            if run.seen and not run.named:
                _fault(account, f"{name}: a run that the agent never named")
            if ended is not None and name in ended and run.last > ended[name]:
                _fault(account, f"{name}: seq {run.last} arrived, but only {ended[name]} were produced")
        arrivals = account.messages + account.duplicates
        delivered = sum(counters["delivered"] for counters in self.counters.values())
        if delivered > arrivals:
            _fault(account, f"{delivered} counted as delivered, but only {arrivals} arrived")
        return account

    def _check_crash(self, account: Account, name: str, run: Run, untold: list[int]) -> None:
        if not untold:
            return
        before = [ts for seq, (_, ts) in run.seen.items() if seq < untold[0]]
        span = run.last_ts - max(before) if before else float("inf")
        if span > self._crash_ms:
            _fault(account, f"{name}: a crash cost {span:g} ms before the last that arrived: {_ranges(untold)}")

    def _run(self, name: str) -> Run:
        return self.runs.setdefault(name, Run())

    def _take_data(self, device: str, payload: bytes) -> None:
        account = self._account
        replayed = payload.endswith(REPLAYED)
        body = payload[: -len(REPLAYED)] + b"}" if replayed else payload
        try:
            message = json.loads(body, parse_constant=_no_constant)
            fault = self._shape(message, device)
        except (ValueError, TypeError, KeyError) as error:
            fault = f"not a message: {error!r}"
        if fault is not None:
            _fault(account, f"{fault}: {payload[:300]!r}")
            return
        run, seq = self._run(message["run"]), message["seq"]
        digest = hashlib.blake2b(body, digest_size=12).digest()
        if seq <= run.forgotten:
            account.duplicates += 1
            _fault(account, f"{message['run']} {seq} came again when it was forgotten")
            return
        if (known := run.seen.get(seq)) is not None:
            account.duplicates += 1
            if known[0] != digest:
                _fault(account, f"{message['run']} {seq} came again and is another: {payload[:300]!r}")
            return
        run.seen[seq] = (digest, message["ts"])
        account.messages += 1
        account.values += len(message["values"])
        account.replayed += replayed
        highest = run.highest_replayed if replayed else run.highest_live
        if seq < highest:
            lane = "replayed" if replayed else "live"
            _fault(account, f"{message['run']}: {lane} seq {seq} came after {highest}")
        elif replayed:
            run.highest_replayed = seq
        else:
            run.highest_live = seq

    def _shape(self, message: Mapping[str, Any], device: str) -> str | None:
        keys = list(message)
        if tuple(keys[: len(REQUIRED)]) != REQUIRED or keys[len(REQUIRED) :] != [k for k in OPTIONAL if k in message]:
            return "keys are not those of a message, in their order"
        if (message["v"], message["site"], message["gateway"]) != (1, self._site, self._gateway):
            return "heading of somebody else"
        if message["device"] != device:
            return f"on the topic of {device}"
        if not isinstance(message["seq"], int) or message["seq"] < 1:
            return "seq is not a number from 1 on"
        quality = message.get("quality", {})
        for tag, value in message["values"].items():
            if (value is None) != str(quality.get(tag, "")).startswith("bad:"):
                return f"{tag} is {value!r} with quality {quality.get(tag)!r}"
        return None

    def _take_counters(self, payload: bytes) -> None:
        digest = hashlib.blake2b(payload, digest_size=12).digest()
        if digest in self._told:  # a broker that was restarted may hand it out again, late
            return
        self._told.add(digest)
        self._account.agent_messages += 1
        message = json.loads(payload, parse_constant=_no_constant)
        name, counters = message["run"], message["counters"]
        self._take_balance(name, counters, "agent message")
        produced, last = counters["produced"] - counters["carried_over"], self._run(name).last
        if last > produced:  # all that arrived before it was numbered before it
            _fault(self._account, f"{name}: seq {last} arrived, but only {produced} were produced")
        for name, seq in message["complete_to"].items():
            run = self._run(name)
            run.named = True
            run.complete_to = max(run.complete_to, seq)
        for gap in message["gaps"]:
            self.gaps.add((gap["run"], gap["from"], gap["to"], gap["reason"]))
            if gap["run"] is not None:
                self._run(gap["run"]).named = True
            if gap["reason"] not in REASONS:
                _fault(self._account, f"a gap for a reason that nobody knows: {gap}")

    def _take_balance(self, name: str, counters: Mapping[str, Any], where: str) -> None:
        parts = counters["delivered"] + counters["buffered"] + counters["in_flight"] + sum(counters["dropped"].values())
        if counters["produced"] != parts or min(counters["buffered"], counters["in_flight"]) < 0:
            _fault(self._account, f"{where}: produced is not the sum of its parts: {dict(counters)}")
        run = self._run(name)
        run.named = True
        before = self.counters.get(name)
        if before is None or counters["produced"] >= before["produced"]:
            self.counters[name] = counters


def numbered(status: Mapping[str, Any]) -> dict[str, int]:
    """Run -> last seq of what it produced, as its last status tells; `settle` takes it."""
    counters = status["counters"]
    return {status["agent"]["run"]: counters["produced"] - counters["carried_over"]}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _fault(account: Account, text: str) -> None:
    if len(account.faults) < _MOST_FAULTS:
        account.faults.append(text)


def _ranges(numbers: Iterable[int]) -> str:
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in found[:20]]
    return ", ".join(texts) + (", ..." if len(found) > 20 else "")
