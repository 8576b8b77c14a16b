"""Draw what each component of the level measures: `python -m benchmarks.components [--out DIR]`.

One picture a component. Activity is made up; A, D, I, W, N, null, Phi, ignitions and the z of nodes
are what the engine gives for it, in its snapshots and the states it saves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.regime_sources import Counts, common_rate, copies, independent, ring
from benchmarks.regimes import START_MS, inputs, score
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import CHANNELS, LAGS, NODES, WINDOW, Parameters
from pipeline.scoring.state import ROW, Blob

EACH = Parameters(hop_bins=1)
"""Every bin is evaluated, so that a picture shows every bin."""
SEED = 5
GREY, BLUE, RED = "0.6", "C0", "C3"


def evaluations(values: Counts) -> NDArray[np.void]:
    """Give the snapshot of a source after each bin."""
    engine = Engine(EACH)
    slot = engine.slot("source-0")
    batch = inputs(slot, engine.bin_start(slot, START_MS), EACH.delta_ms, values)
    return np.asarray(engine.step(batch).snapshots)[-len(values) + 1 :]


def seconds(count: int) -> NDArray[np.float64]:
    """Give when each of so many bins ends."""
    return EACH.delta_ms / 1000 * np.arange(1, count + 1)


def arousal(axes: Any) -> None:
    """Draw activity at its usual rate, doubled, at its usual rate again, and none."""
    rates = np.repeat([2.0, 4.0, 2.0, 0.0], [400, 100, 200, 100])
    values = np.random.default_rng(SEED).poisson(np.repeat(rates[:, None], CHANNELS, 1))
    found = evaluations(values.astype(np.float64))
    time_s = seconds(len(found))
    axes[0].step(time_s, values[: len(found)].sum(1), color=GREY, linewidth=0.6)
    axes[0].set_ylabel("events a bin")
    axes[1].plot(time_s, found["arousal"], color=BLUE)
    axes[1].axhline(0.8, color=GREY, linewidth=0.8, linestyle=":")
    axes[1].set_ylabel("A")
    axes[1].set_ylim(0, 1)
    axes[1].set_xlim(60, time_s[-1])
    axes[1].set_xlabel("seconds: usual, twice, usual, silence")


def differentiation(axes: Any) -> None:
    """Draw two windows as the engine reads them, above the mean or not, and their D."""
    for axis, name, generate in (
        (axes[0], "independent", independent(2.0)),
        (axes[1], "copies", copies),
    ):
        values = generate(np.random.default_rng(SEED), WINDOW + 1)
        window = np.log1p(values[:WINDOW])
        axis.imshow(
            (window > window.mean(0)).T, cmap="Greys", aspect="auto", interpolation="nearest"
        )
        found = float(evaluations(values)["differentiation"][-1])
        axis.set_title(f"{name}: D {found:.2f}", fontsize=11, loc="left")
        axis.set_ylabel("channel")
    axes[1].set_xlabel("bin; black: above the channel's mean in the window")


def integration(axes: Any) -> None:
    """Draw null, score and I over coupling, and a common drive beside them."""
    couplings = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95])
    found = [score(ring(coupling), sources=12) for coupling in couplings]
    drive = score(common_rate, sources=12)
    plain = [complexity(each.snapshots) for each in found]
    axes[0].plot(couplings, plain, color=GREY, label="score of the main complex")
    axes[0].plot(couplings, [each.mean("null") for each in found], color=RED, label="null")
    axes[0].set_ylabel("score, null")
    axes[1].plot(couplings, [each.mean("integration") for each in found], color=BLUE, label="I")
    axes[1].plot(couplings, [each.mean("differentiation") for each in found], color=GREY, label="D")
    axes[1].set_ylabel("I, D")
    axes[1].set_xlabel("coupling of eight nodes in a ring")
    axes[0].plot([1.05], [complexity(drive.snapshots)], "x", color=GREY)
    axes[0].plot([1.05], [drive.mean("null")], "x", color=RED)
    axes[1].plot([1.05], [drive.mean("integration")], "x", color=BLUE)
    axes[1].plot([1.05], [drive.mean("differentiation")], "x", color=GREY)
    axes[0].annotate("common drive,\nnot coupled", (1.05, 0.5), ha="center", fontsize=9)
    for axis in axes:
        axis.set_ylim(0, 1)
        axis.set_xlim(-0.03, 1.15)
        axis.legend(loc="upper left", frameon=False, fontsize=9)


def complexity(snapshots: NDArray[np.void]) -> float:
    """Give the mean score, (share of the nodes) sqrt(1 - e^(-2 Phi)), of main complexes."""
    share = np.bitwise_count(snapshots["core"]) / NODES
    return float((share * np.sqrt(1 - np.exp(-2 * snapshots["phi"]))).mean())


def workspace(axes: Any) -> None:
    """Draw the nodes' activity under stimuli every 24 bins, W, and where it ignites."""
    values = ring(0.85, stimulus_bins=24, stimulus=4.0)(np.random.default_rng(SEED), 4 * WINDOW)
    found = evaluations(values)[2 * WINDOW :]
    nodes = standardised(values)[2 * WINDOW :]
    span = (0, EACH.delta_ms / 1000 * len(found))
    axes[0].imshow(
        nodes.T, cmap="Greys", vmin=0, vmax=3, aspect="auto", interpolation="nearest",
        extent=(*span, NODES - 0.5, -0.5),
    )  # fmt: skip
    axes[0].set_ylabel("node")
    time_s = seconds(len(found))
    axes[1].plot(time_s, found["workspace"], color=BLUE)
    axes[1].axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    ignited = np.flatnonzero(np.diff(found["ignitions"].astype(int))) + 1
    axes[1].plot(time_s[ignited], found["workspace"][ignited], "o", color=RED, label="ignition")
    axes[1].legend(loc="upper right", frameon=False, fontsize=9)
    axes[1].set_ylabel("W")
    axes[1].set_ylim(0, 1)
    axes[1].set_xlabel("seconds; grey: z of a node, white 0, black 3")


