"""One source's whole numeric state: one row of a structured dtype, and its versioned blob."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.deflated import deflate, inflate
from pipeline.scoring.parameters import CHANNELS, LAGS, NODES, WINDOW

BLOB_VERSION = 5
CLASSES = 16
"""Buckets of object classes, for class surprise."""
NEVER = np.iinfo(np.int64).min // 2
"""A bin index before every bin."""

_SNAPSHOT: list[tuple[Any, ...]] = [
    ("level_ts", "i8"),  # end of the last evaluated bin, Unix ms; NEVER before the first
    ("level", "f4"),
    ("smooth", "f4"),
    ("arousal", "f4"),
    ("differentiation", "f4"),  # NaN while unknown, like integration
    ("integration", "f4"),
    ("workspace", "f4"),
    ("novelty", "f4"),
    ("confidence", "f4"),
    ("null", "f4"),
    ("phi", "f4"),  # nats, of the main complex
    ("phi_whole", "f4"),
    ("phi_wms", "f4"),
    ("o_ratio", "f4"),
    ("c_n", "f4"),
    ("adaptation_rate", "f4"),
    ("fitness", "f4"),
    ("diversity", "f4"),  # (e^H - 1) / 7 of the shares
    ("stability", "f4"),  # 1 - standard deviation of the level, over 256 bins
    ("trend", "f4"),  # smoothed level less its mean over 256 bins
    ("seen_correlation", "f4"),  # level with the nodes of what is seen
    ("told_correlation", "f4"),  # level with the nodes of what is reported
    ("pair_correlation", "f4"),  # strongest of what is seen with what is reported
    ("pair_p", "f4"),
    ("pair_samples", "f4"),  # effective
    ("share", "f4", (NODES,)),
    ("coupling", "f4", (NODES,)),
    ("recent", "f4", (CHANNELS,)),  # value a bin, mean over the bins since the evaluation before
    ("generation", "u4"),
    ("adaptations", "u4"),
    ("ignitions", "u4"),
    ("late", "u4"),  # patched into bins that A, N and W had followed
    ("too_late", "u4"),
    ("declared", "u2"),  # channels the source has used or its map declares
    ("active", "u2"),  # channels that vary in the window
    ("displaced", "u1"),  # vision channels without a place
    ("core", "u1"),
    ("cut", "u1"),
    ("seen", "u1"),  # nodes that frames have fed
    ("told", "u1"),  # nodes that events have fed
    ("bins", "u1"),  # valid bins in the window
    ("pair", "u1"),  # of pair_correlation, 4 a + b: pair_nodes a and 4 + b
    ("pair_lag", "i1"),  # bins, positive: the event node follows
    ("phase", "u1"),
    ("evaluated", "u1"),
    ("grace", "u1"),  # closed bins that A, N and W leave open for frames
    ("null_age", "u2"),  # bins since the surrogates of `null`, 65535 for never
]

_PRIVATE: list[tuple[Any, ...]] = [
    ("bin", "i8"),  # the open bin
    ("ts", "i8"),  # newest time seen
    ("heard", "i8"),  # newest bin with an input
    ("null_bin", "i8"),
    ("ignition_bin", "i8"),
    ("valid", "u8"),  # bit k: the k-th newest closed bin is valid
    ("valid_bins", "u4"),  # so far
    ("levels", "u4"),  # bins in the level's statistics
    ("phase_ms", "i4"),
    ("delta_ms", "i4"),
    ("stale_bins", "i4"),
    ("seed", "u4"),
    ("ring", "u2", (WINDOW, CHANNELS)),  # halves: transformed activity less offset
    ("sampled", "u2", (WINDOW,)),  # channels of a column that had a sample
    ("count", "u2", (CHANNELS,)),
    ("sum", "f4", (CHANNELS,)),
    ("held", "f4", (CHANNELS,)),  # last bin mean of a mean channel
    ("offset", "f4", (CHANNELS,)),
    ("alpha", "f4", (CHANNELS,)),
    ("class_alpha", "f4", (CLASSES,)),
    ("mean", "f4", (NODES,)),
    ("variance", "f4", (NODES,)),
    ("history", "f4", (LAGS, NODES + 1)),  # standardised nodes and level by bin modulo LAGS
    ("cross", "f4", (2 * LAGS + 1, 4, 4)),  # pair_nodes 0-3 with 4-7, lag -8 first
    ("pair_nodes", "u1", (NODES,)),  # what is seen, then what is reported
    ("with_level", "f4", (2 * LAGS + 1, NODES)),
    ("auto", "f4", (LAGS + 1, NODES + 1)),
    ("beta", "f4"),
    ("fast", "f4"),
    ("slow", "f4"),
    ("surprise", "f4"),
    ("level_mean", "f4"),
    ("level_variance", "f4"),
    ("null_score", "f4"),  # the surrogates' own, without the floor
    ("arousal_now", "f4"),
    ("workspace_now", "f4"),
    ("novelty_now", "f4"),
    ("ignition_count", "u4"),
    ("late_count", "u4"),
    ("too_late_count", "u4"),
    ("used", "u2"),  # channels declared so far
    ("mean_kind", "u2"),
    ("anchored", "u2"),  # channels whose offset is set
    ("seen_nodes", "u1"),  # `seen` as it runs on between evaluations
    ("told_nodes", "u1"),
    ("linked", "u1"),  # bit k: history of the k-th newest closed bin is usable
    ("started", "u1"),
    ("null_due", "u1"),
    ("pending", "i1"),  # direction of the phase step under consideration
    ("agreed", "u1"),  # evaluations in a row that wanted it
    ("unplaced", "u1"),
    ("grace_now", "u1"),
    ("needed", "u1"),  # most that a frame since the window's end needed
    ("unfollowed", "u1"),  # closed bins that A, N, W and the correlations have still to follow
]

SNAPSHOT = np.dtype(_SNAPSHOT, align=True)
"""What an evaluation leaves for the reader, written by it alone; the first bytes of a row."""
ROW = np.dtype([*_SNAPSHOT, *_PRIVATE], align=True)
"""A source's state."""
_WORDS = ROW.itemsize // 8
_MARKS = (_WORDS + 7) // 8
_MOST = _MARKS + ROW.itemsize

