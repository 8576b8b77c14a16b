"""A light generator of load on the API: raw connections on one event loop."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import numpy as np

TICK_S = 0.002
_SENT = b'"sent":'


@dataclass(slots=True)
class Load:
    """What a generator saw.

    Attributes:
        latencies_s: of each answer, from when its request was due.
        errors: answers other than expected, and connections lost.
    """

    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0

    def percentiles_ms(self) -> dict[str, float]:
        """Give the usual percentiles."""
        if not self.latencies_s:
            return {}
        ranks = (50, 95, 99, 100)
        found = np.percentile(np.array(self.latencies_s) * 1e3, ranks)
        return {f"p{rank}": round(float(ms), 2) for rank, ms in zip(ranks, found, strict=True)}


class Connection(asyncio.Protocol):
    """One kept-open HTTP connection with one request at a time.

    Args:
        done: told of each answer: the connection and its status.
    """

    def __init__(self, done: Callable[[Connection, int], None]) -> None:
        self._done = done
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.due_s = 0.0
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name

    def connection_lost(self, _error: Exception | None) -> None:
        """Note the loss."""
        self.is_lost = True

    def send(self, request: bytes, due_s: float) -> None:
        """Send a request that was due at a time."""
        assert self._transport is not None
        self.due_s = due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take an answer apart as far as is needed."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.lower().find(b"content-length:")
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r", at)]) if 0 <= at < end else 0
        if len(self._buffer) < end + 4 + length:
            return
        status = int(self._buffer[9:12])
        self._buffer = b""
        self._done(self, status)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


def request(method: str, path: str, body: bytes = b"", content_type: str = "") -> bytes:
    """Write a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Pool:
    """Connections that are kept open, used in turn."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._idle: deque[Connection] = deque()
        self._all: list[Connection] = []
        self.load = Load()

    async def open(self, port: int, count: int) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, made = await loop.create_connection(
                lambda: Connection(self._done), "127.0.0.1", port
            )
            self._all.append(made)
            self._idle.append(made)

    def close(self) -> None:
        """Hang up."""
        for each in self._all:
            each.close()

    def _done(self, connection: Connection, status: int) -> None:
        self.load.latencies_s.append(perf_counter() - connection.due_s)
        self.load.errors += status != self._expected
        self._idle.append(connection)

    async def offer(self, requests: Sequence[bytes], per_s: float, seconds: float) -> Load:
        """Offer requests at a constant rate, whatever becomes of them."""
        self.load = Load()
        began_s, sent, waiting = perf_counter(), 0, 0
        total = int(per_s * seconds)
        while sent < total:
            due = min(total, int((perf_counter() - began_s) * per_s) + 1)
            while sent < due and self._idle:
                self._idle.popleft().send(requests[sent % len(requests)], began_s + sent / per_s)
                sent += 1
            waiting = max(waiting, due - sent)
            await asyncio.sleep(TICK_S)
        await _until(lambda: len(self.load.latencies_s) >= total, 10.0)
        lost = sum(each.is_lost for each in self._all)
        self.load.errors += lost + total - len(self.load.latencies_s)
        return self.load

    async def saturate(self, requests: Sequence[bytes], seconds: float) -> float:
        """Ask as fast as answers come; gives answers a second."""
        self.load = Load()
        began_s, sent = perf_counter(), 0
        while (now_s := perf_counter()) - began_s < seconds:
            while self._idle:
                self._idle.popleft().send(requests[sent % len(requests)], now_s)
                sent += 1
            await asyncio.sleep(0)
        took_s = perf_counter() - began_s
        done = len(self.load.latencies_s)
        await _until(lambda: len(self.load.latencies_s) >= sent, 10.0)
        return done / took_s


class Subscriber(asyncio.Protocol):
    """A live connection that looks at nothing but when each result was sent."""

    def __init__(self, opening: bytes, load: Load) -> None:
        self._opening = opening
        self._load = load
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.is_open = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the feed."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._transport.write(self._opening)

    def connection_lost(self, _error: Exception | None) -> None:
        """Note the loss."""
        self.is_lost = True

    def data_received(self, data: bytes) -> None:
        """Look for the times at which what comes was sent."""
        self.is_open = True
        now_s, data = time.time(), self._rest + data
        at = data.find(_SENT)
        end = 0
        while at >= 0:
            end = data.find(b",", at)
            if end < 0:
                break
            self._load.latencies_s.append(now_s - float(data[at + len(_SENT) : end]))
            at = data.find(_SENT, end)
        self._rest = data[at:] if at >= 0 else data[max(end, len(data) - len(_SENT)) :]

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


def sse_opening(source: str) -> bytes:
    """Ask for a source's scores as Server-Sent Events."""
    return request("GET", f"/v1/live?source={source}&kind=scores")


def socket_opening(source: str) -> bytes:
    """Ask for a source's scores over WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /v1/ws?source={source}&kind=scores HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def subscribe(port: int, openings: Sequence[bytes]) -> tuple[list[Subscriber], Load]:
    """Open live connections and wait until each has an answer."""
    load, loop = Load(), asyncio.get_running_loop()
    made: list[Subscriber] = []
    for opening in openings:
        _, each = await loop.create_connection(
            lambda opening=opening: Subscriber(opening, load),
            "127.0.0.1",
            port,  # type: ignore[misc]
        )
        made.append(each)
    await _until(lambda: all(each.is_open or each.is_lost for each in made), 30.0)
    load.errors += sum(each.is_lost or not each.is_open for each in made)
    return made, load


async def at_rate(action: Callable[[int], Awaitable[object]], per_s: float, seconds: float) -> None:
    """Do something at a constant rate, one after the other."""
    began_s = perf_counter()
    for index in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, began_s + index / per_s - perf_counter()))
        await action(index)


async def _until(check: Callable[[], bool], timeout_s: float) -> None:
    ends_s = perf_counter() + timeout_s
    while not check() and perf_counter() < ends_s:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
