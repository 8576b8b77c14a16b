"""The Python SDK: publish frames and events, follow results, read states.

Needs Redis and nothing of the models: neither torch nor OpenVINO is loaded, OpenCV only when an
array is published.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self

from pipeline.admission import Admission
from pipeline.deployment import find_deployment, list_sources, read_states
from pipeline.errors import EntryError, Reason, SettingsError
from pipeline.follow import Followers
from pipeline.kept import Keeper
from pipeline.outbox import OnLoss, Outbox
from pipeline.outgoing import Draft, Event, Frame, Meta, draft_event, draft_frame
from pipeline.partition import Keys, is_source, partition_of
from pipeline.records import Image
from pipeline.results import KINDS, Kind, Result
from pipeline.settings import Settings, load_settings
from pipeline.tasks import end_tasks

__all__ = ["Client", "Event", "Frame", "Result"]

BUFFER_BYTES = 64 << 20
_CLOSE_S = 5.0
_EVENTS_A_TRIP = 512
_FRAMES_A_TRIP = 16


class Client:
    """A publisher to and a reader of one deployment; an asynchronous context manager.

    Entries are numbered, so one that is sent twice counts once. While Redis is away they are kept
    in memory up to a bound and sent in order when it is back; beyond the bound they are lost, and
    `lost`, the log and `on_loss` say so.

    Args:
        url: as `PERCIPIO_REDIS_URL`, which is the default.
        key_prefix: what every key of the deployment starts with; `PERCIPIO_KEY_PREFIX` by default.
        settings: instead of those in the environment.
        wait_s: how long to wait for Redis and for a deployment to be there.
        buffer_bytes: kept while Redis is away; with 0 publishing raises DependencyError instead.
        keep_bytes: kept of what Redis has taken until it is processed and replicated, and sent
            again when Redis may have lost it; beyond it the oldest are let go (`unkept`). 0 keeps
            nothing.
        wait_for_room: with a full buffer hold publishers back instead of losing entries.
        hold_s: how long a full stream holds a publisher back before FullError; None for ever.
        full_retry_s: how long an entry is offered to a Redis at maxmemory before FullError; a live
            frame is offered once.
        jpeg_quality: of arrays, 1 to 100.
        on_loss: is told source, stream and reason of each loss, on the event loop.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key_prefix: str | None = None,
        settings: Settings | None = None,
        wait_s: float = 0.0,
        buffer_bytes: int = BUFFER_BYTES,
        keep_bytes: int = 0,
        wait_for_room: bool = False,
        hold_s: float | None = None,
        full_retry_s: float = 10.0,
        jpeg_quality: int = 90,
        on_loss: OnLoss | None = None,
    ) -> None:
        settings = settings or load_settings()
        prefix = key_prefix or settings.streams.key_prefix
        self._url = url or settings.redis.url
        self._streams = replace(settings.streams, key_prefix=prefix)
        self._wait_s = wait_s
        self._make_outbox = partial(
            Outbox,
            buffer_bytes=buffer_bytes,
            wait_for_room=wait_for_room,
            full_retry_s=full_retry_s,
            on_loss=on_loss,
        )
        self._keep_bytes = keep_bytes
        self._hold_s = hold_s
        self._jpeg_quality = jpeg_quality
        self._numbers: dict[tuple[str, str], int] = defaultdict(int)
        self._ahead_ms = 0
        self.producer = secrets.token_hex(8)
        """Random name of this run; each stream is numbered under its own, `<run>-events`."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            deployment = find_deployment(self._url, self._streams.key_prefix, self._wait_s)
            self._store = await stack.enter_async_context(deployment)
            self._ahead_ms = await self._store.now_ms() - int(time.time() * 1000)
            self._outbox = self._make_outbox(self._store)
            self._admission = Admission(
                self._store, self._streams, self._hold_s, self._outbox.unsent_of
            )
            self._followers = Followers(self._store)
            self._keeper = Keeper(self._store, self._keep_bytes, self._outbox.send_again)
            tasks = [asyncio.create_task(self._outbox.run(), name="outbox")]
            if self._keep_bytes:
                await self._keeper.start()
                self._outbox.on_sent = self._keeper.add
                tasks.append(asyncio.create_task(self._keeper.run(), name="keeper"))
            stack.push_async_callback(end_tasks, tasks)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Send what is left, as far as that is possible in time; the rest is counted as lost."""
        try:
            await self.flush(timeout_s)
        finally:
            await self._followers.close()
            await self._stack.aclose()
            self._outbox.abandon()

    @property
    def keys(self) -> Keys:
        """The keys of the deployment, with its number of partitions."""
        return self._store.keys

    @property
    def lost(self) -> int:
        """Entries taken and given up, where no publisher was told by an exception."""
        return self._outbox.lost

    @property
    def sent(self) -> int:
        """Entries that Redis has confirmed."""
        return self._outbox.sent

    @property
    def unsent(self) -> int:
        """Entries taken that Redis has not confirmed yet."""
        return self._outbox.unsent

    @property
    def kept(self) -> int:
        """Entries that Redis has taken and that are kept until they are processed and copied."""
        return self._keeper.count

    @property
    def repeated(self) -> int:
        """Entries sent again because Redis may have lost them."""
        return self._keeper.repeated

    @property
    def unkept(self) -> int:
        """Entries let go before they were processed, for want of room; a loss shows in no count."""
        return self._keeper.unkept

    @property
    def problem(self) -> str | None:
        """Why entries are kept back at the moment; None when Redis takes them."""
        return self._outbox.problem

    @property
    def held_back_s(self) -> float:
        """How long full streams have held publishers back, in all."""
        return self._admission.held_back_s

    def now_ms(self) -> int:
        """Give Redis's clock, as far as it was known when we connected; Unix ms."""
        return int(time.time() * 1000) + self._ahead_ms

    async def publish_frame(
        self,
        source: str,
        image: bytes | Image,
        *,
        live: bool = False,
        ts_ms: int | None = None,
        meta: Meta | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Publish one picture; see `Frame` for the arguments.

        Returns:
            The entry id; empty while Redis is away and the entry is kept in memory.

        Raises:
            EntryError: names the field that is wrong; nothing was sent.
            FullError: there was no room for too long.
        """
        frame = Frame(source, image, live, ts_ms, meta, traceparent)
        return (await self.publish_frames([frame]))[0]

    async def publish_frames(self, frames: Iterable[Frame]) -> list[str]:
        """Publish pictures, a few in a round trip; as `publish_events`."""
        ids: list[str] = []
        rest = iter(frames)
        while chunk := list(islice(rest, _FRAMES_A_TRIP)):
            drafts = [await self._draft_frame(Frame(*frame)) for frame in chunk]
            ids += await self._publish(drafts)
        return ids

    async def _draft_frame(self, frame: Frame) -> Draft:
        image: Any = frame.image
        if hasattr(image, "__array_interface__"):
            image = await asyncio.to_thread(_encode, image, self._jpeg_quality)
        return draft_frame(frame, image, self.keys, self.now_ms())

    async def publish_event(
        self,
        source: str,
        values: Mapping[str, float],
        *,
        ts_ms: int | None = None,
        kind: str | None = None,
        meta: Meta | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Publish one observation; see `Event` for the arguments, `publish_frame` for the rest."""
        event = Event(source, values, ts_ms, kind, meta, traceparent)
        return (await self.publish_events([event]))[0]

    async def publish_events(self, events: Iterable[Event]) -> list[str]:
        """Publish observations of any sources, 512 in a round trip.

        Args:
            events: `Event`s, or tuples of what an `Event` has.

        Returns:
            Ids in the same order, each empty that is kept until Redis is back.

        Raises:
            EntryError: names the field that is wrong; of its 512 nothing was sent, what came
                before them was.
        """
        ids: list[str] = []
        rest = iter(events)
        while chunk := list(islice(rest, _EVENTS_A_TRIP)):
            now_ms = self.now_ms()
            drafts = [draft_event(Event(*event), self.keys, now_ms) for event in chunk]
            ids += await self._publish(drafts)
        return ids

    async def heartbeat(self, source: str) -> str:
        """Say that a source is quiet, not absent."""
        return await self.publish_event(source, {}, kind="heartbeat")

    async def _publish(self, drafts: list[Draft]) -> list[str]:
        waiting = []
        for draft in drafts:
            await self._admission.enter(draft)
            waiting.append(await self._outbox.put(draft, *self._number(draft)))
        return await self._outbox.confirm(waiting)

    def _number(self, draft: Draft) -> tuple[int, str]:
        """Number an entry within its stream: each stream is read at a pace of its own."""
        place = draft.source, draft.stream
        seq = self._numbers[place]
        self._numbers[place] += 1
        return seq, f"{self.producer}-{draft.stream}"

    async def flush(self, timeout_s: float = _CLOSE_S) -> int:
        """Wait until Redis has everything; gives the number of entries it does not have."""
        return await self._outbox.flush(timeout_s)

    async def settle(self, timeout_s: float) -> int:
        """Wait until everything kept is processed and known to a replica.

        Without a replica that takes half a minute longer than the processing.

        Returns:
            The number of entries that Redis could still lose.
        """
        return await self._outbox.flush(timeout_s) + await self._keeper.settle(timeout_s)

    def follow(
        self, source: str | None = None, *, kind: Kind | None = None, after: str | None = None
    ) -> AsyncGenerator[Result, None]:
        """Give results as they come, of one or all sources; in order within a partition.

        An outage is waited out. Results that were removed before they could be read are told in
        `missed` of the next one.

        Args:
            source: only its results.
            kind: `detections` or `scores`; both by default.
            after: the `cursor` of a result, to go on after it; "0" for all that is kept; None for
                what comes from now on.

        Raises:
            SettingsError: an argument is not one of these.
        """
        if source is not None:
            _check_source(source)
        if kind is not None and kind not in KINDS:
            raise SettingsError(f"kind {kind!r}: takes detections or scores")
        count, kinds = self.keys.partitions, KINDS if kind is None else (kind,)
        parts = range(count) if source is None else (partition_of(source, count),)
        return self._followers.follow(parts, kinds, after, source)

    async def state(self, source: str) -> dict[str, Any] | None:
        """Read the cached state of a source, numbers as numbers; None if it was never seen."""
        _check_source(source)
        return (await read_states(self._store, [source])).get(source)

    async def states(self) -> dict[str, dict[str, Any]]:
        """Read the cached states of all sources, by name."""
        return await read_states(self._store, await self.sources())

    async def sources(self) -> list[str]:
        """List the sources that are remembered, by name."""
        return await list_sources(self._store)


def _check_source(source: str) -> None:
    if not isinstance(source, str) or not is_source(source):
        raise SettingsError(f"source {source!r}: 1 to 128 characters of A-Z a-z 0-9 . _ : -")


def _encode(image: Image, quality: int) -> bytes:
    from pipeline.image import encode_jpeg  # noqa: PLC0415 - OpenCV is for those who need it

    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != "uint8":
        text = f"image: expected uint8 (height, width, 3), got {image.dtype} {image.shape}"
        raise EntryError(Reason.BAD_FIELD, text)
    return encode_jpeg(image, quality)
