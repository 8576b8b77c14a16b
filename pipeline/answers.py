"""What the network found in a picture, kept by the picture's content: packed, bounded by bytes."""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from pipeline.records import Detections

MAX_OBJECTS = 10_000
ENTRY_BYTES = 200
"""What Python needs for an entry beside its answer: key, value and place in the table."""
_HEAD = struct.Struct("<BIIfI")  # version, width, height, cost in seconds, objects
_VERSION = 1
_ROW_BYTES = 4 * 4 + 4 + 4


@dataclass(frozen=True, slots=True)
class Answer:
    """What the network found in one picture.

    Attributes:
        detections: boxes in pixels of the full frame.
        width: pixels of the full frame.
        height: pixels of the full frame.
        cost_s: network time that finding it took, seconds.
    """

    detections: Detections
    width: int
    height: int
    cost_s: float

    def pack(self) -> bytes:
        """Give it as bytes, every float as it is."""
        found = self.detections
        head = _HEAD.pack(_VERSION, self.width, self.height, self.cost_s, len(found))
        floats = np.concatenate([found.xyxy.ravel(), found.confidence]).astype("<f4")
        return head + floats.tobytes() + found.class_id.astype("<i4").tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> Answer:
        """Read what `pack` gave.

        Raises:
            ValueError: it is damaged or of another version.
        """
        try:
            version, width, height, cost_s, count = _HEAD.unpack_from(data)
        except struct.error as error:
            raise ValueError(f"answer of {len(data)} bytes: {error}") from error
        expected = _HEAD.size + count * _ROW_BYTES
        if version != _VERSION or count > MAX_OBJECTS or len(data) != expected:
            raise ValueError(f"answer: version {version}, {count} objects, {len(data)} bytes")
        floats = np.frombuffer(data, "<f4", 5 * count, _HEAD.size).astype(np.float32)
        class_id = np.frombuffer(data, "<i4", count, expected - 4 * count).astype(np.int32)
        xyxy, confidence = floats[: 4 * count].reshape(-1, 4), floats[4 * count :]
        if not (np.isfinite(floats).all() and width and height and np.isfinite(cost_s)):
            raise ValueError("answer: a number that is not finite, or a picture without a size")
        return cls(Detections(xyxy, confidence, class_id), width, height, cost_s)


class AnswerMemory:
    """Packed answers by digest, the longest unused thrown away first; any thread may call.

    Args:
        limit_bytes: of all entries; one that is larger alone is not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0
        """Of all entries now."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes) -> bytes | None:
        """Give the answer to a picture and note its use."""
        with self._lock:
            found = self._entries.get(digest)
            if found is not None:
                self._entries.move_to_end(digest)
            return found

    def put(self, digest: bytes, packed: bytes) -> None:
        """Keep an answer, in place of an older one."""
        with self._lock:
            self._remove(digest)
            self._entries[digest] = packed
            self.size_bytes += _size_bytes(digest, packed)
            while self.size_bytes > self._limit_bytes:
                self._remove(next(iter(self._entries)))

    def _remove(self, digest: bytes) -> None:
        old = self._entries.pop(digest, None)
        if old is not None:
            self.size_bytes -= _size_bytes(digest, old)


def _size_bytes(digest: bytes, packed: bytes) -> int:
    return len(digest) + len(packed) + ENTRY_BYTES
