"""What is answered, for the OpenAPI: shapes with an example each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.api.result_schemas import Detection, Phase, Score, Shape, State

__all__ = ["State"]  # passed on


class Published(Shape):
    """Where a frame was put."""

    stream: Literal["frames", "recordings"] = Field(examples=["recordings"])
    id: str = Field(examples=["p005/1700000000000-0"])


class Accepted(Shape):
    """What became of events."""

    accepted: int = Field(examples=[2])
    ids: list[str] = Field(examples=[["p007/1700000000000-0", "p007/1700000000000-1"]])


class SourceRow(Shape):
    """One source in the list."""

    source: str = Field(examples=["cam-1"])
    last_seen_ms: int = Field(examples=[1700000000000])
    level: float | None = Field(examples=[0.4213])
    phase: Phase | None = Field(examples=["active"])
    frames: int = Field(examples=[4200])
    events: int = Field(examples=[511])


class Sources(Shape):
    """Sources by name; `after` names where the next page begins, null at the end."""

    sources: list[SourceRow]
    after: str | None = Field(examples=[None])


class Detections(Shape):
    """Newest detections, oldest first; `after` continues where they end."""

    results: list[Detection]
    after: str = Field(examples=["eJxjYGRgAAAABQAB"])


class Scores(Shape):
    """Newest scores, oldest first; `after` continues where they end."""

    results: list[Score]
    after: str = Field(examples=["eJxjYGRgAAAABQAB"])


class Transition(Shape):
    """A change of phase."""

    ts: int = Field(examples=[1700000000000])
    transition: str = Field(examples=["dormant>awakening"])


class History(Shape):
    """A row for every second with a score, oldest first; `columns` names what is in a row.

    `phase` is 0 (dormant) to 4 (emergent), `frames` and `events` count inputs, `latency_ms` is the
    longest from input to score of that second; null is unknown.
    """

    source: str = Field(examples=["cam-1"])
    step_ms: int = Field(examples=[1000])
    columns: list[str] = Field(examples=[["at_s", "level", "phase"]])
    rows: list[list[float | None]] = Field(examples=[[[1700000000, 0.42, 2]]])
    transitions: list[Transition]


class Grant(Shape):
    """One thing that a key allows."""

    role: Literal["publish", "read", "admin"] = Field(examples=["read"])
    sources: str = Field(description="Pattern of source names.", examples=["cam-*"])


class Session(Shape):
    """Who is signed in; `keys` tells whether a key is needed at all."""

    keys: bool = Field(examples=[True])
    grants: list[Grant]


class DeadLetter(Shape):
    """An entry that can never succeed."""

    id: str = Field(examples=["p005/1700000000100-0"])
    stream: str = Field(examples=["recordings"])
    entry_id: str = Field(
        "", description="What it was in that stream.", examples=["1700000000000-0"]
    )
    source: str | None = Field(None, examples=["cam-1"])
    reason: Literal[
        "undecodable", "too_large", "bad_field", "wrong_partition", "bad_version", "poison"
    ] = Field(examples=["undecodable"])
    error: str = Field(examples=["not a JPEG, PNG or WebP"])
    deliveries: int = Field(0, description="How often it was tried.", examples=[1])
    replayable: bool = Field(examples=[True])
    entry: dict[str, Any] = Field(
        {},
        description="The original fields; long or binary ones as their sizes.",
        examples=[{"source": "cam-1", "image": {"bytes": 48211}}],
    )


class DeadLetters(Shape):
    """Dead letters, newest of each partition first."""

    dead: list[DeadLetter]


class Replayed(Shape):
    """The new entry that a dead letter has become."""

    replayed: str = Field(examples=["p005/1700000000100-0"])
    id: str = Field(examples=["p005/1700000000300-0"])


class StreamRow(Shape):
    """One stream of a partition and its group."""

    length: int = Field(examples=[2])
    lag: int | None = Field(description="Added, not yet delivered.", examples=[1])
    pending: int = Field(description="Delivered, not yet done.", examples=[1])
    consumers: int = Field(examples=[2])
    oldest_ms: int = Field(description="Age of the oldest to be done.", examples=[12])


class PartitionRow(Shape):
    """One partition."""

    partition: str = Field(examples=["p005"])
    streams: dict[str, StreamRow] = Field(
        examples=[
            {"frames": {"length": 2, "lag": 1, "pending": 1, "consumers": 2, "oldest_ms": 12}}
        ]
    )
    ledger: dict[str, int] = Field(examples=[{"frames_in": 10, "frames_detected": 10}])
    difference: dict[str, int] = Field(examples=[{"frames": 0, "events": 0, "detections": 0}])
    owner: str | None = Field(description="The score worker.", examples=["score-host-1"])
    epoch: int = Field(description="Of its ownership.", examples=[3])
    ledger_epoch: int = Field(description="Streams deleted by others.", examples=[0])
    ledger_opened_ms: int = Field(examples=[1700000000000])
    sources: int = Field(examples=[12])
    dead: int = Field(examples=[0])
    results_since_ms: dict[str, int | None] = Field(
        description="Time of the oldest result kept.",
        examples=[{"detections": 1699999000000, "scores": 1699999000000}],
    )


class Status(Shape):
    """The deployment: lag, owners, ledger (as `percipio status --json`)."""

    now_ms: int = Field(examples=[1700000000000])
    balanced: bool = Field(examples=[True])
    epochs: int = Field(0, examples=[0])
    ledger: dict[str, int] = Field(examples=[{"frames_in": 10, "frames_detected": 10}])
    difference: dict[str, int] = Field(examples=[{"frames": 0, "events": 0, "detections": 0}])
    in_flight: int = Field(examples=[0])
    partitions: list[PartitionRow]
    workers: dict[str, list[dict[str, Any]]] = Field(
        description="Detect workers with the entries each has in hand and ms since it last asked "
        "for more; score workers with their partitions and ms since their last sign of life.",
        examples=[
            {"detect": [{"name": "detect-host-0", "pending": 4, "idle_ms": 12}], "score": []}
        ],
    )
    api: dict[str, Any] = Field(
        description="Of the process that answers: live connections, where reads were served from, "
        "percentiles of freshness, what it holds.",
        examples=[{"live": 4, "lookups": {"state": {"hit": 950, "miss": 12}}}],
    )


class Well(Shape):
    """All is well."""

    status: Literal["ok"] = Field(examples=["ok"])
