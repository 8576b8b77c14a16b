"""A model of deployments that no machine here can run; nothing it prints is a measurement.

    python -m benchmarks.simulate [--seconds 3] [--json]

From a thousand to ten million events a second, ten of each source: what the deployment of the step
before would lack first, what `pipeline.capacity` plans instead, and how that behaves, simulated.
Redis primaries share nothing, so one of them is simulated, with its partitions and their owners,
and stands for all: events arrive at random over sources that are hashed to partitions; each
partition reads what waits, computes on its owner's core and commits on the primary's, both first
come first served; costs are those of `percipio plan`. XADDs are spread evenly over the primary's
time.
"""

from __future__ import annotations

import argparse
import heapq
import json
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.capacity import Costs, Demand, Machine, Plan, plan
from workers.plan import ANSWERS, load_costs

STEPS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
A_SOURCE = 10
SOURCES_A_BATCH = 100
TAKING_IN = 0.5
"""Share of Redis's cost of an event that is its XADD; the rest is reading and committing."""
GROWING_S = 0.25
"""A backlog worth more than this at the end is one that grows."""


@dataclass(frozen=True, slots=True)
class Share:
    """One primary and what belongs to it.

    Attributes:
        sources: in each of its partitions.
        owners: of them, a worker's number each.
        read_us: Redis's time for an event, its XADD not included; write_us of an entry.
        score_us: a worker's time for an event that is alone in its entry.
    """

    sources: np.ndarray
    owners: np.ndarray
    taking_in: float
    redis_us: float
    score_us: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the simulation of one share gives."""

    redis_busy: float
    busiest_worker: float
    p50_ms: float
    p99_ms: float
    waiting_s: float

    @property
    def is_stable(self) -> bool:
        """Whether the backlog does not grow."""
        return self.waiting_s < GROWING_S


def share_of(demand: Demand, found: Plan, costs: Costs, rng: np.random.Generator) -> Share:
    """Give one primary's share; which sources hash where is drawn."""
    partitions = max(1, round(found.slots / found.primaries))
    workers = max(1, round(found.score_workers / found.primaries))
    mine = round(demand.sources * partitions / found.slots)
    sources = rng.multinomial(mine, np.full(partitions, 1 / partitions))
    windows = demand.windows_per_s / demand.events_per_s
    redis = (
        costs.redis_us_event.value,
        costs.redis_us_entry.value + (windows * costs.redis_us_window.value),
    )
    return Share(
        sources,
        np.arange(partitions) % workers,
        sources.sum() * A_SOURCE * redis[0] * TAKING_IN * 1e-6,
        redis[0] * (1 - TAKING_IN) + redis[1],
        costs.score_us_event.value
        + costs.score_us_entry.value
        + windows * costs.score_us_window.value,
    )


def simulate(share: Share, seconds: float, rng: np.random.Generator) -> Outcome:
    """Run the share for so long."""
    arrivals = [np.sort(rng.random(rng.poisson(n * A_SOURCE * seconds))) for n in share.sources]
    arrivals = [times * seconds for times in arrivals]
    slowed = max(1e-3, 1 - share.taking_in)
    done = np.zeros(len(arrivals), np.int64)
    free_s, busy_s = 0.0, 0.0
    workers = int(share.owners.max()) + 1
    worker_free, worker_busy = np.zeros(workers), np.zeros(workers)
    spans: list[np.ndarray] = []
    turns = [(float(times[0]), k) for k, times in enumerate(arrivals) if len(times)]
    heapq.heapify(turns)
    while turns:
        now_s, k = heapq.heappop(turns)
        if now_s >= seconds:
            break
        times = arrivals[k]
        waiting = int(np.searchsorted(times, now_s, side="right")) - done[k]
        if waiting == 0:
            if done[k] < len(times):
                heapq.heappush(turns, (float(times[done[k]]), k))
            continue
        taken = min(waiting, SOURCES_A_BATCH)
        owner = share.owners[k]
        scored_s = max(now_s, worker_free[owner]) + taken * share.score_us * 1e-6
        worker_free[owner] = scored_s
        worker_busy[owner] += taken * share.score_us * 1e-6
        service_s = taken * share.redis_us * 1e-6
        # A commit that comes while another is served waits for it.
        written_s = max(scored_s, free_s) + service_s / slowed
        free_s, busy_s = written_s, busy_s + service_s
        spans.append(written_s - times[done[k] : done[k] + taken])
        done[k] += taken
        heapq.heappush(turns, (written_s, k))
    left = sum(len(times) for times in arrivals) - int(done.sum())
    p50, p99 = np.percentile(np.concatenate(spans), (50, 99)) * 1000
    rate = share.sources.sum() * A_SOURCE
    return Outcome(
        share.taking_in + busy_s / seconds,
        float(worker_busy.max() / seconds),
        float(p50),
        float(p99),
        left / rate,
    )


def lacking(before: Plan, demand: Demand, costs: Costs, machine: Machine) -> tuple[str, float]:
    """Name what a deployment lacks first under a demand, and how full that would be."""
    wanted = {one.name: one.used for one in plan(demand, costs, machine).needs}
    has = {one.name: max(1, one.units) for one in before.needs}
    full = {name: used / has[name] for name, used in wanted.items()}
    worst = max(full, key=lambda name: full[name])
    return worst, full[worst]


def ladder(seconds: float) -> list[dict[str, object]]:
    """Give a row for each step."""
    costs, machine, rng = load_costs(), Machine(), np.random.default_rng(1)
    before, rows = plan(Demand(events_per_s=100, sources=10), costs, machine), []
    for rate in STEPS:
        demand = Demand(events_per_s=rate, sources=rate // A_SOURCE)
        name, full = lacking(before, demand, costs, machine)
        found = plan(demand, costs, machine)
        outcome = simulate(share_of(demand, found, costs, rng), seconds, rng)
        rows.append(
            {
                "events_per_s": rate,
                "sources": demand.sources,
                "lacks_first": name,
                "filled": full,
                "answer": ANSWERS[name],
                "score_workers": found.score_workers,
                "primaries": found.primaries,
                "partitions": found.slots,
                "deployments": found.deployments,
                "machines": found.machines,
                **asdict(outcome),
                "stable": outcome.is_stable,
            }
        )
        before = found
    return rows


def short_of(row: dict[str, object]) -> str:
    """Say what the step before lacks, and how much of it."""
    full = row["filled"]
    assert isinstance(full, float)
    return f"{row['lacks_first']}, {full:.1f} times full" if full > 1 else "nothing"


def main() -> None:
    """Print the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = ladder(args.seconds)
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print("A model, not a measurement.\n")
    print(
        "| events/s | sources | the step before lacks first | score workers | Redis primaries |"
        " partitions | deployments | machines of 16 cores | Redis busy | busiest worker |"
        " p50 / p99 ms | stable |"
    )
    print("|" + "---|" * 12)
    for row in rows:
        print(
            f"| {row['events_per_s']:,} | {row['sources']:,} | {short_of(row)} |"
            f" {row['score_workers']:,} | {row['primaries']:,} |"
            f" {row['partitions']:,} | {row['deployments']} | {row['machines']:,} |"
            f" {row['redis_busy']:.0%} | {row['busiest_worker']:.0%} |"
            f" {row['p50_ms']:.0f} / {row['p99_ms']:.0f} | {'yes' if row['stable'] else 'no'} |"
        )


if __name__ == "__main__":
    main()
