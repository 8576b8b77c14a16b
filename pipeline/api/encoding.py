"""JSON, to the bytes that are sent and from those that came. The home of orjson."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

_OPTIONS = orjson.OPT_NON_STR_KEYS


def encode(value: object) -> bytes:
    """Encode a value; binary and other strange parts of it become text."""
    try:
        return orjson.dumps(value, default=_as_text, option=_OPTIONS)
    except (TypeError, ValueError):  # lone surrogates, whole numbers beyond 64 bits, binary names
        return json.dumps(_plain(value), default=_as_text).encode()


def encode_kept(value: object) -> bytes:
    """Encode a value whose JSON is kept; orjson leaves text in a buffer many times its size."""
    return bytes(memoryview(encode(value)))


def decode(data: bytes) -> Any:
    """Decode JSON.

    Raises:
        ValueError: it is none; NaN and Infinity are none.
    """
    return orjson.loads(data)


def tag_of(body: bytes) -> str:
    """Give the ETag of a body."""
    return f'"{hashlib.blake2b(body, digest_size=9).hexdigest()}"'


def _as_text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_as_text(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
