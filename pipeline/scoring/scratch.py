"""Working memory of the compiled code, and the constant tables it reads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.integration import LANES, bipartitions, layout
from pipeline.scoring.parameters import CHANNELS, LAGS, NODES, WINDOW
from pipeline.scoring.state import CLASSES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHIPPED = Path(__file__).with_name("tables.npz")


class Tables(NamedTuple):
    """Constants: `tables.npz` and the enumeration of subsets and cuts."""

    shuffled: Floats
    """(33, 65) mean LZ76 of shuffled strings: 32 i symbols, a share (j / 64)^2 / 2 of them ones."""
    bias: Floats
    """(65, 9) bias of h by pairs and subset size."""
    floor: Floats
    """(65, 9) 95 % quantile of the score of white noise by pairs and nodes, all declared."""
    subsets: Ints
    starts: Ints
    parts: Ints
    size: Ints
    offsets1: Ints
    sizes1: Ints
    offsets2: Ints
    sizes2: Ints


class Scratch(NamedTuple):
    """Working memory of one engine; nothing in it outlives a call."""

    y: Floats
    activity: Floats
    adjacent: NDArray[np.bool_]
    mean: Floats
    cuts: Ints
    z: Floats
    shifted: Floats
    shift: Ints
    cov: Floats
    now: Floats
    sums: Floats
    pair: Floats
    full: Floats
    buf: Floats
    lane: Floats
    det_joint: Floats
    det_now: Floats
    h: Floats
    bits: NDArray[np.uint8]
    words: NDArray[np.uint32]
    raw: Floats
    node: Floats
    bin_z: Floats
    before: Floats
    classes: Floats
    pair_rho: Floats
    pair_p: Floats
    level_rho: Floats
    level_p: Floats


def with_enumeration(shuffled: Floats, bias: Floats, floor: Floats) -> Tables:
    """Add the subsets and cuts of 8 nodes to the measured tables."""
    subsets, starts, parts = bipartitions()
    size = np.array([m.bit_count() for m in range(1 << NODES)], np.int64)
    return Tables(shuffled, bias, floor, subsets, starts, parts, size, *layout(1), *layout(2))


def load_tables() -> Tables:
    """Read the tables that are shipped with the package."""
    with np.load(SHIPPED) as archive:
        return with_enumeration(archive["shuffled"], archive["bias"], archive["floor"])


def make_scratch() -> Scratch:
    """Allocate the working memory of one engine (about 200 KiB)."""
    symbols = WINDOW * CHANNELS
    rows = int(layout(2)[1][-1])
    lags = 2 * LAGS + 1
    return Scratch(
        y=np.zeros((WINDOW, CHANNELS)),
        activity=np.zeros(WINDOW),
        adjacent=np.zeros(WINDOW, np.bool_),
        mean=np.zeros(CHANNELS),
        cuts=np.zeros(6, np.int64),
        z=np.zeros((WINDOW, NODES)),
        shifted=np.zeros((WINDOW, NODES)),
        shift=np.zeros(NODES, np.int64),
        cov=np.zeros((2 * NODES, 2 * NODES)),
        now=np.zeros((NODES, NODES)),
        sums=np.zeros(2 * NODES),
        pair=np.zeros(2 * NODES),
        full=np.zeros((LANES, 2 * NODES, 2 * NODES)),
        buf=np.zeros((rows, LANES)),
        lane=np.zeros((5, LANES)),
        det_joint=np.zeros((32, LANES)),
        det_now=np.zeros((32, LANES)),
        h=np.zeros(1 << NODES),
        bits=np.zeros(symbols, np.uint8),
        words=np.zeros(symbols, np.uint32),
        raw=np.zeros(CHANNELS),
        node=np.zeros(NODES),
        bin_z=np.zeros(NODES + 1),
        before=np.zeros(NODES),
        classes=np.zeros(CLASSES),
        pair_rho=np.zeros((lags, 4, 4)),
        pair_p=np.ones((lags, 4, 4)),
        level_rho=np.zeros((lags, NODES)),
        level_p=np.ones((lags, NODES)),
    )
