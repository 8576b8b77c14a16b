"""What the detect group hands out, and what becomes of it: entries, outcomes, their bounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.partition import PartitionKeys
from pipeline.stream import Argument

STREAMS = ("frames", "recordings")


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivered entry.

    Attributes:
        partition: number of the partition it was read from.
        stream: `frames` or `recordings`.
        entry_id: its id.
        fields: as published.
        deliveries: how often Redis has delivered it, this time included.
        age_ms: Redis's clock at the read minus the entry id.
        read_s: when it was read, monotonic.
    """

    partition: int
    stream: str
    entry_id: bytes
    fields: dict[bytes, bytes]
    deliveries: int
    age_ms: int
    read_s: float


class Verdict(StrEnum):
    """What becomes of an input entry; the words that the commit function knows."""

    DETECTED = "detected"
    CACHED = "cached"
    AGE = "age"
    OVERFLOW = "overflow"
    DEAD = "dead"


@dataclass(slots=True)
class Outcome:
    """What the commit writes for one entry.

    Attributes:
        fields: of the detections or dead-letter entry; empty for a drop.
        source: None when the entry names no valid source.
        jpeg: newest frame to keep for viewers, or None.
        problem: text for the state's `last_problem`.
        flag: what the commit said of it, empty before.
    """

    entry: Entry
    verdict: Verdict
    source: str | None = None
    producer: str | None = None
    seq: int | None = None
    fields: Sequence[Argument] = ()
    jpeg: bytes | None = None
    problem: str | None = None
    flag: str = ""


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The bounds that reading and committing inputs keep.

    Attributes:
        claim_idle_ms: an entry idle for longer belongs to nobody.
        backlog: undelivered live frames of a partition beyond which the oldest are shed.
        max_age_ms: a live frame older than this when it is read is of no use.
        ttl_s: how long a source is remembered.
        last_ttl_s: how long the newest frame is kept; 0 keeps none.
        results_keep: newest results kept of a partition.
    """

    claim_idle_ms: int = 30_000
    backlog: int = 256
    max_age_ms: int = 1000
    ttl_s: int = 86_400
    last_ttl_s: int = 60
    results_keep: int = 100_000
    dead_entries: int = 10_000
    dead_bytes: int = 256 * 2**20

    def for_commit(self) -> dict[str, int]:
        """Give the limits that the functions need."""
        return {
            "ttl_s": self.ttl_s,
            "last_ttl_s": max(1, self.last_ttl_s),
            "results_keep": self.results_keep,
            "dead_entries": self.dead_entries,
            "dead_bytes": self.dead_bytes,
        }


def flat_map(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Give the fields of an entry as they come from a function."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def id_ms(entry_id: bytes) -> int:
    """Give the time part of an entry id, Unix ms."""
    return int(entry_id.partition(b"-")[0])


def by_stream(entries: Iterable[Entry]) -> dict[tuple[int, str], list[Entry]]:
    """Group entries by partition and stream."""
    groups: dict[tuple[int, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.partition, entry.stream].append(entry)
    return groups


def pack_outcome(
    outcome: Outcome, names: list[str], keys: PartitionKeys, *, is_shown: bool
) -> dict[str, object]:
    """Give an outcome as the function wants it; appends the keys of its source to `names`.

    Args:
        outcome: what became of an entry.
        names: the keys of the call.
        keys: of its partition.
        is_shown: its picture is what viewers get; of several frames of a source one is enough.
    """
    item: dict[str, object] = {
        "id": outcome.entry.entry_id,
        "outcome": outcome.verdict.value,
        "fields": list(outcome.fields),
    }
    source = outcome.source
    if source is not None:
        item["source"], item["k"] = source, len(names) + 1
        names += [keys.state(source), keys.memory(source), keys.last(source)]
        names.append(keys.seen(source, outcome.producer or ""))
    for name in ("seq", "jpeg", "problem") if is_shown else ("seq", "problem"):
        if (value := getattr(outcome, name)) is not None:
            item[name] = value
    return item
