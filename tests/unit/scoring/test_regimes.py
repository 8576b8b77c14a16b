"""Levels of known dynamics are ordered as they should be; emergent takes an ignition."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.regime_changes import HOPS, changes
from benchmarks.regimes import (
    REFERENCE,
    REGIMES,
    ROUNDING,
    SHOWN,
    WEIGHTS,
    independent,
    ring,
    score,
    slow,
    weighted,
)
from pipeline.scoring.parameters import PHASES, Parameters

SOURCES = 8
COMPONENTS = ("arousal", "differentiation", "integration", "workspace", "novelty")


@lru_cache
def snapshots(name: str) -> NDArray[np.void]:
    return score(REGIMES[name], SOURCES, 120).snapshots


def level(name: str) -> float:
    return float(snapshots(name)["level"].mean())


def phase_shares(evaluated: NDArray[np.void]) -> dict[str, float]:
    """Give the share of evaluations in each phase."""
    counts = np.bincount(evaluated["phase"].ravel(), minlength=len(PHASES))
    return dict(zip(PHASES, counts / evaluated.size, strict=True))


def test_order() -> None:
    """Silence = constant = one channel = 0 < independent < half coupled < coupled."""
    assert level("silence") == level("constant") == level("one channel") == 0
    assert 0 < level("independent 2/bin") < level("half coupled") < level("coupled .85")


def test_coupling_is_monotone() -> None:
    """The level grows with the coupling."""
    assert level("coupled .3") < level("coupled .6") < level("coupled .85")
    assert level("coupled .3") < 0.2


SPREADS = {
    "silence": (0.0, 0.0),
    "constant": (0.0, 0.0),
    "one channel": (0.0, 0.0),
    "independent 2/bin": (0.01, 0.02),
    "independent .1/bin": (0.0, 0.02),
    "independent slow": (0.04, 0.04),
    "periodic together": (0.08, 0.08),
    "copies of one": (0.37, 0.02),
    "common rate, own noise": (0.62, 0.03),
    "half coupled": (0.39, 0.10),
    "coupled .3": (0.06, 0.06),
    "coupled .6": (0.45, 0.11),
    "coupled .85": (0.76, 0.05),
    "coupled .95": (0.78, 0.06),
    "oscillators K 0": (0.01, 0.03),
    "oscillators K .6": (0.21, 0.16),
    "oscillators K 1.2": (0.25, 0.16),
    "oscillators K 3": (0.23, 0.15),
    "branching .3": (0.02, 0.03),
    "branching .7": (0.13, 0.08),
    "branching .95": (0.36, 0.10),
    "independent + bursts": (0.47, 0.15),
    "coupled .85 + stimuli": (0.74, 0.03),
    "coupled .95 + stimuli": (0.81, 0.03),
}
"""The documentation's level, and three standard deviations of a mean of eight sources about it."""
WITH_STIMULI = ("coupled .85 + stimuli", "coupled .95 + stimuli")


def test_every_regime_has_its_spread() -> None:
    """No regime of the benchmark is left out below."""
    assert SPREADS.keys() == REGIMES.keys()


@pytest.mark.parametrize("name", REGIMES)
def test_within_the_spread(name: str) -> None:
    """Each regime's level lies where the documentation says."""
    expected, spread = SPREADS[name]

    assert level(name) == pytest.approx(expected, abs=spread)


@pytest.mark.parametrize("name", [name for name in REGIMES if name not in WITH_STIMULI])
def test_never_emergent_without_stimuli(name: str) -> None:
    """In 22 of the 24 regimes no evaluation is emergent."""
    assert not (snapshots(name)["phase"] == PHASES.index("emergent")).any()


@pytest.mark.parametrize("name", WITH_STIMULI)
def test_emergent_with_stimuli(name: str) -> None:
    """Strong coupling with stimuli is emergent now and then, and focused or active otherwise."""
    shares = phase_shares(snapshots(name))

    assert 0.02 < shares["emergent"] < 0.8
    assert shares["emergent"] + shares["focused"] > 0.9
    assert shares["dormant"] == shares["awakening"] == 0


