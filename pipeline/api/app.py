"""The application: all routes behind the guard, and its OpenAPI document."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pipeline.api import live, ops, problems, reads, sessions, writes
from pipeline.api.guard import Guard
from pipeline.api.page import page_router
from pipeline.api.service import Service
from pipeline.api.uploads import Uploads

TITLE = "percipio"
SAYS = (
    "Frames and events in, detections and scores out. Where keys are set, send one as "
    "`Authorization: Bearer <key>`. Errors are RFC 9457 problem details."
)


def make_app() -> FastAPI:
    """Make the application without what it serves from: enough for its OpenAPI."""
    app = FastAPI(title=TITLE, version=_version(), docs_url=None, redoc_url=None, openapi_url=None)
    app.state.uploads = Uploads()
    problems.answer_with_problems(app)
    for module in (reads, writes, live, sessions, ops):
        app.include_router(module.router)
    app.include_router(page_router())
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def guarded_app(service: Service) -> Guard:
    """Make the application as it is served."""
    app = make_app()
    app.state.service = service
    app.openapi()  # now, not while others wait for their answers
    return Guard(app, service.access, service.rates, reads.state_shortcut(app))


def _version() -> str:
    return metadata.version("percipio")


def _describe(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(
            title=TITLE, version=app.version, description=SAYS, routes=app.routes, summary=None
        )
        components = made.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = problems.SCHEMA
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": "percipio_session"},
        }
        for methods in made["paths"].values():
            for call in methods.values():
                _finish(call)
        app.openapi_schema = made
    return app.openapi_schema


def _finish(call: dict[str, Any]) -> None:
    call.pop("x-plain", None)
    is_open = call.get("x-role") == "public"
    call["security"] = [] if is_open else [{"key": []}, {"session": []}]
    wrong = call["responses"].get("422", {}).get("content", {})
    wrong.pop("application/json", None)  # FastAPI's own; ours are problem details
