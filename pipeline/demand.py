"""What each role has to do, seen between two looks at the ledger, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline import metrics
from pipeline.ledger import Status
from pipeline.log import get_logger
from pipeline.scaling import Decision, History, Limits, Load, decide

TARGETS_S = {"detect": 0.5, "score": 1.0}
"""How old the oldest waiting entry may grow, unless said otherwise."""
MOST_WORKERS = 10_000
ROLES = {"detect": ("frames", "recordings"), "score": ("events", "detections")}
_ARRIVED = {
    "detect": ("frames_in",),
    "score": ("events_in", "frames_detected", "frames_cached"),
}
_DROPPED = ("frames_dropped_age", "frames_dropped_overflow")


def load_of(role: str, before: Status, now: Status, held_s: float = 0.0) -> Load:
    """Give what a role has to do.

    Args:
        role: `detect` or `score`.
        before: an earlier look, for what came since.
        now: a later one.
        held_s: how long a detection may wait for an earlier frame without anybody being late.
    """
    took_s = max(1e-3, (now.now_ms - before.now_ms) / 1e3)

    def rate(names: tuple[str, ...]) -> float:
        return max(0, sum(now.terms[name] - before.terms[name] for name in names)) / took_s

    waiting, oldest_s = 0, 0.0
    for name in ROLES[role]:
        for stream in (part.streams[name] for part in now.partitions):
            if stream.lag:
                waiting += stream.lag
                age_s = stream.oldest_ms / 1e3
                oldest_s = max(oldest_s, age_s - held_s if name == "detections" else age_s)
    dropped = rate(_DROPPED) if role == "detect" else 0.0
    return Load(waiting, oldest_s, rate(_ARRIVED[role]), dropped)


def workers_of(role: str, status: Status) -> int:
    """Give how many workers of a role Redis knows: consumers of frames, owners of partitions."""
    if role == "score":
        return len({part.owner for part in status.partitions} - {None})
    return max((part.streams["frames"].consumers for part in status.partitions), default=0)


@dataclass(slots=True)
class Scaler:
    """The decision loop of one role.

    Attributes:
        role: `detect` or `score`.
        held_s: see `load_of`.
        load: what the last decision was made from.
    """

    role: str
    held_s: float = 0.0
    load: Load = field(default_factory=lambda: Load(0, 0.0, 0.0))
    _before: Status | None = None
    _history: History = field(default_factory=History)

    def look(self, status: Status, workers: int, ready: int, limits: Limits) -> Decision:
        """Decide from a new look at the ledger; the first one only begins.

        Args:
            status: newer than the last one.
            workers: that are wanted so far.
            ready: of these, that take work.
            limits: to keep to; more score workers than partitions would stand by.
        """
        before, self._before = self._before, status
        if before is None or before.now_ms >= status.now_ms:
            return Decision(workers, "first look")
        self.load = load_of(self.role, before, status, self.held_s)
        decision, self._history = decide(
            self.load,
            workers,
            ready,
            limits=limits,
            history=self._history,
            now_s=status.now_ms / 1e3,
        )
        return decision


class Signal:
    """How many workers of each role there should be, for autoscalers of others to read."""

    def __init__(self) -> None:
        self._scalers = {role: Scaler(role) for role in ROLES}
        self._wanted: dict[str, int] = {}

    def show(self, status: Status) -> None:
        """Set the gauges, and log a number that changed with its reason."""
        for role, scaler in self._scalers.items():
            known = workers_of(role, status)
            wanted = self._wanted.get(role, max(1, known))
            limits = limits_of(role, 1, MOST_WORKERS, TARGETS_S[role], len(status.partitions))
            decision = scaler.look(status, wanted, min(known, wanted), limits)
            if decision.workers != wanted:
                more = {"before": wanted, "after": decision.workers, "why": decision.reason}
                get_logger().info("workers_wanted", role=role, **more)
            metrics.WANTED.labels(role).set(decision.workers)
            self._wanted[role] = decision.workers


def limits_of(role: str, least: int, most: int, target_s: float, partitions: int) -> Limits:
    """Give the limits of a role: more score workers than partitions would stand by."""
    if role == "score":
        most = min(most, partitions)
    return Limits(min(least, most), most, target_s)
