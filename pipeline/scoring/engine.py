"""The engine: many sources in one table, stepped in batches, each saved and restored by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from pipeline.errors import EntryError, Reason
from pipeline.scoring.batch import InputBatch, Output, StepResult
from pipeline.scoring.channels import Assignment, ChannelMaps
from pipeline.scoring.journal import replayed
from pipeline.scoring.kernel import CLASS, DISPLACED, MEAN, SURPRISE, step
from pipeline.scoring.parameters import WINDOW, Parameters
from pipeline.scoring.scratch import load_tables, make_scratch
from pipeline.scoring.snapshot import Statics, data_of, report_of, values_of
from pipeline.scoring.state import ROW, SNAPSHOT, Blob, Rows, fresh_row, golden_phase
from pipeline.scoring.vision import FrameValues

_SURPRISE_CHANNEL = 5
_MOST_PLANS = 64
_MOST_SHARED = 4096
Plans = dict[tuple[str, ...], list[int]]
"""Codes of the sets of names that sources of one assignment have used and that take any number."""


class Engine:
    """Scores any number of sources; knows no clock and no thread, and is not safe to share.

    `step` releases the GIL. Slots are small integers that are reused after `forget`.
    """

    def __init__(
        self,
        parameters: Parameters | None = None,
        maps: ChannelMaps | None = None,
        capacity: int = 64,
    ) -> None:
        self.parameters = parameters or Parameters()
        self._maps = maps or ChannelMaps()
        self._digest = self.parameters.digest
        self._versions: dict[int, str] = {}
        self._fresh = fresh_row().view(np.uint8)
        self._records = (self.parameters.for_kernel(), make_scratch(), load_tables())
        self._rows: Rows = np.zeros(max(1, capacity), ROW)
        self._bytes = self._rows.view(np.uint8).reshape(len(self._rows), ROW.itemsize)
        self._mark = np.zeros((len(self._rows), 2), np.int64)
        self._number = 0
        self._slots: dict[str, int] = {}
        self._assignments: list[Assignment] = []
        self._plans: list[Plans] = []
        self._free: list[int] = []
        self._shared: dict[Assignment, tuple[Assignment, Plans]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, source: object) -> bool:
        return source in self._slots

    def slot(self, source: str) -> int:
        """Give the slot of a source, a new one if the engine does not know it."""
        slot = self._slots.get(source)
        return self._start(source) if slot is None else slot

    def _start(self, source: str) -> int:
        assignment = Assignment(fixed=self._maps.of(source))
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self._assignments)
            self._assignments.append(assignment)
            self._plans.append({})
            if slot == len(self._rows):
                self._grow()
        self._assign(slot, assignment)
        self._slots[source] = slot
        self._bytes[slot] = self._fresh
        row = self._rows[slot]
        row["seed"] = source_hash = crc32(source.encode())
        row["delta_ms"] = delta_ms = assignment.bin_ms or self.parameters.delta_ms
        row["stale_bins"] = self.parameters.stale_bins(delta_ms)
        row["phase_ms"] = golden_phase(source_hash, WINDOW * delta_ms)
        if assignment.fixed is not None:
            row["declared"] = row["used"] = assignment.fixed.declared
            row["mean_kind"] = assignment.fixed.mean_kind
            row["pair_nodes"] = assignment.fixed.pair_nodes
        return slot

    def _grow(self) -> None:
        """Make room in place: a copy of 100,000 sources would double half a gigabyte."""
        capacity = len(self._rows) * 65 // 64 + 64  # the page tables move, not the rows
        del self._bytes
        self._rows.resize(capacity, refcheck=False)
        self._mark.resize((capacity, 2), refcheck=False)
        self._bytes = self._rows.view(np.uint8).reshape(capacity, ROW.itemsize)

    def _assign(self, slot: int, assignment: Assignment) -> None:
        if len(self._shared) >= _MOST_SHARED:
            self._shared.clear()  # who has one keeps it
        shared = self._shared.setdefault(assignment, (assignment, {}))
        self._assignments[slot], self._plans[slot] = shared

    def forget(self, source: str) -> None:
        """Drop a source; its slot goes to the next new one."""
        self._free.append(self._slots.pop(source))

    def save(self, slot: int) -> bytes:
        """Give a source's whole state; `restore` continues from it bit for bit."""
        assignment = self._assignments[slot]
        return Blob(
            self._digest,
            assignment.fixed.digest if assignment.fixed else 0,
            assignment.seen,
            assignment.names,
            self._bytes[slot],
        ).pack()

    def restore(self, source: str, data: bytes) -> int:
        """Take a source over from its saved state, replacing what the engine has of it.

        A state computed under other parameters or another channel map cannot be continued: the
        source starts anew then, and the versions in its outputs say so.

        Raises:
            ValueError: the blob is damaged or of an unknown version.
        """
        blob = Blob.unpack(data)
        if source in self._slots:
            self.forget(source)
        slot = self._start(source)
        fixed = self._assignments[slot].fixed
        digest = fixed.digest if fixed else 0
        if (blob.parameters, blob.channel_map) == (self._digest, digest):
            self._assign(slot, Assignment(blob.names, blob.seen, fixed))
            self._bytes[slot] = blob.row
        return slot

    def replay(self, journals: Iterable[tuple[int, bytes]]) -> None:
        """Apply again what sources were given since they were saved (see `journal`).

        Raises:
            ValueError: a journal is damaged; nothing is applied then.
        """
        batch = replayed(journals)
        if len(batch):
            self.step(batch)

    def assignment(self, slot: int) -> Assignment:
        """Give which names go where; the same object until a name or the first frame comes."""
        return self._assignments[slot]

    def encode_event(self, slot: int, values: Mapping[str, float]) -> tuple[list[int], list[float]]:
        """Give codes and values of an event, placing names that are new to the source.

        Raises:
            EntryError: there is no room for a name, or it is not in the source's channel map, or
                its value is not finite or negative where that is not valid. Nothing is placed.
        """
        codes = self._plans[slot].get(tuple(values))
        numbers = [*values.values()]
        if codes is not None and math.isfinite(sum(numbers)):
            return codes, numbers
        return self._place_event(slot, values), numbers

    def _place_event(self, slot: int, values: Mapping[str, float]) -> list[int]:
        assignment = self._assignments[slot]
        new = [name for name in values if assignment.channel(name) is None]
        if new:
            assignment = assignment.with_names(new)
        codes, signed = [], True
        for name, value in values.items():
            channel = assignment.channel(name)
            assert channel is not None
            signed = signed and channel.signed
            if not math.isfinite(value):
                raise EntryError(Reason.BAD_FIELD, f"channel {name!r}: {value} is not finite")
            if value < 0 and not channel.signed:
                raise EntryError(
                    Reason.BAD_FIELD,
                    f"channel {name!r}: {value} is negative, the map says unsigned",
                )
            codes.append(channel.place | (MEAN if channel.mean else 0))
        if new:
            self._assign(slot, assignment)
        plans = self._plans[slot]
        if signed and len(plans) < _MOST_PLANS:
            plans[tuple(values)] = codes
        return codes

    def encode_frame(self, slot: int, frame: FrameValues) -> tuple[list[int], list[float]]:
        """Give codes and values of a frame; from now on the source is one that is seen."""
        assignment = self._assignments[slot]
        if not assignment.seen:
            assignment = assignment.with_frames()
            self._assign(slot, assignment)
        codes, values = [], []
        for number, channel in enumerate(assignment.vision_places()):
            if math.isnan(frame.values[number]):
                continue
            if channel is None:
                if assignment.fixed is None:
                    codes.append(DISPLACED | number)
                    values.append(0.0)
                continue
            code = channel.place | (MEAN if channel.mean else 0)
            codes.append(code | SURPRISE if number == _SURPRISE_CHANNEL else code)
            values.append(frame.values[number])
        for bucket, count in frame.classes.items():
            codes.append(CLASS | bucket)
            values.append(float(count))
        return codes, values

    def step(self, batch: InputBatch) -> StepResult:
        """Apply a batch in order; see `StepResult`.

        Raises:
            IndexError: a slot that the engine does not have.
        """
        inputs = len(batch)
        if inputs and not 0 <= batch.slot.min() <= batch.slot.max() < len(self._assignments):
            raise IndexError(f"slots must be below {len(self._assignments)}")
        out = Output.of(inputs)
        self._number += 1
        snapshots, evaluations = step(
            self._rows,
            self._bytes,
            batch.slot,
            batch.ts_ms,
            batch.kind,
            batch.start,
            batch.code,
            batch.value,
            self._records,
            tuple(out),
            self._mark,
            self._number,
        )
        kept = out.snapshots[:snapshots].reshape(-1).view(SNAPSHOT)
        return StepResult(*out[:-1], kept, evaluations)

    def peek(self, batch: InputBatch) -> StepResult:
        """Give what `step` would give, and leave every source as it is."""
        slots = np.unique(batch.slot)
        before = self._bytes[slots]
        result = self.step(batch)
        self._bytes[slots] = before
        return result

    def snapshot(self, slot: int) -> Any:
        """Give the present snapshot of a source, one element of SNAPSHOT: its last evaluation's."""
        start = self._bytes[slot, : SNAPSHOT.itemsize]
        return start.copy().view(SNAPSHOT)[0]

    def source_ts(self, slot: int) -> int | None:
        """Give the newest time a source has reached, Unix ms; None before its first input."""
        row = self._rows[slot]
        return int(row["ts"]) if row["started"] else None

    def fades_ms(self, source: str) -> int:
        """Give how long after its last input a source's window is empty."""
        slot = self._slots.get(source)
        fixed = self._maps.of(source) if slot is None else self._assignments[slot].fixed
        bin_ms = fixed.bin_ms if fixed else None
        return self.parameters.fades_ms(bin_ms or self.parameters.delta_ms)

    def hop_ms(self, slot: int) -> int:
        """Give the time from one evaluation of a source to the next."""
        return int(self._rows[slot]["delta_ms"]) * self.parameters.hop_bins

    def bin_start(self, slot: int, ts_ms: int) -> int:
        """Give the time at which the source's bin that holds a time begins, Unix ms."""
        phase, delta = int(self._rows[slot]["phase_ms"]), int(self._rows[slot]["delta_ms"])
        return (ts_ms + phase) // delta * delta - phase

    def statics(self, slot: int, snapshot: Any) -> Statics:
        """Give the constant part of a source's entries as of a snapshot; cached."""
        declared, displaced = int(snapshot["declared"]), int(snapshot["displaced"])
        return Statics.of(self._assignments[slot], declared, displaced)

    def data(self, slot: int, snapshot: Any) -> dict[str, Any]:
        """Give the score part of an entry's `data` (CONTRACT 4) as of a snapshot."""
        values = values_of(snapshot)
        assignment = self._assignments[slot]
        statics = Statics.of(assignment, values.declared, values.displaced)
        version = self._version(statics.bin_ms or self.parameters.delta_ms)
        return data_of(values, statics, self.parameters, version)

    def _version(self, delta_ms: int) -> str:
        if delta_ms not in self._versions:
            self._versions[delta_ms] = self.parameters.engine_version(delta_ms)
        return self._versions[delta_ms]

    def report(self, slot: int) -> dict[str, Any]:
        """Give what entries leave out, the peak over lags of every correlation above all."""
        return report_of(self._rows[slot], self.statics(slot, self.snapshot(slot)), self.parameters)


def is_cached() -> bool:
    """Tell whether the compiled kernel is on the disk, so that `warm_up` takes a second or two."""
    return any(Path(step.stats.cache_path or "").glob("kernel.step-*.nbi"))


def is_compiled() -> bool:
    """Tell whether this process has the kernel ready, so that the next step does not wait."""
    return bool(step.signatures)


def warm_up() -> None:
    """Load the kernel, or compile it, which takes tens of seconds."""
    engine = Engine(capacity=1)
    nothing = np.zeros(0, np.int32)
    engine.step(
        InputBatch(
            nothing,
            np.zeros(0, np.int64),
            np.zeros(0, np.uint8),
            np.zeros(1, np.int64),
            np.zeros(0, np.uint8),
            np.zeros(0, np.float32),
        )
    )
