"""When a batch closes: full, its oldest entry waited long enough, or nothing more is there."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class CloseReason(StrEnum):
    """Why a batch was closed; a label of the batch metrics."""

    FULL = "full"
    DEADLINE = "deadline"
    DRAINED = "drained"


class Batcher(Generic[T]):
    """Collects items in order; every item comes out once, in a batch no larger than `size`.

    Pure: the caller brings the clock (seconds, monotonic).
    """

    def __init__(self, size: int, wait_s: float) -> None:
        if size < 1 or wait_s < 0:
            raise ValueError(f"size {size}: at least 1; wait_s {wait_s}: not negative")
        self._size = size
        self._wait_s = wait_s
        self._items: list[T] = []
        self._oldest_s = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    @property
    def room(self) -> int:
        """How many items fit into the open batch."""
        return self._size - len(self._items)

    def add(self, item: T, now_s: float) -> None:
        """Put an item into the open batch.

        Raises:
            ValueError: the batch is full.
        """
        if not self.room:
            raise ValueError(f"batch of {self._size} is full")
        if not self._items:
            self._oldest_s = now_s
        self._items.append(item)

    def close_reason(self, now_s: float, *, drained: bool) -> CloseReason | None:
        """Tell why the open batch should close now, or None when it should not."""
        if not self._items:
            return None
        if not self.room:
            return CloseReason.FULL
        if drained:
            return CloseReason.DRAINED
        if now_s - self._oldest_s >= self._wait_s:
            return CloseReason.DEADLINE
        return None

    def waited_s(self, now_s: float) -> float:
        """How long the oldest item of the open batch has waited."""
        return now_s - self._oldest_s if self._items else 0.0

    def take(self) -> list[T]:
        """Give the open batch and begin a new one."""
        items, self._items = self._items, []
        return items
