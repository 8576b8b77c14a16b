"""Every setting of every process, from `PERCIPIO_*`; the only module that reads the environment.

The fields below are the one table: parsing, README's table and `percipio --help` come from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import parsers as take
from pipeline import variables
from pipeline.errors import SettingsError
from pipeline.partition import MAX_PARTITIONS
from pipeline.variables import Variable, variable

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where Redis is, and how long a start may wait for it."""

    url: str = variable(
        "REDIS_URL=redis://127.0.0.1:6379/0",
        take.redis_url(),
        "Where Redis is. Unset, `demo` and `up` start the embedded server.",
        shown=False,
    )
    wait_s: float = variable(
        "WAIT_FOR_REDIS_S=60",
        take.number(0, 3600),
        "How long a starting process waits for Redis before it exits with 3.",
    )


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Names, number and bounds of the streams; the same in every process of a deployment."""

    key_prefix: str = variable(
        "KEY_PREFIX=percipio",
        take.matching(r"[^{}\s]{1,64}", "1 to 64 characters, no braces or blanks"),
        "What every key starts with; one Redis holds as many deployments as there are prefixes.",
    )
    partitions: int = variable(
        "PARTITIONS=16",
        take.integer(1, MAX_PARTITIONS),
        "Groups of sources that scale apart. Fixed for the life of a deployment.",
    )
    frame_max_age_ms: int = variable(
        "FRAME_MAX_AGE_MS=1000",
        take.integer(1, _DAY_MS),
        "A live frame older than this when a worker reads it is dropped and counted.",
    )
    frames_backlog: int = variable(
        "FRAMES_BACKLOG=256",
        take.integer(1, 1_000_000),
        "Undelivered live frames a partition may hold; beyond it the oldest are dropped, counted.",
    )
    recordings_max_bytes: int = variable(
        "RECORDINGS_MAX_BYTES=268435456",
        take.integer(1 << 24, 1 << 44),
        "Bytes of recorded frames a partition may hold; beyond it publishers are held back.",
    )
    recordings_max_entries: int = variable(
        "RECORDINGS_MAX_ENTRIES=2000", take.integer(1, 10_000_000), "The same, in frames."
    )
    events_max_entries: int = variable(
        "EVENTS_MAX_ENTRIES=100000",
        take.integer(1, 100_000_000),
        "Events a partition may hold; beyond it publishers are held back.",
    )
    results_keep: int = variable(
        "RESULTS_KEEP=100000",
        take.integer(100, 100_000_000),
        "Newest detections and scores kept of a partition: size it to the slowest reader.",
    )
    state_ttl_s: int = variable(
        "STATE_TTL_S=86400",
        take.integer(60, 366 * 86_400),
        "What is remembered of a source expires this long after its last input.",
    )
    keep_last_frame: bool = variable(
        "KEEP_LAST_FRAME=1",
        take.switch(),
        "Keep the newest detected frame of each source as JPEG for 60 s, for the page.",
    )


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """The model, where it runs, and how frames are batched for it."""

    model: str = variable(
        "MODEL=yolov9t",
        take.matching(r".+", "yolov9t, yolov9s, yolov9m, yolov9c, yolov9e or a path"),
        "A name, or a path to .pt, .onnx, an OpenVINO folder or .engine.",
    )
    model_dir: Path = variable(
        "MODEL_DIR=~/.cache/percipio", take.folder(), "Where weights and exports are kept."
    )
    model_sha256: str | None = variable(
        "MODEL_SHA256=",
        take.optional_matching(r"[0-9a-fA-F]{64}", "64 hexadecimal digits"),
        "Refuse weights with another digest.",
    )
    labels: tuple[str, ...] = variable(
        "LABELS=",
        take.name_list(),
        "Names of the classes, in order, for a model that carries none.",
    )
    classes: tuple[str, ...] = variable(
        "CLASSES=", take.name_list(), "Keep only objects of these labels; none given keeps all."
    )
    device: str = variable(
        "DEVICE=auto",
        take.matching(r"auto|cpu|cuda|cuda:[0-9]{1,3}", "auto, cpu, cuda or cuda:N"),
        "`auto` takes CUDA if it works, else the CPU, and logs which and why.",
    )
    runtime: str = variable(
        "RUNTIME=auto",
        take.choice("auto", "torch", "openvino", "onnx", "tensorrt"),
        "What runs the network; `auto` takes the fastest that works here.",
    )
    precision: str = variable(
        "PRECISION=auto",
        take.choice("auto", "fp32", "fp16", "bf16"),
        "`auto` goes by device: fp32 on a CPU, fp16 on CUDA.",
    )
    image_size: int = variable(
        "IMAGE_SIZE=640", take.integer(32, 4096, 32), "Longer side the network sees, in pixels."
    )
    confidence: float = variable(
        "CONFIDENCE=0.25", take.number(0, 1), "Objects below this confidence are left out."
    )
    iou: float = variable(
        "IOU=0.7",
        take.number(0, 1),
        "Boxes of one label that overlap more than this are one object.",
    )
    batch_size: int | None = variable(
        "BATCH_SIZE=auto",
        take.auto(take.integer(1, 256)),
        "Frames in a full batch; `auto` goes by device.",
    )
    batch_wait_ms: float | None = variable(
        "BATCH_WAIT_MS=auto",
        take.auto(take.number(0, 10_000)),
        "Longest wait for a fuller batch; `auto` goes by device.",
    )
    threads: int = variable(
        "THREADS=0",
        take.integer(0, 1024),
        "Threads of a worker for decoding and the network; 0 takes every core it may use.",
    )
    claim_idle_ms: int = variable(
        "CLAIM_IDLE_MS=30000",
        take.integer(100, _DAY_MS),
        "A frame whose worker gave no sign of life this long is taken over by another.",
    )
    cache_bytes: int = variable(
        "CACHE_BYTES=16777216",
        take.integer(0, 1 << 40),
        "Memory of a worker for detections by picture, so that none is detected twice; 0 is off.",
    )
    cache_redis_bytes: int = variable(
        "CACHE_REDIS_BYTES=67108864",
        take.integer(0, 1 << 40),
        "The same in Redis, shared by all workers; 0 is off.",
    )
    cache_ttl_s: int = variable(
        "CACHE_TTL_S=3600", take.integer(1, 31 * 86_400), "How long they are kept in Redis at most."
    )
    still_threshold: float = variable(
        "STILL_THRESHOLD=0",
        take.number(0, 256),
        "A frame whose grey thumbnail differs from the last detected one's by less than so many "
        "of 256 levels takes its detections, marked `cached`; 0 is off.",
    )
    still_run: int = variable(
        "STILL_RUN=50",
        take.integer(1, 100_000),
        "Most frames in a row that take the detections of one.",
    )
    max_deliveries: int = variable(
        "MAX_DELIVERIES=5", take.integer(1, 100), "Tried this often, a frame is a dead letter."
    )


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """Bins and evaluation of the score, and who owns a partition."""

    channel_map: Path | None = variable(
        "CHANNEL_MAP=",
        take.optional_file(),
        "File with the channels of sources, per source pattern; without it names are free.",
    )
    bin_ms: int = variable("BIN_MS=250", take.integer(10, 60_000), "Width of a bin of the score.")
    hop: int = variable(
        "HOP=4",
        take.one_of(1, 2, 4, 8, 16, 32, 64),
        "Bins from one evaluation to the next.",
    )
    surrogates: bool = variable(
        "SURROGATES=1",
        take.switch(),
        "Compare integration with that of shifted copies of the data.",
    )
    batch: int = variable(
        "SCORE_BATCH=512", take.integer(1, 10_000), "Most inputs committed in one write."
    )
    reorder_ms: int = variable(
        "REORDER_MS=2000",
        take.integer(0, 600_000),
        "How long a detection waits for an earlier frame of its source that may still come.",
    )
    lease_ms: int = variable(
        "LEASE_MS=6000",
        take.integer(500, 600_000),
        "A partition whose owner is silent this long goes to another worker.",
    )


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The HTTP API and the page."""

    host: str = variable(
        "API_HOST=127.0.0.1",
        take.matching(r"\S+", "a host name or address"),
        "Where the API listens; on other than loopback it refuses to start without keys.",
    )
    port: int = variable(
        "API_PORT=8080", take.integer(0, 65_535), "Port of the API; 0 is any free."
    )
    keys_file: Path | None = variable(
        "API_KEYS_FILE=",
        take.optional_file(),
        "Lines `key-hash role [source-pattern]`; roles `publish`, `read`, `admin`.",
    )
    rate_per_s: float = variable(
        "API_RATE_PER_S=2000",
        take.number(0, 1_000_000),
        "Requests a second that one key, or address, may make of the API; 0 is any number.",
    )
    held_bytes: int = variable(
        "API_HELD_BYTES=134217728",
        take.integer(1 << 20, 1 << 40),
        "Memory of an API process for the newest results.",
    )


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What every worker process has: a name, a log, metrics, an end."""

    consumer: str | None = variable(
        "CONSUMER=",
        take.optional_matching(r"[A-Za-z0-9._:-]{1,128}", "1 to 128 of A-Z a-z 0-9 . _ : -"),
        "Name in consumer groups, kept over restarts and used by no other worker; "
        "without it worker, host and the first free number.",
    )
    log_format: str = variable(
        "LOG_FORMAT=auto",
        take.choice("auto", "json", "text"),
        "`auto` is text on a terminal, else JSON lines.",
    )
    log_level: str = variable(
        "LOG_LEVEL=info", take.choice("debug", "info", "warning", "error"), "Least that is logged."
    )
    metrics_host: str = variable(
        "METRICS_HOST=127.0.0.1",
        take.matching(r"\S+", "a host name or address"),
        "Where a worker serves `/metrics`, `/healthz` and `/readyz`.",
    )
    metrics_port: int = variable(
        "METRICS_PORT=0",
        take.integer(0, 65_535),
        "Port for that; 0 is off. Taken: the next free of 20, logged.",
    )
    grace_s: float = variable(
        "GRACE_S=20",
        take.number(0, 600),
        "How long a worker that is told to stop may finish what it has begun.",
    )
    stall_s: float = variable(
        "STALL_S=60",
        take.number(1, 3600),
        "A worker whose network or score computes longer than this on one batch ends itself.",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, complete and in range; hand on the part a module needs, never the whole.

    Attributes:
        given: names of the variables that were set, to tell a chosen value from a default.
    """

    redis: RedisSettings = field(default_factory=RedisSettings)
    streams: StreamSettings = field(default_factory=StreamSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    process: ProcessSettings = field(default_factory=ProcessSettings)
    given: frozenset[str] = frozenset()


def table() -> Iterator[Variable]:
    """Give every setting, in the order of README's table."""
    made = Settings()
    for part in (made.redis, made.streams, made.detect, made.score, made.api, made.process):
        yield from (row for _, row in variables.variables_of(type(part)))


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ`, by default the process's own.

    Raises:
        SettingsError: names every unknown variable and every value that is not taken.
    """
    texts = variables.texts_of(os.environ if environ is None else environ)
    problems = list(variables.unknown(texts, (row.name for row in table())))
    settings = Settings(
        redis=variables.parse_part(RedisSettings, texts, problems),
        streams=variables.parse_part(StreamSettings, texts, problems),
        detect=variables.parse_part(DetectSettings, texts, problems),
        score=variables.parse_part(ScoreSettings, texts, problems),
        api=variables.parse_part(ApiSettings, texts, problems),
        process=variables.parse_part(ProcessSettings, texts, problems),
        given=frozenset(name for name, text in texts.items() if text),
    )
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


if __name__ == "__main__":
    print(variables.as_markdown(table()))  # noqa: T201
