"""Publishers of numbered inputs: plain XADD, repeated until Redis says it has it."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
from redis.exceptions import RedisError

from pipeline.partition import Keys
from tests.fault.fake_detect import image_of

Place = tuple[str, str]
"""Stream and source."""


def no_poison(_place: Place, _number: int) -> str:
    """Give the command of a sound frame."""
    return ""


@dataclass
class Load:
    """What is to be published.

    Attributes:
        streams: names and how many inputs a source sends to each.
        per_s: inputs a second, all sources together; 0 as fast as it goes.
        poison: command in a frame, or as the kind of an event.
        apart: every event gets a score entry of its own.
    """

    sources: int = 8
    streams: dict[str, int] = field(default_factory=lambda: {"events": 200, "recordings": 50})
    per_s: float = 400.0
    poison: Callable[[Place, int], str] = no_poison
    apart: bool = False

    @property
    def total(self) -> int:
        """Inputs in all."""
        return self.sources * sum(self.streams.values())


class Publisher(threading.Thread):
    """Sends a load, sources in random order, numbers of a source rising."""

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

    def run(self) -> None:
        """Send everything, or until told to stop."""
        began_s = time.monotonic()
        with self._connect() as client:
            for count, place in enumerate(self._places()):
                if self.stop.is_set():
                    return
                if self.load.per_s:
                    time.sleep(max(0.0, began_s + count / self.load.per_s - time.monotonic()))
                self._send(client, place)

    def _places(self) -> Iterator[Place]:
        left = {
            (stream, f"src-{number}"): count
            for stream, count in self.load.streams.items()
            for number in range(self.load.sources)
        }
        while left:
            place = self._dice.choice(list(left))
            left[place] -= 1
            if not left[place]:
                del left[place]
            yield place

    def _send(self, client: Any, place: Place) -> None:
        stream, source = place
        number = self.sent[place] + 1
        fields: dict[str, bytes | str | int] = {"source": source, "seq": number}
        fields["producer"] = f"{stream}-{self.seed}"
        if stream == "events":
            fields["values"] = msgpack.packb({"a": float(number % 7), "b": float(number % 3)})
            if command := self.load.poison(place, number):
                fields["kind"] = command
            if self.load.apart:
                fields["meta"] = msgpack.packb({})
        else:
            fields["image"] = image_of(number, self.load.poison(place, number))
        key = getattr(self.keys.of_source(source), stream)
        while not self.stop.is_set():
            self.tries += 1
            try:
                entry_id = client.xadd(key, fields)
            except (RedisError, OSError):
                time.sleep(self._dice.uniform(0.02, 0.1))
            else:
                self.ids[place].append(entry_id)
                self.sent[place] = number
                return
