"""Lagged correlation: planted lags, sign convention, p-values, Benjamini-Hochberg."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.scoring.batch import EVENT, FRAME, InputBuilder
from pipeline.scoring.channels import VISION, Channel, ChannelMap, ChannelMaps
from pipeline.scoring.correlation import LEVEL, effective, follow_pairs, summarise, survivors
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import LAGS, Parameters
from pipeline.scoring.scratch import make_scratch
from pipeline.scoring.state import ROW, fresh_row
from tests.unit.scoring.scoring_inputs import Floats, bin_start, bins, independent, seen_and_told


def planted(rng: np.random.Generator, count: int, lag: int) -> Floats:
    """Let channel 8 (an event node) follow channel 0 (a vision node) by some bins."""
    values = independent(rng, count + 20)
    drive = rng.standard_normal(count + 20)
    values[:, 0] = rng.poisson(np.exp(1.5 + 0.9 * drive))
    values[:, 8] = rng.poisson(np.exp(1.5 + 0.9 * np.roll(drive, lag)))
    values[:, [1, 9]] = 0
    return values[20:]


@pytest.mark.parametrize("lag", [3, -2, 0])
def test_planted_lag(lag: int) -> None:
    """The peak of the planted pair lies at its lag, positive when the event follows; r as NumPy's.

    A pair that has nothing to do with it stays small.
    """
    values = planted(np.random.default_rng(1), 900, lag)
    engine = Engine()
    slot = engine.slot("a")
    engine.step(seen_and_told(engine, slot, values))

    rho = np.array(engine._rows[slot]["cross"]) / np.sqrt(
        engine._rows[slot]["auto"][0, 0] * engine._rows[slot]["auto"][0, 4]
    )
    peak = int(np.argmax(np.abs(rho[:, 0, 0]))) - LAGS
    late = np.log1p(values[-511:])
    a, b = late[20:-20, 0], late[20 + lag : len(late) - 20 + lag, 8]

    assert peak == lag
    assert rho[LAGS + lag, 0, 0] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=0.06)
    assert np.abs(rho[:, 1:, 1:]).max() < 0.25


def test_correlation_tracks_numpy() -> None:
    """With the same exponential weights NumPy finds the same r within .03."""
    lag, count = 3, 900
    values = planted(np.random.default_rng(2), count, lag)
    engine = Engine()
    engine.step(seen_and_told(engine, engine.slot("a"), values))
    row = engine._rows[0]

    x, y = np.log1p(values[: count - lag, 0]), np.log1p(values[lag:, 8])
    weights = (1 - 1 / 256) ** np.arange(len(x))[::-1]
    cov = np.cov(x, y, aweights=weights)

    found = row["cross"][LAGS + lag, 0, 0] / np.sqrt(row["auto"][0, 0] * row["auto"][0, 4])
    assert found == pytest.approx(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]), abs=0.03)


def test_data_and_report_name_the_pair() -> None:
    """Entries carry the strongest surviving pair by node names; the report has all of them."""
    engine = Engine()
    slot = engine.slot("a")
    values = planted(np.random.default_rng(3), 700, 3)
    engine.step(seen_and_told(engine, slot, values))
    engine._assignments[slot] = engine._assignments[slot].with_frames()
    engine.encode_event(slot, dict.fromkeys([f"e{k}" for k in range(8)], 1.0))

    pair = engine.data(slot, engine.snapshot(slot))["correlation"]["pair"]
    first = engine.report(slot)["pairs"][0]

    assert pair["vision"] == "people"
    assert pair["event"] == "e0+e4"
    assert pair["lag_ms"] == first["lag_ms"] == 750
    assert pair["r"] > 0.5
    assert first["significant"]
    assert pair["p"] == pytest.approx(first["p"], abs=1e-6)
    assert pair["bits"] == pytest.approx(-0.5 * np.log2(1 - pair["r"] ** 2))
    assert 300 < pair["samples"] <= 511
    assert first["p"] < 1e-6
    assert first["bits"] == pytest.approx(-0.5 * np.log2(1 - first["r"] ** 2))
    assert VISION[0] == "vision.people"


def test_reports_alone_have_no_vision() -> None:
    """Sixteen names fill vision's nodes too; they are reported all the same."""
    engine = Engine()
    slot = engine.slot("a")
    engine.step(bins(engine, slot, planted(np.random.default_rng(3), 700, 3)))
    engine.encode_event(slot, dict.fromkeys([f"e{k}" for k in range(16)], 1.0))

    correlation = engine.data(slot, engine.snapshot(slot))["correlation"]
    assert correlation["consciousness_correlation"] is None
    assert correlation["pair"] is None
    assert engine.report(slot)["pairs"] == []


