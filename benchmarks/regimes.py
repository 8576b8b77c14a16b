"""Score sources of known dynamics: `python -m benchmarks.regimes [--picture FILE] [--json]`.

Each regime is 24 sources with their own seeds, 64 bins to fill the window and 160 bins that
count, with surrogates and without. `--weights` prints how the levels move with the weights of K,
`--changes` how long the level takes to follow a change.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.batch import EVENT, InputBatch
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import CHANNELS, NODES, PHASES, WINDOW, Parameters

Counts = NDArray[np.float64]
"""(bins, 16) activity."""
Generate = Callable[[np.random.Generator, int], Counts]
SOURCES, BINS = 24, 160
SETTLE = 100
START_MS = 1_700_000_000_000


def _poisson(rng: np.random.Generator, rate: Counts) -> Counts:
    return rng.poisson(np.minimum(rate, 1e4)).astype(np.float64)


def constant(value: float) -> Generate:
    """Give the same value in every bin and channel."""
    return lambda rng, n: np.full((n, CHANNELS), value)


def one_channel(rng: np.random.Generator, n: int) -> Counts:
    """Let only one channel vary."""
    out = np.zeros((n, CHANNELS))
    out[:, 0] = rng.poisson(2.0, n)
    return out


def independent(rate: float) -> Generate:
    """Give independent Poisson counts."""
    return lambda rng, n: _poisson(rng, np.full((n, CHANNELS), rate))


def slow(rng: np.random.Generator, n: int) -> Counts:
    """Let every channel's rate wander by itself, AR(1) of .95."""
    x = np.zeros((n + SETTLE, CHANNELS))
    for t in range(1, len(x)):
        x[t] = 0.95 * x[t - 1] + np.sqrt(1 - 0.95**2) * rng.standard_normal(CHANNELS)
    return _poisson(rng, 2 * np.exp(x[SETTLE:]))


def periodic(rng: np.random.Generator, n: int) -> Counts:
    """Let all channels go up and down together with period 16."""
    wave = 3 + 2 * np.sin(2 * np.pi * (np.arange(n) + rng.integers(16)) / 16)
    return np.repeat(wave[:, None], CHANNELS, 1)


def copies(rng: np.random.Generator, n: int) -> Counts:
    """Give every channel the same random counts."""
    return np.repeat(_poisson(rng, np.full((n, 1), 2.0)), CHANNELS, 1)


def common_rate(rng: np.random.Generator, n: int) -> Counts:
    """Drive all channels by one random rate, each with noise of its own."""
    x = np.zeros(n + SETTLE)
    for t in range(1, len(x)):
        x[t] = 0.8 * x[t - 1] + 0.6 * rng.standard_normal()
    return _poisson(rng, 2 * np.exp(np.repeat(x[SETTLE:, None], CHANNELS, 1)))


def ring(coupling: float, nodes: int = NODES, stimulus_bins: int = 0) -> Generate:
    """Let each node's log rate follow its neighbour's (VAR(1)); the others stay independent.

    With stimuli, all coupled nodes are raised together every so many bins.
    """

    def generate(rng: np.random.Generator, n: int) -> Counts:
        x = np.zeros(NODES)
        out = np.zeros((n + SETTLE, NODES))
        for t in range(len(out)):
            noise = rng.standard_normal(NODES)
            x[:nodes] = coupling * np.roll(x[:nodes], 1) + np.sqrt(1 - coupling**2) * noise[:nodes]
            x[nodes:] = noise[nodes:]
            if stimulus_bins and t % stimulus_bins == 0:
                x[:nodes] += 2.5
            out[t] = x
        return _poisson(rng, np.exp(0.9 + 0.8 * np.repeat(out[SETTLE:], 2, 1)))

    return generate


def kuramoto(coupling: float) -> Generate:
    """Give each node the phase of an oscillator of its own frequency, all coupled to all."""

    def generate(rng: np.random.Generator, n: int) -> Counts:
        speed = rng.normal(0.6, 0.15, NODES)
        angle = rng.uniform(0, 2 * np.pi, NODES)
        out = np.zeros((n + SETTLE, NODES))
        for t in range(len(out)):
            pull = np.sin(angle[None] - angle[:, None]).mean(1)
            angle = angle + speed + coupling * pull + 0.3 * rng.standard_normal(NODES)
            out[t] = np.sin(angle)
        return _poisson(rng, np.exp(1 + np.repeat(out[SETTLE:], 2, 1)))

    return generate


def branching(ratio: float) -> Generate:
    """Let each event cause `ratio` others in random channels of the next bin."""

    def generate(rng: np.random.Generator, n: int) -> Counts:
        out = np.zeros((n + SETTLE, CHANNELS))
        for t in range(1, len(out)):
            children = min(rng.poisson(ratio * out[t - 1].sum()), 10_000)
            out[t] = rng.poisson(2 * (1 - ratio), CHANNELS)
            out[t] += np.bincount(rng.integers(0, CHANNELS, children), minlength=CHANNELS)
        return out[SETTLE:]

    return generate


def bursts(rng: np.random.Generator, n: int) -> Counts:
    """Add a burst in all channels to independent counts, in one bin of twenty."""
    rate = np.full((n, CHANNELS), 2.0)
    rate[rng.random(n) < 0.05] += 10
    return _poisson(rng, rate)


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
    "coupled .85 + stimuli": ring(0.85, stimulus_bins=24),
    "coupled .95 + stimuli": ring(0.95, stimulus_bins=24),
}


@dataclass(frozen=True, slots=True)
class Scored:
    """Evaluations of one regime: a structured array of (sources, evaluations)."""

    snapshots: NDArray[np.void]

    def mean(self, name: str) -> float:
        """Give the mean of a field over what is known of it."""
        return float(np.nanmean(self.snapshots[name]))


