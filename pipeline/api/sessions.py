"""Routes of the page's session: a key is exchanged for a cookie that scripts cannot read."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.api import schemas
from pipeline.api.access import COOKIE, SESSION_S
from pipeline.api.encoding import decode, encode
from pipeline.api.guard import ANY_KEY, PUBLIC, GuardedRoute, caller_of
from pipeline.api.keys import Caller
from pipeline.api.problems import Problem, declare
from pipeline.api.reads import JSON, service_of
from pipeline.api.uploads import receive, type_of
from pipeline.api.writes import body_doc

router = APIRouter(route_class=GuardedRoute, tags=["session"])

_LONGEST = 4096
_KEY_SCHEMA = {
    "type": "object",
    "required": ["key"],
    "properties": {"key": {"type": "string", "maxLength": 512}},
    "example": {"key": "pk_..."},
}
_SESSION_DOC = body_doc("The key to sign in with.", {JSON: {"schema": _KEY_SCHEMA}}, PUBLIC)
_SESSION: dict[int | str, dict[str, Any]] = {200: {"model": schemas.Session}}


@router.post(
    "/v1/session",
    responses={**_SESSION, **declare(413, 415)},
    openapi_extra=_SESSION_DOC,
)
async def sign_in(request: Request) -> Response:
    """Open a session of the page: a key for a cookie that scripts cannot read."""
    type_of(request, (JSON,))
    body = await receive(request, _LONGEST)
    try:
        given = decode(body)
    except ValueError as error:
        raise Problem(422, f"the body is not JSON: {error}") from error
    key = given.get("key") if isinstance(given, dict) else None
    if not isinstance(key, str):
        raise Problem(422, "key: missing, or not text")
    access = service_of(request).access
    if not access.keys.are_set:
        return _answer(request, caller_of(request))
    session = await access.open_session(key)
    if session is None:
        raise Problem(401, "no such key")
    asking = await access.identify(None, session)
    if asking.caller is None:
        raise Problem(401, "no such key any more")
    response = _answer(request, asking.caller)
    is_safe = request.url.scheme == "https"
    response.set_cookie(
        COOKIE, session, max_age=SESSION_S, secure=is_safe, httponly=True, samesite="strict"
    )
    return response


@router.get("/v1/session", responses={**_SESSION, **declare()}, openapi_extra={"x-role": ANY_KEY})
async def read_session(request: Request) -> Response:
    """What the caller may do."""
    return _answer(request, caller_of(request))


@router.delete(
    "/v1/session", status_code=204, responses=declare(), openapi_extra={"x-role": PUBLIC}
)
async def sign_out(request: Request) -> Response:
    """End the session and forget the cookie."""
    session = request.cookies.get(COOKIE)
    if session is not None:
        await service_of(request).access.end_session(session)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _answer(request: Request, caller: Caller) -> Response:
    grants = [{"role": each.role, "sources": each.pattern} for each in caller.grants]
    are_set = service_of(request).access.keys.are_set
    return Response(encode({"keys": are_set, "grants": grants}), 200, media_type=JSON)