@pytest.mark.parametrize(
    ("name", "phase", "least"),
    [
        ("silence", "dormant", 1.0),
        ("constant", "dormant", 1.0),
        ("one channel", "dormant", 1.0),
        ("independent 2/bin", "dormant", 0.85),
        ("independent .1/bin", "dormant", 0.85),
        ("independent slow", "dormant", 0.80),
        ("copies of one", "active", 0.90),
        ("half coupled", "active", 0.50),
        ("coupled .6", "active", 0.45),
        ("coupled .85", "focused", 0.80),
        ("coupled .95", "focused", 0.80),
    ],
)
def test_phase_of_a_regime(name: str, phase: str, least: float) -> None:
    """Regimes that are clear spend most of their time in the phase the documentation says."""
    assert phase_shares(snapshots(name))[phase] >= least


REFERENCED = (2, 5)
"""Columns of the table that hold the prototype's figures."""


def tables() -> list[list[list[str]]]:
    """Give the cells of the tables of the section on regimes in docs/scoring.md, headings first."""
    text = (Path(__file__).parents[3] / "docs/scoring.md").read_text()
    section = text.split("## What known dynamics score")[1].split("\n## ")[0]
    found: list[list[list[str]]] = [[]]
    for line in section.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip(" %") for cell in line.split("|")[1:-1]])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def documented() -> dict[str, list[float]]:
    """Give the numbers of the table of all regimes; shares in percent."""
    return {
        row[0]: [float(x) for k, x in enumerate(row) if k and k not in REFERENCED]
        for row in tables()[0][2:]
    }


@pytest.mark.long
@pytest.mark.parametrize("name", REGIMES)
def test_the_documented_table(name: str) -> None:
    """The table in docs/scoring.md is what its 24 sources give, to two in its last place."""
    table = documented()
    plain = score(REGIMES[name], parameters=Parameters(surrogates=False))
    scored = score(REGIMES[name])

    s = scored.snapshots
    found = [scored.mean("level"), scored.spread(), plain.mean("level"), plain.spread()]
    found += [scored.mean(name) for name in COMPONENTS]
    shares = [100 * share for share in phase_shares(s).values()]
    assert table.keys() == REGIMES.keys()
    assert found == pytest.approx(table[name][:9], abs=0.02)
    assert shares == pytest.approx(table[name][9:], abs=2)
    assert (shares[-1] > 0) == (name in WITH_STIMULI)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("column", "hop"), [*enumerate(HOPS, 1)])
def test_the_documented_changes(column: int, hop: int) -> None:
    """The level follows a change as the document says, to two bins and .03."""
    heading, _, *rows = tables()[1]
    found = changes(hop)

    assert heading[column].split(",")[0] == f"hop {hop}"
    assert [row[0].split()[-2:] for row in rows] == [name.split()[-2:] for name in found]
    for row, value in zip(rows, found.values(), strict=True):
        is_bins = isinstance(value, int)
        numbers = [float(x) for x in str(value).split()]
        expected = [float(x) for x in row[column].split()]
        assert numbers == pytest.approx(expected, abs=2 if is_bins else 0.03), row[0]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("label", "changed"), WEIGHTS)
def test_the_documented_weights(label: str, changed: dict[str, Any]) -> None:
    """Levels under other weights are what the document says, to two in the last place."""
    heading, _, *rows = tables()[2]
    table = {row[0]: [float(x) for x in row[1:]] for row in rows}

    assert tuple(heading[1:]) == SHOWN
    assert list(table) == [name for name, _ in WEIGHTS]
    assert weighted(Parameters(**changed)) == pytest.approx(table[label], abs=0.02)


