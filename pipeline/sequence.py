"""The numbers a publisher has used: which of the last 4,096 were seen (CONTRACT 3)."""

from __future__ import annotations

WINDOW = 4096
_FULL = (1 << WINDOW) - 1


class SeenNumbers:
    """Numbers seen of one source and producer; any order, duplicates recognised.

    `highest` is the newest number; bit k of `seen` tells whether `highest - k` was seen. Numbers
    that follow each other, as nearly all do, are kept as the length of their run, less than 0:
    4,096 bits would be half a kilobyte.
    """

    __slots__ = ("highest", "seen")

    def __init__(self, highest: int = -1, seen: int = 0) -> None:
        self.highest = highest
        self.seen = seen

    def has_seen(self, number: int) -> bool:
        """Tell whether a number was seen before or lies below the window."""
        behind = self.highest - number
        if behind < 0:
            return False
        if self.seen < 0:
            return behind >= WINDOW or behind < -self.seen
        return behind >= WINDOW or bool(self.seen >> behind & 1)

    def accept(self, number: int) -> bool:
        """Remember a number; False when it was seen before or lies below the window."""
        if number == self.highest + 1 and self.seen <= 0:
            self.highest, self.seen = number, max(self.seen - 1, -WINDOW)
            return True
        if self.has_seen(number):
            return False
        bits, ahead = self._bits(), number - self.highest
        if ahead > 0:
            self.highest = number
            bits = ((bits << ahead) & _FULL if ahead < WINDOW else 0) | 1
        else:
            bits |= 1 << -ahead
        run = bits.bit_length()
        self.seen = -run if bits == (1 << run) - 1 else bits
        return True

    def _bits(self) -> int:
        return self.seen if self.seen >= 0 else (1 << -self.seen) - 1

    def to_row(self) -> list[int | bytes]:
        """Give a compact value: highest, and the bits unless they are a run from the newest."""
        if self.seen <= 0:
            return [self.highest, -self.seen]
        return [self.highest, self.seen.to_bytes((self.seen.bit_length() + 7) // 8, "little")]

    @staticmethod
    def from_row(row: list[int | bytes]) -> SeenNumbers:
        """Read what `to_row` wrote."""
        highest, bits = row
        if isinstance(bits, bytes):
            return SeenNumbers(int(highest), int.from_bytes(bits, "little"))
        return SeenNumbers(int(highest), -int(bits))
