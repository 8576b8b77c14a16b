"""What is answered, for the OpenAPI: shapes with an example each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Phase = Literal["dormant", "awakening", "active", "focused", "emergent"]


class Shape(BaseModel):
    """A JSON object; fields are only ever added."""

    model_config = ConfigDict(extra="allow")


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


class Sources(Shape):
    """Sources by name; `after` names where the next page begins, null at the end."""

    sources: list[SourceRow]
    after: str | None = Field(examples=[None])


class State(Shape):
    """The cached state of a source (CONTRACT 4); what is unknown is absent."""

    source: str = Field(examples=["cam-1"])
    level: float | None = Field(None, examples=[0.4213])
    phase: Phase | None = Field(None, examples=["active"])
    ts: int | None = Field(None, examples=[1700000000000])
    seq: int | None = Field(None, examples=[4711])


class Detected(Shape):
    """One object in a frame; `box` is left, top, right, bottom in pixels of the full frame."""

    class_id: int = Field(examples=[2])
    label: str = Field(examples=["car"])
    confidence: float = Field(examples=[0.87])
    box: list[float] = Field(examples=[[10.0, 20.0, 110.0, 80.0]])


class Detection(Shape):
    """What was found in one frame."""

    result: Literal["detections"]
    id: str = Field(examples=["p005/1700000000200-0"])
    source: str = Field(examples=["cam-1"])
    ts: int = Field(examples=[1700000000000])
    frame: str = Field(examples=["1700000000000-0"])
    labels: str = Field(examples=["car:1"])
    objects: list[Detected]


class Score(Shape):
    """The score of a source after an input, or after silence (`tick`)."""

    result: Literal["scores"]
    id: str = Field(examples=["p005/1700000000210-0"])
    source: str = Field(examples=["cam-1"])
    ts: int = Field(examples=[1700000000000])
    kind: Literal["frame", "event", "tick"] = Field(examples=["frame"])
    inputs: int = Field(examples=[1])
    n: int = Field(examples=[4711])
    level: float = Field(examples=[0.4213])
    phase: Phase = Field(examples=["active"])


class Detections(Shape):
    """Newest detections, oldest first; `after` continues where they end."""

    results: list[Detection]
    after: str = Field(examples=["eJxjYGRgAAAABQAB"])


class Scores(Shape):
    """Newest scores, oldest first; `after` continues where they end."""

    results: list[Score]
    after: str = Field(examples=["eJxjYGRgAAAABQAB"])


class Session(Shape):
    """Who is signed in; `keys` tells whether a key is needed at all."""

    keys: bool = Field(examples=[True])
    grants: list[dict[str, str]] = Field(examples=[[{"role": "read", "sources": "cam-*"}]])


class DeadLetter(Shape):
    """An entry that can never succeed."""

    id: str = Field(examples=["p005/1700000000100-0"])
    stream: str = Field(examples=["recordings"])
    reason: str = Field(examples=["undecodable"])
    error: str = Field(examples=["not a JPEG, PNG or WebP"])
    replayable: bool = Field(examples=[True])


class DeadLetters(Shape):
    """Dead letters, newest of each partition first."""

    dead: list[DeadLetter]


class Replayed(Shape):
    """The new entry that a dead letter has become."""

    replayed: str = Field(examples=["p005/1700000000100-0"])
    id: str = Field(examples=["p005/1700000000300-0"])


class Status(Shape):
    """The deployment: lag, owners, ledger (as `percipio status --json`)."""

    now_ms: int = Field(examples=[1700000000000])
    balanced: bool = Field(examples=[True])
    ledger: dict[str, int] = Field(examples=[{"frames_in": 10, "frames_detected": 10}])
    difference: dict[str, int] = Field(examples=[{"frames": 0, "events": 0, "detections": 0}])
    in_flight: int = Field(examples=[0])
    partitions: list[dict[str, Any]] = Field(examples=[[]])
    api: dict[str, Any] = Field(examples=[{"live": 0}])


class Well(Shape):
    """All is well."""

    status: Literal["ok"]
