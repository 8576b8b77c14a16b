"""Routes that read: sources, states, newest results, frames, status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute

from pipeline import metrics
from pipeline.api import schemas
from pipeline.api.encoding import encode, tag_of
from pipeline.api.guard import GuardedRoute, Scope, Send, Shortcut, caller_of
from pipeline.api.held import Item
from pipeline.api.problems import Problem, declare
from pipeline.api.service import Service
from pipeline.partition import is_source, partition_of
from pipeline.results import KINDS, Kind, write_cursor

SOURCE = r"^[A-Za-z0-9._:-]{1,128}$"
LONGEST_CURSOR = 30_000
CURSOR = r"^[A-Za-z0-9_-]+$"
JSON = "application/json"

Source = Annotated[
    str, Path(pattern=SOURCE, description="Name of a source.", examples=["cam-1"], max_length=128)
]
IfNoneMatch = Annotated[
    str | None, Header(description="ETag of what you have; answered with 304 if it is the newest.")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
After = Annotated[
    str | None,
    Query(
        max_length=LONGEST_CURSOR,
        pattern=CURSOR,
        description="Cursor of an earlier answer; results after it.",
    ),
]

router = APIRouter(route_class=GuardedRoute, tags=["read"])
READ: dict[str, Any] = {"x-role": "read"}


def service_of(request: Request) -> Service:
    """Give what an application serves from."""
    service: Service = request.app.state.service
    return service


def answer(
    request: Request, body: bytes, tag: str, media_type: str = JSON, **headers: str
) -> Response:
    """Give a body with its ETag, or 304 if the caller has it."""
    headers = {"ETag": tag, **headers}
    wanted = request.headers.get("if-none-match")
    if wanted is not None and (wanted == "*" or tag in wanted):
        return Response(None, 304, headers)
    return Response(body, 200, headers, media_type)


def ok(model: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare what a reading route answers."""
    says = {"ETag": {"description": "names this version", "schema": {"type": "string"}}}
    return {200: {"model": model, "headers": says}, **declare(*statuses)}


def state_shortcut(app: FastAPI) -> Shortcut:
    """Give what answers reads of states that are there, to those who may, past the framework."""
    service: Service = app.state.service
    routes = (each for each in router.routes if isinstance(each, APIRoute))
    route = next(each for each in routes if each.path == _STATE)
    before, after = _STATE.split("{source}")

    async def answer_state(scope: Scope, send: Send) -> tuple[APIRoute, int] | None:
        path = scope["path"]
        is_state = path.startswith(before) and path.endswith(after)
        if not is_state or scope["type"] != "http" or scope["method"] != "GET":
            return None
        source, caller = path[len(before) : -len(after)], scope["asking"].caller
        if not is_source(source) or caller is None or not caller.may("read", source):
            return None
        state = await service.states.get(source)
        if state.body is None or any(name == b"if-none-match" for name, _ in scope["headers"]):
            return None
        await send({"type": "http.response.start", "status": 200, "headers": state.headers})
        await send({"type": "http.response.body", "body": state.body})
        return route, 200

    return answer_state


_STATE = "/v1/sources/{source}/state"
_STATE_DOC: dict[str, Any] = {
    "x-role": "read",
    "x-plain": True,
    "parameters": [
        {
            "name": "source",
            "in": "path",
            "required": True,
            "description": "Name of a source.",
            "schema": {"type": "string", "pattern": SOURCE, "maxLength": 128},
            "example": "cam-1",
        },
        {
            "name": "if-none-match",
            "in": "header",
            "required": False,
            "description": "ETag of what you have; answered with 304 if it is the newest.",
            "schema": {"type": "string"},
        },
    ],
}


@router.get(_STATE, responses=ok(schemas.State, 304, 404), openapi_extra=_STATE_DOC)
async def read_state(request: Request) -> Response:
    """The cached state of a source, from memory."""
    source = request.path_params["source"]
    if not is_source(source):
        raise Problem(422, f"source: not a name: {source[:140]!r}")
    state = await service_of(request).states.get(source)
    if state.body is None:
        raise Problem(404, f"{source} was never seen, or has expired")
    return answer(request, state.body, state.tag)


