"""What stands before every route: host, origin, caller, rate; security headers; metrics.

A route without a declared role cannot be made, so none is open by mistake.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from functools import lru_cache
from math import ceil
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from pipeline import metrics
from pipeline.api.access import COOKIE, Access, Asking, Rates, cookie, is_loopback
from pipeline.api.keys import ROLES, Caller
from pipeline.api.problems import Problem, as_problem
from pipeline.errors import PercipioError
from pipeline.log import get_logger

log = get_logger()

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
Shortcut = Callable[[Scope, Send], Awaitable[tuple[APIRoute, int] | None]]

SAFE = ("GET", "HEAD", "OPTIONS")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
DATA_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"private, no-cache"),
]
_PAGE_HEADERS = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cache-control", b"private, no-cache"),
]

PUBLIC, ANY_KEY = "public", "any"


class GuardedRoute(APIRoute):
    """A route whose role is declared as `x-role`: one of `ROLES`, `any` (key) or `public`.

    With `x-plain` the endpoint takes the request alone, and what FastAPI does to work out
    arguments is left out: for what is asked thousands of times a second.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Give the handler, behind the check of the role."""
        extra = self.openapi_extra or {}
        role, endpoint = extra.get("x-role"), self.endpoint
        if role not in (*ROLES, PUBLIC, ANY_KEY):
            raise TypeError(f"{self.path}: declare x-role, one of {ROLES}, any, public")
        handler = endpoint if extra.get("x-plain") else super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if role != PUBLIC:
                authorize(request, role, request.path_params.get("source"))
            response: Response = await handler(request)
            return response

        return guarded


def caller_of(connection: HTTPConnection) -> Caller:
    """Give who asks.

    Raises:
        Problem: 401, nobody known.
    """
    caller: Caller | None = connection.scope["asking"].caller
    if caller is None:
        metrics.API_REFUSED.labels("key").inc()
        challenge = {"WWW-Authenticate": 'Bearer realm="percipio"'}
        raise Problem(401, "send a key: `Authorization: Bearer <key>`", headers=challenge)
    return caller


def authorize(connection: HTTPConnection, role: str, source: str | None = None) -> Caller:
    """Give who asks, if a key of it has the role for the source.

    Raises:
        Problem: 401 or 403.
    """
    caller = caller_of(connection)
    if role == ANY_KEY:
        return caller
    if not any(caller.may(each, source) for each in ROLES if each == role):
        metrics.API_REFUSED.labels("role").inc()
        at = f" for {source}" if source else ""
        raise Problem(403, f"this needs a key with the role `{role}`{at}")
    return caller


class Guard:
    """The outermost layer of the application.

    Args:
        app: what it guards.
        access: knows callers.
        rates: how often each may ask.
        shortcut: answers what is asked thousands of times a second without the framework; gives
            the route and status of what it has answered, None for what it leaves to `app`.
    """

    def __init__(
        self, app: ASGI, access: Access, rates: Rates, shortcut: Shortcut | None = None
    ) -> None:
        self._app = app
        self._access = access
        self._rates = rates
        self._shortcut = shortcut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, WebSocket, or start and end of the application."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began_s, seen = perf_counter(), _Seen(send)
        try:
            try:
                scope["asking"] = await self._admit(scope)
            except (Problem, PercipioError) as error:
                await _refuse(scope, receive, seen, as_problem(error))
            else:
                if self._shortcut is not None and (done := await self._shortcut(scope, send)):
                    scope["route"], seen.status = done
                else:
                    await self._app(scope, receive, seen)
        except Exception as error:  # the framework has answered it, and raises it all the same
            if not seen.status:
                raise
            if seen.is_open:
                log.warning("response_broken", error=repr(error))
                raise
        finally:
            _count(scope, seen.status, perf_counter() - began_s)

    async def _admit(self, scope: Scope) -> Asking:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._access.keys.are_set and not is_loopback(_name(host)):
            # a foreign page whose name was made to point here must not read what needs no key
            metrics.API_REFUSED.labels("host").inc()
            raise Problem(403, "without keys only addresses of this machine itself are answered")
        authorization = headers.get(b"authorization")
        asking = await self._access.identify(
            None if authorization is None else authorization.decode("latin-1"),
            cookie(headers, COOKIE),
        )
        _check_origin(scope, headers.get(b"origin"), host, asking)
        known = asking.caller is not None and self._access.keys.are_set
        client = scope.get("client")
        address = client[0] if client else "unknown"
        wait_s = self._rates.take(asking.caller.name if known and asking.caller else address)
        if wait_s:
            metrics.API_REFUSED.labels("rate").inc()
            raise Problem(429, "too many requests", retry_s=ceil(wait_s))
        return asking


class _Seen:
    """Passes on what is sent, adds headers, and remembers how far it got."""

    __slots__ = ("_send", "is_open", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.is_open = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status, self.is_open = message["status"], True
            headers = message["headers"] = list(message.get("headers", ()))
            given = dict(headers)
            is_page = given.get(b"content-type", b"").startswith(b"text/html")
            added = _PAGE_HEADERS if is_page else DATA_HEADERS
            if self.status == 304:  # it updates what was kept, and has no type to tell a page by
                added = []
            headers += [each for each in added if each[0] not in given]
        elif kind == "http.response.body":
            self.is_open = message.get("more_body", False)
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
        await self._send(message)


def _check_origin(scope: Scope, origin: bytes | None, host: str, asking: Asking) -> None:
    """Refuse what a foreign page has a browser do. A key in a header is no browser's doing."""
    is_write = scope["type"] == "websocket" or scope["method"] not in SAFE
    if not is_write or asking.by == "key":
        return
    if origin is None:
        if asking.by != "session" or scope["type"] == "websocket":
            return
    elif urlsplit(origin.decode("latin-1")).netloc.lower() == host.lower():
        return
    metrics.API_REFUSED.labels("origin").inc()
    raise Problem(403, "this came from a page of another address")


def _name(host: str) -> str:
    """Give a Host header without its port."""
    return host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    if scope["type"] == "http":
        await problem.response()(scope, receive, send)
    else:
        await refuse_socket(scope, send, problem)


async def refuse_socket(scope: Scope, send: Send, problem: Problem) -> None:
    """Answer a WebSocket's opening request with a problem."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:100]})
        return
    response = problem.response()
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": response.body})


def _count(scope: Scope, status: int, took_s: float) -> None:
    route = getattr(scope.get("route"), "path", "none")
    method = scope.get("method", "WS")
    count, times = _metrics_of(route, method if method in _METHODS else "other", status)
    count.inc()
    if not scope.get("is_live"):
        times.observe(took_s)


_METHODS = frozenset(("GET", "POST", "DELETE", "HEAD", "WS"))


@lru_cache(maxsize=4096)
def _metrics_of(route: str, method: str, status: int) -> tuple[Any, Any]:
    """Look up what a request is counted in; finding it by its labels takes longer than counting."""
    return metrics.REQUESTS.labels(route, method, status), metrics.REQUEST_TIME.labels(route)
