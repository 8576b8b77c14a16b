"""Keeps numba's cache honest: an entry point is cached under its own file's date only."""

from __future__ import annotations

from pathlib import Path

import pipeline.scoring

_PACKAGE = Path(pipeline.scoring.__file__).parent


def pytest_configure() -> None:
    """Drop cached kernels that are older than a module they were compiled from."""
    newest = max(path.stat().st_mtime for path in _PACKAGE.glob("*.py"))
    for index in (_PACKAGE / "__pycache__").glob("*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink()
