"""How many workers there should be: one decision from what waits and for how long, with its reason.

Workers are added when entries get older than wanted, or are dropped, and one is taken away when
nothing has waited for a while. How many were once too few is remembered with what there was to do,
so that a load that stays the same does not make the number swing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

CALM = 0.25
"""Entries younger than this share of the target do not wait."""
MARGIN = 0.8
"""A number of workers that was too few is tried again below this share of what there was to do."""
SOON_S = 30.0
"""What waits and will be done so soon needs nobody more."""
FAR = 4.0
"""So many times the target doubles the workers; less adds one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a role has to do at a moment.

    Attributes:
        waiting: entries that no worker has been given yet.
        oldest_s: age of the oldest entry that is not done.
        arrived_per_s: entries that came, lately.
        dropped_per_s: live entries dropped because nobody was in time for them, lately.
    """

    waiting: int
    oldest_s: float
    arrived_per_s: float
    dropped_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decision keeps to.

    Attributes:
        least: workers.
        most: workers.
        target_s: how old the oldest entry may grow.
        late_s: for how long it must be older before workers are added.
        up_pause_s: from one change to the next addition.
        down_pause_s: from one change to the next removal, and how long nothing must wait before it.
        forget_s: how long it is remembered how many were too few.
    """

    least: int
    most: int
    target_s: float
    late_s: float = 3.0
    up_pause_s: float = 10.0
    down_pause_s: float = 60.0
    forget_s: float = 1800.0

    def work_per_s(self, load: Load) -> float:
        """What would have to be done a second to have done what waits soon, too."""
        return load.arrived_per_s + load.waiting / max(30.0, 10 * self.target_s)


@dataclass(frozen=True, slots=True)
class Failure:
    """So many workers were too few for so much a second, at a time."""

    workers: int
    work_per_s: float
    at_s: float


@dataclass(frozen=True, slots=True)
class History:
    """What a decision knows of those before it; an empty one is a start.

    Attributes:
        changed_s: when the number was changed last.
        late_since_s: since when entries are too old; None when they are not.
        calm_since_s: since when nothing waits; None when something does.
        gone_s: in how many seconds nothing will wait, as it goes; infinite when it does not fall.
        too_few: by number of workers.
        seen: when the last load was observed, and how much waited.
    """

    changed_s: float = float("-inf")
    late_since_s: float | None = None
    calm_since_s: float | None = None
    gone_s: float = float("inf")
    too_few: Mapping[int, Failure] = field(default_factory=dict)
    seen: tuple[float, int] = (float("-inf"), 0)


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers there should be, and why."""

    workers: int
    reason: str


def decide(
    load: Load, workers: int, ready: int, *, limits: Limits, history: History, now_s: float
) -> tuple[Decision, History]:
    """Decide how many workers there should be.

    Args:
        load: as observed now.
        workers: that are wanted so far.
        ready: of these, that take work.
        limits: to keep to.
        history: as the last decision gave it.
        now_s: never goes back.

    Returns:
        The decision, and the history for the next one.
    """
    history = _observe(load, workers, ready, limits=limits, history=history, now_s=now_s)
    clamped = min(limits.most, max(limits.least, workers))
    if clamped != workers:
        reason = f"{workers} is not among {limits.least} to {limits.most}"
        return Decision(clamped, reason), replace(history, changed_s=now_s)
    decision = (
        _more(load, workers, ready, limits=limits, history=history, now_s=now_s)
        if history.late_since_s is not None
        else _fewer(load, workers, limits, history, now_s)
    )
    if decision.workers == workers:
        return decision, history
    return decision, replace(history, changed_s=now_s, late_since_s=None, calm_since_s=None)


def _observe(
    load: Load, workers: int, ready: int, *, limits: Limits, history: History, now_s: float
) -> History:
    is_late = load.dropped_per_s > 0 or (load.waiting > 0 and load.oldest_s > limits.target_s)
    is_calm = not is_late and (not load.waiting or load.oldest_s < CALM * limits.target_s)
    late_since_s = history.late_since_s if history.late_since_s is not None else now_s
    calm_since_s = history.calm_since_s if history.calm_since_s is not None else now_s
    too_few = {
        number: failure
        for number, failure in history.too_few.items()
        if now_s - failure.at_s < limits.forget_s
    }
    fallen = history.seen[1] - load.waiting
    gone_s = load.waiting * (now_s - history.seen[0]) / fallen if fallen > 0 else float("inf")
    if is_late and ready >= workers and (fallen <= 0 or load.dropped_per_s > 0):
        work = limits.work_per_s(load)
        known = too_few.get(workers)
        lowest = min(work, known.work_per_s) if known else work
        too_few[workers] = Failure(workers, lowest, now_s)
    return History(
        history.changed_s,
        late_since_s if is_late else None,
        calm_since_s if is_calm else None,
        gone_s,
        too_few,
        (now_s, load.waiting),
    )


def _more(
    load: Load, workers: int, ready: int, *, limits: Limits, history: History, now_s: float
) -> Decision:
    if load.dropped_per_s:
        why = f"{load.dropped_per_s:.1f} a second are dropped"
    else:
        why = f"the oldest of {load.waiting} waits for {load.oldest_s:.1f} s"
    if workers >= limits.most:
        return Decision(workers, f"{why}, but {workers} is the most")
    if ready < workers:
        return Decision(workers, f"{why}; {workers - ready} are starting")
    if history.gone_s < SOON_S and not load.dropped_per_s:
        return Decision(workers, f"{why}, but none will in {history.gone_s:.0f} s")
    since_s = now_s if history.late_since_s is None else history.late_since_s
    rest_s = max(limits.late_s - (now_s - since_s), limits.up_pause_s - (now_s - history.changed_s))
    if rest_s > 0:
        return Decision(workers, f"{why}; more in {rest_s:.0f} s if it stays so")
    is_far = load.dropped_per_s > 0 or load.oldest_s > FAR * limits.target_s
    wanted = max(1, workers * 2 if is_far else workers + 1)
    return Decision(min(limits.most, wanted), f"{why}, {limits.target_s:g} s is wanted")


def _fewer(load: Load, workers: int, limits: Limits, history: History, now_s: float) -> Decision:
    if workers <= limits.least:
        return Decision(workers, f"{workers} is the least")
    if history.calm_since_s is None:
        return Decision(workers, "enough")
    since_s = max(history.calm_since_s, history.changed_s)
    if (rest_s := limits.down_pause_s - (now_s - since_s)) > 0:
        return Decision(workers, f"nothing waits; one less in {rest_s:.0f} s if it stays so")
    work = limits.work_per_s(load)
    for failure in history.too_few.values():
        if failure.workers >= workers - 1 and work > MARGIN * failure.work_per_s:
            ago_s = now_s - failure.at_s
            return Decision(
                workers,
                f"{failure.workers} were too few for {failure.work_per_s:.1f} a second "
                f"{ago_s:.0f} s ago, and {work:.1f} come now",
            )
    quiet_s = now_s - history.calm_since_s
    return Decision(workers - 1, f"nothing has waited for {quiet_s:.0f} s")
