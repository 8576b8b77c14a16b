"""Every metric of every worker, and the port they are read from. The home of prometheus_client.

Modules increment, operators read; labels are few and never ids, so their number stays bounded.
"""

from __future__ import annotations

import errno
import math
import socket
import socketserver
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from itertools import accumulate
from time import perf_counter

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pipeline.errors import SettingsError
from pipeline.health import Health
from pipeline.log import get_logger

log = get_logger()

PORTS_TRIED = 20
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_LOOKUP = ("what", "outcome")
_LONG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

ENTRIES = Counter(
    "percipio_entries", "Entries done with, by what became of them.", ["stage", "outcome"]
)
"""outcome: detected, cached, scored, dropped, dead."""

DROPS = Counter("percipio_drops", "Entries dropped and counted in the ledger.", ["stage", "reason"])
"""reason: age, overflow, duplicate."""

DEAD_LETTERS = Counter("percipio_dead_letters", "Entries that can never succeed.", ["reason"])
"""reason: a value of pipeline.errors.Reason."""

LOST = Counter("percipio_lost_entries", "Entries others removed before they were read.", ["stage"])

LATE = Counter("percipio_late_entries", "Entries scored after their turn.", ["kind"])
"""kind: frame, event."""

CLAIMED = Counter("percipio_claimed_entries", "Entries taken over from a silent worker.", ["stage"])

RENEWED = Counter("percipio_renewed_entries", "Entries kept while their batch is slow.", ["stage"])

FENCED = Counter("percipio_fenced_commits", "Commits refused: another owns them now.", ["stage"])

FAILURES = Counter(
    "percipio_dependency_failures", "Turns that failed: something is away.", ["dependency"]
)
"""dependency: redis; counted by the loops of the workers and the API's watch, once a try."""

BATCHES = Counter("percipio_batches", "Batches, by what closed them.", ["stage", "closed_by"])
"""closed_by: full, deadline, drained."""

BATCH_ENTRIES = Histogram(
    "percipio_batch_entries", "Entries of a batch.", ["stage"], buckets=_SIZES
)

BATCH_WAIT = Histogram(
    "percipio_batch_wait_seconds", "Wait of a batch's oldest entry.", ["stage"], buckets=_SHORT_S
)

STEP = Histogram(
    "percipio_step_seconds", "Time a step took for a batch.", ["stage", "step"], buckets=_SHORT_S
)
"""step: read, decode, infer, track, score, commit."""


class BatchHistogram(Collector):
    """A histogram with one label that takes a batch of values at a time; it has one writer."""

    def __init__(self, name: str, text: str, label: str, bounds: Sequence[float]) -> None:
        self._about = (name, text)
        self._label = label
        self._bounds = (*bounds, math.inf)
        self._names = (*(str(float(bound)) for bound in bounds), "+Inf")
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        REGISTRY.register(self)

    def observe(self, label: str, values: Iterable[float]) -> None:
        """Count values under a label."""
        counts = self._counts.setdefault(label, [0] * len(self._bounds))
        total = 0.0
        for value in values:
            counts[bisect_left(self._bounds, value)] += 1
            total += value
        self._sums[label] = self._sums.get(label, 0.0) + total

    def describe(self) -> list[HistogramMetricFamily]:
        """Give the family without values."""
        return [HistogramMetricFamily(*self._about, labels=[self._label])]

    def collect(self) -> list[HistogramMetricFamily]:
        """Give what was counted so far, as Prometheus's client asks for it."""
        (family,) = self.describe()
        for label, counts in list(self._counts.items()):
            buckets = list(zip(self._names, accumulate(counts), strict=True))
            family.add_metric([label], buckets, self._sums.get(label, 0.0))
        return [family]


LATENCY = BatchHistogram(
    "percipio_latency_seconds", "From published to result, end to end.", "kind", _LONG_S
)
"""kind: frame (published to detection), event (published to score; the oldest of an entry)."""

