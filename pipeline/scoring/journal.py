"""Inputs of a source since its state was saved, as bytes: applied again they give the same state.

A record is `<rows u16><values u32>`, then per row time, number of values and kind, then the codes,
then the values. A journal is records, one after another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.batch import TICK, InputBatch

_HEAD = struct.Struct("<HI")
_ROW = np.dtype([("ts", "<i8"), ("values", "<u4"), ("kind", "u1")])
_VALUE = np.dtype("<f4")


def records(
    batch: InputBatch, order: NDArray[np.int64], first_of_source: Iterable[int]
) -> list[bytes]:
    """Give one record a source.

    Args:
        batch: what the engine was given; of a source at most 65,535 rows.
        order: rows of the batch, source by source.
        first_of_source: where each source begins in that, and the number of rows.
    """
    starts = batch.start[order]
    counts = batch.start[order + 1] - starts
    rows = np.empty(len(order), _ROW)
    rows["ts"], rows["values"], rows["kind"] = batch.ts_ms[order], counts, batch.kind[order]
    ends = np.empty(len(order) + 1, np.int64)
    ends[0] = 0
    counts.cumsum(out=ends[1:])
    places = (starts - ends[:-1]).repeat(counts) + np.arange(ends[-1])
    row_bytes, codes = rows.tobytes(), batch.code[places].tobytes()
    values = batch.value[places].astype(_VALUE).tobytes()
    found, size, value_ends = [], _ROW.itemsize, ends.tolist()
    for row, end in pairwise(first_of_source):
        first, last = value_ends[row], value_ends[end]
        head = _HEAD.pack(end - row, last - first)
        found.append(
            head
            + row_bytes[size * row : size * end]
            + codes[first:last]
            + values[4 * first : 4 * last]
        )
    return found


def tick(at_ms: int) -> bytes:
    """Give the record of a tick."""
    return _HEAD.pack(1, 0) + struct.pack("<qIB", at_ms, 0, TICK)


def replayed(journals: Iterable[tuple[int, bytes]]) -> InputBatch:
    """Give what the engine must apply again.

    Args:
        journals: of each slot.

    Raises:
        ValueError: a journal is cut short.
    """
    slots: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    rows, codes, values = [np.zeros(0, _ROW)], [b""], [b""]
    for slot, journal in journals:
        for found, code, value in _parts(journal):
            rows.append(found)
            codes.append(code)
            values.append(value)
            slots.append(np.full(len(found), slot, np.int32))
    all_rows = np.concatenate(rows)
    return InputBatch(
        np.concatenate(slots),
        all_rows["ts"].astype(np.int64),
        all_rows["kind"].astype(np.uint8),
        np.concatenate(([0], np.cumsum(all_rows["values"], dtype=np.int64))),
        np.frombuffer(bytearray().join(codes), np.uint8),  # writable
        np.frombuffer(b"".join(values), _VALUE).astype(np.float32),
    )


def _parts(journal: bytes) -> Iterator[tuple[NDArray[np.void], bytes, bytes]]:
    at = 0
    while at < len(journal):
        if len(journal) - at < _HEAD.size:
            raise ValueError(f"journal of {len(journal)} bytes: cut short at {at}")
        rows, values = _HEAD.unpack_from(journal, at)
        first = at + _HEAD.size
        code = first + rows * _ROW.itemsize
        value = code + values
        at = value + 4 * values
        if at > len(journal):
            raise ValueError(f"journal of {len(journal)} bytes: {at} expected")
        found = np.frombuffer(journal[first:code], _ROW)
        if int(found["values"].sum()) != values:
            raise ValueError(f"journal of {len(journal)} bytes: its counts do not agree")
        yield found, journal[code:value], journal[value:at]
