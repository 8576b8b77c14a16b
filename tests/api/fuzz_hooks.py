"""What schemathesis does not know by itself: how JSON lines are written."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson", "application/jsonl")
def write_lines(_context: Any, value: Any) -> bytes:
    """Write a value as one line, or text as it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode(errors="replace")
