"""Publishers of numbered inputs, by plain XADD or the SDK: what must come out, they know."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
from redis.exceptions import RedisError

from pipeline import Client, SyncClient
from pipeline.partition import Keys
from tests.fault.fake_detect import image_of

Place = tuple[str, str]
"""Stream and source."""
KEEP_BYTES = 64 << 20


def no_poison(_place: Place, _number: int) -> str:
    """Give the command of a sound frame."""
    return ""


def values_of(number: int) -> dict[str, float]:
    """Give what an event says."""
    return {"a": float(number % 7), "b": float(number % 3)}


@dataclass
class Load:
    """What is to be published.

    Attributes:
        streams: names and how many inputs a source sends to each.
        per_s: inputs a second, all sources together; 0 as fast as it goes.
        poison: command in a frame, or as the kind of an event.
        apart: every event gets a score entry of its own.
        favourite: the first source sends so many times as much.
    """

    sources: int = 8
    streams: dict[str, int] = field(default_factory=lambda: {"events": 200, "recordings": 50})
    per_s: float = 400.0
    poison: Callable[[Place, int], str] = no_poison
    apart: bool = False
    favourite: int = 1

    @property
    def total(self) -> int:
        """Inputs in all."""
        return (self.sources - 1 + self.favourite) * sum(self.streams.values())

    def places(self, dice: random.Random) -> Iterator[Place]:
        """Give where each input goes: sources in random order."""
        left = {
            (stream, f"src-{number}"): count * (1 if number else self.favourite)
            for stream, count in self.streams.items()
            for number in range(self.sources)
        }
        turns = [place for place, count in left.items() for _ in range(count)]
        dice.shuffle(turns)
        yield from turns


class Publisher(threading.Thread):
    """Sends a load with plain XADD, repeated until Redis says it has it; a source's numbers rise.

    Attributes:
        first: number of a source's first input.
        sent: how many of each place Redis has acknowledged.
        ids: under which ids.
    """

    first = 1

    def __init__(self, connect: Callable[[], Any], keys: Keys, load: Load, seed: int) -> None:
        super().__init__(daemon=True)
        self.load = load
        self.keys = keys
        self.sent: dict[Place, int] = defaultdict(int)
        self.ids: dict[Place, list[bytes]] = defaultdict(list)
        self.tries = 0
        self.stop = threading.Event()
        self.seed = seed
        self._connect = connect
        self._dice = random.Random(seed)

    @property
    def repeated(self) -> int:
        """Inputs sent again after they had been acknowledged."""
        return 0

    @property
    def is_done(self) -> bool:
        """Whether everything has been sent, and need not be sent again."""
        return not self.is_alive()

    def run(self) -> None:
        """Send everything, or until told to stop."""
        with self._connect() as client:
            self._send_all(client)

    def _send_all(self, client: Any) -> None:
        began_s = time.monotonic()
        for count, place in enumerate(self.load.places(self._dice)):
            if self.stop.is_set():
                return
            if self.load.per_s:
                time.sleep(max(0.0, began_s + count / self.load.per_s - time.monotonic()))
            self._send(client, place)

    def _send(self, client: Any, place: Place) -> None:
        number = self.sent[place] + self.first
        key = getattr(self.keys.of_source(place[1]), place[0])
        fields = self._fields(place, number)
        while not self.stop.is_set():
            self.tries += 1
            try:
                entry_id = client.xadd(key, fields)
            except (RedisError, OSError):
                time.sleep(self._dice.uniform(0.02, 0.1))
            else:
                self.ids[place].append(entry_id)
                self.sent[place] += 1
                return

    def _fields(self, place: Place, number: int) -> dict[str, bytes | str | int]:
        stream, source = place
        fields: dict[str, bytes | str | int] = {"source": source, "seq": number}
        fields["producer"] = f"{stream}-{self.seed}"
        command = self.load.poison(place, number)
        if stream != "events":
            return fields | {"image": image_of(number, command)}
        fields["values"] = msgpack.packb(values_of(number))
        if command:
            fields["kind"] = command
        if self.load.apart:
            fields["meta"] = msgpack.packb({})
        return fields


class KeepingPublisher(Publisher):
    """Sends a load through the SDK, which sends again what Redis may have lost."""

    first = 0

    def __init__(self, url: str, keys: Keys, load: Load, seed: int) -> None:
        super().__init__(
            lambda: SyncClient(url, keep_bytes=KEEP_BYTES, wait_s=60), keys, load, seed
        )
        self._client: SyncClient | None = None
        self._is_sent = threading.Event()

    @property
    def repeated(self) -> int:
        """Inputs sent again after they had been acknowledged."""
        return self._client.repeated if self._client else 0

    @property
    def is_done(self) -> bool:
        """Whether everything has been sent; the client goes on looking after it."""
        return self._is_sent.is_set() and self._client is not None and not self._client.unsent

    def run(self) -> None:
        """Send everything, then look after it until told to stop."""
        with self._connect() as self._client:
            self._send_all(self._client)
            self._is_sent.set()
            self.stop.wait()

    def _send(self, client: Any, place: Place) -> None:
        stream, source = place
        number = self.sent[place]
        meta: dict[str, object] | None = {} if self.load.apart else None
        if stream == "events":
            entry_id = client.publish_event(source, values_of(number), meta=meta)
        else:
            live = stream == "frames"
            entry_id = client.publish_frame(source, image_of(number), live=live, meta=meta)
        self.ids[place].append(entry_id.encode())
        self.sent[place] += 1


class Crowd(Publisher):
    """Many clients of the SDK, each a source that sends an event now and then."""

    first = 0

    def __init__(self, url: str, keys: Keys, load: Load, seed: int) -> None:
        super().__init__(lambda: None, keys, load, seed)
        self.url = url
        self.is_there = threading.Event()

    def run(self) -> None:
        """Send everything from all clients at once."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        count, left = self.load.streams["events"], self.load.sources

        async def attend(source: str) -> None:
            nonlocal left
            async with Client(self.url, wait_s=60) as client:
                left -= 1
                if not left:
                    self.is_there.set()
                pause_s = self.load.sources / self.load.per_s
                for number in range(count):
                    await asyncio.sleep(random.uniform(0, 2 * pause_s))
                    await client.publish_event(source, values_of(number))
                    self.sent["events", source] += 1
                await client.flush(30)

        async with asyncio.TaskGroup() as group:
            for number in range(self.load.sources):
                group.create_task(attend(f"src-{number}"))
