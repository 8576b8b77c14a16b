"""Which inputs of a batch share a score entry (CONTRACT 4): runs of columns, found all at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


def group(
    slot: NDArray[np.int32], producer: Places, alone: Flags, late: Flags
) -> tuple[Places, Places, Places]:
    """Group consecutive events of a source and producer.

    Args:
        slot: of each row's source; at least one row.
        producer: a number for each producer.
        alone: rows that need an entry of their own.
        late: stragglers; they do not mix with others.

    Returns:
        the rows source by source, each in its order; where a group begins in that; where it ends
        (its last row).
    """
    order = np.argsort(slot, kind="stable")
    slots, producers = slot[order], producer[order]
    alones, lates = alone[order], late[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = slots[1:] != slots[:-1]
    is_first[1:] |= producers[1:] != producers[:-1]
    is_first[1:] |= lates[1:] != lates[:-1]
    is_first[1:] |= alones[1:] | alones[:-1]
    first = np.flatnonzero(is_first)
    return order, first, np.append(first[1:], len(order)) - 1
