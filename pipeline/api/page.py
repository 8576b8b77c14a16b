"""The page at `/`: files of the package, read once; nothing else can be reached through it."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.api.encoding import tag_of
from pipeline.api.guard import PUBLIC, GuardedRoute
from pipeline.api.problems import ANY_PATH, Problem
from pipeline.api.reads import answer

_OPEN: dict[str, Any] = {"x-role": PUBLIC}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/json"}
_START = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><title>percipio</title>'
    b'<p>percipio: <a href="docs">the API</a></p></html>'
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page."""

    data: bytes
    media_type: str
    tag: str


def load_assets() -> dict[str, Asset]:
    """Read the page's files, by path; at least a start page."""
    found = {"index.html": _asset("index.html", _START)}
    folder = files("pipeline").joinpath("page")
    if folder.is_dir():
        _load(folder, "", found)
    return found


def _load(folder: Traversable, path: str, found: dict[str, Asset]) -> None:
    for entry in folder.iterdir():
        name = path + entry.name
        if entry.is_dir():
            _load(entry, f"{name}/", found)
        elif not entry.name.startswith((".", "_")) and not entry.name.endswith(".py"):
            found[name] = _asset(name, entry.read_bytes())


def _asset(name: str, data: bytes) -> Asset:
    suffix = name[name.rfind(".") :]
    kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return Asset(data, kind, tag_of(data))


def page_router() -> APIRouter:
    """Give the routes of the page; they must come after all others."""
    router = APIRouter(route_class=GuardedRoute)
    assets = load_assets()

    @router.get("/", include_in_schema=False, openapi_extra=_OPEN)
    async def read_start(request: Request) -> Response:
        return _send(request, assets["index.html"])

    @router.get(ANY_PATH, include_in_schema=False, openapi_extra=_OPEN)
    async def read_asset(request: Request, path: str) -> Response:
        asset = assets.get(path)
        if asset is None:
            raise Problem(404, "no such address")
        return _send(request, asset)

    return router


def _send(request: Request, asset: Asset) -> Response:
    response = answer(request, asset.data, asset.tag, asset.media_type)
    response.headers["cache-control"] = "no-cache"
    return response
