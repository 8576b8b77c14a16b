"""One source as one writes it first: lists of floats, its state as JSON, no table and no kernel.

Follows docs/scoring.md for events and heartbeats of freely named channels. It leaves out what no
level needs (correlations, C_N, Phi_WMS), which makes it smaller and faster than all of it would be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from zlib import crc32

import numpy as np

from benchmarks import plain_measures as plain
from pipeline.scoring.channels import FREE_PLACES
from pipeline.scoring.parameters import (
    CHANNELS,
    ENTER,
    LEAVE,
    MIN_PAIRS,
    NODES,
    PHASES,
    WINDOW,
    Parameters,
)
from pipeline.scoring.state import golden_phase

P = Parameters()
EMERGENT = PHASES.index("emergent")
FRESH_NULL = 16


@dataclass
class Measures:
    """What the last evaluated window gives."""

    differentiation: float | None = None
    integration: float | None = None
    level: float = 0.0
    coupling: list[float] = field(default_factory=lambda: [0.0] * NODES)


@dataclass
class Source:
    """What is remembered of a source between two events; all of it is in its JSON.

    Attributes:
        names: channels in order of first appearance.
        bins: newest closed bins, transformed values by channel; None where nothing was heard.
        open: sums of the open bin by channel.
        last: the bin after the last evaluated one.
    """

    name: str
    names: list[str] = field(default_factory=list)
    bins: list[list[float] | None] = field(default_factory=list)
    open: list[float] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)
    beta: float = 1.0
    bin: int | None = None
    heard: int = 0
    seen: int = 0
    last: int = 0
    fast: float = 0.0
    slow: float = 0.0
    surprise: float = 0.0
    mean: list[float] = field(default_factory=lambda: [0.0] * NODES)
    variance: list[float] = field(default_factory=lambda: [0.0] * NODES)
    share: list[float] = field(default_factory=lambda: [1 / NODES] * NODES)
    now: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    then: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    null_score: float | None = None
    null_bin: int = 0
    null_due: bool = True
    smooth: float = 0.0
    level: float = 0.0
    components: list[float | None] = field(default_factory=lambda: [None, None])
    phase: int = 0
    pending: int = 0
    agreed: int = 0
    events: int = 0

    @classmethod
    def from_json(cls, text: bytes | None, name: str) -> Source:
        """Read a source back, or begin a new one."""
        return cls(**json.loads(text)) if text else cls(name)

    def to_json(self) -> str:
        """Give everything that is remembered."""
        return json.dumps(asdict(self))

    def observe(self, ts_ms: int, values: Mapping[str, float], *, always: bool = True) -> Measures:
        """Take one event and give the measures of the last evaluated window.

        Args:
            ts_ms: its time.
            values: by channel.
            always: compute them anew for every event, else only when the window has changed.
        """
        at = (ts_ms + golden_phase(crc32(self.name.encode()), P.period_ms)) // P.delta_ms
        if self.bin is None:
            self.bin = self.last = at
        measures = None
        while self.bin < at:
            measures = self._close() or measures
        if self.bin - at <= WINDOW:
            self.heard = max(self.heard, at)
            self._add(self.bin - at, values)
            self.events += 1
        if measures is None and always:
            measures = self._measure()
        return measures or Measures(*self.components, self.level)

    def _add(self, back: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if name not in self.names:
                self.names.append(name)
                self.open.append(0.0)
                self.alpha.append(1.0)
            place = self.names.index(name)
            if back == 0:
                self.open[place] += value
                continue
            self.bins = [None] * (back - len(self.bins)) + self.bins
            row = self.bins[-back] or []
            row += [0.0] * (len(self.names) - len(row))
            row[place] = plain.transform(plain.restore(row[place]) + value)
            self.bins[-back] = row

    def _close(self) -> Measures | None:
        """Close the open bin; give the measures if its turn to be evaluated has come."""
        assert self.bin is not None
        closed, self.bin = self.bin, self.bin + 1
        is_valid = closed - self.heard <= P.stale_bins(P.delta_ms)
        row = [plain.transform(value) for value in self.open]
        if is_valid:
            self._follow(row)
        else:
            workspace = self.now[1] * (1 - P.release)
            self.now[1] = workspace if workspace >= 1e-6 else 0.0
        self.bins = [*self.bins, row if is_valid else None][-WINDOW - P.hop_bins :]
        self.open = [0.0] * len(self.open)
        if closed % WINDOW == 0:
            self.null_due = True
        return self._evaluate() if closed % P.hop_bins == 0 else None

    def _follow(self, row: list[float]) -> None:
        """Let arousal, workspace and novelty follow a closed bin."""
        first = 1 / (self.seen + 1)
        slow = max(1 / P.tau_slow_bins, first)
        activity = sum(abs(y) for y in row)
        self.fast += max(1 / P.tau_fast_bins, first) * (activity - self.fast)
        self.slow += slow * (activity - self.slow)
        arousal = self.fast / (self.fast + 0.25 * max(self.slow, 0.05))
        novelty = self._follow_surprise(slow)
        self.now = [arousal, self._follow_workspace(row, slow), novelty]
        self.seen += 1

    def _follow_surprise(self, weight: float) -> float:
        beta, total = P.forgetting * self.beta, 0.0
        for c, value in enumerate(self.open):
            alpha = max(P.forgetting * self.alpha[c], 0.01)
            total += plain.surprise(alpha, beta, abs(value))
            self.alpha[c] = alpha + abs(value)
        self.beta = beta + 1
        usual = self.surprise if self.seen else total
        self.surprise = usual + weight * (total - usual)
        return total / (total + max(usual, 0.05))

    def _follow_workspace(self, row: list[float], weight: float) -> float:
        nodes = np.zeros(NODES)
        for place, y in zip(self._places(), row, strict=True):
            nodes[place // 2] += y
        drives = []
        shares = sum(self.share[g] for g in self._declared())
        for g in range(NODES):
            d, spread = nodes[g] - self.mean[g], math.sqrt(self.variance[g])
            still = self.seen < 8 or abs(d) <= 1e-7 * max(1.0, abs(nodes[g]))
            z = 0.0 if still else min(max(d / max(spread, 1e-6), -6.0), 6.0)
            self.mean[g] += weight * d
            self.variance[g] = (1 - weight) * (self.variance[g] + weight * d * d)
            if g in self._declared() and shares > 0:
                drives.append(max(0.0, z) * len(self._declared()) * self.share[g] / shares)
        total, squares, drive = sum(drives), sum(a * a for a in drives), 0.0
        if squares > 0:
            drive = total**2 / (len(drives) * squares) * (1 - math.exp(-total / len(drives)))
        before = self.now[1]
        return before + (P.attack if drive > before else P.release) * (drive - before)

    def _places(self) -> tuple[int, ...]:
        return FREE_PLACES[: len(self.names)]

    def _declared(self) -> set[int]:
        return {place // 2 for place in self._places()}

    def _window(self) -> tuple[plain.Floats, list[int]]:
        """Give the valid bins of the last evaluated window, and which of them follow another."""
        assert self.bin is not None
        newer = self.bin - self.last
        bins = self.bins[-WINDOW - newer : len(self.bins) - newer]
        kept = [(k, row) for k, row in enumerate(bins) if row is not None]
        y = np.zeros((len(kept), CHANNELS))
        for t, (_, row) in enumerate(kept):
            y[t, list(FREE_PLACES[: len(row)])] = row
        return y, [t for t in range(1, len(kept)) if kept[t][0] == kept[t - 1][0] + 1]

    def _measure(self) -> Measures:
        """Compute everything of the last evaluated window from its bins."""
        y, later = self._window()
        if not len(y):
            return Measures()
        found = Measures(plain.differentiation(y))
        if len(later) < MIN_PAIRS:
            return found
        z, alive = plain.standardise(y)
        declared = len(self._declared())
        whole = plain.integrate(z, later, alive, declared)
        floor = P.null_floor
        if alive.bit_count() >= 2:
            noise = plain.FLOOR[len(later), alive.bit_count()]
            floor = max(floor, noise * alive.bit_count() / declared)
            found.coupling = plain.coupling(whole.h, alive)
        if self.null_due and whole.score > floor:
            seed = crc32(self.name.encode()) << 32 ^ self.last
            self.null_score = plain.surrogate_null(z, later, alive, declared, seed)
            self.null_bin, self.null_due = self.last - 1, False
        null = min(max(floor, self.null_score or 0.0), 0.999)
        found.integration = max(0.0, (whole.score - null) / (1 - null)) * (
            1 - max(0.0, whole.redundancy)
        )
        found.level = self._compose(found, len(y) / WINDOW)
        return found

    def _compose(self, found: Measures, filled: float) -> float:
        arousal, workspace, novelty = self.then
        d, i = found.differentiation or 0.0, found.integration or 0.0
        k = arousal**P.weight_arousal
        k *= (d * filled) ** P.weight_differentiation * (i * filled) ** P.weight_integration
        beta = P.weight_workspace * workspace + (1 - P.weight_workspace) * novelty
        return k + beta * k * (1 - k)

    def _evaluate(self) -> Measures:
        """Evaluate the window that ends with the bin just closed: level, phase, adaptation."""
        assert self.bin is not None
        self.last, self.then = self.bin, list(self.now)
        found = self._measure()
        way = self._direction(found.level)
        ready = way == self.pending and self.agreed + 1 >= P.dwell
        is_stale = self.null_score is None or self.null_bin < self.bin - 1 - FRESH_NULL
        is_known = found.integration is not None
        if way > 0 and ready and is_stale and is_known and not self._waits(way):
            self.null_due = True
            found = self._measure()
            way = self._direction(found.level)
        self.level, self.smooth = found.level, self._smoothed(found.level)
        self.components = [found.differentiation, found.integration]
        self._move(way)
        if is_known:
            self._select(found.coupling)
        return found

    def _smoothed(self, level: float) -> float:
        smooth = self.smooth + P.smoothing * (level - self.smooth)
        return smooth if smooth > 1e-5 else 0.0

    def _direction(self, level: float) -> int:
        smooth = self._smoothed(level)
        if self.phase < EMERGENT and smooth >= ENTER[self.phase + 1]:
            return 1
        return -1 if self.phase > 0 and smooth < LEAVE[self.phase] else 0

    def _waits(self, way: int) -> bool:
        return way > 0 and self.phase + 1 == EMERGENT and self.then[1] <= 0.5

    def _move(self, way: int) -> None:
        if way == 0:
            self.pending = self.agreed = 0
            return
        self.agreed = min(self.agreed + 1, P.dwell) if way == self.pending else 1
        self.pending = way
        if self.agreed >= P.dwell and not self._waits(way):
            self.phase += way
            self.pending = self.agreed = 0

    def _select(self, fitness: list[float]) -> None:
        grown = [
            x * math.exp(P.selection_pressure * f) for x, f in zip(self.share, fitness, strict=True)
        ]
        total = sum(grown)
        self.share = [(1 - P.mutation_rate) * g / total + P.mutation_rate / NODES for g in grown]