def test_a_map_may_put_either_kind_anywhere() -> None:
    """What is seen is what frames feed: here nodes 5 and 6; a node of both kinds is neither."""
    places = {"vision.people": 10, "vision.motion": 12, "door": 0, "bell": 13}
    channels = {name: Channel(place) for name, place in places.items()}
    engine = Engine(maps=ChannelMaps((ChannelMap("*", channels),)))
    slot = engine.slot("a")
    rng, builder = np.random.default_rng(4), InputBuilder()
    drive = rng.standard_normal(700)
    for k in range(2, 700):
        at_ms = bin_start(engine, slot, k)
        both = [float(np.exp(drive[k])), float(rng.poisson(2))]
        builder.add(slot, at_ms, FRAME, [10, 12], both)
        builder.add(slot, at_ms, EVENT, [0, 13], [float(np.exp(drive[k - 2])), both[0]])
    engine.step(builder.build())

    pair = engine.data(slot, engine.snapshot(slot))["correlation"]["pair"]
    assert (pair["vision"], pair["event"], pair["lag_ms"]) == ("vision.people", "door", 500)
    assert pair["r"] > 0.9
    names = [(e["vision"], e["event"]) for e in engine.report(slot)["pairs"]]
    assert names == [("vision.people", "door")]


def test_a_map_with_more_reported_nodes_than_four() -> None:
    """Of what is reported the first four nodes are correlated, however few are seen."""
    places = {"vision.people": 0} | {f"e{g}": 2 * g for g in range(1, 8)}
    channels = {name: Channel(place) for name, place in places.items()}

    assert ChannelMap("*", channels).pair_nodes == (0, 7, 6, 5, 1, 2, 3, 4)


def test_independent_pairs_do_not_survive() -> None:
    """Over many independent sources hardly any reports a correlation at 5 % false discovery."""
    engine = Engine()
    found = 0
    for k in range(40):
        slot = engine.slot(f"s{k}")
        values = independent(np.random.default_rng(k), 520)
        engine.step(seen_and_told(engine, slot, values))
        found += engine._rows[slot]["pair_correlation"] != 0

    assert found <= 6


@pytest.mark.parametrize("seed", range(20))
def test_benjamini_hochberg(seed: int) -> None:
    """The set rejected is SciPy's."""
    rng = np.random.default_rng(seed)
    p = np.where(rng.random(272) < 0.2, rng.random(272) * 1e-3, rng.random(272)).reshape(17, 4, 4)

    limit = survivors(p, 0.05)

    expected = stats.false_discovery_control(p.ravel()) <= 0.05
    assert ((p.ravel() <= limit) == expected).all()


def test_nothing_survives_uniform_p() -> None:
    """Without small p-values nothing is rejected."""
    assert survivors(np.full((17, 8), 0.5), 0.05) == -1


