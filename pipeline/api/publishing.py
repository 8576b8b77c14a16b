"""Frames and events that come over HTTP: checked and numbered as the SDK does, taken whole.

A request is one transaction. Its entries are numbered, so Redis may be asked again after a lost
answer without anything counting twice.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.admission import Admission
from pipeline.api.encoding import decode
from pipeline.api.problems import Problem
from pipeline.errors import DependencyError, EntryError, FullError, Reason
from pipeline.outgoing import Draft, Event, Frame, Place, draft_event, draft_frame
from pipeline.settings import StreamSettings
from pipeline.stream import Argument, Store

MOST_EVENTS = 10_000
_NAMED = 100
_TRIES = 3
_PAUSE_S = 0.1
_ANSWER_S = 10.0
_NUMBERED = 100_000
_FIELDS = frozenset(("ts", "values", "kind", "meta", "traceparent"))


class Publishing:
    """Publishes what comes over HTTP.

    Args:
        store: of the deployment.
        streams: its bounds.
    """

    def __init__(self, store: Store, streams: StreamSettings) -> None:
        self._store = store
        self._admission = Admission(store, streams, 0.0, self._entered_at)
        self._entered: dict[Place, list[int]] = {}
        """Sizes of the entries that the request whose turn it is has brought in so far."""
        self._turns: dict[Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._producer = secrets.token_hex(8)
        self._numbers: dict[tuple[str, str], int] = defaultdict(int)
        self._ahead_ms = 0

    async def synchronize(self) -> None:
        """Compare clocks with Redis."""
        self._ahead_ms = await self._store.now_ms() - int(time.time() * 1000)

    async def frame(self, frame: Frame) -> tuple[str, str]:
        """Publish a picture; gives its stream and entry id.

        Raises:
            Problem: 413 or 422.
            FullError: there is no room.
            DependencyError: Redis is away; whether it had taken the frame is not known.
        """
        image = frame.image
        if not isinstance(image, bytes):
            raise TypeError("image: expected bytes")
        try:
            draft = draft_frame(frame, image, self._store.keys, self._now_ms())
        except EntryError as error:
            status = 413 if error.reason is Reason.TOO_LARGE else 422
            wrong = {"field": str(error).partition(":")[0], "message": str(error)}
            raise Problem(status, str(error), errors=[wrong]) from error
        ids = await self._add([draft])
        return draft.stream, ids[0]

    async def events(self, source: str, items: Sequence[object]) -> list[str]:
        """Publish observations, all of them or none; gives their entry ids.

        Raises:
            Problem: 422, naming every item that is wrong; or 413.
            FullError: there is no room.
            DependencyError: Redis is away; whether it had taken them is not known.
        """
        if len(items) > MOST_EVENTS:
            raise Problem(413, f"{len(items)} events; at most {MOST_EVENTS} in one request")
        now_ms = self._now_ms()
        drafts: list[Draft] = []
        errors: list[dict[str, Any]] = []
        for index, item in enumerate(items):
            try:
                drafts.append(draft_event(_event(source, item), self._store.keys, now_ms))
            except EntryError as error:
                text = str(error)
                errors.append({"item": index, "field": text.partition(":")[0], "message": text})
        if not items:
            errors.append({"item": 0, "field": "body", "message": "body: no event in it"})
        if errors:
            more = f", the first {_NAMED} named" if len(errors) > _NAMED else ""
            says = f"{len(errors)} of {len(items)} events are wrong{more}; none was taken"
            raise Problem(422, says, errors=errors[:_NAMED])
        return await self._add(drafts)

    def _now_ms(self) -> int:
        return int(time.time() * 1000) + self._ahead_ms

    async def _add(self, drafts: Sequence[Draft]) -> list[str]:
        """Add entries of one source and stream, in the order of their numbers."""
        place = drafts[0].place
        try:
            async with asyncio.timeout(_ANSWER_S), self._turns[place]:
                sizes = self._entered[place] = []
                for draft in drafts:
                    await self._admission.enter(draft)
                    sizes.append(draft.size_bytes)
                key = getattr(self._store.keys.of(drafts[0].partition), drafts[0].stream)
                return await self._commit([self._command(key, draft) for draft in drafts])
        except TimeoutError as error:
            raise DependencyError(f"Redis: no answer within {_ANSWER_S:g} s") from error

    def _entered_at(self, place: Place) -> tuple[int, int]:
        sizes = self._entered.get(place, ())
        return len(sizes), sum(sizes)

    async def _commit(self, commands: Sequence[Sequence[Argument]]) -> list[str]:
        tries = 0
        while True:
            try:
                return [answer.decode() for answer in await self._store.run_whole(commands)]
            except DependencyError as error:
                tries += 1
                if tries == _TRIES or isinstance(error, FullError):
                    raise
            await asyncio.sleep(_PAUSE_S)

    def _command(self, key: str, draft: Draft) -> tuple[Argument, ...]:
        place = draft.source, draft.stream
        if place not in self._numbers and len(self._numbers) >= _NUMBERED:
            self._numbers.clear()
            self._producer = secrets.token_hex(8)
        seq = self._numbers[place]
        self._numbers[place] += 1
        producer = f"{self._producer}-{draft.stream}"
        return ("XADD", key, "*", *draft.fields, "seq", seq, "producer", producer)


def read_events(body: bytes, content_type: str) -> list[object]:
    """Give the events in a body: one object, a list, or JSON lines.

    Raises:
        Problem: 422, it is no JSON; lines that are none are named.
    """
    if content_type != "application/json":
        return _read_lines(body)
    try:
        found = decode(body)
    except ValueError as error:
        wrong = {"field": "body", "message": f"body: {error}"}
        raise Problem(422, f"the body is not JSON: {error}", errors=[wrong]) from error
    return found if isinstance(found, list) else [found]


def _read_lines(body: bytes) -> list[object]:
    events: list[object] = []
    errors: list[dict[str, Any]] = []
    for index, line in enumerate(line for line in body.split(b"\n") if line.strip()):
        try:
            events.append(decode(line))
        except ValueError as error:
            errors.append({"item": index, "field": "line", "message": f"line: {error}"})
    if errors:
        says = f"{len(errors)} lines are not JSON; none was taken"
        raise Problem(422, says, errors=errors[:_NAMED])
    return events


def _event(source: str, item: object) -> Event:
    if not isinstance(item, Mapping):
        raise EntryError(Reason.BAD_FIELD, f"event: expected an object, got {_kind(item)}")
    if unknown := sorted(set(item) - _FIELDS):
        raise EntryError(Reason.BAD_FIELD, f"{unknown[0][:80]}: not a field of an event")
    values = item.get("values", {})
    given = (item.get(name) for name in ("ts", "kind", "meta", "traceparent"))
    return Event(source, values, *given)


def _kind(item: object) -> str:
    return {list: "a list", str: "text", type(None): "null"}.get(type(item), "a number")
