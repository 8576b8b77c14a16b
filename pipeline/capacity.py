"""How much of what a deployment needs: a model of measured costs, pure arithmetic.

Every figure it gives is computed, none is measured. What it stands on is in `Costs`, each with the
command that measured it, or the source it was taken from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from typing import Any, Self

MOST_PARTITIONS = 1000
LEAST_PARTITIONS = 16
PARTITIONS_A_WORKER = 2
"""So that a worker that comes or goes moves part of a worker's load."""
PARTITIONS_A_PRIMARY = 4
WINDOWS_PER_S = 1.0
"""Evaluations of a source that is heard: every fourth bin of 0.25 s."""
FRAME_PX = 640 * 384
"""The network's input for a 16:9 picture; its work goes with the pixels."""
GIBI = 1 << 30
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Cost:
    """One figure.

    Attributes:
        value: in the unit that the name of the field ends with.
        source: the command that measured it, or where it was taken from.
        measured: whether it was measured by this project.
        date: of the measurement.
    """

    value: float
    source: str
    measured: bool
    date: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """What an event, an entry, a window, a frame and a source cost.

    An event is one input; an entry is what the events of one source in one batch share: a score
    entry and a write of its state; a window is one evaluation.

    Attributes:
        score_us_event: processor time of a score worker; so the other `_us_`. In Redis `_window`
            is what an entry costs more after an evaluation.
        score_us_frame: of a score worker for a frame's detections, track and score.
        redis_us_kb: of Redis for 1,000 bytes of a picture, beside the frame's.
        detect_ms_frame: processor time of a detect worker for a 16:9 picture.
        gpu_frames_per_s: of one GPU, from stream to stream, with four workers on it.
        net_bytes_event: into and out of Redis, all clients, one reader of results not included.
        keep_bytes_entry: Redis's memory for a score entry that is kept for readers.
        redis_bytes_source: state and memory of a source in Redis.
        worker_bytes_source: of a source in its score worker.
    """

    score_us_event: Cost
    score_us_entry: Cost
    score_us_window: Cost
    score_us_frame: Cost
    redis_us_event: Cost
    redis_us_entry: Cost
    redis_us_window: Cost
    redis_us_frame: Cost
    redis_us_kb: Cost
    detect_ms_frame: Cost
    gpu_frames_per_s: Cost
    net_bytes_event: Cost
    net_bytes_entry: Cost
    net_bytes_window: Cost
    net_bytes_frame: Cost
    net_bytes_object: Cost
    keep_bytes_entry: Cost
    redis_bytes_source: Cost
    worker_bytes_source: Cost

    @classmethod
    def from_map(cls, entries: Mapping[str, Mapping[str, Any]]) -> Self:
        """Read the costs of a file.

        Raises:
            ValueError: one is missing, or there is one that is not known.
        """
        names = [each.name for each in fields(cls)]
        if sorted(names) != sorted(entries):
            differing = sorted(set(names) ^ set(entries))
            raise ValueError(f"costs: missing or not known: {', '.join(differing)}")
        return cls(*(Cost(**entries[name]) for name in names))

    def assumed(self) -> dict[str, Cost]:
        """Give the figures that this project has not measured."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: cost for name, cost in every.items() if not cost.measured}


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for.

    Attributes:
        sources: of events that are heard; cameras are counted apart.
        events_per_entry: consecutive events of one source in one batch; 1 is the dearest.
        frame_bytes: of an encoded picture.
        frame_px: of the network's input.
        objects: found in a picture.
        kept: score entries kept for readers in each partition (`PERCIPIO_RESULTS_KEEP`).
    """

    cameras: int = 0
    fps: float = 0.0
    events_per_s: float = 0.0
    sources: int = 0
    events_per_entry: float = 1.0
    frame_bytes: int = 100_000
    frame_px: int = FRAME_PX
    objects: float = 4.0
    kept: int = 100_000

    @property
    def frames_per_s(self) -> float:
        """Of all cameras."""
        return self.cameras * self.fps

    @property
    def entries_per_s(self) -> float:
        """Of events: what those of one source in one batch share."""
        return self.events_per_s / self.events_per_entry

    @property
    def windows_per_s(self) -> float:
        """Of the sources of events; what a camera's cost is in its frame's."""
        return self.sources * WINDOWS_PER_S

    @property
    def evaluated_per_s(self) -> float:
        """Entries of events after an evaluation: they write more."""
        return min(self.entries_per_s, self.windows_per_s)

    @property
    def results_per_s(self) -> float:
        """Score entries of events and frames."""
        return self.entries_per_s + self.frames_per_s


@dataclass(frozen=True, slots=True)
class Machine:
    """What one machine has, and how much of it may be in use at the usual load.

    Attributes:
        share: the rest is for peaks, failovers and what the model leaves out.
        redis_gib: memory that one Redis primary may fill.
    """

    cores: int = 16
    nic_gbit_per_s: float = 10.0
    redis_gib: float = 32.0
    gpus: int = 0
    share: float = 0.6


