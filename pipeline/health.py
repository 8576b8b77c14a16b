"""Whether a worker is alive, ready, and getting on: set by its loops, asked by `/readyz`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOP_STUCK_S = 30.0


class Health:
    """Liveness (the event loop turns), readiness (the worker says so) and progress.

    Safe to ask from another thread: each value is replaced as a whole.

    Args:
        stalled_s: without `progress` for this long a ready worker counts as not ready. Loops that
            find nothing to do make progress too: it is a hang that this detects, not silence.
        clock: monotonic seconds.
    """

    def __init__(
        self, stalled_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stalled_s = stalled_s
        self._clock = clock
        self._why: str | None = "starting"
        self._away: str | None = None
        self._working: dict[object, float] = {}
        self._progress_s = self._beat_s = clock()

    def beat(self) -> None:
        """Note that the event loop turns."""
        self._beat_s = self._clock()

    def progress(self) -> None:
        """Note that a pass of the worker's loop ended, whether or not there was work."""
        self._progress_s = self._clock()
        self._away = None

    def away(self, why: str) -> None:
        """Say that something outside is away, until there is progress again."""
        self._away = why

    @contextmanager
    def working(self) -> Iterator[None]:
        """Note that one call computes; it should end some day."""
        token = object()
        self._working[token] = self._clock()
        try:
            yield
        finally:
            del self._working[token]

    @property
    def busy_s(self) -> float:
        """How long the oldest call has been computing."""
        return self._clock() - min(self._working.values(), default=self._clock())

    def ready(self) -> None:
        """Take work from now on."""
        self.progress()
        self._why = None

    def unready(self, why: str) -> None:
        """Say why work is not taken now, e.g. `stopping` or `Redis is away`."""
        self._why = why

    def why_not_alive(self) -> str | None:
        """Tell what is wrong if the process should be replaced."""
        silent_s = self._clock() - self._beat_s
        return f"event loop stuck for {silent_s:.0f} s" if silent_s > _LOOP_STUCK_S else None

    def why_not_ready(self) -> str | None:
        """Tell why no work is taken; None when it is."""
        if reason := self._why or self.why_not_alive() or self._away:
            return reason
        silent_s = self._clock() - self._progress_s
        return f"no progress for {silent_s:.0f} s" if silent_s > self._stalled_s else None
