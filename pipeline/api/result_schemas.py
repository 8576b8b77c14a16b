"""States, detections and scores as they are answered, for the OpenAPI.

A test compares them with what the stages write.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Phase = Literal["dormant", "awakening", "active", "focused", "emergent"]
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Shape(BaseModel):
    """A JSON object; fields are only ever added."""

    model_config = ConfigDict(extra="allow")


class State(Shape):
    """The cached state of a source; what is unknown is absent."""

    source: str = Field(examples=["cam-1"])
    v: int | None = Field(None, description="Version of the fields.", examples=[1])
    level: float | None = Field(None, description="0 to 1.", examples=[0.4213])
    phase: Phase | None = Field(None, examples=["active"])
    arousal: float | None = Field(None, examples=[0.52])
    differentiation: float | None = Field(None, examples=[0.61])
    integration: float | None = Field(None, examples=[0.34])
    workspace: float | None = Field(None, examples=[0.2])
    novelty: float | None = Field(None, examples=[0.05])
    confidence: float | None = Field(None, examples=[0.97])
    level_ts: int | None = Field(
        None, description="End of the last bin evaluated, Unix ms.", examples=[1700000000000]
    )
    ts: int | None = Field(None, description="Newest `ts`, Unix ms.", examples=[1700000000120])
    updated_ms: int | None = Field(
        None, description="When it was written, Redis's clock.", examples=[1700000000180]
    )
    seq: int | None = Field(None, description="Inputs scored so far.", examples=[4711])
    frames: int | None = Field(None, description="Of them frames.", examples=[4000])
    events: int | None = Field(None, description="Of them events.", examples=[711])
    tracks: int | None = Field(None, description="Objects followed now.", examples=[3])
    late: int | None = Field(None, description="Scored after their turn.", examples=[0])
    frames_dropped: int | None = Field(None, examples=[12])
    dead: int | None = Field(None, description="Dead letters so far.", examples=[0])
    last_problem: str | None = Field(None, examples=["undecodable: not a JPEG, PNG or WebP"])
    map_version: str | None = Field(None, examples=["5f2b8c01d9ae"])
    engine_version: str | None = Field(None, examples=["2-250ms-64-4-0a1b2c3d"])
    bins: int | None = Field(None, description="Valid bins in the window of 64.", examples=[64])
    note: str | None = Field(
        None,
        description="Why the level may be low whatever the source does.",
        examples=["the window holds 12 of 64 bins"],
    )
    model: str | None = Field(None, examples=["yolov9t@0123456789ab"])


class Detected(Shape):
    """One object in a frame."""

    class_id: int = Field(examples=[2])
    label: str = Field(examples=["car"])
    confidence: float = Field(examples=[0.87])
    box: list[float] = Field(
        description="Left, top, right, bottom in pixels of the full frame.",
        examples=[[10.0, 20.0, 110.0, 80.0]],
    )


class Timing(Shape):
    """Where a frame's time went."""

    queued_ms: float = Field(examples=[4.1])
    decode_ms: float = Field(examples=[3.2])
    infer_ms: float = Field(description="Of the whole batch.", examples=[41.0])
    batch: int = Field(description="Frames in the batch.", examples=[4])


class Result(Shape):
    """What detections and scores have in common."""

    id: str = Field(description="Entry id with its partition.", examples=["p005/1700000000200-0"])
    v: int = Field(1, description="Version of the fields.", examples=[1])
    source: str = Field(examples=["cam-1"])
    ts: int = Field(description="Of the input, Unix ms.", examples=[1700000000000])
    producer: str | None = Field(None, description="Run of the publisher.", examples=["9f3c1a"])
    meta: dict[str, Any] | None = Field(None, description="As published.", examples=[{"lot": 7}])
    traceparent: str | None = Field(None, description="W3C trace context.", examples=[_TRACE])