@dataclass(frozen=True, slots=True)
class Need:
    """One resource.

    Attributes:
        used: how many units would be busy without a pause.
        unit: what one is.
        units: how many carry that at the machine's `share`.
    """

    name: str
    used: float
    unit: str
    units: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What carries a demand.

    Attributes:
        needs: by how often one unit is filled, the most first: that is what saturates first.
        score_workers: one core each.
        detect_workers: cores, or GPUs.
        primaries: of Redis, one core each; a replica beside every one.
        deployments: key prefixes side by side, where one has too few partitions.
        partitions: of each deployment; each is one Redis Cluster slot.
        machines: for all of it.
        worker_gib: memory of the score workers for their sources.
    """

    needs: tuple[Need, ...]
    score_workers: int
    detect_workers: int
    primaries: int
    deployments: int
    partitions: int
    machines: int
    worker_gib: float

    @property
    def slots(self) -> int:
        """Redis Cluster slots in use."""
        return self.deployments * self.partitions


def plan(demand: Demand, costs: Costs, machine: Machine) -> Plan:
    """Compute what carries a demand."""
    score = need("score workers", "cores", score_cores(demand, costs), machine)
    detect = _detection(demand, costs, machine)
    gbit = net_gbit_per_s(demand, costs) / machine.nic_gbit_per_s
    net = need("network of Redis", f"x {machine.nic_gbit_per_s:g} Gbit/s", gbit, machine)
    redis = need("Redis", "cores", redis_cores(demand, costs), machine)
    primaries = max(1, redis.units, net.units)
    partitions, deployments = spread(score.units, primaries)
    gib = memory_gib(demand, costs, partitions * deployments) / machine.redis_gib
    memory = need("memory of Redis", f"x {machine.redis_gib:g} GiB", gib, machine)
    primaries = max(primaries, memory.units)
    partitions, deployments = spread(score.units, primaries)
    slots = partitions * deployments / MOST_PARTITIONS
    needs = (
        score,
        redis,
        net,
        memory,
        detect,
        Need("partitions", slots, f"x {MOST_PARTITIONS}", deployments),
    )
    cores = score.units + 2 * primaries + (0 if machine.gpus else detect.units)
    return Plan(
        tuple(sorted(needs, key=lambda one: -one.used)),
        max(1, score.units),
        detect.units,
        primaries,
        deployments,
        partitions,
        ceil(cores / machine.cores) + (ceil(detect.units / machine.gpus) if machine.gpus else 0),
        (demand.sources + demand.cameras) * costs.worker_bytes_source.value / GIBI,
    )


def need(name: str, unit: str, used: float, machine: Machine) -> Need:
    """Give how many units carry what is used."""
    return Need(name, used, unit, ceil(used / machine.share))


def _detection(demand: Demand, costs: Costs, machine: Machine) -> Need:
    if machine.gpus:
        used = demand.frames_per_s / costs.gpu_frames_per_s.value
        return need("detection", "GPUs", used, machine)
    return need("detection", "cores", detect_cores(demand, costs), machine)


def detect_cores(demand: Demand, costs: Costs) -> float:
    """Give the cores that the network keeps busy where there is no GPU."""
    ms = costs.detect_ms_frame.value * demand.frame_px / FRAME_PX
    return 1e-3 * demand.frames_per_s * ms


def score_cores(demand: Demand, costs: Costs) -> float:
    """Give the cores that scoring keeps busy."""
    return 1e-6 * (
        demand.events_per_s * costs.score_us_event.value
        + demand.entries_per_s * costs.score_us_entry.value
        + demand.windows_per_s * costs.score_us_window.value
        + demand.frames_per_s * costs.score_us_frame.value
    )


def redis_cores(demand: Demand, costs: Costs) -> float:
    """Give the cores that Redis keeps busy."""
    return 1e-6 * (
        demand.events_per_s * costs.redis_us_event.value
        + demand.entries_per_s * costs.redis_us_entry.value
        + demand.evaluated_per_s * costs.redis_us_window.value
        + demand.frames_per_s * costs.redis_us_frame.value
        + demand.frames_per_s * demand.frame_bytes / 1000 * costs.redis_us_kb.value
    )


def net_gbit_per_s(demand: Demand, costs: Costs) -> float:
    """Give the traffic of Redis; a picture goes in, to its worker, and back as the newest one."""
    frame_bytes = costs.net_bytes_frame.value + demand.objects * costs.net_bytes_object.value
    bytes_per_s = (
        demand.events_per_s * costs.net_bytes_event.value
        + demand.entries_per_s * costs.net_bytes_entry.value
        + demand.evaluated_per_s * costs.net_bytes_window.value
        + demand.frames_per_s * (frame_bytes + 3 * demand.frame_bytes)
    )
    return 8e-9 * bytes_per_s


def memory_gib(demand: Demand, costs: Costs, partitions: int) -> float:
    """Give what Redis holds: sources, newest pictures, results for readers (a day's at most)."""
    results = min(partitions * demand.kept, demand.results_per_s * DAY_S)
    held = (demand.sources + demand.cameras) * costs.redis_bytes_source.value
    pictures = demand.cameras * demand.frame_bytes
    return (held + pictures + results * costs.keep_bytes_entry.value) / GIBI


def spread(workers: int, primaries: int) -> tuple[int, int]:
    """Give the partitions of a deployment, and how many deployments there are to be."""
    wanted = max(LEAST_PARTITIONS, PARTITIONS_A_WORKER * workers, PARTITIONS_A_PRIMARY * primaries)
    deployments = ceil(wanted / MOST_PARTITIONS)
    return ceil(wanted / deployments), deployments
