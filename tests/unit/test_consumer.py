"""The loop around a stage: what is committed is let go."""

from __future__ import annotations

import asyncio
import gc
import weakref

from pipeline.consumer import consume
from pipeline.health import Health


class Frame:
    """Something large."""


class Stage:
    """Gives two batches, then notes which of what it gave and got is still alive."""

    def __init__(self) -> None:
        self.given: list[weakref.ref[Frame]] = []
        self.alive: list[int] = []

    async def next_batch(self, stop: asyncio.Event) -> list[Frame] | None:
        self.alive.append(sum(one() is not None for one in self.given))
        if len(self.alive) == 3:
            stop.set()
            return None
        return [self._frame()]

    async def handle(self, batch: list[Frame]) -> list[Frame]:
        return [*batch, self._frame()]

    async def commit(self, result: list[Frame]) -> None:
        assert len(result) == 2

    def _frame(self) -> Frame:
        frame = Frame()
        self.given.append(weakref.ref(frame))
        return frame


async def test_a_committed_batch_and_its_result_are_freed_before_the_next_is_awaited() -> None:
    stage = Stage()
    gc.disable()
    try:
        await consume(stage, stage, asyncio.Event(), Health())
    finally:
        gc.enable()

    assert len(stage.given) == 4
    assert stage.alive == [0, 0, 0]