class Detection(Result):
    """What was found in one frame."""

    result: Literal["detections"]
    frame: str = Field(description="Entry id of the frame.", examples=["1700000000000-0"])
    stream: Literal["frames", "recordings"] = Field("frames", examples=["recordings"])
    seq: int | None = Field(None, description="The publisher's number.", examples=[17])
    labels: str = Field(examples=["car:1"])
    model: str = Field("", examples=["yolov9t@0123456789ab"])
    width: int = Field(0, description="Of the full frame, pixels.", examples=[1280])
    height: int = Field(0, examples=[720])
    cached: bool = Field(False, description="Found without the network.", examples=[False])
    objects: list[Detected]
    timing: Timing | None = None


class Components(Shape):
    """The parts of the level, 0 to 1 each; null where unknown yet."""

    arousal: float | None = Field(None, examples=[0.52])
    differentiation: float | None = Field(None, examples=[0.61])
    integration: float | None = Field(None, examples=[0.34])
    workspace: float | None = Field(None, examples=[0.2])
    novelty: float | None = Field(None, examples=[0.05])


class Tracked(Shape):
    """One object followed over frames; its id is unique in the source and never reused."""

    id: int = Field(examples=[12])
    label: str = Field(examples=["car"])
    confidence: float = Field(examples=[0.87])
    box: list[float] = Field(examples=[[10.0, 20.0, 110.0, 80.0]])
    age_ms: int = Field(0, description="Since it was first seen.", examples=[840])
    velocity: list[float] = Field([], description="Pixels a second, x, y.", examples=[[31.0, 0.5]])


class Populations(Shape):
    """Groups of channels that compete for weight; lists have one element for every node in use."""

    population_id: list[str] = Field(
        description="Names of the nodes.", examples=[["people", "door"]]
    )
    specialization: list[Literal["vision", "event", "both", ""]] = Field(
        description="What feeds the node: what is seen, reported, both; empty: no name known.",
        examples=[["vision", "event"]],
    )
    size: list[int] = Field(description="Channels in use.", examples=[[2, 1]])
    active_neurons: list[int] = Field(description="Channels of them that vary.", examples=[[2, 1]])
    share: list[float] = Field(
        description="Of all eight nodes, which sum to 1; those in use may sum to less.",
        examples=[[0.31, 0.27]],
    )
    fitness: list[float] = Field(
        description="Coupling of the node to the rest, 0 to 1.", examples=[[0.52, 0.48]]
    )
    consciousness_contributions: list[float] = Field(
        description="Share times fitness.", examples=[[0.1612, 0.1296]]
    )
    fitness_average: float = Field(description="Of all eight, by share.", examples=[0.2908])
    diversity_index: float = Field(
        description="(e^H - 1) / 7 of the shares; 1: all equal.", examples=[0.82]
    )
    generation: int = Field(description="Selections so far.", examples=[960])
    successful_adaptations: int = Field(
        description="Selections that raised `fitness_average`.", examples=[471]
    )
    selection_pressure: float = Field(description="Eta of the replicator.", examples=[0.25])
    mutation_rate: float = Field(description="Mu of the replicator.", examples=[0.01])


class Pair(Shape):
    """What is seen and what is reported that go together most."""

    vision: str = Field(description="Node of what is seen.", examples=["people"])
    event: str = Field(description="Node of what is reported.", examples=["door"])
    r: float = Field(description="-1 to 1.", examples=[0.42])
    lag_ms: int = Field(
        description="Eight bins at most; positive: the event follows.", examples=[500]
    )
    bits: float = Field(description="Mutual information, -1/2 log2(1 - r^2).", examples=[0.14])
    p: float = Field(description="Two-sided, of this pair and lag alone.", examples=[0.0001])
    samples: float = Field(description="Effective sample size.", examples=[81.3])