_HEADER = struct.Struct("<2sBBIIHH")
_MAGIC = b"PS"
_SEEN, _DEFLATED = 1, 2
_LARGE = 5100
"""Redis keeps a longer value in 6 KB, with tracks and a journal beside it beyond the limit."""

Rows = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Blob:
    """A saved source.

    Packed, the row is a bit for each word of 8 bytes and the words that are not 0: channels and
    nodes that a source does not use take no room. Where more than `_LARGE` is left, as with all
    channels in use, that is deflated.

    Attributes:
        parameters: digest of the parameters it was computed under.
        channel_map: digest of the static channel map, 0 for free naming.
        seen: whether the source has sent a frame.
        names: freely named channels, in order of first appearance.
        row: the bytes of one row of ROW.
    """

    parameters: int
    channel_map: int
    seen: bool
    names: tuple[str, ...]
    row: NDArray[np.uint8]

    def pack(self) -> bytes:
        """Give the bytes: header, names, marks and words."""
        names = "\n".join(self.names).encode()
        words = self.row.view(np.uint64)
        used = words != 0
        packed: bytes = np.packbits(used).tobytes() + words[used].tobytes()
        flags = _SEEN * self.seen
        if _HEADER.size + len(names) + len(packed) > _LARGE:
            packed, flags = deflate(packed), flags | _DEFLATED
        header = _HEADER.pack(
            _MAGIC,
            BLOB_VERSION,
            flags,
            self.parameters,
            self.channel_map,
            len(names),
            ROW.itemsize,
        )
        return b"".join((header, names, packed))

    @classmethod
    def unpack(cls, data: bytes) -> Blob:
        """Read the bytes back.

        Raises:
            ValueError: not a blob, cut short, or of a version this engine does not know.
        """
        if len(data) < _HEADER.size or data[:2] != _MAGIC:
            raise ValueError(f"not a score state: {len(data)} bytes, starts {data[:4]!r}")
        _, version, flags, parameters, channel_map, names_size, row_size = _HEADER.unpack_from(data)
        if version != BLOB_VERSION:
            raise ValueError(f"score state version {version}: this engine reads {BLOB_VERSION}")
        first = _HEADER.size + names_size
        packed = inflate(data[first:], _MOST) if flags & _DEFLATED else data[first:]
        if row_size != ROW.itemsize or len(packed) < _MARKS:
            raise ValueError(f"score state of {len(data)} bytes, of rows of {row_size}: cut short")
        marks = np.frombuffer(packed, np.uint8, _MARKS)
        used = np.unpackbits(marks, count=_WORDS).view(bool)
        expected = _MARKS + 8 * int(np.count_nonzero(used))
        if len(packed) != expected:
            raise ValueError(f"score state, {len(packed)} bytes of it row: expected {expected}")
        words = np.zeros(_WORDS, np.uint64)
        words[used] = np.frombuffer(packed, np.uint64, offset=_MARKS)
        names = data[_HEADER.size : first].decode()
        listed = tuple(names.split("\n")) if names else ()
        return cls(parameters, channel_map, bool(flags & _SEEN), listed, words.view(np.uint8))


def golden_phase(source_hash: int, period_ms: int) -> int:
    """Spread sources over a window by the golden ratio, milliseconds in [0, period_ms)."""
    return (source_hash * 0x9E3779B1 % 2**32) * period_ms >> 32


def fresh_row() -> Rows:
    """Give the one-element row of a source that has sent nothing, phase and seed still 0."""
    row = np.zeros(1, ROW)
    for name in ("level_ts", "heard", "null_bin", "ignition_bin"):
        row[name] = NEVER
    for name in ("null", "integration", "differentiation"):
        row[name] = np.nan
    for name in ("alpha", "class_alpha", "beta", "null_due"):
        row[name] = 1
    row["null_age"] = 65535
    row["share"] = 1.0 / NODES
    row["pair_nodes"] = range(NODES)
    row["diversity"] = row["stability"] = 1
    row["pair_p"] = 1
    return row
