"""The examples publish what the contract takes and print the scores that come."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.partition import Keys
from pipeline.wire import read_event, read_frame
from tests.conftest import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCE = "robot-7"


async def _succeeds(*command: str, folder: Path) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait() == 0


async def _command(language: str, tmp_path: Path) -> tuple[str, ...]:
    """Give the command of an example, or skip where what it needs cannot be had."""
    folder = EXAMPLES / language
    if language == "python":
        return sys.executable, str(folder / "publish_follow.py")
    if language == "node":
        if not shutil.which("npm"):
            pytest.skip("node and npm are not installed")
        copy = shutil.copytree(folder, tmp_path / "node")
        if not await _succeeds("npm", "install", "--no-audit", "--no-fund", folder=copy):
            pytest.skip("npm cannot install what examples/node/package.json asks for")
        return "node", str(copy / "publish_follow.mjs")
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    if not await _succeeds("go", "build", "-o", "/dev/null", ".", folder=folder):
        pytest.skip("go-redis is not there: go mod tidy in examples/go")
    return "go", "run", "-C", str(folder), "."


@pytest.mark.parametrize("language", ["python", "node", "go"])
async def test_an_example_publishes_and_follows(
    language: str, redis: Any, one_server_url: str, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"\xff\xd8\xff\xe0 not looked at")
    keys = Keys().of(7)
    await redis.hset("percipio:config", mapping={"partitions": 16, "contract": 1})
    await redis.xadd(keys.scores, {"source": SOURCE, "kind": "event", "level": "0.9000"})
    command = await _command(language, tmp_path)

    process = await asyncio.create_subprocess_exec(
        *command, one_server_url, SOURCE, str(picture), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        await eventually(lambda: redis.xlen(keys.events), timeout_s=20)
        for source, level in (("other", "0.1"), (SOURCE, "0.2500"), (SOURCE, "0.5000")):
            fields = {"source": source, "kind": "event", "level": level, "phase": "awakening"}
            await redis.xadd(keys.scores, fields)
        out, _ = await process.communicate()

    (frame_id, frame), (event_id, event) = [
        (await redis.xrange(stream))[0] for stream in (keys.recordings, keys.events)
    ]
    assert read_frame(frame_id, frame, 7, 16).image == picture.read_bytes()
    assert read_event(event_id, event, 7, 16).values == {"motion": 0.8}
    assert process.returncode == 0
    assert out.decode().splitlines() == [
        f"published {frame_id.decode()} {event_id.decode()}",
        "score event 0.2500 awakening",
        "score event 0.5000 awakening",
    ]
