"""Errors as RFC 9457 problem details: raised as `Problem`, declared in the OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pipeline.api.encoding import encode
from pipeline.errors import DependencyError, FullError, SettingsError
from pipeline.log import get_logger

log = get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_S = 1
ANY_PATH = "/{path:path}"
"""The route of the page's files, which every unknown address matches."""


class Problem(Exception):
    """What is answered instead of a result.

    Args:
        status: of HTTP.
        detail: a sentence for whoever wrote the request.
        errors: every part that is wrong.
        retry_s: after what time it may succeed.
        headers: further ones.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        retry_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        if retry_s is not None:
            self.headers["Retry-After"] = str(retry_s)

    def body(self) -> bytes:
        """Give it as JSON."""
        fields: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            fields["errors"] = self.errors
        return encode(fields)

    def response(self) -> Response:
        """Give it as a response."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


def as_problem(error: Exception) -> Problem:
    """Give the problem that an error is to whoever asked; one that is ours says what."""
    if isinstance(error, HTTPException):
        detail = str(error.detail) if error.status_code != 404 else "no such address"
        return Problem(error.status_code, detail, headers=error.headers)
    if isinstance(error, RequestValidationError):
        errors = [_field(each) for each in error.errors()]
        return Problem(422, "the request breaks a rule", errors=errors)
    if isinstance(error, DependencyError):
        is_full = isinstance(error, FullError)
        says = "no room for more now" if is_full else "something this needs is away"
        return Problem(503, says, retry_s=RETRY_S)
    if isinstance(error, SettingsError):
        return Problem(422, str(error))
    says = "this should not have happened; the log of the API says more"
    return error if isinstance(error, Problem) else Problem(500, says)


def _field(error: Mapping[str, Any]) -> dict[str, Any]:
    where, *path = (str(part) for part in error["loc"])
    return {"in": where, "field": ".".join(path), "message": error["msg"]}


async def _answer(request: Request, error: Exception) -> Response:
    problem = as_problem(error)
    if problem.status == 405 and getattr(request.scope.get("route"), "path", "") == ANY_PATH:
        problem = Problem(404, "no such address")
    if problem.status >= 500:
        route = request.scope.get("route")
        where = getattr(route, "path", "none")
        known = isinstance(error, (DependencyError, Problem))
        log.error("request_failed", route=where, error=str(error), exc_info=not known)
    return problem.response()


def answer_with_problems(app: FastAPI) -> None:
    """Have an application answer every error as a problem."""
    for kind in (Problem, HTTPException, RequestValidationError, DependencyError, SettingsError):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(Exception, _answer)


_ALWAYS = (400, 401, 403, 408, 422, 429, 431, 500, 503)
_SAYS = {
    304: "what the ETag names is still the newest",
    400: "no HTTP, or its body broke off",
    401: "no key, or none that is known",
    403: "the key does not allow this, or the request came from a foreign page",
    404: "no such thing",
    408: "the request did not come in time",
    409: "somebody else was faster, or it cannot be done",
    413: "too large",
    415: "not a type that is taken",
    422: "something breaks a rule; `errors` names every part that does",
    429: "too many requests",
    431: "too long an address, or headers",
    503: "no room, or something is away; Retry-After says when to try again",
}
_SCHEMA = {"$ref": "#/components/schemas/Problem"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
    "example": {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "cam-9 was never seen",
    },
}


def declare(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare the problems of a route for the OpenAPI."""
    declared: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *_ALWAYS}):
        says = _SAYS.get(status, "this should not have happened")
        declared[status] = {"description": says}
        if status != 304:
            declared[status]["content"] = {MEDIA_TYPE: {"schema": _SCHEMA}}
        if status in (429, 503):
            retry = {"description": "seconds", "schema": {"type": "integer"}}
            declared[status]["headers"] = {"Retry-After": retry}
    return declared
