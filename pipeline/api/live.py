"""Live routes: results as Server-Sent Events and over WebSocket, frames as MJPEG."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response, WebSocket

from pipeline import metrics
from pipeline.api.encoding import encode
from pipeline.api.feed import Gap, Listener
from pipeline.api.guard import (
    GuardedRoute,
    Receive,
    Scope,
    Send,
    authorize,
    caller_of,
    refuse_socket,
)
from pipeline.api.held import Item, write_message
from pipeline.api.keys import Caller
from pipeline.api.problems import RETRY_S, Problem, as_problem, declare
from pipeline.api.reads import CURSOR, LONGEST_CURSOR, READ, Source, service_of
from pipeline.api.service import Service
from pipeline.errors import PercipioError
from pipeline.partition import is_source
from pipeline.results import KINDS, Kind, Position, Stream
from pipeline.tasks import end_tasks

router = APIRouter(route_class=GuardedRoute, tags=["live"])

MOST_LISTENERS = 4096
MOST_SOURCES = 256
BEAT_S = 15.0
RETRY_MS = 2000
BOUNDARY = "percipio-frame"
_OPENING = f"retry: {RETRY_MS}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a live connection wants."""

    caller: Caller
    sources: frozenset[str] | None
    kinds: frozenset[Kind]
    start: Mapping[Stream, Position] | None

    def allows(self) -> Callable[[str], bool]:
        """Give what tells whether the caller may see a source."""
        caller = self.caller
        return _all if caller.sees_all("read") else lambda source: caller.may("read", source)


def _all(_source: str) -> bool:
    return True


def _wish(
    service: Service,
    caller: Caller,
    sources: Collection[str],
    kinds: Collection[str],
    after: str | None,
) -> Wish:
    """Check what a connection asks for.

    Raises:
        Problem: 403 or 422.
        SettingsError: the cursor is none.
    """
    if len(sources) > MOST_SOURCES:
        raise Problem(422, f"source: at most {MOST_SOURCES} of them")
    for source in sources:
        if not is_source(source):
            raise Problem(422, f"source: not a name: {source[:140]!r}")
        if not caller.may("read", source):
            metrics.API_REFUSED.labels("role").inc()
            raise Problem(403, f"this needs a key with the role `read` for {source}")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise Problem(422, f"kind: {unknown[0][:40]!r}; takes detections, scores")
    if after is not None and len(after) > LONGEST_CURSOR:
        raise Problem(422, "after: too long for a cursor")
    wanted = frozenset(kind for kind in KINDS if not kinds or kind in kinds)
    start = service.replay.positions(after) if after else None
    return Wish(caller, frozenset(sources) or None, wanted, start)


@contextmanager
def _counted(service: Service, via: str) -> Iterator[None]:
    """Count a live connection, unless there are too many.

    Raises:
        Problem: 503.
    """
    if service.live >= MOST_LISTENERS:
        metrics.API_REFUSED.labels("listeners").inc()
        raise Problem(503, "too many live connections", retry_s=RETRY_S)
    service.live += 1
    metrics.API_LISTENERS.labels(via).inc()
    try:
        yield
    finally:
        service.live -= 1
        metrics.API_LISTENERS.labels(via).dec()


async def _parts(
    service: Service, wish: Wish, listener: Listener
) -> AsyncGenerator[list[Item | Gap], None]:
    """Give what is to be sent, in turn; an empty list when it is time for a sign of life."""
    if wish.start is not None:
        async with aclosing(service.replay.after(wish.start, listener)) as earlier:
            async for each in earlier:
                yield [each]
    while (taken := await listener.take(BEAT_S)) is not None:
        yield list(taken)
        if not service.access.is_still(wish.caller):
            return