EVALUATIONS = Counter("percipio_evaluations", "Windows of sources evaluated for their score.")

LAG = Gauge("percipio_lag_entries", "Entries added, not yet delivered.", ["stage", "stream"])

PENDING = Gauge("percipio_pending_entries", "Entries delivered, not yet done with.", ["stage"])

OWNED = Gauge("percipio_owned_partitions", "Partitions this worker owns.")

SOURCES = Gauge("percipio_sources", "Sources in a score worker's memory.", ["partition"])

CACHE = Counter("percipio_cache_lookups", "Frames looked up among those seen.", ["outcome", "via"])
"""outcome: hit, miss; via: memory, redis, still (looks like the last detected), none (a miss)."""

CACHE_BYTES = Gauge("percipio_cache_bytes", "Detections kept for pictures to come.", ["via"])
"""via: memory (of this worker), redis (of all, as far as this worker's writes told)."""

CACHE_SAVED = Counter("percipio_cache_saved_seconds", "Network time that hits did not take.")

CACHE_FAILURES = Counter("percipio_cache_failures", "Lookups and writes Redis refused.", ["why"])
"""why: full, away, refused; detection goes on without them."""

REQUESTS = Counter("percipio_api_requests", "Requests answered.", ["route", "method", "status"])
"""route: as in the OpenAPI, `/v1/sources/{source}/state`."""

REQUEST_TIME = Histogram(
    "percipio_api_request_seconds", "From request to answer.", ["route"], buckets=_SHORT_S
)

API_LOOKUPS = Counter("percipio_api_lookups", "Reads, by where they were served from.", _LOOKUP)
"""what: state, results, replay, sources, status, frame, session; outcome: hit (memory), miss."""

API_AGE = Histogram(
    "percipio_api_served_age_seconds", "Age of what memory served.", ["what"], buckets=_SHORT_S
)

API_FOLLOWED = Histogram(
    "percipio_api_followed_seconds", "From a result in Redis to memory.", buckets=_SHORT_S
)

API_LISTENERS = Gauge("percipio_api_listeners", "Live connections.", ["via"])
"""via: sse, websocket, mjpeg."""

API_MISSED = Counter("percipio_api_missed_results", "Results that slow listeners were not sent.")

API_REFUSED = Counter("percipio_api_refused", "Requests refused.", ["why"])
"""why: key, role, origin, host, rate, listeners."""

API_DRAW = Histogram("percipio_api_draw_seconds", "Time to draw a frame.", buckets=_SHORT_S)

LEDGER_DIFFERENCE = Gauge(
    "percipio_ledger_difference_entries", "Entries in, not accounted for yet.", ["equation"]
)
"""equation: frames, events, detections; read from Redis by the API, of the whole deployment."""

STREAM_LAG = Gauge("percipio_stream_lag_entries", "Entries to be delivered yet.", ["stream"])

STREAM_PENDING = Gauge("percipio_stream_pending_entries", "Delivered, not done with.", ["stream"])

STREAM_OLDEST = Gauge("percipio_stream_oldest_seconds", "Age of the oldest to be done.", ["stream"])

DEAD_KEPT = Gauge("percipio_dead_letters_kept", "Dead letters that wait for somebody.")

UNOWNED = Gauge("percipio_unowned_partitions", "Partitions that no score worker owns.")

WANTED = Gauge("percipio_wanted_workers", "Workers that the load asks for.", ["role"])
"""role: detect, score; what an autoscaler should make of them."""

REDIS_MEMORY = Gauge("percipio_redis_memory_bytes", "Memory that Redis uses.")

REDIS_MEMORY_LIMIT = Gauge("percipio_redis_memory_limit_bytes", "Its maxmemory; 0 for none.")

GPU_USE = Gauge("percipio_gpu_use_ratio", "Share of the last moment the GPU was busy.", ["gpu"])

