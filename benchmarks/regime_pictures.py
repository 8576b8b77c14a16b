"""Draw the level over time of every regime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.regimes import REGIMES, score
from pipeline.scoring.parameters import Parameters

BINS = 320
BOUNDS = (0.3, 0.6, 0.8)
COLUMNS = 4


def draw(path: Path) -> None:
    """Draw 24 sources of each regime from their first bin on, and their median."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    parameters = Parameters()
    step_s = parameters.hop_bins * parameters.delta_ms / 1000
    rows = -(-len(REGIMES) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(10, 11), sharex=True, sharey=True)
    for axis, (name, generate) in zip(axes.flat, REGIMES.items(), strict=True):
        levels = score(generate, fill=0, bins=BINS).snapshots["level"]
        time_s = step_s * np.arange(1, levels.shape[1] + 1)
        axis.plot(time_s, levels.T, color="0.75", linewidth=0.4)
        axis.plot(time_s, np.median(levels, 0), color="C0", linewidth=1.8)
        for bound in BOUNDS:
            axis.axhline(bound, color="0.85", linewidth=0.8, zorder=0)
        axis.set_title(name, fontsize=11)
        axis.set_ylim(0, 1)
        axis.set_xlim(0, time_s[-1])
    figure.supxlabel("seconds since the first event (bins of 0.25 s)")
    figure.supylabel("level")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