class _LiveResponse(Response):
    """A response that goes on until the client leaves or the process ends."""

    def __init__(self, service: Service, via: str, media_type: str) -> None:
        super().__init__(None, 200, {"X-Accel-Buffering": "no"}, media_type)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self._service = service
        self._via = via

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one side ends it."""
        scope["is_live"] = True
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        with _counted(self._service, self._via):
            await send(start)
            sending = asyncio.create_task(self._send_all(send), name=self._via)
            leaving = asyncio.create_task(_until_gone(receive), name="leaving")
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end_tasks((sending, leaving))
        if not sending.cancelled():
            sending.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self.bodies()) as bodies:
            async for body in bodies:
                await send({"type": "http.response.body", "body": body, "more_body": True})

    def bodies(self) -> AsyncGenerator[bytes, None]:
        """Give what is sent."""
        raise NotImplementedError


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Events(_LiveResponse):
    """Results as Server-Sent Events."""

    def __init__(self, service: Service, wish: Wish) -> None:
        super().__init__(service, "sse", "text/event-stream")
        self._wish = wish

    async def bodies(self) -> AsyncGenerator[bytes, None]:
        """Give events; a comment with the newest cursor when it is quiet."""
        service, wish = self._service, self._wish
        with service.feed.listening(wish.sources, wish.kinds, wish.allows()) as listener:
            now = service.feed.cursor
            yield _OPENING + (f"id: {now}\n\n".encode() if wish.start is None else b"")
            async for part in _parts(service, wish, listener):
                if not part:
                    yield f": quiet\nid: {service.feed.cursor}\n\n".encode()
                    continue
                yield b"".join(map(_event_of, part))


def _event_of(each: Item | Gap) -> bytes:
    if isinstance(each, Item):
        return each.as_event()
    return b"event: gap\ndata: %b\n\n" % encode(each.as_json())


_SSE = {
    200: {
        "description": "Events `detections`, `scores`, and `gap`, which says what was missed.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'event: scores\nid: eJxj\ndata: {"source":"cam-1","level":0.42}\n\n',
            }
        },
    },
    **declare(),
}
SourceFilter = Annotated[
    list[str] | None, Query(description="Only these sources.", alias="source", max_length=256)
]
KindFilter = Annotated[
    list[Kind] | None, Query(description="Only these kinds.", alias="kind", max_length=2)
]


@router.get("/v1/live", responses=_SSE, openapi_extra=READ)
async def follow(
    request: Request,
    sources: SourceFilter = None,
    kinds: KindFilter = None,
    after: Annotated[
        str | None, Query(max_length=LONGEST_CURSOR, pattern=CURSOR, description="Cursor.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(description="Cursor of the last event; goes before `after`.")
    ] = None,
) -> Response:
    """Results as they come. Reconnecting with the id of the last event misses nothing."""
    service = service_of(request)
    cursor = last_event_id or after
    wish = _wish(service, caller_of(request), sources or (), kinds or (), cursor)
    return _Events(service, wish)


_MJPEG: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Frames as they change, at most 10 a second.",
        "content": {"multipart/x-mixed-replace": {"schema": {"type": "string"}}},
    },
    **declare(),
}


class _Pictures(_LiveResponse):
    """Frames of a source, one replacing the other."""

    def __init__(self, service: Service, caller: Caller, source: str) -> None:
        media_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        super().__init__(service, "mjpeg", media_type)
        self._caller = caller
        self._source = source

    async def bodies(self) -> AsyncGenerator[bytes, None]:
        """Give frames."""
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: "
        async with aclosing(self._service.frames.stream(self._source)) as frames:
            async for drawn in frames:
                if not self._service.access.is_still(self._caller):
                    return
                yield f"{head}{len(drawn.jpeg)}\r\n\r\n".encode() + drawn.jpeg + b"\r\n"


@router.get("/v1/sources/{source}/live.mjpg", responses=_MJPEG, openapi_extra=READ)
async def watch(request: Request, source: Source) -> Response:
    """The newest frame of a source with what was found drawn in, again and again."""
    return _Pictures(service_of(request), caller_of(request), source)


@router.websocket("/v1/ws")
async def follow_socket(socket: WebSocket) -> None:
    """Results as they come, as over `/v1/live`; parameters `source`, `kind`, `after`."""
    app: FastAPI = socket.app
    service: Service = app.state.service
    socket.scope["is_live"] = True
    try:
        caller = authorize(socket, "read")
        query = socket.query_params
        wish = _wish(
            service, caller, query.getlist("source"), query.getlist("kind"), query.get("after")
        )
        with _counted(service, "websocket"):
            await socket.accept()
            await _serve_socket(service, wish, socket)
    except (Problem, PercipioError) as error:
        await refuse_socket(socket.scope, socket.send, as_problem(error))


async def _serve_socket(service: Service, wish: Wish, socket: WebSocket) -> None:
    with service.feed.listening(wish.sources, wish.kinds, wish.allows()) as listener:
        leaving = asyncio.create_task(_until_closed(socket, listener), name="leaving")
        try:
            async for part in _parts(service, wish, listener):
                for text in _messages(service, part):
                    await socket.send_text(text)
            if not leaving.done():
                await socket.close(1001)
        finally:
            await end_tasks((leaving,))


def _messages(service: Service, part: list[Item | Gap]) -> list[str]:
    if not part:
        return [write_message("quiet", service.feed.cursor, b"null").decode()]
    return [
        each.as_message()
        if isinstance(each, Item)
        else write_message("gap", "", encode(each.as_json())).decode()
        for each in part
    ]


async def _until_closed(socket: WebSocket, listener: Listener) -> None:
    """Read until the client leaves; it has nothing to say to us."""
    try:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    finally:
        listener.close()
