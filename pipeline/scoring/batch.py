"""What goes into a step and what comes out: columns, one row per input in arrival order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.kernel import EVENT, FRAME, HEARTBEAT, TICK
from pipeline.scoring.state import SNAPSHOT, Rows

MAX_TS_MS = 2**53
"""Times are within +- this."""
MAX_VALUE = 1e30
"""Values beyond +- this count as this, so that float32 holds their squares' sums finite."""


@dataclass(frozen=True, slots=True)
class InputBatch:
    """Inputs of many sources in arrival order; arrays are contiguous and writable.

    For each other kind of array the kernel would be compiled once more, for seconds.

    Attributes:
        slot: int32 (n,), from `Engine.slot`.
        ts_ms: int64 (n,).
        kind: uint8 (n,), EVENT, FRAME, HEARTBEAT or TICK.
        start: int64 (n + 1,), input i has code[start[i]:start[i + 1]].
        code: uint8 (m,), from `Engine.encode_event` or `encode_frame`.
        value: float32 (m,).

    Raises:
        ValueError: a dtype, length or flag differs, or a time is out of range.
    """

    slot: NDArray[np.int32]
    ts_ms: NDArray[np.int64]
    kind: NDArray[np.uint8]
    start: NDArray[np.int64]
    code: NDArray[np.uint8]
    value: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check dtypes, lengths and times."""
        n, m = len(self.slot), len(self.code)
        expected = (
            ("slot", n, np.int32),
            ("ts_ms", n, np.int64),
            ("kind", n, np.uint8),
            ("start", n + 1, np.int64),
            ("code", m, np.uint8),
            ("value", m, np.float32),
        )
        for name, length, dtype in expected:
            array = getattr(self, name)
            is_plain = array.flags.c_contiguous and array.flags.writeable
            if array.shape != (length,) or array.dtype != dtype or not is_plain:
                raise ValueError(
                    f"{name}: expected contiguous writable {np.dtype(dtype)} ({length},), "
                    f"got {array.dtype} {array.shape}"
                )
        falls = self.start[1:] < self.start[:-1]
        if n and (self.start[0] != 0 or self.start[-1] != m or falls.any()):
            raise ValueError(f"start: must rise from 0 to {m}")
        if n and (self.ts_ms.max() > MAX_TS_MS or self.ts_ms.min() < -MAX_TS_MS):
            raise ValueError("ts_ms: must be within 2**53")

    def __len__(self) -> int:
        return len(self.slot)


def one_tick(slot: int, at_ms: int) -> InputBatch:
    """Give the batch of one tick."""
    builder = InputBuilder()
    builder.add(slot, at_ms, TICK)
    return builder.build()


class InputBuilder:
    """Collects inputs one by one; `build` gives the batch and starts anew."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._slot: list[int] = []
        self._ts_ms: list[int] = []
        self._kind: list[int] = []
        self._start: list[int] = [0]
        self._code: list[int] = []
        self._value: list[float] = []

    def __len__(self) -> int:
        return len(self._slot)

    def add(
        self,
        slot: int,
        ts_ms: int,
        kind: int,
        code: Sequence[int] = (),
        value: Sequence[float] = (),
    ) -> int:
        """Append one input; give its index in the batch."""
        self._slot.append(slot)
        self._ts_ms.append(ts_ms)
        self._kind.append(kind)
        self._code.extend(code)
        self._value.extend(value)
        self._start.append(len(self._code))
        return len(self._slot) - 1

    def build(self) -> InputBatch:
        """Give what was collected and forget it."""
        value = np.array(self._value, np.float64)
        np.maximum(value, -MAX_VALUE, out=value)
        np.minimum(value, MAX_VALUE, out=value)
        batch = InputBatch(
            np.array(self._slot, np.int32),
            np.array(self._ts_ms, np.int64),
            np.array(self._kind, np.uint8),
            np.array(self._start, np.int64),
            np.array(self._code, np.uint8),
            value.astype(np.float32),
        )
        self._clear()
        return batch


class Output(NamedTuple):
    """What the kernel fills, one element per input."""

    level: NDArray[np.float32]
    level_ts: NDArray[np.int64]
    phase: NDArray[np.uint8]
    phase_before: NDArray[np.uint8]
    lateness: NDArray[np.uint8]
    snapshot: NDArray[np.int64]
    snapshots: NDArray[np.uint8]

    @classmethod
    def of(cls, inputs: int) -> Output:
        """Allocate the columns of a batch; every input has at most one new snapshot."""
        return cls(
            np.empty(inputs, np.float32),
            np.empty(inputs, np.int64),
            np.empty(inputs, np.uint8),
            np.empty(inputs, np.uint8),
            np.empty(inputs, np.uint8),
            np.empty(inputs, np.int64),
            np.empty((inputs, SNAPSHOT.itemsize), np.uint8),
        )


@dataclass(frozen=True, slots=True)
class StepResult:
    """The outcome of a step; arrays have one element per input, in the batch's order.

    Attributes:
        level: float32, level of the source after the input, as of its last evaluated bin.
        level_ts: int64, end of that bin in Unix ms; NEVER before the first.
        phase: uint8, index into PHASES, after the input.
        phase_before: uint8, before it; differs where the input changed the phase.
        lateness: uint8, ON_TIME, PATCHED (into a column that A, N and W had followed) or TOO_LATE
            (counted only).
        snapshot: int64, row of `snapshots` that holds after the input.
        snapshots: SNAPSHOT, one per source touched and one per input that evaluated.
        evaluations: windows evaluated.
    """

    level: NDArray[np.float32]
    level_ts: NDArray[np.int64]
    phase: NDArray[np.uint8]
    phase_before: NDArray[np.uint8]
    lateness: NDArray[np.uint8]
    snapshot: NDArray[np.int64]
    snapshots: Rows
    evaluations: int

    @property
    def phase_changed(self) -> NDArray[np.bool_]:
        """Where an input changed its source's phase."""
        return np.not_equal(self.phase, self.phase_before)


__all__ = ["EVENT", "FRAME", "HEARTBEAT", "TICK", "InputBatch", "InputBuilder", "StepResult"]
