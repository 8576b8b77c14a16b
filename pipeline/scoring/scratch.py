"""Working memory of the compiled code, and the constant tables it reads.

Both are single records of arrays: one pointer to pass, shapes known when compiling.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.dynamics import digamma
from pipeline.scoring.integration import LANES, bipartitions, layout
from pipeline.scoring.parameters import CHANNELS, LAGS, NODES, WINDOW
from pipeline.scoring.state import CLASSES

Floats = NDArray[np.float64]

SHIPPED = Path(__file__).with_name("tables.npz")
_SUBSETS = 1 << NODES
_SYMBOLS = WINDOW * CHANNELS
_BOTH = 2 * NODES
_LAGS = 2 * LAGS + 1
_ENUMERATION = (*bipartitions(), *layout(1), *layout(2))

TABLES = np.dtype(
    [
        ("shuffled", "f8", (33, 65)),  # mean LZ76: 32 i symbols, a share (j / 64)^2 / 2 of ones
        ("bias", "f8", (WINDOW + 1, NODES + 1)),  # of h, by pairs and subset size
        ("floor", "f8", (WINDOW + 1, NODES + 1)),  # 95 % of white noise, by pairs and nodes
        ("subsets", "u1", _ENUMERATION[0].shape),
        ("starts", "i8", _ENUMERATION[1].shape),
        ("parts", "u1", _ENUMERATION[2].shape),
        ("offsets1", "i8", _ENUMERATION[3].shape),
        ("sizes1", "i8", _ENUMERATION[4].shape),
        ("offsets2", "i8", _ENUMERATION[5].shape),
        ("sizes2", "i8", _ENUMERATION[6].shape),
        ("size", "i8", (_SUBSETS,)),  # nodes of a mask
        ("equal_bias", "f8", (WINDOW + 1, NODES + 1)),  # of equal-time entropies, by pairs and size
    ],
    align=True,
)

SCRATCH = np.dtype(
    [
        ("y", "f8", (WINDOW, CHANNELS)),
        ("activity", "f8", (WINDOW,)),
        ("mean", "f8", (CHANNELS,)),
        ("cuts", "i8", (6,)),
        ("z", "f8", (WINDOW, NODES)),
        ("shifted", "f8", (WINDOW, NODES)),
        ("shift", "i8", (NODES,)),
        ("cov", "f8", (_BOTH, _BOTH)),
        ("joint", "f8", (_BOTH, _BOTH)),
        ("now", "f8", (_BOTH, _BOTH)),
        ("node_at", "i8", (NODES,)),  # node at each place once the others are left out
        ("mask_of", "i8", (_SUBSETS,)),  # mask of nodes for a mask of places
        ("sums", "f8", (_BOTH,)),
        ("pairs", "f8", (_BOTH, WINDOW)),
        ("full", "f8", (LANES, _BOTH, _BOTH)),
        ("buf", "f8", (int(_ENUMERATION[6][-1]), LANES)),
        ("lane", "f8", (5, LANES)),
        ("det_joint", "f8", (32, LANES)),
        ("det", "f8", (32, LANES)),
        ("det_now", "f8", (32, LANES)),
        ("h", "f8", (_SUBSETS,)),
        ("raw", "f8", (CHANNELS,)),
        ("node", "f8", (NODES,)),
        ("bin_z", "f8", (NODES + 1,)),
        ("before", "f8", (NODES,)),
        ("classes", "f8", (CLASSES,)),
        ("pair_rho", "f8", (_LAGS, 4, 4)),
        ("pair_p", "f8", (_LAGS, 4, 4)),
        ("level_rho", "f8", (_LAGS, NODES)),
        ("level_p", "f8", (_LAGS, NODES)),
        ("words", "u4", (_SYMBOLS,)),
        ("bits", "u1", (_SYMBOLS,)),
        ("adjacent", "u1", (WINDOW,)),
    ],
    align=True,
)


def with_enumeration(shuffled: Floats, bias: Floats, floor: Floats) -> NDArray[np.void]:
    """Add the subsets and cuts of 8 nodes to the measured tables: one element of TABLES."""
    tables = np.zeros(1, TABLES)
    enumeration = zip((TABLES.names or ())[3:], _ENUMERATION, strict=False)
    sizes = np.array([m.bit_count() for m in range(_SUBSETS)])
    measured = {"shuffled": shuffled, "bias": bias, "floor": floor}
    closed = {"size": sizes, "equal_bias": equal_time_bias()}
    for name, values in {**measured, **dict(enumeration), **closed}.items():
        tables[name][0] = values
    return tables


def equal_time_bias() -> Floats:
    """Give what 1/2 ln det of a sample covariance exceeds the truth by, by samples and size.

    It is Wishart with nu = samples - 1 degrees of freedom (Misra, Singh & Demchuk 2005).
    """
    bias = np.zeros((WINDOW + 1, NODES + 1))
    for n in range(NODES + 2, WINDOW + 1):
        psi = np.cumsum([digamma((n - i) / 2) for i in range(1, NODES + 1)])
        bias[n, 1:] = 0.5 * (psi + np.arange(1, NODES + 1) * math.log(2 / n))
    return bias


def load_tables() -> NDArray[np.void]:
    """Read the tables that are shipped with the package: one element of TABLES."""
    with np.load(SHIPPED) as archive:
        return with_enumeration(archive["shuffled"], archive["bias"], archive["floor"])


def make_scratch() -> Any:
    """Allocate the working memory of one engine (about 100 KiB): one element of SCRATCH."""
    return np.zeros(1, SCRATCH)
