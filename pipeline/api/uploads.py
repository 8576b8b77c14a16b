"""Receiving what a request brings: its type, within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from pipeline.api.problems import RETRY_S, Problem

MOST_UPLOADING_BYTES = 256 << 20
BODY_S = 60.0
DRAIN_S = 5.0
DRAINED_BYTES = 64 << 20


class Uploads:
    """How much is being received; beyond a bound no more is begun."""

    def __init__(self) -> None:
        self.size_bytes = 0


def type_of(request: Request, taken: tuple[str, ...]) -> str:
    """Give the content type of a request.

    Raises:
        Problem: 415, it is not among those taken.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in taken:
        raise Problem(415, f"Content-Type {given[:80]!r}; taken: {', '.join(taken)}")
    return given


async def receive(request: Request, most_bytes: int) -> bytes:
    """Receive a body.

    Raises:
        Problem: 400, 408, 413 or 503.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        await _drain(request, int(declared))
        raise Problem(413, f"{declared} bytes; at most {most_bytes}", headers=_CLOSE)
    uploads: Uploads = request.app.state.uploads
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                uploads.size_bytes += len(part)
                parts.append(part)
                if size > most_bytes:
                    parts.clear()
                    await _drain(request, most_bytes)
                    raise Problem(413, f"more than {most_bytes} bytes", headers=_CLOSE)
                if uploads.size_bytes > MOST_UPLOADING_BYTES:
                    says = "too much is being received now"
                    raise Problem(503, says, retry_s=RETRY_S, headers=_CLOSE)
    except TimeoutError as error:
        says = f"the body did not come within {BODY_S:g} s"
        raise Problem(408, says, headers=_CLOSE) from error
    except ClientDisconnect as error:
        raise Problem(400, "the body broke off") from error
    finally:
        uploads.size_bytes -= size
    return b"".join(parts)


async def _drain(request: Request, size: int) -> None:
    """Let a client finish what it sends anyway, or it would not hear our answer."""
    if size > DRAINED_BYTES or request.headers.get("expect", "").lower() == "100-continue":
        return
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DRAIN_S):
            while (message := await request.receive())["type"] == "http.request":
                size -= len(message.get("body", b""))
                if size < -DRAINED_BYTES or not message.get("more_body", False):
                    return


_CLOSE = {"Connection": "close"}  # the rest of the body is not read
