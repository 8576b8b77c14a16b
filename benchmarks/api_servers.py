"""The application, or a bare route, under one of the servers that were compared.

    python -m benchmarks.api_servers uvicorn|granian|hypercorn PORT

Serves the API of `PERCIPIO_REDIS_URL`, and beside it `/bare`: a Starlette route that gives a small
JSON object, to compare with. granian and hypercorn come with `pip install 'percipio[servers]'`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipeline.api import access
from pipeline.api.app import guarded_app
from pipeline.api.guard import ASGI, Receive, Scope, Send
from pipeline.api.server import listen, make_server
from pipeline.api.service import open_service
from pipeline.health import Health
from pipeline.partition import Keys
from pipeline.settings import Settings, load_settings
from pipeline.stream import Store
from workers.api import prepare_process

SERVERS = ("uvicorn", "granian", "hypercorn")
_BARE = {"source": "cam-1", "level": 0.4213, "phase": "active", "ts": 1700000000000, "seq": 4711}


async def _bare(_request: Request) -> JSONResponse:
    return JSONResponse(_BARE)


def beside(app: ASGI) -> ASGI:
    """Give an application with the bare one beside it."""
    bare = Starlette(routes=[Route("/bare", _bare)])

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["path"] == "/bare":
            await bare(scope, receive, send)
        else:
            await app(scope, receive, send)

    return either


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def serve(server: str, app: Any, port: int) -> None:
    """Serve an application until killed."""
    if server == "granian":
        from granian.constants import Interfaces
        from granian.server.embed import Server

        many = {"backlog": 4096, "backpressure": 4096}
        await Server(app, port=port, interface=Interfaces.ASGI, log_enabled=False, **many).serve()
    elif server == "hypercorn":
        from hypercorn.asyncio import serve as hypercorn_serve
        from hypercorn.config import Config

        config = Config()
        config.bind, config.backlog = [f"127.0.0.1:{port}"], 2048
        await hypercorn_serve(app, config)
    else:
        with listen("127.0.0.1", port) as listening:
            await make_server(app).serve([listening])


async def _main(server: str, port: int) -> None:
    found = load_settings()
    settings: Settings = replace(found, api=replace(found.api, rate_per_s=0.0))
    keys = Keys(settings.streams.key_prefix, settings.streams.partitions)
    async with (
        Store.open(settings.redis.url, keys) as store,
        open_service(store, settings, access.Keys(None), Health()) as service,
    ):
        app = guarded_app(service)
        prepare_process()
        await serve(server, beside(app), port)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2])))
