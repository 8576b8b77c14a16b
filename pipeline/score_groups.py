"""Which inputs of a batch share a score entry (CONTRACT 4): runs of columns, found all at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


class Groups(NamedTuple):
    """Rows of a batch, put together.

    Attributes:
        order: the rows source by source, each in its order.
        first: where a group begins in that.
        last: where it ends (its last row).
        source: where a source begins.
    """

    order: Places
    first: Places
    last: Places
    source: Places


def group(slot: NDArray[np.int32], producer: Places, alone: Flags, late: Flags) -> Groups:
    """Group consecutive events of a source and producer.

    Args:
        slot: of each row's source; at least one row.
        producer: a number for each producer.
        alone: rows that need an entry of their own.
        late: stragglers; they do not mix with others.
    """
    order = slot.argsort(kind="stable")
    slots, producers, alones, lates = slot[order], producer[order], alone[order], late[order]
    is_first = np.empty(len(order), np.bool_)
    is_first[0] = True
    np.not_equal(slots[1:], slots[:-1], out=is_first[1:])
    source = is_first.nonzero()[0]
    is_first[1:] |= producers[1:] != producers[:-1]
    is_first[1:] |= lates[1:] != lates[:-1]
    is_first[1:] |= alones[1:] | alones[:-1]
    first = is_first.nonzero()[0]
    last = np.empty_like(first)
    last[:-1], last[-1] = first[1:] - 1, len(order) - 1
    return Groups(order, first, last, source)
