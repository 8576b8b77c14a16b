"""The newest frame of a source with what was found drawn in: once for all who look at it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from pipeline import metrics
from pipeline.api.encoding import tag_of
from pipeline.api.feed import Feed
from pipeline.api.held import Sight
from pipeline.errors import EntryError
from pipeline.log import get_logger
from pipeline.overlay import Caption, annotate
from pipeline.stream import Store

log = get_logger()

MOST_FPS = 10
STILL_S = 5.0
SETTLE_S = 0.15
KEPT = 256
GOOD_S = 30.0
_LOOKS = 5
DRAWERS = 2


@dataclass(frozen=True, slots=True)
class Drawn:
    """A frame as it is sent.

    Attributes:
        jpeg: the picture.
        tag: its ETag.
        frame: entry id of the frame drawn, empty if nothing tells.
        at_s: when it was drawn, monotonic.
    """

    jpeg: bytes
    tag: str
    frame: str
    sights: tuple[Sight | None, Sight | None]
    at_s: float


@dataclass(slots=True)
class _Easel:
    """One source that somebody looks at."""

    drawn: Drawn | None = None
    drawing: asyncio.Task[Drawn | None] | None = None
    viewers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    asked_s: float = field(default_factory=monotonic)


class Frames:
    """Annotated newest frames, drawn when somebody asks and something has changed.

    Args:
        store: where newest frames are kept.
        feed: knows what was found in them.
        look_up: has the feed learn what was found before it began.
    """

    def __init__(
        self, store: Store, feed: Feed, look_up: Callable[[str], Awaitable[object]]
    ) -> None:
        self._store = store
        self._feed = feed
        self._look_up = look_up
        self._easels: OrderedDict[str, _Easel] = OrderedDict()
        self._pool = ThreadPoolExecutor(DRAWERS, thread_name_prefix="draw")
        self.is_closed = False

    def touch(self, source: str) -> None:
        """Note that a source has a new result."""
        easel = self._easels.get(source)
        if easel is not None:
            easel.changed.set()

    def close(self) -> None:
        """End all who look."""
        self.is_closed = True
        for easel in self._easels.values():
            easel.changed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def newest(self, source: str) -> Drawn | None:
        """Give the newest frame; None when there is none, or it is older than a minute.

        Raises:
            DependencyError: Redis is away.
        """
        easel = self._easel(source)
        if (drawn := easel.drawn) is not None and self._is_good(source, drawn):
            metrics.API_LOOKUPS.labels("frame", "hit").inc()
            metrics.API_AGE.labels("frame").observe(monotonic() - drawn.at_s)
            return drawn
        if easel.drawing is None:
            metrics.API_LOOKUPS.labels("frame", "miss").inc()
            easel.drawing = asyncio.create_task(self._draw(source, easel), name="draw")
            easel.drawing.add_done_callback(lambda _: _finish(easel))
        else:
            metrics.API_LOOKUPS.labels("frame", "hit").inc()
        return await asyncio.shield(easel.drawing)

    async def stream(self, source: str) -> AsyncGenerator[Drawn, None]:
        """Give a source's frames as they change, at most 10 a second, for as long as one looks."""
        last: Drawn | None = None
        with self._watched(source) as easel:
            while not self.is_closed:
                easel.changed.clear()
                began_s = monotonic()
                drawn = await self.newest(source)
                if drawn is not None and (last is None or drawn.tag != last.tag):
                    last = drawn
                    yield drawn
                pause_s = began_s + 1 / MOST_FPS - monotonic()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                try:
                    async with asyncio.timeout(STILL_S):
                        await easel.changed.wait()
                except TimeoutError:
                    if drawn is None or last is None:
                        continue
                    yield last  # says that we are still here

    def _is_good(self, source: str, drawn: Drawn) -> bool:
        pairs = zip(drawn.sights, self._feed.held.sights(source), strict=True)
        is_same = all(before is now for before, now in pairs)
        return is_same and monotonic() - drawn.at_s < GOOD_S

    async def _draw(self, source: str, easel: _Easel) -> Drawn | None:
        detected, tracked = await self._sights(source)
        data = await self._store.run("GET", self._store.keys.of_source(source).last(source))
        if data is None:
            easel.drawn = None
            return None
        is_tracked = tracked is not None and (detected is None or tracked.frame == detected.frame)
        shown = tracked if is_tracked else detected
        caption = Caption(source, *((tracked.level, tracked.phase) if tracked else ()))
        width_px = detected.width if detected is not None else 0
        objects = shown.objects if shown is not None else ()
        at_s, loop = monotonic(), asyncio.get_running_loop()
        try:
            jpeg = await loop.run_in_executor(
                self._pool, _annotate, data, objects, width_px, caption
            )
        except EntryError as error:
            log.warning("frame_not_drawn", source=source, error=str(error))
            jpeg = data
        frame = shown.frame if shown is not None else ""
        easel.drawn = Drawn(jpeg, tag_of(jpeg), frame, (detected, tracked), at_s)
        return easel.drawn

    async def _sights(self, source: str) -> tuple[Sight | None, Sight | None]:
        """Give what to draw; a frame just detected gets a moment to be tracked as well."""
        if self._feed.held.sights(source) == (None, None):
            await self._look_up(source)
        for _ in range(_LOOKS):
            detected, tracked = self._feed.held.sights(source)
            if tracked is None or detected is None or tracked.frame == detected.frame:
                break
            await asyncio.sleep(SETTLE_S / _LOOKS)
        return self._feed.held.sights(source)

    @contextmanager
    def _watched(self, source: str) -> Iterator[_Easel]:
        easel = self._easel(source)
        easel.viewers += 1
        try:
            yield easel
        finally:
            easel.viewers -= 1

    def _easel(self, source: str) -> _Easel:
        easel = self._easels.setdefault(source, _Easel())
        easel.asked_s = monotonic()
        self._easels.move_to_end(source)
        while len(self._easels) > KEPT:
            idle = [name for name, each in self._easels.items() if not each.viewers]
            if not idle or idle[0] == source:
                break
            del self._easels[idle[0]]
        since_s = easel.asked_s - GOOD_S
        while not (oldest := next(iter(self._easels.values()))).viewers:
            if oldest.asked_s >= since_s:
                break
            self._easels.popitem(last=False)
        return easel


def _finish(easel: _Easel) -> None:
    drawing, easel.drawing = easel.drawing, None
    if drawing is not None and not drawing.cancelled():
        drawing.exception()  # those who wait are told


def _annotate(
    data: bytes, objects: Sequence[Mapping[str, Any]], width_px: int, caption: Caption
) -> bytes:
    with metrics.API_DRAW.time():
        return annotate(data, objects, width_px, caption)
