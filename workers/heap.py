"""What the C library does with large blocks that are freed."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
LARGE_BYTES = 1 << 20


def give_back_large_blocks() -> bool:
    """Have the system get back blocks of a megabyte and more as soon as they are freed.

    glibc raises that bound, up to 32 MiB, with every such block that is freed; the next ones then
    lie among small ones and leave holes: whenever CPython makes the table of its interned names
    anew, 1.9 MiB, and whenever a table of sources grows. For workers whose large blocks live
    long; one that needs many for a moment, as for pictures, is better off without.

    Returns:
        Whether the C library knows of it: glibc does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) == 1
