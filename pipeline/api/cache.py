"""What is read from Redis once for all who ask: states of sources, and answers good for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from pipeline import metrics
from pipeline.api.encoding import encode_kept, tag_of
from pipeline.errors import DependencyError
from pipeline.log import get_logger
from pipeline.results import read_state
from pipeline.stream import Store

log = get_logger()
T = TypeVar("T")

REFRESH_S = 0.1
RECHECK_S = 2.0
WANTED_S = 60.0
USABLE_S = 5.0
MOST_STATES = 20_000
_A_TRIP = 512


@dataclass(slots=True)
class State:
    """A source's state as Redis had it.

    Attributes:
        body: its JSON; None if there is no such source.
        tag: its ETag.
        headers: of the answer with that body.
        read_s: when it was read, monotonic.
        asked_s: when it was last asked for, monotonic.
    """

    body: bytes | None
    tag: str
    headers: list[tuple[bytes, bytes]]
    values: dict[str, Any]
    read_s: float
    asked_s: float


class States:
    """The newest states of the sources that are asked for, kept fresh while they are.

    Args:
        store: where they are.
        headers: that every answer has.
    """

    def __init__(self, store: Store, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._store = store
        self._headers = headers
        self._states: OrderedDict[str, State] = OrderedDict()
        """By when they were asked for; what was not for longest makes room."""
        self._touched: set[str] = set()
        self._wanted: dict[str, asyncio.Future[State]] = {}
        self._wake = asyncio.Event()
        self._refreshed_s = self._rechecked_s = monotonic()
        hits = metrics.API_LOOKUPS.labels("state", "hit")
        self._hit, self._miss = hits, metrics.API_LOOKUPS.labels("state", "miss")
        self._ages = metrics.API_AGE.labels("state")

    def touch(self, source: str) -> None:
        """Note that a source has a new result."""
        if source in self._states:
            self._touched.add(source)

    async def get(self, source: str) -> State:
        """Give the state of a source.

        Raises:
            DependencyError: it is not held, and Redis is away.
        """
        now_s = monotonic()
        state = self._states.get(source)
        if state is not None:
            state.asked_s = now_s
            self._states.move_to_end(source)
            if now_s - state.read_s < USABLE_S:
                self._hit.inc()
                self._ages.observe(now_s - state.read_s)
                return state
        self._miss.inc()
        try:
            return await self._ask(source)
        except DependencyError:
            if state is None:
                raise
            return state  # old, and its age says so

    async def get_many(self, sources: Iterable[str]) -> list[State]:
        """Give the states of several sources."""
        return await asyncio.gather(*(self.get(source) for source in sources))

    def _ask(self, source: str) -> asyncio.Future[State]:
        """Have a source read with the next trip; the same one for all who ask."""
        if source not in self._wanted:
            self._wanted[source] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return asyncio.shield(self._wanted[source])  # one who gives up leaves the others alone

    async def run(self) -> None:
        """Read what is asked for at once, what has changed soon, and the rest now and then."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._wake.wait()
            self._wake.clear()
            sources = [*self._wanted, *self._stale()]
            for first in range(0, len(sources), _A_TRIP):
                await self._read(sources[first : first + _A_TRIP])

    def _stale(self) -> set[str]:
        """Give what is to be read again, with some time between."""
        now_s = monotonic()
        if now_s - self._refreshed_s < REFRESH_S:
            return set()
        self._refreshed_s = now_s
        stale, self._touched = self._touched, set()
        if now_s - self._rechecked_s > RECHECK_S:
            self._rechecked_s = now_s
            stale.update(self._due())
        return stale.difference(self._wanted)

    def _due(self) -> list[str]:
        """Give what may have changed without a result; forget what nobody asks for."""
        now_s = monotonic()
        unasked = [name for name, each in self._states.items() if now_s - each.asked_s > WANTED_S]
        for name in unasked:
            del self._states[name]
        return [name for name, each in self._states.items() if now_s - each.read_s > RECHECK_S]

    async def _read(self, sources: Sequence[str]) -> None:
        keys = [self._store.keys.of_source(source).state(source) for source in sources]
        read_s = monotonic()
        try:
            answers = await self._store.run_many([("HGETALL", key) for key in keys])
        except DependencyError as error:
            answers = [error] * len(sources)
        for source, answer in zip(sources, answers, strict=True):
            waiting = self._wanted.pop(source, None)
            if isinstance(answer, Exception):
                if waiting is not None:
                    waiting.set_exception(DependencyError(f"Redis: state: {answer}"))
                    waiting.exception()  # nobody may be waiting any more
                continue
            state = self._keep(source, answer, read_s, is_asked=waiting is not None)
            if waiting is not None:
                waiting.set_result(state)

    def _keep(self, source: str, answer: Any, read_s: float, *, is_asked: bool) -> State:
        values = {"source": source, **read_state(answer)} if answer else {}
        body = encode_kept(values) if values else None
        tag, held = tag_of(body or b""), self._states.get(source)
        asked_s = held.asked_s if held is not None and not is_asked else monotonic()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body or b"")),
            (b"etag", tag.encode()),
            *self._headers,
        ]
        state = State(body, tag, headers, values, read_s, asked_s)
        if held is not None or is_asked:
            self._states[source] = state
            if len(self._states) > MOST_STATES:
                self._states.popitem(last=False)
        return state


@dataclass(slots=True)
class _Answer(Generic[T]):
    value: T
    at_s: float


class Cached(Generic[T]):
    """An answer that is worked out once for all who ask within a time.

    Args:
        what: for the metrics.
        make: works it out.
        good_s: how long it is served.
    """

    def __init__(self, what: str, make: Callable[[], Awaitable[T]], good_s: float) -> None:
        self._what = what
        self._make = make
        self._good_s = good_s
        self._answer: _Answer[T] | None = None
        self._making: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Give the answer.

        Raises:
            PercipioError: what `make` raised.
        """
        answer = self._answer
        if answer is not None and monotonic() - answer.at_s < self._good_s:
            metrics.API_LOOKUPS.labels(self._what, "hit").inc()
            metrics.API_AGE.labels(self._what).observe(monotonic() - answer.at_s)
            return answer.value
        metrics.API_LOOKUPS.labels(self._what, "miss").inc()
        if self._making is None:
            self._making = asyncio.create_task(self._renew(), name=self._what)
            self._making.add_done_callback(self._made)
        return await asyncio.shield(self._making)

    async def _renew(self) -> T:
        at_s = monotonic()
        value = await self._make()
        self._answer = _Answer(value, at_s)
        return value

    def _made(self, task: asyncio.Task[T]) -> None:
        self._making = None
        if not task.cancelled():
            task.exception()  # those who wait are told