def novelty(axes: Any) -> None:
    """Draw rates that change places between channels, and surprise."""
    rng = np.random.default_rng(SEED)
    rates = np.tile([1.0, 8.0], CHANNELS // 2)
    values = rng.poisson(np.repeat([rates, rates[::-1]], [300, 120], axis=0)).astype(np.float64)
    found = evaluations(values)
    time_s = seconds(len(found))
    for channel in (0, 1):
        axes[0].step(
            time_s, values[: len(found), channel], linewidth=0.8, color=(GREY, RED)[channel]
        )
    axes[0].set_ylabel("events a bin")
    axes[1].plot(time_s, found["novelty"], color=BLUE)
    axes[1].axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axes[1].set_ylabel("N")
    axes[1].set_ylim(0, 1)
    axes[1].set_xlim(55, time_s[-1])
    axes[1].set_xlabel("seconds; two of 16 channels shown, their rates change places")


def standardised(values: Counts) -> NDArray[np.float64]:
    """Give the engine's z of every node after each bin, from the states it saves."""
    engine = Engine(EACH)
    slot = engine.slot("source-0")
    first_ms = engine.bin_start(slot, START_MS)
    found = []
    for k in range(len(values)):
        engine.step(inputs(slot, first_ms + EACH.delta_ms * k, EACH.delta_ms, values[k : k + 1]))
        row = Blob.unpack(engine.save(slot)).row.view(ROW)[0]
        found.append(row["history"][(row["bin"] - 1) % LAGS, :NODES])
    return np.array(found[1:], np.float64)


PICTURES: dict[str, Callable[[Any], None]] = {
    "arousal": arousal,
    "differentiation": differentiation,
    "integration": integration,
    "workspace": workspace,
    "novelty": novelty,
}


def main() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(description="one picture a component")
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        shared = name != "differentiation"
        figure, axes = pyplot.subplots(2, 1, figsize=(7, 4), sharex=shared)
        draw(axes)
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=100)
        pyplot.close(figure)


if __name__ == "__main__":
    main()
