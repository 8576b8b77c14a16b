"""How far publishers may run ahead of the workers: bounds on what a partition holds.

A look at the stream grants a share of the room it finds, so that not every entry needs one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from pipeline.errors import DependencyError, FullError
from pipeline.log import get_logger
from pipeline.outgoing import Draft, Place
from pipeline.settings import StreamSettings
from pipeline.stream import Store

log = get_logger()

GRANT_ENTRIES = 1024
_GRANT_S = 5.0
_SHARE = 4
_PAUSE_S = (0.02, 0.5)
_MENTION_S = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a stream of a partition may hold before publishers are held back."""

    entries: int
    size_bytes: int | None = None


@dataclass(slots=True)
class _Gate:
    """What may still enter a stream before the next look at it."""

    place: Place
    key: str
    entries: int = 0
    size_bytes: float = 0
    until_s: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, size_bytes: int) -> bool:
        """Use up some of the grant; False when there is none."""
        if self.entries < 1 or self.size_bytes <= 0 or monotonic() > self.until_s:
            return False
        self.entries -= 1
        self.size_bytes -= size_bytes
        return True


class Admission:
    """The gates of all partitions; a stream without bounds has none.

    Args:
        store: where the streams are.
        streams: the bounds.
        hold_s: how long a publisher is held back before it is refused; None for ever, 0 not at all.
        unsent_of: entries and bytes that have entered a place and are not in Redis yet.
    """

    def __init__(
        self,
        store: Store,
        streams: StreamSettings,
        hold_s: float | None,
        unsent_of: Callable[[Place], tuple[int, int]],
    ) -> None:
        self._store = store
        self._unsent_of = unsent_of
        self._bounds = {
            "recordings": Bounds(streams.recordings_max_entries, streams.recordings_max_bytes),
            "events": Bounds(streams.events_max_entries),
        }
        self._hold_s = hold_s
        self._gates: dict[Place, _Gate] = {}
        self.held_back_s = 0.0

    async def enter(self, draft: Draft) -> None:
        """Wait until there is room for an entry.

        Raises:
            FullError: there was none for `hold_s`.
        """
        bounds = self._bounds.get(draft.stream)
        if bounds is None:
            return
        if (gate := self._gates.get(draft.place)) is None:
            key = getattr(self._store.keys.of(draft.partition), draft.stream)
            gate = self._gates[draft.place] = _Gate(draft.place, key)
        while not gate.take(draft.size_bytes):
            async with gate.lock:
                if gate.take(draft.size_bytes):
                    return
                await self._open(gate, bounds)

    async def _open(self, gate: _Gate, bounds: Bounds) -> None:
        """Look until there is room; once held back, until there is a sixteenth of it."""
        began_s, pause_s, least = monotonic(), _PAUSE_S[0], 0.0
        is_mentioned = False
        while not await self._look(gate, bounds, least):
            least = 1 / 16
            waited_s = monotonic() - began_s
            is_settled = not self._hold_s or not self._unsent_of(gate.place)[0]
            if self._hold_s is not None and waited_s >= self._hold_s and is_settled:
                raise FullError(
                    f"{gate.key} holds its bound ({bounds.entries} entries, "
                    f"{bounds.size_bytes or 'any number of'} bytes): workers are behind or away"
                )
            if waited_s > _MENTION_S and not is_mentioned:
                log.warning("publisher_held_back", stream=gate.key)
                is_mentioned = True
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(_PAUSE_S[1], 2 * pause_s)
            self.held_back_s += monotonic() - began_s - waited_s

    async def _look(self, gate: _Gate, bounds: Bounds, least: float) -> bool:
        unsent, unsent_bytes = self._unsent_of(gate.place)
        try:
            entries, size_bytes = await self._measure(gate.key, bounds)
        except DependencyError:  # the outbox has a bound of its own for an outage
            entries, size_bytes, unsent, unsent_bytes = 0, 0, 0, 0
        room = bounds.entries - entries - unsent
        room_bytes = float("inf")
        if bounds.size_bytes is not None:
            room_bytes = bounds.size_bytes - size_bytes - unsent_bytes
        if room <= least * bounds.entries or room_bytes <= least * (bounds.size_bytes or 0):
            return False
        gate.entries = min(room, max(room // _SHARE, 16), GRANT_ENTRIES)
        gate.size_bytes = room_bytes / _SHARE
        gate.until_s = monotonic() + _GRANT_S
        return True

    async def _measure(self, key: str, bounds: Bounds) -> tuple[int, int]:
        """Give length and, where it is bounded, size in bytes (sampled by Redis)."""
        if bounds.size_bytes is None:
            return int(await self._store.run("XLEN", key)), 0
        answers = await self._store.run_many([("XLEN", key), ("MEMORY USAGE", key)])
        for answer in answers:
            if isinstance(answer, Exception):
                raise DependencyError(f"Redis: {key}: {answer}") from answer
        return int(answers[0]), int(answers[1] or 0)