@router.get("/v1/sources", responses=ok(schemas.Sources, 304), openapi_extra=READ)
async def list_sources(
    request: Request,
    limit: Limit = 1000,
    after: Annotated[str | None, Query(max_length=128, description="Begin after it.")] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The sources that are remembered, as far as the key's pattern allows, by name."""
    del if_none_match  # `answer` reads it; here it is declared
    service, caller = service_of(request), caller_of(request)
    known = await service.sources.get()
    seen = (name for name in known if (after is None or name > after) and caller.may("read", name))
    names = list(islice(seen, limit + 1))
    states = await service.states.get_many(names[:limit])
    rows = [
        {
            "source": name,
            "last_seen_ms": known[name],
            "level": state.values.get("level"),
            "phase": state.values.get("phase"),
            "frames": _count_of(state.values, "frames"),
            "events": _count_of(state.values, "events"),
        }
        for name, state in zip(names[:limit], states, strict=True)
    ]
    next_after = names[limit - 1] if len(names) > limit else None
    body = encode({"sources": rows, "after": next_after})
    return answer(request, body, tag_of(body))


def _count_of(values: Mapping[str, Any], name: str) -> int:
    found = values.get(name)
    return found if isinstance(found, int) else 0


@router.get(
    "/v1/sources/{source}/history", responses=ok(schemas.History, 304, 404), openapi_extra=READ
)
async def read_history(
    request: Request, source: Source, if_none_match: IfNoneMatch = None
) -> Response:
    """How the level of a source went: a row a second, of up to ten minutes, and its transitions."""
    del if_none_match
    service = service_of(request)
    if (await service.states.get(source)).body is None:
        raise Problem(404, f"{source} was never seen, or has expired")
    body = encode(await service.history.get(source))
    return answer(request, body, tag_of(body))


@router.get(
    "/v1/sources/{source}/detections", responses=ok(schemas.Detections, 304), openapi_extra=READ
)
async def list_detections(
    request: Request,
    source: Source,
    limit: Limit = 100,
    after: After = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The newest detections of a source, oldest first; with `after` those that came since."""
    del if_none_match
    return await _list(request, source, "detections", limit, after)


@router.get("/v1/sources/{source}/scores", responses=ok(schemas.Scores, 304), openapi_extra=READ)
async def list_scores(
    request: Request,
    source: Source,
    limit: Limit = 100,
    after: After = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The newest scores of a source, oldest first; with `after` those that came since."""
    del if_none_match
    return await _list(request, source, "scores", limit, after)


async def _list(
    request: Request, source: str, kind: Kind, limit: int, after: str | None
) -> Response:
    service = service_of(request)
    feed, number = service.feed, KINDS.index(kind)
    stream = partition_of(source, len(feed.positions) // len(KINDS)), number
    reached = dict(feed.positions)
    ring = feed.held.ring(source, number)
    start = None if after is None else service.replay.positions(after)[stream]
    if start is not None and start[:2] >= feed.held.floor(stream, ring)[:2]:
        since = [] if ring is None else [i for i in ring.items if i.position[:2] > start[:2]]
        items, is_more = since[:limit], len(since) > limit
        if is_more:
            reached[stream] = items[-1].position
        _count("hit")
    elif start is not None:
        items, reached[stream] = await service.replay.forwards(source, kind, start, limit)
        _count("miss")
    else:
        if ring is None or (len(ring.items) < limit and not ring.is_filled):
            ring = await service.replay.fill(source, kind)
            reached = dict(feed.positions)
            _count("miss")
        else:
            _count("hit")
        items = list(ring.items)[-limit:]
    body = _join(items, write_cursor(reached))
    return answer(request, body, tag_of(body))


def _count(outcome: str) -> None:
    metrics.API_LOOKUPS.labels("results", outcome).inc()


def _join(items: Iterable[Item], cursor: str) -> bytes:
    bodies = b",".join(item.body for item in items)
    return b'{"results":[%b],"after":"%b"}' % (bodies, cursor.encode())


_JPEG = {
    200: {
        "description": "JPEG",
        "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "ETag": {"description": "names this version", "schema": {"type": "string"}},
            "X-Frame": {"description": "entry id of the frame", "schema": {"type": "string"}},
        },
    },
    **declare(304, 404),
}


@router.get("/v1/sources/{source}/frame.jpg", responses=_JPEG, openapi_extra=READ)
async def read_frame(
    request: Request, source: Source, if_none_match: IfNoneMatch = None
) -> Response:
    """The newest frame of a source with boxes, track ids and level drawn in."""
    del if_none_match
    drawn = await service_of(request).frames.newest(source)
    if drawn is None:
        raise Problem(404, f"no frame of {source} within the last minute")
    return answer(request, drawn.jpeg, drawn.tag, "image/jpeg", **{"X-Frame": drawn.frame})


@router.get("/v1/status", responses=ok(schemas.Status, 304), openapi_extra=READ)
async def read_status(request: Request, if_none_match: IfNoneMatch = None) -> Response:
    """Lag, pending, owners, dead letters and the ledger of the whole deployment."""
    del if_none_match
    status = await service_of(request).status.get()
    return answer(request, status.data, status.tag)
