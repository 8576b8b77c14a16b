"""The SDK without async: the same methods, carried out on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from pipeline.client import Client
from pipeline.outbox import OnLoss
from pipeline.outgoing import Event, Frame, Meta
from pipeline.records import Image
from pipeline.results import Kind, Result
from pipeline.settings import Settings

T = TypeVar("T")


class Options(TypedDict, total=False):
    """What `Client` takes beside the URL."""

    key_prefix: str | None
    settings: Settings | None
    wait_s: float
    buffer_bytes: int
    keep_bytes: int
    wait_for_room: bool
    hold_s: float | None
    full_retry_s: float
    jpeg_quality: int
    on_loss: OnLoss | None


class SyncClient:
    """`Client` as a plain context manager: arguments, results and errors are the same.

    May be used from several threads; `on_loss` runs on the client's own.
    """

    def __init__(self, url: str | None = None, **options: Unpack[Options]) -> None:
        self._client = Client(url, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="percipio-client", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._client.__aenter__())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is left, as far as that is possible in time; the rest is counted as lost."""
        try:
            self._wait(self._client.close(timeout_s))
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        async def end() -> None:
            await self._loop.shutdown_asyncgens()
            await self._loop.shutdown_default_executor()

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, action: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(action, self._loop)
        try:
            return future.result()
        except BaseException:  # an interrupt too: what runs over there must not outlive it
            future.cancel()
            raise

    @property
    def lost(self) -> int:
        """Entries taken and given up, where no publisher was told by an exception."""
        return self._client.lost

    @property
    def sent(self) -> int:
        """Entries that Redis has confirmed."""
        return self._client.sent

    @property
    def unsent(self) -> int:
        """Entries taken that Redis has not confirmed yet."""
        return self._client.unsent

    @property
    def kept(self) -> int:
        """Entries that Redis has taken and that are kept until they are processed and copied."""
        return self._client.kept

    @property
    def repeated(self) -> int:
        """Entries sent again because Redis may have lost them."""
        return self._client.repeated

    @property
    def unkept(self) -> int:
        """Entries let go before they were processed, for want of room; a loss shows in no count."""
        return self._client.unkept

    @property
    def problem(self) -> str | None:
        """Why entries are kept back at the moment; None when Redis takes them."""
        return self._client.problem

    @property
    def held_back_s(self) -> float:
        """How long full streams have held publishers back, in all."""
        return self._client.held_back_s

    @property
    def producer(self) -> str:
        """Random name of this run; each stream is numbered under its own, `<run>-events`."""
        return self._client.producer

    def publish_frame(
        self,
        source: str,
        image: bytes | Image,
        *,
        live: bool = False,
        ts_ms: int | None = None,
        meta: Meta | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Publish one picture, as `Client.publish_frame`."""
        frame = Frame(source, image, live, ts_ms, meta, traceparent)
        return self.publish_frames([frame])[0]

    def publish_frames(self, frames: Iterable[Frame]) -> list[str]:
        """Publish pictures, as `Client.publish_frames`."""
        return self._wait(self._client.publish_frames(frames))

    def publish_event(
        self,
        source: str,
        values: Mapping[str, float],
        *,
        ts_ms: int | None = None,
        kind: str | None = None,
        meta: Meta | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Publish one observation, as `Client.publish_event`."""
        return self.publish_events([Event(source, values, ts_ms, kind, meta, traceparent)])[0]

    def publish_events(self, events: Iterable[Event]) -> list[str]:
        """Publish observations, as `Client.publish_events`."""
        return self._wait(self._client.publish_events(events))

    def heartbeat(self, source: str) -> str:
        """Say that a source is quiet, not absent."""
        return self._wait(self._client.heartbeat(source))

    def flush(self, timeout_s: float = 5.0) -> int:
        """Wait until Redis has everything; gives the number of entries it does not have."""
        return self._wait(self._client.flush(timeout_s))

    def settle(self, timeout_s: float) -> int:
        """Wait until everything kept is processed and copied, as `Client.settle`."""
        return self._wait(self._client.settle(timeout_s))

    def follow(
        self, source: str | None = None, *, kind: Kind | None = None, after: str | None = None
    ) -> Generator[Result, None, None]:
        """Give results as they come, as `Client.follow`; blocks while there is none."""
        results = self._client.follow(source, kind=kind, after=after)
        return self._iterate(results)

    def _iterate(self, results: AsyncGenerator[Result, None]) -> Generator[Result, None, None]:
        async def advance() -> Result | None:
            return await anext(results, None)

        try:
            while (result := self._wait(advance())) is not None:
                yield result
        finally:
            if self._thread.is_alive():
                self._wait(results.aclose())

    def state(self, source: str) -> dict[str, Any] | None:
        """Read the cached state of a source, as `Client.state`."""
        return self._wait(self._client.state(source))

    def states(self) -> dict[str, dict[str, Any]]:
        """Read the cached states of all sources, by name."""
        return self._wait(self._client.states())

    def sources(self) -> list[str]:
        """List the sources that are remembered, by name."""
        return self._wait(self._client.sources())
