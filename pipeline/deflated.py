"""Bytes of a known size, deflated and back."""

from __future__ import annotations

import zlib


def deflate(data: bytes) -> bytes:
    """Give fewer bytes, quickly rather than as few as possible."""
    return zlib.compress(data, 1)


def inflate(packed: bytes, most: int) -> bytes:
    """Give what was deflated.

    Raises:
        ValueError: it is damaged, cut short, followed by other bytes or longer than `most`.
    """
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(f"deflated: {error}") from error
    if not stream.eof or stream.unused_data or len(data) > most:
        raise ValueError(f"{len(packed)} deflated bytes: cut short, too long or followed by others")
    return bytes(data)