@pytest.mark.long
@pytest.mark.parametrize("name", REFERENCE)
def test_the_prototype_gave_as_much(name: str) -> None:
    """Every level of the prototype lies within two standard deviations of our sources."""
    for parameters, expected in zip(
        (Parameters(surrogates=False), Parameters()), REFERENCE[name], strict=True
    ):
        found = score(REGIMES[name], parameters=parameters)
        assert found.mean("level") == pytest.approx(expected, abs=max(2 * found.spread(), ROUNDING))


def test_redundant_copies_are_discounted() -> None:
    """Copies of one channel are integrated but redundant and undifferentiated."""
    s = snapshots("copies of one")

    assert s["o_ratio"].mean() == pytest.approx(0.71, abs=0.05)
    assert s["differentiation"].mean() < 0.25


def test_surrogates_take_slow_noise_out() -> None:
    """Independent slow rates look integrated without surrogates and do not with them."""
    plain = score(slow, SOURCES, 120, Parameters(surrogates=False))

    assert level("independent slow") < 0.1
    assert plain.mean("level") > level("independent slow")


def test_a_common_step_is_not_integration() -> None:
    """A step of all rates at once is taken out once it is ten bins old."""

    def step(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        rate = np.where(np.arange(n)[:, None] < n - 60, 2.0, 4.0)
        return rng.poisson(rate, (n, 16)).astype(np.float64)

    after = score(step, SOURCES, 40)
    blind = score(step, SOURCES, 40, Parameters(change_threshold=1e9, surrogates=False))

    assert after.mean("level") < 0.1
    assert blind.mean("level") > 0.2


def test_emergent_takes_an_ignition() -> None:
    """Only coupling with stimuli becomes emergent, never one without an ignition."""
    emergent = PHASES.index("emergent")

    stimulated = score(ring(0.95, stimulus_bins=24), SOURCES, 160).snapshots
    quiet = score(ring(0.95), SOURCES, 160).snapshots

    assert (stimulated["phase"] == emergent).any()
    assert (stimulated["ignitions"][stimulated["phase"] == emergent] > 0).all()
    assert not (quiet["phase"] == emergent).any()
    assert not quiet["ignitions"].any()


def test_emergent_takes_surrogates() -> None:
    """Without a null nothing becomes emergent, however high the level."""
    plain = score(ring(0.95, stimulus_bins=24), SOURCES, 160, Parameters(surrogates=False))

    assert (plain.snapshots["level"] > 0.8).any()
    assert (plain.snapshots["ignitions"] > 0).any()
    assert plain.snapshots["phase"].max() == PHASES.index("focused")


def test_phases_move_one_step_at_a_time_and_dwell() -> None:
    """No phase is skipped, and each is kept for at least three evaluations."""
    phases = score(ring(0.85), SOURCES, 256, fill=0).snapshots["phase"].astype(int)

    for path in phases:
        moves = np.flatnonzero(np.diff(path))
        assert (np.abs(np.diff(path)) <= 1).all()
        assert moves.size >= 3
        assert (np.diff(moves) >= 3).all()


def test_null_is_the_same_again() -> None:
    """Surrogates are drawn from the source and the bin: a second run gives the same bits."""
    again = score(REGIMES["coupled .6"], SOURCES, 120).snapshots

    for name in ("level", "null", "phi", "share", "phase"):
        assert np.array_equal(again[name], snapshots("coupled .6")[name])
    assert (again["null"] >= 0.2).all()
    assert (again["null"] > 0.21).any()


def test_replicator_favours_coupled_nodes() -> None:
    """With half the nodes coupled their shares grow at the cost of the others."""
    share = snapshots("half coupled")["share"][:, -1]

    assert np.abs(share.sum(1) - 1).max() < 1e-5
    assert share[:, :4].sum(1).min() > 0.6


def test_every_bin_evaluated() -> None:
    """A hop of one evaluates every bin and sees the same sources."""
    each = score(independent(2.0), 3, 64, Parameters(hop_bins=1))

    assert each.snapshots.shape == (3, 64)
    assert each.mean("level") < 0.1
