"""How long the level takes to follow a change: `python -m benchmarks.regimes --changes`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.regime_sources import Generate, constant, independent, ring, switched
from benchmarks.regimes import BINS, SOURCES, START_MS, inputs
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import WINDOW, Parameters

SILENT_BINS = (8, 16, 32, 48)
SWINGS = (0.8, 1.2, 1.6)
"""Deviations of the log rates; the first is that of the table of regimes."""
HOPS = (1, Parameters().hop_bins)
REFERENCE = {
    "above .3": "3 to 4",
    "above .6": "14 to 15",
    "below .1": "59 to 61",
    "heartbeats: level after 8, 16, 32, 48 bins": ".70 .58 .39 .24",
    "heartbeats: level 0 after": "66",
}
"""What the prototype took, by the end of a row's name; how much its rates swung is not known. It
knew no missing bins, so that its ticks were heartbeats."""


def seen(
    first: Generate,
    second: Generate | None,
    parameters: Parameters,
    at: int = 2 * WINDOW,
    bins: int = BINS,
) -> NDArray[np.float64]:
    """Give the levels that readers see after each bin from a change on: (sources, bins).

    Args:
        first: activity before the change.
        second: after it; None for ticks alone.
        parameters: of the engine.
        at: bin of the change.
        bins: to follow.
    """
    engine = Engine(parameters, capacity=SOURCES)
    delta_ms = parameters.delta_ms
    levels = np.zeros((SOURCES, bins))
    for k in range(SOURCES):
        slot = engine.slot(f"source-{k}")
        values = switched(first, second or constant(0.0), at)(
            np.random.default_rng(k), at + bins + 1
        )
        first_ms = engine.bin_start(slot, START_MS)
        heard = at if second is None else None
        snapshots = engine.step(inputs(slot, first_ms, delta_ms, values, heard)).snapshots
        ends_ms = first_ms + delta_ms * np.arange(at + 1, at + bins + 1)
        newest = np.searchsorted(snapshots["level_ts"], ends_ms, side="right") - 1
        levels[k] = snapshots["level"][newest]
    return levels


def crossing(levels: NDArray[np.float64], bound: float, *, up: bool) -> int | None:
    """Give the bins after a change until the median level has crossed a bound."""
    crossed = (np.median(levels, 0) >= bound) == up
    return int(np.argmax(crossed)) + 1 if crossed.any() else None


def changes(hop_bins: int) -> dict[str, Any]:
    """Give how many bins the level takes to follow a change, evaluated every so many bins."""
    parameters = Parameters(hop_bins=hop_bins)
    found: dict[str, Any] = {}
    for swing in SWINGS:
        coupled = ring(0.85, swing=swing)
        rises = seen(independent(2.0), coupled, parameters)
        falls = seen(coupled, independent(2.0), parameters)
        name = f"log rates' deviation {swing}"
        found[f"{name}: independent to coupled, above .3"] = crossing(rises, 0.3, up=True)
        found[f"{name}: independent to coupled, above .6"] = crossing(rises, 0.6, up=True)
        found[f"{name}: coupled to independent, below .1"] = crossing(falls, 0.1, up=False)
    for name, quiet in (("heartbeats", constant(0.0)), ("ticks", None)):
        levels = np.median(seen(ring(0.85), quiet, parameters), 0)
        after = " ".join(f"{levels[bins - 1]:.2f}" for bins in SILENT_BINS)
        found[f"silence, {name}: level after {', '.join(map(str, SILENT_BINS))} bins"] = after
        found[f"silence, {name}: level 0 after"] = crossing(levels[None], 1e-9, up=False)
    return found


def show_changes() -> None:
    """Print them for an evaluation a bin and for the hop that is shipped."""
    each, shipped = (changes(hop) for hop in HOPS)
    print(f"| bins after the change | hop {HOPS[0]} | hop {HOPS[1]}, as shipped | prototype |")
    print("|---|---|---|---|")
    for name, bins in each.items():
        known = [text for end, text in REFERENCE.items() if name.endswith(end)]
        print(f"| {name} | {bins} | {shipped[name]} | {''.join(known)} |")
