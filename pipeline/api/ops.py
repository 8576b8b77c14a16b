"""Routes for operators: health, metrics, documentation, dead letters."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response

from pipeline import dead, metrics
from pipeline.api import schemas
from pipeline.api.encoding import encode, tag_of
from pipeline.api.guard import ANY_KEY, PUBLIC, GuardedRoute, authorize, caller_of
from pipeline.api.problems import RETRY_S, Problem, declare
from pipeline.api.reads import JSON, SOURCE, answer, service_of
from pipeline.api.reference import STYLE, as_page
from pipeline.errors import DependencyError, FullError, SettingsError

router = APIRouter(route_class=GuardedRoute, tags=["operate"])

ADMIN: dict[str, Any] = {"x-role": "admin"}
OPEN: dict[str, Any] = {"x-role": PUBLIC}
WITH_KEY: dict[str, Any] = {"x-role": ANY_KEY}
_MOST_DEAD = 1000


def _text(description: str, media_type: str) -> dict[int | str, dict[str, Any]]:
    content = {media_type: {"schema": {"type": "string"}}}
    return {200: {"description": description, "content": content}, **declare()}


@router.get("/healthz", responses={200: {"model": schemas.Well}, **declare()}, openapi_extra=OPEN)
async def tell_alive(request: Request) -> Response:
    """Whether the process should be left running."""
    return _well(service_of(request).health.why_not_alive())


@router.get("/readyz", responses={200: {"model": schemas.Well}, **declare()}, openapi_extra=OPEN)
async def tell_ready(request: Request) -> Response:
    """Whether requests should be sent here."""
    return _well(service_of(request).health.why_not_ready())


def _well(why_not: str | None) -> Response:
    if why_not is not None:
        raise Problem(503, why_not, retry_s=RETRY_S)
    return Response(b'{"status":"ok"}', 200, media_type=JSON)


@router.get("/metrics", responses=_text("Prometheus", "text/plain"), openapi_extra=WITH_KEY)
async def read_metrics(request: Request) -> Response:
    """The metrics of this process, and of the deployment as Redis knows it."""
    body, content_type = metrics.render(request.headers.get("accept", ""))
    return Response(body, 200, {"content-type": content_type})


_DOCUMENT = {"type": "object", "example": {"openapi": "3.1.0"}}


@router.get(
    "/openapi.json",
    responses={
        200: {"description": "OpenAPI", "content": {JSON: {"schema": _DOCUMENT}}},
        **declare(304),
    },
    openapi_extra=WITH_KEY,
)
async def read_openapi(request: Request) -> Response:
    """This description, for programs."""
    body = _for_programs(request.app)
    return answer(request, body, tag_of(body))


@lru_cache(maxsize=1)
def _for_programs(app: FastAPI) -> bytes:
    return encode(app.openapi())


@lru_cache(maxsize=1)
def _for_people(app: FastAPI) -> bytes:
    return as_page(app.openapi()).encode()


@router.get("/docs", responses=_text("This page", "text/html"), openapi_extra=WITH_KEY)
async def read_docs(request: Request) -> Response:
    """This description, for people."""
    page = _for_people(request.app)
    return answer(request, page, tag_of(page), "text/html; charset=utf-8")


@router.get("/docs.css", include_in_schema=False, openapi_extra=OPEN)
async def read_style(request: Request) -> Response:
    """The style of `/docs`."""
    return answer(request, STYLE, tag_of(STYLE), "text/css; charset=utf-8")


_REASONS = "^(undecodable|too_large|bad_field|wrong_partition|bad_version|poison)$"


@router.get(
    "/v1/dead",
    responses={200: {"model": schemas.DeadLetters}, **declare()},
    openapi_extra=ADMIN,
)
async def list_dead(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=_MOST_DEAD, description="At most so many.")] = 100,
    source: Annotated[str | None, Query(pattern=SOURCE, description="Only of this one.")] = None,
    reason: Annotated[str | None, Query(pattern=_REASONS, description="Only with this.")] = None,
) -> Response:
    """Entries that can never succeed, newest of each partition first."""
    store, caller = service_of(request).store, caller_of(request)
    letters: list[dict[str, Any]] = []
    async for letter in dead.list_dead(store):
        is_wanted = source in (None, letter.source) and reason in (None, letter.reason)
        is_mine = caller.sees_all("admin") or (
            letter.source is not None and caller.may("admin", letter.source)
        )
        if is_wanted and is_mine:
            letters.append(letter.as_json())
            if len(letters) == limit:
                break
    return Response(encode({"dead": letters}), 200, media_type=JSON)


@router.post(
    "/v1/dead/{partition}/{entry}/replay",
    status_code=202,
    responses={202: {"model": schemas.Replayed}, **declare(404, 409)},
    openapi_extra=ADMIN,
)
async def replay_dead(
    request: Request,
    partition: Annotated[str, Path(pattern=r"^p[0-9]{3}$", examples=["p005"])],
    entry: Annotated[str, Path(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$", examples=["1700000000100-0"])],
) -> Response:
    """Publish a dead letter's entry anew; it counts as a new one."""
    store, caller = service_of(request).store, caller_of(request)
    name = f"{partition}/{entry}"
    try:
        letter = await dead.show_dead(store, name)
    except SettingsError as error:
        raise Problem(404, f"{name}: no such dead letter") from error
    if letter.source is not None:
        authorize(request, "admin", letter.source)
    elif not caller.sees_all("admin"):
        raise Problem(403, "this needs an admin key for all sources")
    if not letter.is_replayable or letter.stream == "detections":
        raise Problem(409, f"{name} cannot be replayed; publish the input again")
    try:
        added = await dead.replay_dead(store, name)
    except SettingsError as error:
        raise Problem(409, str(error)) from error
    except DependencyError as error:
        if isinstance(error, FullError) or not re.search("somebody else", str(error)):
            raise
        raise Problem(409, str(error)) from error
    return Response(encode({"replayed": name, "id": f"{partition}/{added}"}), 202, media_type=JSON)
