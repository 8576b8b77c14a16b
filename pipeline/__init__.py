"""percipio: frames and events over Redis Streams through YOLOv9 and consciousness scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.client import Client, SyncClient

__all__ = ["Client", "SyncClient"]


def __getattr__(name: str) -> object:
    """Load the client when it is asked for, so that importing a submodule stays light."""
    if name in __all__:
        from pipeline import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