class Correlation(Shape):
    """What survives the tests, refreshed every 64 bins; 0 or null where nothing does."""

    consciousness_correlation: float | None = Field(
        description="Of the level with what is seen, -1 to 1; null: it has no such node.",
        examples=[0.31],
    )
    context_correlation: float = Field(
        description="Of the level with what is reported, -1 to 1.", examples=[0.24]
    )
    pair: Pair | None = Field(description="The strongest pair of what is seen and reported.")


class Score(Result):
    """The score of a source after an input, or after silence (`tick`)."""

    result: Literal["scores"]
    kind: Literal["frame", "event", "tick"] = Field(examples=["frame"])
    inputs: int = Field(description="Inputs this accounts for; 0 for a tick.", examples=[1])
    n: int = Field(
        description="The source's running count; previous `n` + `inputs` = `n`, "
        "else something was missed or repeated.",
        examples=[4711],
    )
    first: str | None = Field(None, description="Entry id.", examples=["1700000000000-0"])
    last: str | None = Field(None, description="Entry id.", examples=["1700000000000-0"])
    seq_first: int | None = Field(None, description="The publisher's number.", examples=[17])
    seq_last: int | None = Field(None, examples=[17])
    level: float = Field(description="As of the last closed bin.", examples=[0.4213])
    phase: Phase = Field(examples=["active"])
    transition: str | None = Field(None, examples=["awakening>active"])
    late: int | None = Field(None, description="1: a straggler.", examples=[1])
    components: Components
    band: Literal["low", "moderate", "high", "peak"] | None = Field(
        None, description="Of the level: cut at .3, .6 and .8.", examples=["moderate"]
    )
    confidence: float | None = Field(None, examples=[0.97])
    bins: int | None = Field(None, description="Valid bins in the window of 64.", examples=[64])
    patched: int | None = Field(
        None, description="Inputs that A, N and W have not seen in their bin.", examples=[0]
    )
    too_late: int | None = Field(
        None, description="Inputs older than the window, counted only.", examples=[0]
    )
    grace_ms: int | None = Field(
        None, description="How long A, N and W wait for frames behind events.", examples=[0]
    )
    null: float | None = Field(
        None, description="Integration that chance alone would give.", examples=[0.21]
    )
    null_age_ms: int | None = Field(
        None,
        description="Age of the surrogates of `null`, if there were any.",
        examples=[4000],
    )
    emergence_strength: float | None = Field(None, examples=[0.0])
    phi: float | None = Field(
        None, description="Integration of the main complex, nats.", examples=[0.41]
    )
    core: list[str] | None = Field(
        None, description="Members of the main complex.", examples=[["motion", "sound"]]
    )
    cut: list[str] | None = Field(
        None, description="One side of its weakest partition.", examples=[["motion"]]
    )
    phi_wms: float | None = Field(
        None, description="The whole less its two parts, nats; <= 0: redundant.", examples=[0.12]
    )
    o_ratio: float | None = Field(
        None, description="Redundancy less synergy, -1 to 1.", examples=[0.2]
    )
    c_n: float | None = Field(None, description="Neural complexity, nats.", examples=[0.9])
    ignitions: int | None = Field(None, description="So far.", examples=[3])
    stability: float | None = Field(
        None, description="1 less the level's standard deviation.", examples=[0.93]
    )
    trend: Literal["rising", "steady", "falling"] | None = Field(None, examples=["steady"])
    channels: dict[str, float] | None = Field(
        None,
        description="What a bin brought lately on each channel: sums, for sampled channels means.",
        examples=[{"motion": 0.8, "sound": 12.5}],
    )
    populations: Populations | None = None
    adaptation_rate: float | None = Field(None, examples=[0.002])
    correlation: Correlation | None = None
    flags: list[str] | None = Field(None, examples=[["learning"]])
    map_version: str | None = Field(None, examples=["5f2b8c01d9ae"])
    engine_version: str | None = Field(None, examples=["2-250ms-64-4-0a1b2c3d"])
    tracks: list[Tracked] | None = Field(None, description="Frames only.")
    latency_ms: int | None = Field(None, description="From input to score.", examples=[7])
