"""Score sources of known dynamics: `python -m benchmarks.regimes [--picture FILE] [--json]`.

Each regime is 24 sources with their own seeds, 64 bins to fill the window and 160 bins that
count, with surrogates and without; "ref." is what the reference's prototype gave its own regime of
that name. `--picture` draws the levels over time, `--weights` prints how the levels move with the
weights of K, `--changes` how long the level takes to follow a change.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.regime_sources import (
    Counts,
    Generate,
    branching,
    bursts,
    common_rate,
    constant,
    copies,
    independent,
    kuramoto,
    one_channel,
    periodic,
    ring,
    slow,
)
from pipeline.scoring.batch import EVENT, TICK, InputBatch
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import CHANNELS, PHASES, WINDOW, Parameters

__all__ = ["REGIMES", "independent", "ring", "score", "slow"]

SOURCES, BINS = 24, 160
START_MS = 1_700_000_000_000

REGIMES: dict[str, Generate] = {
    "silence": constant(0.0),
    "constant": constant(2.0),
    "one channel": one_channel,
    "independent 2/bin": independent(2.0),
    "independent .1/bin": independent(0.1),
    "independent slow": slow,
    "periodic together": periodic,
    "copies of one": copies,
    "common rate, own noise": common_rate,
    "half coupled": ring(0.85, nodes=4),
    "coupled .3": ring(0.3),
    "coupled .6": ring(0.6),
    "coupled .85": ring(0.85),
    "coupled .95": ring(0.95),
    "oscillators K 0": kuramoto(0.0),
    "oscillators K .6": kuramoto(0.6),
    "oscillators K 1.2": kuramoto(1.2),
    "oscillators K 3": kuramoto(3.0),
    "branching .3": branching(0.3),
    "branching .7": branching(0.7),
    "branching .95": branching(0.95),
    "independent + bursts": bursts,
    "coupled .85 + stimuli": ring(0.85, stimulus_bins=64, stimulus=4.0),
    "coupled .95 + stimuli": ring(0.95, stimulus_bins=24),
}

REFERENCE: dict[str, tuple[float, float]] = {
    "silence": (0.006, 0.004),
    "constant": (0.001, 0.001),
    "one channel": (0.0, 0.0),
    "independent 2/bin": (0.008, 0.006),
    "independent .1/bin": (0.010, 0.007),
    "independent slow": (0.208, 0.044),
    "periodic together": (0.276, 0.068),
    "copies of one": (0.367, 0.367),
    "common rate, own noise": (0.625, 0.613),
    "half coupled": (0.424, 0.332),
    "coupled .3": (0.135, 0.099),
    "coupled .6": (0.510, 0.462),
    "coupled .85": (0.752, 0.720),
    "coupled .95": (0.755, 0.699),
    "oscillators K 0": (0.252, 0.021),
    "oscillators K .6": (0.633, 0.227),
    "oscillators K 1.2": (0.621, 0.330),
    "oscillators K 3": (0.597, 0.307),
    "branching .3": (0.028, 0.017),
    "branching .7": (0.233, 0.164),
    "branching .95": (0.430, 0.330),
    "independent + bursts": (0.532, 0.484),
    "coupled .85 + stimuli": (0.738, 0.709),
}
"""Mean levels of the engine's prototype, without surrogates and with."""
ROUNDING = 0.01
"""A smaller difference is none, however alike the sources are."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Evaluations of one regime: a structured array of (sources, evaluations)."""

    snapshots: NDArray[np.void]

    def mean(self, name: str) -> float:
        """Give the mean of a field over what is known of it."""
        return float(np.nanmean(self.snapshots[name]))

    def spread(self) -> float:
        """Give the standard deviation of the sources' mean levels."""
        return float(self.snapshots["level"].mean(1).std())


def inputs(
    slot: int, first_ms: int, delta_ms: int, values: Counts, heard: int | None = None
) -> InputBatch:
    """Give an event a bin, and ticks alone from bin `heard` on."""
    count = len(values)
    heard = count if heard is None else heard
    kinds = np.full(count, EVENT, np.uint8)
    kinds[heard:] = TICK
    return InputBatch(
        np.full(count, slot, np.int32),
        first_ms + delta_ms * np.arange(count, dtype=np.int64),
        kinds,
        CHANNELS * np.minimum(np.arange(count + 1, dtype=np.int64), heard),
        np.tile(np.arange(CHANNELS, dtype=np.uint8), heard),
        values[:heard].astype(np.float32).ravel(),
    )


