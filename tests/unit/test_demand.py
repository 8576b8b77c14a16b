"""What a role has to do, from two looks at the ledger, and the number that others may read."""

from __future__ import annotations

from collections import Counter

from prometheus_client import REGISTRY

from pipeline.demand import Scaler, Signal, limits_of, load_of, workers_of
from pipeline.ledger import TERMS, PartitionStatus, Status, StreamStatus

STREAMS = ("frames", "recordings", "events", "detections")


def status(
    now_s: float,
    lag: dict[str, int],
    oldest_s: float = 0.0,
    owner: str | None = "a",
    **terms: int,
) -> Status:
    """Give a deployment of one partition."""
    streams = {
        name: StreamStatus(lag=lag.get(name, 0), consumers=3, oldest_ms=int(oldest_s * 1e3))
        for name in STREAMS
    }
    counted = dict(Counter(dict.fromkeys(TERMS, 0)) | Counter(terms))
    part = PartitionStatus("p000", streams, counted, owner, 1, 0, 0, {})
    return Status(int(now_s * 1e3), [part])


def test_a_load_is_what_came_between_two_looks() -> None:
    before = status(10, {}, frames_in=100, frames_dropped_age=5, events_in=50)
    now = status(
        12, {"frames": 7, "events": 9}, 3.0, frames_in=140, frames_dropped_age=11, events_in=150
    )

    detect, score = load_of("detect", before, now), load_of("score", before, now)

    assert (detect.waiting, detect.oldest_s) == (7, 3.0)
    assert (detect.arrived_per_s, detect.dropped_per_s) == (20.0, 3.0)
    assert (score.waiting, score.arrived_per_s, score.dropped_per_s) == (9, 50.0, 0.0)


def test_what_no_worker_could_have_taken_is_not_old() -> None:
    """Entries in the hands of a worker that died, and detections that wait for their turn."""
    assert load_of("detect", status(1, {}), status(2, {}, 30.0)).oldest_s == 0
    held = load_of("score", status(1, {}), status(2, {"detections": 1}, 2.5), held_s=2.0)
    assert held.oldest_s == 0.5


def test_workers_are_known_from_redis() -> None:
    assert workers_of("score", status(1, {})) == 1
    assert workers_of("score", status(1, {}, owner=None)) == 0
    assert workers_of("detect", status(1, {})) == 3


def test_score_workers_beyond_the_partitions_are_not_asked_for() -> None:
    assert limits_of("score", 1, 40, 1.0, 16).most == 16
    assert limits_of("detect", 1, 40, 1.0, 16).most == 40


def test_a_ledger_that_goes_back_decides_nothing() -> None:
    """A failover may put the clock of Redis back."""
    scaler, limits = Scaler("score"), limits_of("score", 1, 4, 1.0, 16)

    scaler.look(status(100, {}), 2, 2, limits)

    assert scaler.look(status(90, {"events": 10**6}, 60.0), 2, 2, limits).workers == 2


def test_the_signal_is_a_metric() -> None:
    """Three seconds of a backlog: twice the workers, and the reason in the log."""
    signal = Signal()

    for second in range(6):
        signal.show(status(100 + second, {"recordings": 5000 + 100 * second}, 60.0))

    assert REGISTRY.get_sample_value("percipio_wanted_workers", {"role": "detect"}) == 6
    assert REGISTRY.get_sample_value("percipio_wanted_workers", {"role": "score"}) == 1