def test_effective_size() -> None:
    """Bartlett: two AR(1) of phi leave n (1 - phi^2) / (1 + phi^2); white noise leaves n."""
    auto = np.zeros(1, ROW)[0]["auto"].astype(np.float32)
    phi = 0.8
    auto[:, 0] = auto[:, 1] = phi ** np.arange(LAGS + 1)
    auto[0, 2] = 1

    assert effective(auto, 0, 1, 500.0) == pytest.approx(
        500 * (1 - phi**2) / (1 + phi**2), rel=1e-3
    )
    assert effective(auto, 0, 2, 500.0) == 500


def followed(z: Floats, *, seen: int = 0b1111, told: int = 0b11110000) -> Any:
    """Give the row of a source whose standardised nodes, and level as the ninth, were these."""
    row, parameters = fresh_row()[0], Parameters().for_kernel()[0]
    row["seen_nodes"], row["told_nodes"] = seen, told
    for k, values in enumerate(z):
        row["levels"] += 1
        follow_pairs(row, parameters, values, k)
        row["linked"] = (row["linked"] << 1 | 1) & 0xFF
    summarise(row, parameters, make_scratch()[0])
    return row


def level_after(node: int, lag: int, sign: float) -> Floats:
    """Let the level follow a node by some bins, or precede it."""
    z = np.random.default_rng(7).standard_normal((900, 9))
    z[:, LEVEL] = sign * 0.8 * np.roll(z[:, node], lag) + 0.6 * z[:, LEVEL]
    return z


@pytest.mark.parametrize("lag", [-5, 0, 3, 8])
@pytest.mark.parametrize(("node", "sign"), [(1, 1.0), (2, -1.0), (4, 1.0), (7, -1.0)])
def test_level_correlations_have_a_kind_and_a_sign(node: int, sign: float, lag: int) -> None:
    """With what is seen, nodes 0 to 3 here, or what is reported; 0 for the kind that is not."""
    z = level_after(node, lag, sign)
    row = followed(z)

    mine, other = ("seen", "told") if node < 4 else ("told", "seen")
    assert float(row[f"{mine}_correlation"]) == pytest.approx(0.8 * sign, abs=0.08)
    assert float(row[f"{other}_correlation"]) == 0
    rho = row["with_level"][:, node] / np.sqrt(row["auto"][0, node] * row["auto"][0, LEVEL])
    assert int(np.argmax(np.abs(rho))) - LAGS == lag


def test_a_node_of_both_kinds_correlates_with_the_level_as_neither() -> None:
    """Nor does anything that is independent of it."""
    row = followed(level_after(1, 0, 1.0), seen=0b1111, told=0b11110010)
    assert (float(row["seen_correlation"]), float(row["told_correlation"])) == (0, 0)

    row = followed(np.random.default_rng(8).standard_normal((900, 9)))
    assert (float(row["seen_correlation"]), float(row["told_correlation"])) == (0, 0)


@pytest.mark.parametrize(("rises", "sign"), [(True, 1), (False, -1)])
def test_the_level_that_is_correlated_is_that_of_its_bin(*, rises: bool, sign: int) -> None:
    """A node that is up, or down, while the level is lifted, through the engine to the entry."""
    rng, engine = np.random.default_rng(5), Engine(Parameters(hop_bins=1))
    slot, builder, x = engine.slot("a"), InputBuilder(), np.zeros(4)
    for k in range(1200):
        x = 0.9 * np.roll(x, 1) + rng.standard_normal(4) * 0.44
        is_burst = bool(rng.random() < 0.1)  # ignites the workspace, which lifts the level
        told = rng.poisson(np.exp(1 + x) * (6 if is_burst else 1))
        at_ms = bin_start(engine, slot, k)
        builder.add(slot, at_ms, FRAME, [0], [20.0 if is_burst == rises else 1.0])
        builder.add(slot, at_ms, EVENT, [8, 10, 12, 14], told.tolist())
    stepped = engine.step(builder.build())

    found = engine.data(slot, stepped.snapshots[-1])["correlation"]["consciousness_correlation"]
    assert sign * found > 0.2
