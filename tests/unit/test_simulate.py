"""The simulated deployment: queues behave as queues do, and the planned one keeps up."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from benchmarks.simulate import Share, lacking, share_of, simulate
from pipeline.capacity import Cost, Costs, Demand, Machine, plan

COSTS = replace(
    Costs(*(Cost(0.0, "by hand", measured=True) for _ in fields(Costs))),
    score_us_event=Cost(40.0, "by hand", measured=True),
    score_us_entry=Cost(60.0, "by hand", measured=True),
    redis_us_event=Cost(10.0, "by hand", measured=True),
    redis_us_entry=Cost(20.0, "by hand", measured=True),
    gpu_frames_per_s=Cost(500.0, "by hand", measured=False),
)


def one(sources: int, score_us: float, redis_us: float) -> Share:
    """Give a share of two partitions with an owner each."""
    return Share(np.array([sources, sources]), np.array([0, 1]), 0.0, redis_us, score_us)


def test_busy_is_rate_times_cost() -> None:
    """2 x 2,000 events/s of 100 us each keep each worker busy 20 %, of 50 us Redis as well."""
    outcome = simulate(one(200, 100.0, 50.0), 5.0, np.random.default_rng(1))

    assert outcome.busiest_worker == pytest.approx(0.2, rel=0.05)
    assert outcome.redis_busy == pytest.approx(0.2, rel=0.05)
    assert outcome.is_stable
    assert 0.1 < outcome.p50_ms < 2


@pytest.mark.parametrize(("score_us", "redis_us"), [(700.0, 10.0), (10.0, 400.0)])
def test_too_much_is_not_stable(score_us: float, redis_us: float) -> None:
    """A worker or a Redis that is asked for more than a second a second falls behind."""
    outcome = simulate(one(200, score_us, redis_us), 3.0, np.random.default_rng(1))

    assert not outcome.is_stable
    assert outcome.p99_ms > 200


@pytest.mark.parametrize("rate", [10_000, 200_000])
def test_what_is_planned_keeps_up(rate: int) -> None:
    """A planned deployment is stable, its workers and Redis about as busy as was planned."""
    demand, machine = Demand(events_per_s=rate, sources=rate // 10), Machine()
    found, rng = plan(demand, COSTS, machine), np.random.default_rng(1)

    outcome = simulate(share_of(demand, found, COSTS, rng), 0.5, rng)

    assert outcome.is_stable
    assert outcome.redis_busy < 0.8
    assert outcome.busiest_worker < 0.95


def test_what_is_lacking() -> None:
    """Ten times the events on the same deployment fill its score workers first."""
    small = plan(Demand(events_per_s=1000, sources=100), COSTS, Machine())

    name, full = lacking(small, Demand(events_per_s=100_000, sources=10_000), COSTS, Machine())

    assert name == "score workers"
    assert full == pytest.approx(10.0)
