"""A batch closes for one of three reasons; every item comes out once, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import Batcher, CloseReason


@given(st.lists(st.integers(), max_size=50), st.integers(1, 7))
def test_every_item_comes_out_once_in_order(items: list[int], size: int) -> None:
    """No batch is too large and nothing is left behind."""
    batcher: Batcher[int] = Batcher(size, 1.0)
    batches = []
    for at_s, item in enumerate(items):
        batcher.add(item, at_s * 0.01)
        if batcher.close_reason(at_s * 0.01, drained=False):
            batches.append(batcher.take())
    batches.append(batcher.take())

    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) <= size for batch in batches)


def test_the_reasons() -> None:
    """Full comes before drained, drained before the deadline; an empty batch never closes."""
    batcher: Batcher[str] = Batcher(2, 0.5)
    assert batcher.close_reason(9.0, drained=True) is None

    batcher.add("a", 10.0)
    assert batcher.close_reason(10.4, drained=False) is None
    assert batcher.close_reason(10.4, drained=True) is CloseReason.DRAINED
    assert batcher.close_reason(10.5, drained=False) is CloseReason.DEADLINE
    assert batcher.waited_s(10.5) == 0.5

    batcher.add("b", 10.5)
    assert batcher.close_reason(10.5, drained=True) is CloseReason.FULL
    with pytest.raises(ValueError, match="full"):
        batcher.add("c", 10.6)
