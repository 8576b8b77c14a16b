"""Score sources of known dynamics and draw their levels: `python -m benchmarks.regimes`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.batch import FRAME, InputBatch
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import CHANNELS, NODES, Parameters
from pipeline.scoring.snapshot import Rows

Counts = NDArray[np.float64]
"""(bins, 16) activity per bin and channel."""
Generate = Callable[[np.random.Generator, int], Counts]


def _poisson(rng: np.random.Generator, rate: Counts) -> Counts:
    return rng.poisson(np.minimum(rate, 1e4)).astype(np.float64)
