"""Recomputes what must have come out of what was published, and says how it differs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import msgpack

from pipeline.partition import Keys, PartitionKeys
from tests.fault.publish import Place, Publisher

Raw = tuple[bytes, dict[bytes, bytes]]
Ids = Mapping[int, bytes]
"""The id under which Redis acknowledged a number."""


@dataclass
class Verdict:
    """What a trial found; `lost`, `doubled`, `reordered` and `problems` must be 0 or empty.

    Attributes:
        late: stragglers, marked as such.
        repaired: came out under another id than Redis had given first, if any: they were sent
            again, or kept through an outage, and came out of turn.
    """

    inputs: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    late: int = 0
    dead: int = 0
    duplicates: int = 0
    repaired: int = 0
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
            self._read(client, keys.of(number))

    def _read(self, client: Any, names: PartitionKeys) -> None:
        """Read a partition at one moment: silence goes on changing levels."""
        sources = [name.decode() for name in client.zrange(names.sources, 0, -1)]
        inputs = ("frames", "recordings", "events")
        pipe = client.pipeline(transaction=True)
        for stream in (names.detections, names.scores, names.dead):
            pipe.xrange(stream)
        for stream in inputs:
            pipe.xlen(getattr(names, stream))
        for source in sources:
            pipe.hgetall(names.state(source))
        answers = pipe.execute()
        detections, scores, dead = (_entries(answer) for answer in answers[:3])
        rest = answers[3:]
        for found, into in ((detections, self.detections), (scores, self.scores)):
            for entry_id, fields in found:
                into[fields[b"source"].decode()].append((entry_id, fields))
        self.dead += [fields for _, fields in dead]
        self.left.update(dict(zip(inputs, rest, strict=False)))
        states = (_map(answer) for answer in rest[len(inputs) :])
        self.states.update(zip(sources, states, strict=True))

    def timings(self) -> list[dict[str, float]]:
        """Give what each detection says of its way: wait, batch and so on."""
        rows = [fields for found in self.detections.values() for _, fields in found]
        return [msgpack.unpackb(fields[b"data"])["timing"] for fields in rows]


def _map(answer: Any) -> dict[bytes, bytes]:
    """Give a map as one; redis-py leaves what a cluster's transaction gives flat."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


def _entries(answer: Any) -> list[Raw]:
    return [(entry_id, _map(fields)) for entry_id, fields in answer]


def examine(outputs: Outputs, publisher: Publisher, status: dict[str, Any]) -> Verdict:
    """Compare everything with what was published."""
    verdict = Verdict(inputs=sum(publisher.sent.values()), dead=len(outputs.dead))
    verdict.duplicates = sum(
        status["ledger"][name] for name in ("frames_dropped_duplicate", "events_dropped_duplicate")
    )
    buried = _buried(outputs)
    for place, sent in publisher.sent.items():
        numbers = range(publisher.first, publisher.first + sent)
        wanted = [number for number in numbers if number not in buried[place]]
        ids = dict(zip(numbers, publisher.ids[place], strict=False)) if publisher.repeated else {}
        _examine_place(place, wanted, ids, outputs, verdict)
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


def _examine_place(
    place: Place, wanted: Sequence[int], ids: Ids, outputs: Outputs, verdict: Verdict
) -> None:
    stream, source = place
    if stream == "events":
        found, moved = _event_numbers(outputs.scores[source], ids, verdict)
        verdict.repaired += len(moved)
    else:
        _examine_detections(place, wanted, outputs, verdict)
        found, late, again = _frame_numbers(place, ids, outputs)
        verdict.late += len(late)
        verdict.repaired += len(again)
        moved = late | again
    times = Counter(found)
    verdict.lost += len(set(wanted) - times.keys())
    verdict.doubled += sum(times.values()) - len(times)
    in_turn = [number for number in found if number not in moved]
    descents = sum(b < a for a, b in pairwise(in_turn))
    verdict.reordered += descents
    right = chain(number for number in wanted if number not in moved)
    if chain(in_turn) != right and not (verdict.lost or verdict.doubled or descents):
        verdict.problems.append(f"{place}: the chain differs")


def _event_numbers(scores: Sequence[Raw], ids: Ids, verdict: Verdict) -> tuple[list[int], set[int]]:
    numbers, again = list[int](), set[int]()
    for entry_id, fields in scores:
        if fields[b"kind"] != b"event":
            continue
        first, last = int(fields[b"seq_first"]), int(fields[b"seq_last"])
        if last - first + 1 != int(fields[b"inputs"]):
            verdict.problems.append(f"{entry_id!r}: {first} to {last} is not {fields[b'inputs']!r}")
        numbers += range(first, last + 1)
        if first == last and first in ids and ids[first] != fields[b"first"]:
            again.add(first)
    return numbers, again


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


def _frame_numbers(
    place: Place, ids: Ids, outputs: Outputs
) -> tuple[list[int], set[int], set[int]]:
    stream, source = place
    number_of = {
        fields[b"frame"]: int(fields[b"seq"])
        for _, fields in outputs.detections[source]
        if fields[b"stream"].decode() == stream
    }
    found, late, again = list[int](), set[int](), set[int]()
    for _, fields in outputs.scores[source]:
        if fields[b"kind"] != b"frame" or fields[b"first"] not in number_of:
            continue
        number = number_of[fields[b"first"]]
        found.append(number)
        if b"late" in fields:
            late.add(number)
        if number in ids and ids[number] != fields[b"first"]:
            again.add(number)
    return found, late, again


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
