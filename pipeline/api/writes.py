"""Routes that publish."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from pipeline.api import schemas
from pipeline.api.encoding import encode
from pipeline.api.guard import GuardedRoute
from pipeline.api.problems import declare
from pipeline.api.publishing import read_events
from pipeline.api.reads import JSON, Source, service_of
from pipeline.api.uploads import receive, type_of
from pipeline.image_header import MAX_BYTES
from pipeline.outgoing import Frame

router = APIRouter(route_class=GuardedRoute, tags=["publish"])

IMAGES = ("image/jpeg", "image/png", "image/webp")
LINES = ("application/x-ndjson", "application/jsonl")
MOST_EVENT_BYTES = 4 << 20


def body_doc(description: str, content: dict[str, Any], role: str) -> dict[str, Any]:
    """Declare the body that a route takes, and its role."""
    return {
        "x-role": role,
        "requestBody": {"required": True, "description": description, "content": content},
    }


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FRAME_DOC = body_doc("The picture.", dict.fromkeys(IMAGES, _BINARY), "publish")


@router.post(
    "/v1/sources/{source}/frames",
    status_code=202,
    responses={202: {"model": schemas.Published}, **declare(413, 415)},
    openapi_extra=_FRAME_DOC,
)
async def publish_frame(
    request: Request,
    source: Source,
    live: Annotated[
        bool, Query(description="To `frames`, where the newest count; else every one does.")
    ] = False,
    ts: Annotated[int | None, Query(description="When it was taken, Unix ms.", ge=0)] = None,
) -> Response:
    """Publish one picture of a source."""
    type_of(request, IMAGES)
    image = await receive(request, MAX_BYTES)
    trace = request.headers.get("traceparent")
    frame = Frame(source, image, live=live, ts_ms=ts, traceparent=trace)
    service = service_of(request)
    stream, entry_id = await service.publishing.frame(frame)
    tag = service.store.keys.tag_of_source(source)
    return Response(encode({"stream": stream, "id": f"{tag}/{entry_id}"}), 202, media_type=JSON)


_TRACE = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
_EVENT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "values": {
            "type": "object",
            "description": "channel -> finite number",
            "propertyNames": {"pattern": "^[A-Za-z0-9._:-]{1,64}$"},
            "additionalProperties": {"type": "number", "minimum": -(2**53), "maximum": 2**53},
        },
        "ts": {
            "type": "integer",
            "minimum": 0,
            "description": "Unix ms; at most a minute ahead",
        },
        "kind": {"type": "string", "minLength": 1, "maxLength": 64},
        "meta": {"type": "object", "description": "at most 4 KiB, echoed in results"},
        "traceparent": {"type": "string", "pattern": _TRACE, "description": "W3C trace context"},
    },
    "example": {"values": {"motion": 0.8, "sound": 0.1}},
}
_EVENTS_SCHEMA = {
    "oneOf": [_EVENT, {"type": "array", "minItems": 1, "maxItems": 10_000, "items": _EVENT}],
    "example": [{"ts": 1700000000000, "values": {"motion": 0.8}}, {"kind": "heartbeat"}],
}
_LINES_DOC = {"schema": {"type": "string"}, "example": '{"values": {"motion": 0.8}}\n'}
_EVENTS_DOC = body_doc(
    "One event, a list of events, or one a line. All are taken, or none is.",
    {JSON: {"schema": _EVENTS_SCHEMA}, **dict.fromkeys(LINES, _LINES_DOC)},
    "publish",
)


@router.post(
    "/v1/sources/{source}/events",
    status_code=202,
    responses={202: {"model": schemas.Accepted}, **declare(413, 415)},
    openapi_extra=_EVENTS_DOC,
)
async def publish_events(request: Request, source: Source) -> Response:
    """Publish observations of a source; every bad one is named, and none is taken then."""
    content_type = type_of(request, (JSON, *LINES))
    body = await receive(request, MOST_EVENT_BYTES)
    service = service_of(request)
    ids = await service.publishing.events(source, read_events(body, content_type))
    tag = service.store.keys.tag_of_source(source)
    named = [f"{tag}/{entry_id}" for entry_id in ids]
    return Response(encode({"accepted": len(ids), "ids": named}), 202, media_type=JSON)
