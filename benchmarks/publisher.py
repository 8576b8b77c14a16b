"""Add events of many sources to Redis at little cost, for `benchmarks.events`."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import hiredis
import msgpack
import numpy as np

from benchmarks.load import Load
from pipeline.partition import Keys

CHANNELS = 4
KINDS, TURNS = 97, 400
"""Courses of values that sources share, and turns until they come round."""
PIPELINE = 1000


def words(*given: Any) -> bytes:
    """Give the words of a command as Redis reads them, without how many there are."""
    command: Any = given  # hiredis types it as a tuple of one
    told: bytes = hiredis.pack_command(command)
    return told.partition(b"\r\n")[2]


def coupled() -> Iterator[dict[str, float]]:
    """Give the courses of values whose channels follow each other, turn by turn."""
    events = islice(Load(sources=KINDS, channels=CHANNELS).events(), KINDS * TURNS)
    return (values for _, _, values in events)


def alone() -> Iterator[dict[str, float]]:
    """Give as many values that know nothing of each other."""
    for row in np.random.default_rng(7).gamma(2.0, 1.0, (KINDS * TURNS, CHANNELS)).tolist():
        yield {f"c{number}": value for number, value in enumerate(row)}


class Publisher:
    """Adds events of sources in turn.

    A source's channels follow each other as in `load.Load`, or know nothing of each other.

    It shares the cores with what it measures, so it packs words ahead and reads replies raw.
    """

    def __init__(self, url: str, sources: int, keys: Keys, *, independent: bool) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(urlsplit(url).path)
        names = [f"s{number}" for number in range(sources)]
        self._heads = [
            words("XADD", keys.of_source(name).events, "*", "source", name, "values")
            for name in names
        ]
        rows = alone() if independent else coupled()
        self._values = [words(msgpack.packb(values)) for values in rows]
        self._sent = 0

    def _command(self, number: int) -> bytes:
        """Give an event but for its first line and its time; turns come round after TURNS."""
        turn, source = divmod(number, len(self._heads))
        return self._heads[source] + self._values[turn % TURNS * KINDS + source % KINDS]

    def send(self, count: int, ts_ms: Sequence[int] | None = None) -> None:
        """Add `count` events, sources in turn."""
        events = [self._command(self._sent + n) for n in range(count)]
        self._sent += count
        if ts_ms is None:
            commands = [b"*7\r\n" + event for event in events]
        else:
            timed = zip(events, ts_ms, strict=True)
            commands = [b"*9\r\n" + event + words("ts", at) for event, at in timed]
        self._socket.sendall(b"".join(commands))
        self._receive(count)

    def send_turns(self, turns: int, begin_ms: int, every_ms: int) -> None:
        """Add an event of every source at each of some times."""
        sources = len(self._heads)
        for begin in range(0, turns * sources, PIPELINE):
            numbers = range(begin, min(turns * sources, begin + PIPELINE))
            self.send(len(numbers), [begin_ms + n // sources * every_ms for n in numbers])

    def _receive(self, count: int) -> None:
        reader = hiredis.Reader()
        while count:
            reader.feed(self._socket.recv(1 << 16))
            while (reply := reader.gets()) is not False:
                if isinstance(reply, Exception):
                    raise SystemExit(f"Redis refuses an event: {reply}")
                count -= 1
