"""The shipped tables are what their builder builds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from pipeline.scoring.scratch import load_tables
from pipeline.scoring.tables import bias_table, build, noise_quantile, shuffled_complexity

SHIPPED = load_tables()[0]


@pytest.mark.parametrize("cell", [(0, 0), (1, 20), (7, 64), (20, 13), (32, 64)])
def test_shuffled_cells(cell: tuple[int, int]) -> None:
    """Cells rebuilt one by one equal the file's."""
    assert SHIPPED["shuffled"][cell] == shuffled_complexity(*cell)


def test_bias() -> None:
    """The bias table is its formula."""
    assert np.array_equal(SHIPPED["bias"], bias_table())
    psi = sum(special.digamma((63 - 1 - 4 - i + 1) / 2) for i in range(1, 5))
    assert SHIPPED["bias"][63, 4] == pytest.approx(0.5 * (psi + 4 * np.log(2 / 63)))


def test_floor_cell() -> None:
    """A noise quantile rebuilt equals the file's to rounding."""
    assert SHIPPED["floor"][63, 2] == pytest.approx(noise_quantile(63, 2), abs=1e-9)


@pytest.mark.long
def test_whole_rebuild() -> None:
    """All tables rebuilt equal the file's."""
    for name, table in build().items():
        assert np.allclose(table, SHIPPED[name], atol=1e-9), name
