"""The network's turn: one batch inside, one at the door, and never one picture twice."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from contextlib import AsyncExitStack

import pytest

from pipeline.detect_feed import Turn

NONE: frozenset[bytes] = frozenset()


class Guests:
    """Batches that come in when they may and leave when they are told."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.inside: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, digests: Set[bytes] = NONE) -> None:
        self._leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._stay(name, digests))
        await asyncio.sleep(0)

    async def go(self, name: str) -> None:
        self._leave[name].set()
        await self._tasks[name]
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _stay(self, name: str, digests: Set[bytes]) -> None:
        async with self.turn.take(digests):
            self.inside.append(name)
            await self._leave[name].wait()
            self.inside.remove(name)


async def test_there_are_two_seats_and_the_third_waits() -> None:
    guests = Guests()
    for name in "abc":
        await guests.come(name)

    assert guests.inside == ["a", "b"]
    assert not guests.turn.is_free
    await guests.go("a")
    assert guests.inside == ["b", "c"]
    await guests.go("c")
    assert not guests.turn.is_free
    await guests.go("b")
    assert guests.turn.is_free


async def test_a_batch_waits_for_a_picture_that_is_inside() -> None:
    """It would be computed twice; once it is known, the other is answered from memory."""
    guests = Guests()
    await guests.come("a", {b"1", b"2"})
    await guests.come("b", {b"2", b"3"})
    await guests.come("c", {b"4"})

    assert guests.inside == ["a", "c"]
    await guests.go("c")
    assert guests.inside == ["a"]
    await guests.go("a")
    assert guests.inside == ["b"]
    await guests.go("b")


async def test_a_failure_gives_the_seat_back() -> None:
    turn = Turn()
    with pytest.raises(ZeroDivisionError):
        async with turn.take({b"1"}):
            _ = 1 / 0

    async with turn.take({b"1"}):
        assert not turn.is_free
    assert turn.is_free


async def test_the_second_is_not_charged_for_the_time_of_the_first() -> None:
    turn = Turn()
    async with AsyncExitStack() as second, AsyncExitStack() as first:
        await first.enter_async_context(turn.take(NONE))
        await second.enter_async_context(turn.take(NONE))
        await asyncio.sleep(0.05)
        used_s = turn.used_s()
        await first.aclose()
        assert turn.used_s() < used_s
