"""The first start of a score worker: what it says while kernels are compiled, and where that is."""

from __future__ import annotations

import gc
import logging
import subprocess
import time
from typing import Any

import pytest

from workers import score


@pytest.mark.parametrize(("is_cached", "words"), [(False, 2), (True, 1)])
async def test_a_start_says_that_it_compiles_and_how_long_it_took(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_cached: bool,
    words: int,
) -> None:
    """Another process compiles; from the cache, kernels are there before it is worth a word."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> None:
        asked.append(command)
        time.sleep(0.3)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(score, "is_cached", lambda: is_cached)
    monkeypatch.setattr(score, "LOADED_S", 0.1)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    caplog.set_level(logging.INFO, "percipio")
    await score._warm_up()
    logs: list[Any] = [record.msg for record in caplog.records]

    assert len(asked) == words - 1
    assert [each["event"] for each in logs] == ["kernels_loading", "kernels_ready"][-words:]
    assert "compiled" in str(logs[0]) or is_cached
    assert logs[-1]["seconds"] >= (0.0 if is_cached else 0.3)
