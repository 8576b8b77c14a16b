"""The numbers a publisher has used: which of the last 4,096 were seen (CONTRACT 3)."""

from __future__ import annotations

WINDOW = 4096
_FULL = (1 << WINDOW) - 1


class SeenNumbers:
    """Numbers seen of one source and producer; any order, duplicates recognised.

    `highest` is the newest number; bit k of `seen` tells whether `highest - k` was seen.
    """

    __slots__ = ("highest", "seen")

    def __init__(self, highest: int = -1, seen: int = 0) -> None:
        self.highest = highest
        self.seen = seen

    def has_seen(self, number: int) -> bool:
        """Tell whether a number was seen before or lies below the window."""
        behind = self.highest - number
        return behind >= 0 and (behind >= WINDOW or bool(self.seen >> behind & 1))

    def accept(self, number: int) -> bool:
        """Remember a number; False when it was seen before or lies below the window."""
        ahead = number - self.highest
        if ahead > 0:
            self.seen = ((self.seen << ahead) & _FULL if ahead < WINDOW else 0) | 1
            self.highest = number
            return True
        bit = 1 << -ahead
        if -ahead >= WINDOW or self.seen & bit:
            return False
        self.seen |= bit
        return True

    def to_row(self) -> list[int | bytes]:
        """Give a compact value: highest, and the bits unless they are a run from the newest."""
        run = self.seen.bit_length()
        if self.seen == (1 << run) - 1:
            return [self.highest, run]
        return [self.highest, self.seen.to_bytes((run + 7) // 8, "little")]

    @staticmethod
    def from_row(row: list[int | bytes]) -> SeenNumbers:
        """Read what `to_row` wrote."""
        highest, bits = row
        if isinstance(bits, bytes):
            return SeenNumbers(int(highest), int.from_bytes(bits, "little"))
        return SeenNumbers(int(highest), (1 << bits) - 1)