GPU_MEMORY = Gauge("percipio_gpu_memory_bytes", "GPU memory in use, by all processes.", ["gpu"])

BUILD = Info("percipio_build", "What runs here.")


def describe_build(**labels: str) -> None:
    """Publish the version and `labels` (worker, model, device) as `percipio_build_info`."""
    try:
        version = metadata.version("percipio")
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        version = "unknown"
    BUILD.info({"version": version, **labels})


def api_lookups() -> dict[str, dict[str, int]]:
    """Give the API's lookups so far, by what was looked up and whether memory had it."""
    found: dict[str, dict[str, int]] = {}
    for family in API_LOOKUPS.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                what, outcome = sample.labels["what"], sample.labels["outcome"]
                found.setdefault(what, {})[outcome] = int(sample.value)
    return found


@cache
def _step(stage: str, step: str) -> Histogram:
    return STEP.labels(stage, step)


@contextmanager
def timed(stage: str, step: str) -> Iterator[None]:
    """Measure a step, also when it fails."""
    start_s = perf_counter()
    try:
        yield
    finally:
        _step(stage, step).observe(perf_counter() - start_s)


def watch_gpu(uuid: str) -> bool:
    """Publish use and memory of a GPU from now on, read when metrics are asked for.

    Args:
        uuid: as CUDA gives it, with or without `GPU-`; an index would depend on what is visible.

    Returns:
        False, with one log line saying why, where the driver's library does not answer.
    """
    full = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    try:
        import pynvml  # noqa: PLC0415

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(full)
        pynvml.nvmlDeviceGetMemoryInfo(handle)
    except Exception as error:  # whatever a driver does, work goes on
        log.warning("gpu_not_measured", gpu=full, error=str(error))
        return False
    GPU_USE.labels(full).set_function(
        _or_nan(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
    )
    GPU_MEMORY.labels(full).set_function(
        _or_nan(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    )
    return True


def _or_nan(read: Callable[[], float]) -> Callable[[], float]:
    def guarded() -> float:
        try:
            return read()
        except Exception:  # a driver that went away must not take the other metrics along
            return math.nan

    return guarded


class MetricsServer:
    """Serves `/metrics`, `/healthz` and `/readyz` from a thread of its own until closed."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve_metrics(port: int, host: str, health: Health) -> MetricsServer | None:
    """Serve metrics and health at `port`, or the next free of 20, and log which.

    Args:
        port: 0 serves nothing.
        host: name or address to listen on.
        health: what `/healthz` (replace me?) and `/readyz` (send me work?) answer from.

    Raises:
        SettingsError: `host` is none of this machine, or none of the 20 ports is free.
    """
    if port == 0:
        return None
    last = min(port + PORTS_TRIED, 65_536)
    for tried in range(port, last):
        try:
            server = MetricsServer(_listen(host, tried, health))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise SettingsError(f"metrics at {host}, port {tried}: {error}") from error
        log.info("metrics_served", host=host, port=tried)
        return server
    raise SettingsError(f"PERCIPIO_METRICS_PORT={port}: {port} to {last - 1} are all taken")


def render(accept: str) -> tuple[bytes, str]:
    """Give all metrics in the format that `accept` asks for, with its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(REGISTRY), content_type


def _listen(host: str, port: int, health: Health) -> ThreadingHTTPServer:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

    class Handler(_Handler):
        asked = health

    class Server(_Server):
        address_family = family

    return Server((host, port), Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the base's look-up of our own name, which may wait for a DNS server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "percipio", int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # seconds a client may take for its request
    asked: Health

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, *render(self.headers.get("Accept", "")))
        elif path in ("/healthz", "/readyz"):
            why = self.asked.why_not_alive() if path == "/healthz" else self.asked.why_not_ready()
            self._answer(503 if why else 200, f"{why or 'ok'}\n".encode())
        else:
            self._answer(404, b"/metrics, /healthz or /readyz\n")

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape every few seconds is no news."""

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
