"""percipio: frames and events over Redis Streams through YOLOv9 and consciousness scoring."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.client import Client, Event, Frame, Result
    from pipeline.sync_client import SyncClient

__all__ = ["Client", "Event", "Frame", "Result", "SyncClient"]


def __getattr__(name: str) -> object:
    """Load the client when it is asked for, so that importing a submodule stays light."""
    if name in __all__:
        module = "sync_client" if name == "SyncClient" else "client"
        return getattr(import_module(f"pipeline.{module}"), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
