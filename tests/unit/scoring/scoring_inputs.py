"""Inputs for the engine: batches from arrays, and sources of known dynamics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.batch import EVENT, FRAME, InputBatch, InputBuilder
from pipeline.scoring.engine import Engine

Floats = NDArray[np.float64]
DELTA_MS = 250
START_MS = 1_700_000_000_000


def phase_ms(engine: Engine, slot: int) -> int:
    """Give the phase of a source."""
    return int(engine._rows["phase_ms"][slot])


def bin_start(engine: Engine, slot: int, first: int = 0) -> int:
    """Give the time at which bin `first`, counted from an evaluated one, of a source begins."""
    delta = engine.parameters.delta_ms
    return START_MS // (64 * delta) * 64 * delta + first * delta - phase_ms(engine, slot)


def bins(engine: Engine, slot: int, values: Floats, first: int = 0) -> InputBatch:
    """Make one event per bin: values (bins, channels), from bin `first` on."""
    count, channels = values.shape
    codes = np.tile(np.arange(channels, dtype=np.uint8), count)
    times = bin_start(engine, slot, first) + engine.parameters.delta_ms * np.arange(count)
    return InputBatch(
        np.full(count, slot, np.int32),
        times.astype(np.int64),
        np.full(count, EVENT, np.uint8),
        channels * np.arange(count + 1, dtype=np.int64),
        codes,
        values.astype(np.float32).ravel(),
    )


def seen_and_told(engine: Engine, slot: int, values: Floats) -> InputBatch:
    """Make a frame and an event per bin: a frame of channels 0 to 7, an event of the others."""
    builder = InputBuilder()
    for k, row in enumerate(values.tolist()):
        at_ms = bin_start(engine, slot, k)
        builder.add(slot, at_ms, FRAME, range(8), row[:8])
        builder.add(slot, at_ms, EVENT, range(8, 16), row[8:])
    return builder.build()


def coupled(rng: np.random.Generator, count: int, coupling: float = 0.85) -> Floats:
    """Give Poisson counts of 16 channels, two per node, driven by a ring VAR(1) of 8 nodes."""
    x = np.zeros(8)
    out = np.zeros((count + 100, 16))
    for t in range(count + 100):
        x = coupling * np.roll(x, 1) + rng.standard_normal(8) * np.sqrt(1 - coupling**2)
        out[t] = rng.poisson(np.exp(0.9 + 0.8 * np.repeat(x, 2)))
    return out[100:]


def independent(rng: np.random.Generator, count: int) -> Floats:
    """Give independent Poisson counts of 16 channels."""
    return rng.poisson(2.0, (count, 16)).astype(np.float64)
