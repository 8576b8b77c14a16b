"""Dead letters: list, show, replay, drop (CONTRACT 4 and 5)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgpack

from pipeline.errors import DependencyError, SettingsError
from pipeline.partition import tag_of
from pipeline.stream import Argument, Raw, Store

PAGE = 100
_NAME = re.compile(r"p(\d{3})/(\d+-\d+)\Z")
_DROPPED_IN_REPLAY = (b"seq", b"producer", b"replay_of")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        name: written in full, `p000/1234-0`.
        stream: stream of the original entry.
        entry_id: its id there.
        entry: the original fields; sizes and a digest where it was over 1 MiB.
    """

    name: str
    stream: str
    entry_id: str
    source: str | None
    reason: str
    error: str
    deliveries: int
    entry: dict[bytes, Any]

    @property
    def is_replayable(self) -> bool:
        """Whether the original fields are all there."""
        return b"image_sha256" not in self.entry

    def as_json(self) -> dict[str, Any]:
        """Give it for a program to read; binary values as their sizes."""
        return {
            "id": self.name,
            "stream": self.stream,
            "entry_id": self.entry_id,
            "source": self.source,
            "reason": self.reason,
            "error": self.error,
            "deliveries": self.deliveries,
            "replayable": self.is_replayable,
            "entry": {n.decode(errors="replace"): _shown(v) for n, v in self.entry.items()},
        }


def _shown(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    text = value.decode(errors="replace")
    return text if len(value) <= 200 and text.isprintable() else {"bytes": len(value)}


def _split(name: str, partitions: int) -> tuple[int, str]:
    match = _NAME.match(name)
    if match is None or int(match[1]) >= partitions:
        raise SettingsError(f"{name!r} is no dead letter's id; write it in full, p000/1234-0")
    return int(match[1]), match[2]


def _read(partition: int, raw: Raw) -> DeadLetter:
    letter_id, fields = raw
    source = fields.get(b"source")
    return DeadLetter(
        f"{tag_of(partition)}/{letter_id.decode()}",
        fields[b"stream"].decode(),
        fields[b"id"].decode(),
        source.decode() if source else None,
        fields[b"reason"].decode(),
        fields[b"error"].decode(errors="replace"),
        int(fields[b"deliveries"]),
        msgpack.unpackb(fields[b"entry"], strict_map_key=False),
    )


async def list_dead(store: Store, *, newest_first: bool = True) -> AsyncIterator[DeadLetter]:
    """Give all dead letters, partition by partition."""
    for partition in range(store.keys.partitions):
        key = store.keys.of(partition).dead
        start: bytes = b"+" if newest_first else b"-"
        while True:
            span = (start, b"-") if newest_first else (start, b"+")
            command = "XREVRANGE" if newest_first else "XRANGE"
            page = await store.run(command, key, *span, "COUNT", PAGE)
            for raw in page:
                yield _read(partition, raw)
            if len(page) < PAGE:
                break
            start = b"(" + page[-1][0]


async def show_dead(store: Store, name: str) -> DeadLetter:
    """Give one dead letter.

    Raises:
        SettingsError: no such dead letter.
    """
    partition, letter_id = _split(name, store.keys.partitions)
    key = store.keys.of(partition).dead
    found = await store.run("XRANGE", key, letter_id, letter_id)
    if not found:
        raise SettingsError(f"{name}: no such dead letter")
    return _read(partition, found[0])


async def replay_dead(store: Store, name: str) -> str:
    """Add the original fields anew and remove the dead letter, in one write.

    Returns:
        The new entry's id. It counts as a new entry in.

    Raises:
        SettingsError: gone, or too large to have been kept.
        DependencyError: it was a detections entry, whose frame must be replayed instead.
    """
    letter = await show_dead(store, name)
    partition, letter_id = _split(name, store.keys.partitions)
    if not letter.is_replayable:
        raise SettingsError(f"{name}: over 1 MiB, only its sizes were kept; publish it again")
    if letter.stream == "detections":
        raise SettingsError(f"{name}: a result, not an input; publish the frame again")
    target = "events" if letter.stream == "events" else "recordings"
    fields: list[Argument] = []
    for field, value in letter.entry.items():
        if field not in _DROPPED_IN_REPLAY:
            fields += [field, value]
    keys = store.keys.of(partition)
    names = [keys.dead, keys.ledger, getattr(keys, target)]
    answer = await store.call("dead_take", names, letter_id, *fields, "replay_of", name)
    if answer is None:
        raise DependencyError(f"{name}: replayed or dropped by somebody else meanwhile")
    return str(answer.decode())


async def drop_dead(store: Store, name: str) -> None:
    """Remove a dead letter for good.

    Raises:
        SettingsError: no such dead letter.
    """
    partition, letter_id = _split(name, store.keys.partitions)
    keys = store.keys.of(partition)
    answer = await store.call("dead_take", [keys.dead, keys.ledger, keys.dead], letter_id)
    if answer is None:
        raise SettingsError(f"{name}: no such dead letter")
