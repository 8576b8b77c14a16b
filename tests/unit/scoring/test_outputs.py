"""What an entry says of a window, against plain NumPy; its words, by table."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.regimes import ring, score
from pipeline.scoring.channels import Channel, ChannelMap, ChannelMaps
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import Parameters
from pipeline.scoring.scratch import equal_time_bias
from pipeline.scoring.snapshot import data_of, values_of
from pipeline.scoring.tables import entropy_bias
from tests.unit.scoring.scoring_inputs import Floats, bins, coupled, independent

Members = tuple[int, ...]
UNSTEPPED = Parameters(change_threshold=1e9, surrogates=False)
"""Steps of the total activity are not looked for: another test does."""


def half_log_det(cov: Floats, members: list[int]) -> float:
    return 0.5 * float(np.linalg.slogdet(cov[np.ix_(members, members)])[1])


class Window:
    """A full window of a source, from its ring, by the formulas of docs/scoring.md."""

    def __init__(self, engine: Engine, nodes: int) -> None:
        row = engine._rows[0]
        order = (int(row["bin"]) - 64 + np.arange(64)) % 64
        halves = row["ring"].view(np.float16).astype(np.float64)[order]
        series = (row["offset"].astype(np.float64) + halves).reshape(64, 8, 2).sum(2)[:, :nodes]
        z = (series - series.mean(0)) / series.std(0)
        both = np.concatenate([z[:-1], z[1:]], axis=1)
        self.cov = np.cov(both.T, bias=True) + 1e-3 * np.eye(2 * nodes)
        self.nodes, self.now_bias = nodes, equal_time_bias()[63]

    def now(self, members: Members) -> float:
        """Entropy of nodes at one time, nats, but for a constant for each."""
        return half_log_det(self.cov, list(members)) - float(self.now_bias[len(members)])

    def given_before(self, members: Members) -> float:
        """Entropy of nodes given their own past."""
        before = list(members)
        both = before + [self.nodes + g for g in members]
        whole = half_log_det(self.cov, both) - half_log_det(self.cov, before)
        return float(whole - entropy_bias(63, len(members)))

    def phi(self, members: Members) -> tuple[float, set[Members]]:
        """Stochastic interaction across the weakest cut, and that cut's two sides."""
        cuts = {}
        for size in range(1, len(members)):
            for part in itertools.combinations(members, size):
                rest = tuple(g for g in members if g not in part)
                cuts[part] = self.given_before(part) + self.given_before(rest)
        least = min(cuts, key=lambda part: cuts[part])
        rest = tuple(g for g in members if g not in least)
        return cuts[least] - self.given_before(members), {least, rest}

    def core(self) -> Members:
        """The main complex."""
        scores = {
            members: len(members) / self.nodes * math.sqrt(1 - math.exp(-2 * max(0, phi)))
            for size in range(2, self.nodes + 1)
            for members in itertools.combinations(range(self.nodes), size)
            for phi in [self.phi(members)[0]]
        }
        return max(scores, key=lambda members: scores[members])

    def predicted(self, members: Members) -> float:
        """What the past of nodes says of them, nats."""
        return self.now(members) - self.given_before(members)

    def neural_complexity(self, members: Members) -> float:
        """Mean mutual information of parts with the rest, over sizes up to a half."""
        total = 0.0
        for size in range(1, len(members) // 2 + 1):
            parts = list(itertools.combinations(members, size))
            rests = [tuple(g for g in members if g not in part) for part in parts]
            found = [
                self.now(part) + self.now(rest) - self.now(members)
                for part, rest in zip(parts, rests, strict=True)
            ]
            total += float(np.mean(found))
        return total

    def redundancy(self, members: Members) -> float:
        """Omega / Sigma: total less dual total correlation, over their sum; no bias removed."""

        def entropy(some: Members) -> float:
            return half_log_det(self.cov, list(some))

        whole = entropy(members)
        rests = [tuple(h for h in members if h != g) for g in members]
        total = sum(entropy((g,)) for g in members) - whole
        dual = sum(map(entropy, rests)) - (len(members) - 1) * whole
        return (total - dual) / (total + dual)


def masked(mask: int) -> Members:
    return tuple(g for g in range(8) if mask >> g & 1)


@pytest.mark.parametrize("seed", range(4))
def test_what_an_entry_says_of_the_main_complex(seed: int) -> None:
    """Its nodes, Phi, one side of its cut, the whole less the parts, redundancy and C_N."""
    engine = Engine(UNSTEPPED)
    values = coupled(np.random.default_rng(seed), 70, coupling=0.7)  # the last but one is evaluated
    stepped = engine.step(bins(engine, engine.slot("a"), values))
    data, window = engine.data(0, stepped.snapshots[-1]), Window(engine, 8)

    core = window.core()
    phi, sides = window.phi(core)
    cut, rest = sides

    assert masked(stepped.snapshots[-1]["core"]) == core
    assert masked(stepped.snapshots[-1]["cut"]) in sides
    assert data["phi"] == pytest.approx(phi, rel=1e-3)
    wms = window.predicted(core) - window.predicted(cut) - window.predicted(rest)
    assert data["phi_wms"] == pytest.approx(wms, abs=2e-3)
    assert data["c_n"] == pytest.approx(window.neural_complexity(core), rel=2e-3, abs=1e-3)
    assert data["o_ratio"] == pytest.approx(window.redundancy(core), rel=2e-3, abs=1e-3)


def of_map(names: list[str], fed: int, values: Floats) -> dict[str, Any]:
    """Give the data of a source whose map has one channel a node, of which the first are fed."""
    places = {name: Channel(2 * k, mean=False, signed=False) for k, name in enumerate(names)}
    maps = ChannelMaps((ChannelMap("*", places, {}),))
    engine = Engine(UNSTEPPED, maps)
    batch = bins(engine, engine.slot("a"), values[:, :fed])
    batch.code[:] = np.tile(2 * np.arange(fed, dtype=np.uint8), len(values))
    stepped = engine.step(batch)
    return engine.data(0, stepped.snapshots[-1])


def test_nodes_that_a_map_declares_and_nothing_feeds_count() -> None:
    """Of eight declared nodes four are fed: I loses half of its score, confidence half."""
    values = coupled(np.random.default_rng(3), 70, coupling=0.95)[:, ::2]
    names = [f"c{k}" for k in range(8)]

    whole, half = of_map(names[:4], 4, values), of_map(names, 4, values)

    assert half["core"] == whole["core"]
    assert half["phi"] == pytest.approx(whole["phi"], rel=1e-6)
    assert half["confidence"] == pytest.approx(whole["confidence"] / 2)
    share = len(whole["core"]) / 4 * math.sqrt(1 - math.exp(-2 * whole["phi"]))
    for data, scored in ((whole, share), (half, share / 2)):
        null, redundant = data["null"], max(0.0, data["o_ratio"])
        known = max(0.0, (scored - null) / (1 - null)) * (1 - redundant)
        assert data["components"]["integration"] == pytest.approx(known, rel=1e-4)
    assert half["components"]["integration"] > 0


def test_the_null_is_fresh_where_a_phase_rises() -> None:
    """At most 16 bins old at the step, though surrogates are drawn every 64 bins elsewhere."""
    kept = score(ring(0.95, stimulus_bins=24), 24, 160, Parameters(hop_bins=1)).snapshots
    late = score(ring(0.85), 24, 400, Parameters(hop_bins=1), fill=0).snapshots

    ages: list[NDArray[np.int64]] = []
    for snapshots in (kept, late):
        rises = np.diff(snapshots["phase"].astype(int), axis=1) > 0
        ages.append(snapshots["null_age"][:, 1:][rises].astype(int))
    risen = np.concatenate(ages)
    assert risen.size > 40
    assert risen.max() <= 16
    assert (late["null_age"][:, 200:] > 16).mean() > 0.5


@pytest.mark.parametrize(
    ("level", "band", "strength"),
    [
        (0.0, "low", 0.0),
        (0.2999, "low", 0.0),
        (0.3, "moderate", 0.0),
        (0.5999, "moderate", 0.0),
        (0.6, "high", 0.0),
        (0.7999, "high", 0.0),
        (0.8, "peak", 0.0),
        (0.9, "peak", 0.5),
        (1.0, "peak", 1.0),
    ],
)
def test_bands(level: float, band: str, strength: float) -> None:
    """Cut at .3, .6 and .8; what exceeds .8 is the strength of emergence."""
    data = described(level=level)

    assert data["band"] == band
    assert data["emergence_strength"] == pytest.approx(strength)


@pytest.mark.parametrize(
    ("changed", "flags"),
    [
        ({}, []),
        ({"adaptation_rate": 0.01}, []),
        ({"adaptation_rate": 0.011}, ["learning"]),
        ({"confidence": 0.49}, ["degraded"]),
        ({"novelty": 0.9}, []),
        ({"novelty": 0.91}, ["adaptation_trigger"]),
        (
            {"novelty": 0.95, "confidence": 0.0, "adaptation_rate": 1.0},
            ["learning", "degraded", "adaptation_trigger"],
        ),
    ],
)
def test_flags(changed: dict[str, float], flags: list[str]) -> None:
    """Learning, degraded and the trigger of adaptation, each by its own bound."""
    assert described(**changed)["flags"] == flags


@pytest.mark.parametrize(
    ("trend", "word"), [(0.011, "rising"), (0.01, "steady"), (-0.01, "steady"), (-0.011, "falling")]
)
def test_trends(trend: float, word: str) -> None:
    """Within .01 a level is steady."""
    assert described(trend=trend)["trend"] == word


def described(**changed: float) -> dict[str, Any]:
    """Give the data of a snapshot that is confident and calm, but for some fields."""
    engine = Engine()
    engine.step(bins(engine, engine.slot("a"), independent(np.random.default_rng(1), 70)))
    snapshot = engine.snapshot(0)
    values = values_of(snapshot)._replace(
        **{"adaptation_rate": 0.0, "novelty": 0.5, "confidence": 0.5} | changed
    )
    return data_of(values, engine.statics(0, snapshot), engine.parameters, "1")