def score(
    generate: Generate,
    sources: int = SOURCES,
    bins: int = BINS,
    parameters: Parameters | None = None,
    fill: int = WINDOW,
) -> Scored:
    """Score sources of one regime, one event per bin; the first `fill` bins do not count."""
    engine = Engine(parameters, capacity=sources)
    delta = engine.parameters.delta_ms
    kept = []
    for k in range(sources):
        slot = engine.slot(f"source-{k}")
        values = generate(np.random.default_rng(k), fill + bins + 1)
        count = len(values)
        first = engine.bin_start(slot, START_MS)
        batch = InputBatch(
            np.full(count, slot, np.int32),
            first + delta * np.arange(count, dtype=np.int64),
            np.full(count, EVENT, np.uint8),
            CHANNELS * np.arange(count + 1, dtype=np.int64),
            np.tile(np.arange(CHANNELS, dtype=np.uint8), count),
            values.astype(np.float32).ravel(),
        )
        snapshots = engine.step(batch).snapshots
        kept.append(snapshots[-(bins // engine.parameters.hop_bins) :])
    return Scored(np.array(kept))


def row(name: str, scored: Scored, plain: Scored) -> dict[str, Any]:
    """Give one line of the table."""
    s = scored.snapshots
    phases = np.bincount(s["phase"].ravel(), minlength=len(PHASES)) / s.size
    return {
        "regime": name,
        "level": scored.mean("level"),
        "level_without_surrogates": plain.mean("level"),
        "spread_of_sources": float(s["level"].mean(1).std()),
        "arousal": scored.mean("arousal"),
        "differentiation": scored.mean("differentiation"),
        "integration": scored.mean("integration"),
        "workspace": scored.mean("workspace"),
        "novelty": scored.mean("novelty"),
        "phases": [round(float(x), 3) for x in phases],
    }


def table() -> list[dict[str, Any]]:
    """Score every regime with and without surrogates."""
    plain = Parameters(surrogates=False)
    return [
        row(name, score(generate), score(generate, parameters=plain))
        for name, generate in REGIMES.items()
    ]


SHOWN = ("independent 2/bin", "copies of one", "half coupled", "coupled .3", "coupled .6",
         "coupled .85", "coupled .85 + stimuli", "common rate, own noise")  # fmt: skip


def draw(path: Path) -> None:
    """Draw the level over time of eight regimes from their first bin on."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5), sharex=True, sharey=True)
    for axis, name in zip(axes.flat, SHOWN, strict=True):
        levels = score(REGIMES[name], fill=0, bins=320).snapshots["level"]
        time_s = np.arange(1, levels.shape[1] + 1)
        axis.plot(time_s, levels.T, color="0.7", linewidth=0.4)
        axis.plot(time_s, np.median(levels, 0), color="C0", linewidth=1.6)
        for bound in (0.3, 0.6, 0.8):
            axis.axhline(bound, color="0.85", linewidth=0.8, zorder=0)
        axis.set_title(name, fontsize=10)
        axis.set_ylim(0, 1)
    figure.supxlabel("seconds since the first event (bins of 0.25 s)")
    figure.supylabel("level")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


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


def sensitivity() -> list[tuple[str, list[float]]]:
    """Give the mean level of the shown regimes under other weights."""
    return [
        (
            label,
            [
                score(REGIMES[name], parameters=Parameters(**changes)).mean("level")
                for name in SHOWN
            ],
        )
        for label, changes in WEIGHTS
    ]


def _crossing(levels: Sequence[float], bound: float, *, up: bool) -> int | None:
    for k, level in enumerate(levels):
        if (level >= bound) == up:
            return k
    return None


def changes() -> dict[str, int | None]:
    """Give the bins after a change until the median level crosses .3, .6 and .1."""
    each = Parameters(hop_bins=1)

    def switched(first: Generate, second: Generate) -> Generate:
        return lambda rng, n: np.vstack([first(rng, 128), second(rng, n - 128)])

    rises = score(switched(independent(2.0), ring(0.85)), fill=128, parameters=each)
    falls = score(switched(ring(0.85), independent(2.0)), fill=128, parameters=each)
    up = np.median(rises.snapshots["level"], 0).tolist()
    down = np.median(falls.snapshots["level"], 0).tolist()
    return {
        "independent to coupled, above .3": _crossing(up, 0.3, up=True),
        "independent to coupled, above .6": _crossing(up, 0.6, up=True),
        "coupled to independent, below .1": _crossing(down, 0.1, up=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="levels of sources of known dynamics")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--changes", action="store_true")
    arguments = parser.parse_args()
    if arguments.picture:
        draw(arguments.picture)
        return
    if arguments.weights:
        print("| weights | " + " | ".join(SHOWN) + " |")
        print("|---" * (1 + len(SHOWN)) + "|")
        for label, levels in sensitivity():
            print(f"| {label} | " + " | ".join(f"{level:.2f}" for level in levels) + " |")
        return
    if arguments.changes:
        print(json.dumps(changes(), indent=1))
        return
    rows = table()
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    print("| regime | L | L, no surr. | sd | A | D | I | W | N | " + " | ".join(PHASES) + " |")
    print("|---" * (9 + len(PHASES)) + "|")
    for line in rows:
        numbers = " | ".join(f"{x:.2f}" for x in list(line.values())[1:-1])
        shares = " | ".join(f"{100 * x:.0f} %" for x in line["phases"])
        print(f"| {line['regime']} | {numbers} | {shares} |")


if __name__ == "__main__":
    main()
