"""The API as it is served, in the test's own loop, over a real Redis whose results are canned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.api import access
from pipeline.api.app import guarded_app
from pipeline.api.keys import hash_key
from pipeline.api.server import listen, make_server, url_of
from pipeline.api.service import Service, open_service
from pipeline.health import Health
from pipeline.partition import Keys
from pipeline.settings import ApiSettings, Settings
from pipeline.stream import Store
from pipeline.wire import pack
from tests.conftest import eventually

KEYS = Keys("percipio", 4)


@dataclass(frozen=True, slots=True)
class Api:
    """A running API: where it is, a client of it, and what it serves from."""

    url: str
    http: httpx.AsyncClient
    service: Service
    store: Store

    async def score(self, source: str, n: int = 1, level: float = 0.5, **more: Any) -> str:
        """Add a score; gives its id with the partition."""
        data = {"components": {}, "confidence": 1.0, "latency_ms": 3} | more.pop("data", {})
        fields = {"v": 1, "source": source, "kind": "event", "inputs": 1, "n": n, "ts": 1000 + n}
        fields |= {"level": f"{level:.4f}", "phase": "active", "data": pack(data)} | more
        return await self._add("scores", source, fields)

    async def detection(self, source: str, frame: str, objects: list[dict[str, Any]]) -> str:
        """Add detections; gives their id with the partition."""
        data = {"model": "m@0", "width": 64, "height": 48, "cached": False, "objects": objects}
        fields = {"v": 1, "source": source, "frame": frame, "stream": "frames", "ts": 1000}
        return await self._add("detections", source, fields | {"labels": "", "data": pack(data)})

    async def state(self, source: str, **fields: Any) -> None:
        """Write a state and list its source."""
        keys = KEYS.of_source(source)
        flat = [part for item in ({"v": 1} | fields).items() for part in item]
        await self.store.run("HSET", keys.state(source), *flat)
        await self.store.run("ZADD", keys.sources, 1000, source)

    async def has_scores(self, source: str, count: int) -> None:
        """Wait until the API has followed so many scores of a source."""

        def is_so() -> bool:
            ring = self.service.feed.held.ring(source, 1)
            return ring is not None and len(ring.items) == count

        await eventually(is_so)

    async def _add(self, kind: str, source: str, fields: dict[str, Any]) -> str:
        key = getattr(KEYS.of_source(source), kind)
        flat = [part for item in fields.items() for part in item]
        entry = await self.store.run("XADD", key, "*", *flat)
        return f"{KEYS.tag_of_source(source)}/{entry.decode()}"


Serve = Callable[..., AbstractAsyncContextManager[Api]]


@pytest.fixture
def serve(redis_url: str, tmp_path: Path) -> Serve:
    """Serve with keys given as `name=role[:pattern]`; none is without keys."""

    @asynccontextmanager
    async def started(*keys: str, **api: Any) -> AsyncIterator[Api]:
        path = tmp_path / "keys"
        lines = [key.partition("=") for key in keys]
        path.write_text("".join(f"{hash_key(n)} {r.replace(':', ' ')}\n" for n, _, r in lines))
        given = ApiSettings(port=0, keys_file=path if keys else None, rate_per_s=0)
        settings = replace(Settings(), api=replace(given, **api))
        with listen("127.0.0.1", 0) as listening:
            async with (
                Store.open(redis_url, KEYS) as store,
                open_service(
                    store, settings, access.Keys(settings.api.keys_file), Health()
                ) as service,
            ):
                server = make_server(guarded_app(service))
                serving = asyncio.create_task(server.serve([listening]))
                url = url_of(listening)
                async with httpx.AsyncClient(base_url=url, timeout=10) as http:
                    try:
                        yield Api(url, http, service, store)
                    finally:
                        service.stop()
                        server.should_exit = True
                        await serving

    return started


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Api]:
    """An API that needs no keys."""
    async with serve() as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
