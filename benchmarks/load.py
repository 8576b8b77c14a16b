"""Events to offer, the same for every pipeline: sources in turn, channels that interact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

COUPLING = 0.85
START_MS = 1_700_000_000_000
WINDOW_MS, WINDOW_TURNS = 250, 68
"""One event a bin for so many turns fills every source's window."""
Event = tuple[str, int, dict[str, float]]
"""Source, time (Unix ms) and values by channel."""


@dataclass(frozen=True, slots=True)
class Load:
    """Who sends what.

    Attributes:
        sources: that send in turn.
        channels: named by every event, 1 to 16; each follows its neighbour one event later.
        every_ms: source time between two events of a source.
        seed: of the values; the same seed gives the same events.
        start_ms: time of the first event.
    """

    sources: int = 500
    channels: int = 4
    every_ms: int = 100
    seed: int = 7
    start_ms: int = START_MS

    def filling(self) -> Load:
        """Give the load that comes before it: `sources * WINDOW_TURNS` events fill the windows."""
        earlier_ms = self.start_ms - WINDOW_TURNS * WINDOW_MS
        return replace(self, every_ms=WINDOW_MS, start_ms=earlier_ms)

    @property
    def names(self) -> list[str]:
        """The sources, in their turn."""
        return [f"s{number}" for number in range(self.sources)]

    def events(self) -> Iterator[Event]:
        """Give one event after another, without end."""
        rng, names = np.random.default_rng(self.seed), self.names
        labels = [f"c{number}" for number in range(self.channels)]
        x = rng.standard_normal((self.sources, self.channels))
        turn = 0
        while True:
            noise = rng.standard_normal(x.shape) * np.sqrt(1 - COUPLING**2)
            x = COUPLING * np.roll(x, 1, axis=1) + noise
            ts_ms = self.start_ms + turn * self.every_ms
            rows = np.exp(0.9 + 0.8 * x).round(3).tolist()
            for name, row in zip(names, rows, strict=True):
                yield name, ts_ms, dict(zip(labels, row, strict=True))
            turn += 1
