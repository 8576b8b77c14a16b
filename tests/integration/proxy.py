"""A wire between a client and Redis that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Forwards a TCP port to a Unix socket.

    Attributes:
        swallow: forward requests, but cut the connection before an answer of so many more.
        is_stalled: keep connections open and forward nothing, as a half-open socket does.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._writers: set[asyncio.StreamWriter] = set()
        self.swallow = 0
        self.is_stalled = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        redis_reader, redis_writer = await asyncio.open_unix_connection(self._path)
        mine = {writer, redis_writer}
        self._writers |= mine
        with suppress(ConnectionError):
            requests = asyncio.create_task(self._requests(reader, redis_writer))
            await self._answers(redis_reader, writer)
            requests.cancel()
        for each in mine:
            each.close()
        self._writers -= mine

    async def _requests(self, reader: asyncio.StreamReader, redis: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if not self.is_stalled:
                    redis.write(data)
        redis.close()

    async def _answers(self, redis: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await redis.read(1 << 16):
            if self.swallow:
                self.swallow -= 1
                return
            writer.write(data)

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def a_proxy(redis_url: str) -> AsyncIterator[Proxy]:
    """Serve a proxy to a Redis on a Unix socket."""
    proxy = Proxy(redis_url.removeprefix("unix://"))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await asyncio.sleep(0)