def score(
    generate: Generate,
    sources: int = SOURCES,
    bins: int = BINS,
    parameters: Parameters | None = None,
    fill: int = WINDOW,
) -> Scored:
    """Score sources of one regime, one event per bin; the first `fill` bins do not count."""
    engine = Engine(parameters, capacity=sources)
    kept = []
    for k in range(sources):
        slot = engine.slot(f"source-{k}")
        values = generate(np.random.default_rng(k), fill + bins + 1)
        first_ms = engine.bin_start(slot, START_MS)
        snapshots = engine.step(
            inputs(slot, first_ms, engine.parameters.delta_ms, values)
        ).snapshots
        kept.append(snapshots[-(bins // engine.parameters.hop_bins) :])
    return Scored(np.array(kept))


def row(name: str, scored: Scored, plain: Scored) -> dict[str, Any]:
    """Give one line of the table."""
    s = scored.snapshots
    phases = np.bincount(s["phase"].ravel(), minlength=len(PHASES)) / s.size
    without, with_surrogates = REFERENCE.get(name, (None, None))
    return {
        "regime": name,
        "level": scored.mean("level"),
        "reference": with_surrogates,
        "spread_of_sources": scored.spread(),
        "level_without_surrogates": plain.mean("level"),
        "reference_without_surrogates": without,
        "spread_without_surrogates": plain.spread(),
        "arousal": scored.mean("arousal"),
        "differentiation": scored.mean("differentiation"),
        "integration": scored.mean("integration"),
        "workspace": scored.mean("workspace"),
        "novelty": scored.mean("novelty"),
        "phases": [round(float(x), 3) for x in phases],
    }


def differs(line: dict[str, Any]) -> bool:
    """Tell whether a level is further from the reference's than two deviations of sources."""
    for level, reference, spread in (
        ("level", "reference", "spread_of_sources"),
        ("level_without_surrogates", "reference_without_surrogates", "spread_without_surrogates"),
    ):
        expected = line[reference]
        if expected is not None and abs(line[level] - expected) > max(2 * line[spread], ROUNDING):
            return True
    return False


def table() -> list[dict[str, Any]]:
    """Score every regime with and without surrogates."""
    plain = Parameters(surrogates=False)
    return [
        row(name, score(generate), score(generate, parameters=plain))
        for name, generate in REGIMES.items()
    ]


SHOWN = ("independent 2/bin", "copies of one", "half coupled", "coupled .3", "coupled .6",
         "coupled .85", "coupled .85 + stimuli", "common rate, own noise")  # fmt: skip


WEIGHTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("as shipped", {}),
    ("A .40, D .25, I .35", {"weight_arousal": 0.4, "weight_differentiation": 0.25,
                             "weight_integration": 0.35}),
    ("equal thirds", {"weight_arousal": 1 / 3, "weight_differentiation": 1 / 3,
                      "weight_integration": 1 / 3}),
    ("D .55, I .25", {"weight_differentiation": 0.55, "weight_integration": 0.25}),
    ("D .15, I .65", {"weight_differentiation": 0.15, "weight_integration": 0.65}),
    ("W only", {"weight_workspace": 1.0}),
    ("N only", {"weight_workspace": 0.0}),
)  # fmt: skip


def weighted(parameters: Parameters) -> list[float]:
    """Give the mean level of the shown regimes."""
    return [score(REGIMES[name], parameters=parameters).mean("level") for name in SHOWN]


def sensitivity() -> list[tuple[str, list[float]]]:
    """Give the mean level of the shown regimes under other weights."""
    return [(label, weighted(Parameters(**changes))) for label, changes in WEIGHTS]


def show_weights() -> None:
    """Print the levels under other weights."""
    print("| weights | " + " | ".join(SHOWN) + " |")
    print("|---" * (1 + len(SHOWN)) + "|")
    for label, levels in sensitivity():
        print(f"| {label} | " + " | ".join(f"{level:.2f}" for level in levels) + " |")


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, and which regimes differ from the reference's."""
    print(
        "| regime | L | ref. | sd | L, no surr. | ref. | sd | A | D | I | W | N | "
        + " | ".join(PHASES)
        + " |"
    )
    print("|---" * (12 + len(PHASES)) + "|")
    for line in rows:
        numbers = " | ".join("" if x is None else f"{x:.2f}" for x in list(line.values())[1:-1])
        shares = " | ".join(f"{100 * x:.0f} %" for x in line["phases"])
        print(f"| {line['regime']}{' *' * differs(line)} | {numbers} | {shares} |")
    print(f"\n* further from the reference than 2 sd of sources and {ROUNDING}")


def main() -> None:
    parser = argparse.ArgumentParser(description="levels of sources of known dynamics")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--changes", action="store_true")
    arguments = parser.parse_args()
    if arguments.picture:
        from benchmarks.regime_pictures import draw

        draw(arguments.picture)
    elif arguments.weights:
        show_weights()
    elif arguments.changes:
        from benchmarks.regime_changes import show_changes

        show_changes()
    elif arguments.json:
        print(json.dumps(table(), indent=1))
    else:
        show(table())


if __name__ == "__main__":
    main()
