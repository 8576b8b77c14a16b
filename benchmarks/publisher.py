"""Add events of many sources to Redis at little cost, for `benchmarks.events`."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import hiredis
import msgpack

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


class Publisher:
    """Adds events of sources in turn; a source's channels follow each other as in `load.Load`.

    It shares the cores with what it measures, so it packs words ahead and reads replies raw.
    """

    def __init__(self, url: str, sources: int, keys: Keys) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(urlsplit(url).path)
        names = [f"s{number}" for number in range(sources)]
        self._heads = [
            words("XADD", keys.of_source(name).events, "*", "source", name, "values")
            for name in names
        ]
        events = islice(Load(sources=KINDS, channels=CHANNELS).events(), KINDS * TURNS)
        self._values = [words(msgpack.packb(values)) for _, _, values in events]
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
