"""Recomputes what must have come out of what was published, and says how it differs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import msgpack

from pipeline.partition import Keys
from tests.fault.publish import Place, Publisher

Raw = tuple[bytes, dict[bytes, bytes]]


@dataclass
class Verdict:
    """What a trial found; all but `inputs`, `late`, `dead` and `duplicates` must be 0 or empty."""

    inputs: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    late: int = 0
    dead: int = 0
    duplicates: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled, reordered or inconsistent."""
        return not (self.lost or self.doubled or self.reordered or self.problems)

    def as_row(self) -> dict[str, Any]:
        """Give it for the table."""
        return asdict(self)


def chain(numbers: Iterable[int]) -> str:
    """Give a digest that any loss, doubling or reordering changes."""
    link = b""
    for number in numbers:
        link = blake2b(link + str(number).encode(), digest_size=16).digest()
    return link.hex()


class Outputs:
    """Everything that came out of a deployment."""

    def __init__(self, client: Any, keys: Keys) -> None:
        self.detections: dict[str, list[Raw]] = defaultdict(list)
        self.scores: dict[str, list[Raw]] = defaultdict(list)
        self.dead: list[dict[bytes, bytes]] = []
        self.states: dict[str, dict[bytes, bytes]] = {}
        self.left: Counter[str] = Counter()
        for number in range(keys.partitions):
            names = keys.of(number)
            for entry_id, fields in client.xrange(names.detections):
                self.detections[fields[b"source"].decode()].append((entry_id, fields))
            for entry_id, fields in client.xrange(names.scores):
                self.scores[fields[b"source"].decode()].append((entry_id, fields))
            self.dead += [fields for _, fields in client.xrange(names.dead)]
            for stream in ("frames", "recordings", "events"):
                self.left[stream] += client.xlen(getattr(names, stream))
        for source in {*self.detections, *self.scores}:
            self.states[source] = client.hgetall(keys.of_source(source).state(source))


def examine(outputs: Outputs, publisher: Publisher, status: dict[str, Any]) -> Verdict:
    """Compare everything with what was published."""
    verdict = Verdict(inputs=sum(publisher.sent.values()), dead=len(outputs.dead))
    verdict.duplicates = sum(
        status["ledger"][name] for name in ("frames_dropped_duplicate", "events_dropped_duplicate")
    )
    buried = _buried(outputs)
    for place, sent in publisher.sent.items():
        wanted = [number for number in range(1, sent + 1) if number not in buried[place]]
        _examine_place(place, wanted, outputs, verdict)
    for source, scores in outputs.scores.items():
        _examine_counts(source, scores, outputs.states[source], verdict)
    if any(outputs.left.values()):
        verdict.problems.append(f"not trimmed: {dict(outputs.left)}")
    if not status["balanced"] or status["in_flight"]:
        verdict.problems.append(f"ledger: {status['difference']}, {status['in_flight']} in flight")
    return verdict


def _buried(outputs: Outputs) -> dict[Place, set[int]]:
    buried: dict[Place, set[int]] = defaultdict(set)
    for fields in outputs.dead:
        entry = msgpack.unpackb(fields[b"entry"])
        if b"seq" not in entry:
            continue  # somebody else's
        place = (fields[b"stream"].decode(), entry[b"source"].decode())
        buried[place].add(int(entry[b"seq"]))
    return buried


def _examine_place(place: Place, wanted: Sequence[int], outputs: Outputs, verdict: Verdict) -> None:
    stream, source = place
    if stream == "events":
        found, late = _event_numbers(outputs.scores[source], verdict), set[int]()
    else:
        _examine_detections(place, wanted, outputs, verdict)
        found, late = _frame_numbers(place, outputs)
    verdict.late += len(late)
    times = Counter(found)
    verdict.lost += len(set(wanted) - times.keys())
    verdict.doubled += sum(times.values()) - len(times)
    in_turn = [number for number in found if number not in late]
    descents = sum(b < a for a, b in pairwise(in_turn))
    verdict.reordered += descents
    right = chain(number for number in wanted if number not in late)
    if chain(in_turn) != right and not (verdict.lost or verdict.doubled or descents):
        verdict.problems.append(f"{place}: the chain differs")


def _event_numbers(scores: Sequence[Raw], verdict: Verdict) -> list[int]:
    numbers: list[int] = []
    for entry_id, fields in scores:
        if fields[b"kind"] != b"event":
            continue
        first, last = int(fields[b"seq_first"]), int(fields[b"seq_last"])
        if last - first + 1 != int(fields[b"inputs"]):
            verdict.problems.append(f"{entry_id!r}: {first} to {last} is not {fields[b'inputs']!r}")
        numbers += range(first, last + 1)
    return numbers


def _examine_detections(
    place: Place, wanted: Sequence[int], outputs: Outputs, verdict: Verdict
) -> None:
    stream, source = place
    times: Counter[int] = Counter()
    for _, fields in outputs.detections[source]:
        if fields[b"stream"].decode() != stream:
            continue
        number = int(fields[b"seq"])
        times[number] += 1
        data = msgpack.unpackb(fields[b"data"])
        if data["width"] != number + 1 or data["objects"][0]["box"][0] != number % 1000:
            verdict.problems.append(f"{place}: detections of {number} are another frame's")
    if lost := set(wanted) - times.keys():
        verdict.problems.append(f"{place}: no detections of {sorted(lost)[:5]}")
    if doubled := sum(times.values()) - len(times):
        verdict.problems.append(f"{place}: {doubled} detections doubled")


def _frame_numbers(place: Place, outputs: Outputs) -> tuple[list[int], set[int]]:
    stream, source = place
    number_of = {
        fields[b"frame"]: int(fields[b"seq"])
        for _, fields in outputs.detections[source]
        if fields[b"stream"].decode() == stream
    }
    found, late = [], set[int]()
    for _, fields in outputs.scores[source]:
        if fields[b"kind"] != b"frame" or fields[b"first"] not in number_of:
            continue
        number = number_of[fields[b"first"]]
        found.append(number)
        if b"late" in fields:
            late.add(number)
    return found, late


def _examine_counts(
    source: str, scores: Sequence[Raw], state: dict[bytes, bytes], verdict: Verdict
) -> None:
    count = 0
    for entry_id, fields in scores:
        inputs, n = int(fields[b"inputs"]), int(fields[b"n"])
        if count + inputs != n:
            verdict.problems.append(f"{source} {entry_id!r}: {count} + {inputs} is not {n}")
        count = n
    if scores and (int(state[b"seq"]), state[b"level"]) != (count, scores[-1][1][b"level"]):
        verdict.problems.append(f"{source}: state {state!r} is not the last score's")
