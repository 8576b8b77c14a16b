"""What every partition says of itself: lag, pending, owners, and the ledger that must balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.partition import PartitionKeys, tag_of
from pipeline.stream import INPUT_GROUP, SCORE_GROUP, Store, unpack_answer

FRAMES_OUT = (
    "frames_detected",
    "frames_cached",
    "frames_dropped_age",
    "frames_dropped_overflow",
    "frames_dropped_duplicate",
    "frames_dead",
    "frames_lost_trimmed",
)
EVENTS_OUT = ("events_scored", "events_dropped_duplicate", "events_dead", "events_lost_trimmed")
DETECTIONS_OUT = ("frames_scored", "detections_dead", "detections_lost_trimmed")
BESIDE = ("events_late", "frames_late")
TERMS = ("frames_in", *FRAMES_OUT, "events_in", *EVENTS_OUT, *DETECTIONS_OUT, *BESIDE)
GROUPS = (
    ("frames", INPUT_GROUP),
    ("recordings", INPUT_GROUP),
    ("events", SCORE_GROUP),
    ("detections", SCORE_GROUP),
)


def differences(terms: Mapping[str, int]) -> dict[str, int]:
    """Give what each equation of CONTRACT 6 leaves open: 0 at rest, in flight while running."""
    detected = terms["frames_detected"] + terms["frames_cached"]
    return {
        "frames": terms["frames_in"] - sum(terms[name] for name in FRAMES_OUT),
        "events": terms["events_in"] - sum(terms[name] for name in EVENTS_OUT),
        "detections": detected - sum(terms[name] for name in DETECTIONS_OUT),
    }


@dataclass(slots=True)
class StreamStatus:
    """One stream and its group.

    Attributes:
        lag: entries added, not yet delivered; None where Redis cannot tell.
        oldest_ms: age of the oldest entry that is still to be done, 0 when none is.
    """

    length: int = 0
    lag: int | None = 0
    pending: int = 0
    consumers: int = 0
    oldest_ms: int = 0


@dataclass(slots=True)
class PartitionStatus:
    """One partition.

    Attributes:
        owner: the score worker that has it, None when nobody has.
        epoch: of its ownership.
        ledger_epoch: how many streams were deleted under it; what they took along is counted.
        ledger_opened_ms: when its account was opened; later than expected after a FLUSHALL.
        results_since_ms: for detections and scores the time of the oldest entry kept.
    """

    partition: str
    streams: dict[str, StreamStatus]
    terms: dict[str, int]
    owner: str | None
    epoch: int
    sources: int
    dead: int
    results_since_ms: dict[str, int | None]
    ledger_epoch: int = 0
    ledger_opened_ms: int = 0

    @property
    def in_flight(self) -> int:
        """Entries delivered or still to deliver."""
        return sum((s.lag or 0) + s.pending for s in self.streams.values())


@dataclass(slots=True)
class Status:
    """All partitions at a moment of Redis's clock."""

    now_ms: int
    partitions: list[PartitionStatus] = field(default_factory=list)

    @property
    def terms(self) -> dict[str, int]:
        """The ledger's terms over all partitions."""
        total: Counter[str] = Counter(dict.fromkeys(TERMS, 0))
        for partition in self.partitions:
            total.update(partition.terms)
        return dict(total)

    @property
    def is_balanced(self) -> bool:
        """Whether every equation holds in every partition, nothing being in flight."""
        return all(not any(differences(p.terms).values()) for p in self.partitions)

    def as_json(self) -> dict[str, Any]:
        """Give it as `percipio status --json` prints it."""
        return {
            "now_ms": self.now_ms,
            "balanced": self.is_balanced,
            "epochs": sum(p.ledger_epoch for p in self.partitions),
            "ledger": self.terms,
            "difference": differences(self.terms),
            "in_flight": sum(p.in_flight for p in self.partitions),
            "partitions": [_partition_json(p) for p in self.partitions],
        }


def _partition_json(status: PartitionStatus) -> dict[str, Any]:
    return {
        "partition": status.partition,
        "streams": {
            name: {field: getattr(stream, field) for field in StreamStatus.__slots__}
            for name, stream in status.streams.items()
        },
        "ledger": status.terms,
        "difference": differences(status.terms),
        "owner": status.owner,
        "epoch": status.epoch,
        "ledger_epoch": status.ledger_epoch,
        "ledger_opened_ms": status.ledger_opened_ms,
        "sources": status.sources,
        "dead": status.dead,
        "results_since_ms": status.results_since_ms,
    }


async def read_status(store: Store) -> Status:
    """Read everything; one round trip a node for all partitions.

    Raises:
        DependencyError: Redis is away.
    """
    status = Status(await store.now_ms())
    all_keys = [store.keys.of(number) for number in range(store.keys.partitions)]
    commands = [store.command("survey", _names(keys)) for keys in all_keys]
    for number, answer in enumerate(await store.run_many(commands)):
        if isinstance(answer, Exception):
            answer = await store.call("survey", _names(all_keys[number]))  # noqa: PLW2901
        found = unpack_answer(answer)
        status.partitions.append(_partition(number, found, status.now_ms))
    return status


def _names(keys: PartitionKeys) -> list[str]:
    streams = [getattr(keys, name) for name, _ in GROUPS]
    return [*streams, keys.scores, keys.dead, keys.ledger, keys.owner, keys.sources]


def _partition(number: int, found: dict[str, Any], now_ms: int) -> PartitionStatus:
    streams = {}
    rows = dict(found["ledger"] or {}).items()  # Lua's {} is a list
    ledger = {name: int(value) for name, value in rows if not name.startswith("last:")}
    for name, _ in GROUPS:
        row = found[name]
        oldest = row.pop("oldest", None)
        added, lag = row.pop("added"), row.pop("lag")
        row["lag"] = None if lag is False else lag
        streams[name] = StreamStatus(**row, oldest_ms=max(0, now_ms - _ms(oldest, now_ms)))
        ledger[f"added:{name}"] = added + ledger.get(f"base:{name}", 0)
    terms = {name: ledger.get(name, 0) for name in TERMS}
    terms["frames_in"] = ledger["added:frames"] + ledger["added:recordings"]
    terms["events_in"] = ledger["added:events"]
    owner = found["owner"] if int(found["expires_ms"]) > now_ms else ""
    since = {name: found[f"{name}_since"] for name in ("detections", "scores")}
    return PartitionStatus(
        tag_of(number),
        streams,
        terms,
        owner or None,
        int(found["epoch"]),
        found["sources"],
        found["dead"],
        {name: _ms(first, 0) if first else None for name, first in since.items()},
        ledger.get("epoch", 0),
        ledger.get("opened_ms", 0),
    )


def _ms(entry_id: str | None, otherwise: int) -> int:
    return int(entry_id.partition("-")[0]) if entry_id else otherwise
