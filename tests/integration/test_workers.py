"""Workers as processes: what they do together, and what remains when one of them does not."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from pipeline.partition import Keys
from tests.conftest import Worker, eventually
from tests.streams import PARTITIONS, Streams, a_source, key, pack, partition_of, picture

CHECKOUT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PIPELINE_TEST_DATA") or CHECKOUT.parent / "shared" / "data")
DEMO_MODEL = CHECKOUT / "pipeline" / "data" / "demo.pt"
# What is found does not matter in most tests, that it is found soon does.
QUICK = {
    "PERCIPIO_MODEL": str(DEMO_MODEL),
    "PERCIPIO_DEVICE": "cpu",
    "PERCIPIO_RUNTIME": "torch",
    "PERCIPIO_IMAGE_SIZE": "160",
    "PERCIPIO_CLAIM_IDLE_MS": "2000",
}
START_S = 240.0

pytestmark = pytest.mark.timeout(2 * START_S)


@pytest.fixture
def streams(redis: Redis) -> Streams:
    return Streams(redis)


@pytest.fixture
def start(worker: Worker, streams: Streams) -> Worker:
    """Start a worker, of whose crash whoever waits is told."""

    def start(
        name: str, environ: Mapping[str, str] | None = None, *arguments: str
    ) -> subprocess.Popen[bytes]:
        process = worker(name, environ, *arguments)
        streams.watched.append(process)
        return process

    return start


@pytest.fixture
def demo_model() -> None:
    if not DEMO_MODEL.is_file():
        pytest.skip(f"no model at {DEMO_MODEL}")


async def test_what_came_before_the_first_worker_is_taken(streams: Streams, start: Worker) -> None:
    source = a_source()
    entry_id = await streams.event(source)

    start("score")

    await streams.settled(source, timeout_s=START_S)
    (score,) = await streams.scores(source)
    assert score["first"] == entry_id
    assert await streams.redis.hget("percipio:config", "partitions") == b"16"


async def test_a_worker_told_to_stop_finishes_and_ends_well(
    streams: Streams, start: Worker
) -> None:
    source = a_source()
    process = start("score")
    await streams.event(source)
    await streams.settled(source, timeout_s=START_S)

    process.terminate()

    await eventually(lambda: process.poll() is not None, 15, "the worker's end")
    assert process.returncode == 0
    await streams.settled_in(range(PARTITIONS))


async def test_events_are_scored_once_when_a_score_worker_is_killed(
    streams: Streams, start: Worker
) -> None:
    sources = [a_source(partition=part) for part in (0, 5, 10, 15)]
    first = start("score")
    await streams.event(sources[0])
    await streams.settled(sources[0], timeout_s=START_S)
    second = start("score")

    ids: dict[str, list[str]] = {source: [] for source in sources}
    for number in range(400):
        source = sources[number % 4]
        ids[source].append(await streams.event(source, meta=pack({"number": number})))
        if number == 200:
            first.kill()

    await streams.settled(*sources, timeout_s=60)
    assert second.poll() is None
    for source in sources:
        scores = await streams.scores(source)
        scored = [score["first"] for score in scores]
        assert scored[-100:] == ids[source]
        assert [int(score["n"]) for score in scores] == list(range(1, len(scores) + 1))


async def test_score_workers_share_the_partitions(
    streams: Streams, start: Worker, redis_url: str
) -> None:
    sources = [a_source(partition=part) for part in range(PARTITIONS)]
    workers = [start("score"), start("score")]

    await eventually(lambda: owners(redis_url, 2), START_S, "two owners")
    for source in sources:
        await streams.event(source)
    await streams.settled_in(range(PARTITIONS))
    workers[0].terminate()
    await eventually(lambda: owners(redis_url, 1), 30, "one owner")
    for source in sources:
        await streams.event(source)
    await streams.settled_in(range(PARTITIONS))

    for source in sources:
        assert [score["n"] for score in await streams.scores(source)] == ["1", "2"]


@pytest.mark.usefixtures("demo_model")
async def test_frames_are_detected_once_when_a_detect_worker_is_killed(
    streams: Streams, start: Worker
) -> None:
    sources = [a_source() for _ in range(3)]
    start("score")
    workers = [start("detect", QUICK), start("detect", QUICK)]
    await eventually(lambda: consumers(streams, sources[0], 2), START_S, "two consumers")

    ids: dict[str, list[str]] = {source: [] for source in sources}
    for number in range(90):
        source = sources[number % 3]
        ids[source].append(await streams.frame(source, picture(number)))
        if number == 45:
            await eventually(lambda: found_some(streams, sources), 60, "a detection")
            workers[0].kill()

    await streams.settled(*sources, timeout_s=120)
    for source in sources:
        found = Counter(entry["frame"] for entry in await streams.of("detections", source))
        assert found == Counter(ids[source])
        scores = Counter(score["first"] for score in await streams.scores(source))
        assert scores == Counter(ids[source])


@pytest.mark.usefixtures("demo_model")
async def test_a_frame_that_comes_late_is_scored_late_and_moves_no_track(
    streams: Streams, start: Worker
) -> None:
    source = a_source()
    stream = key("recordings", source)
    await streams.redis.xgroup_create(stream, "detect", "0", mkstream=True)
    late = await streams.frame(source, picture(3))
    await streams.redis.xreadgroup("detect", "a-slow-worker", {stream: ">"})
    early = [await streams.frame(source, picture(3), ts=1000 + 40 * number) for number in range(3)]
    start("score", {"PERCIPIO_REORDER_MS": "300"})
    start("detect", QUICK)

    async def are_scored() -> bool:
        # As a slow worker does, which is not gone.
        await streams.redis.xclaim(stream, "detect", "a-slow-worker", 0, [late], justid=True)
        return len(await streams.scores(source)) == 3

    await eventually(are_scored, START_S, "the scores of the frames in time")
    before = await streams.state(source)
    await streams.redis.xclaim(
        stream, "detect", "a-slow-worker", 0, [late], idle=10**8, justid=True
    )
    await streams.settled(source, timeout_s=90)

    scores = await streams.scores(source)
    assert [score["first"] for score in scores] == [*early, late]
    assert [score.get("late") for score in scores] == [None, None, None, "1"]
    assert (await streams.ledger(partition_of(source)))["frames_late"] == 1
    after = await streams.state(source)
    assert (before["late"], after["late"]) == ("0", "1")
    assert before["tracks"] == after["tracks"]


async def test_all_that_is_remembered_of_a_source_expires(streams: Streams, start: Worker) -> None:
    source = a_source("forgotten")
    start("score", {"PERCIPIO_STATE_TTL_S": "60"})
    await streams.event(source, seq=1, producer="run-1")
    await streams.settled(source, timeout_s=START_S)

    remembered = [name async for name in streams.redis.scan_iter(f"*{source}*")]
    assert key(f"state:{source}", source).encode() in remembered
    for name in remembered:
        assert 0 < await streams.redis.ttl(name) <= 3600, name


@pytest.mark.usefixtures("demo_model")
async def test_the_newest_frame_is_kept_only_if_wanted(streams: Streams, start: Worker) -> None:
    source = a_source()
    start("score")
    start("detect", {**QUICK, "PERCIPIO_KEEP_LAST_FRAME": "0"})

    await streams.frame(source)
    await streams.settled(source, timeout_s=START_S)

    assert not await streams.redis.exists(key(f"last:{source}", source))


async def test_cars_are_found_and_followed(streams: Streams, start: Worker, redis_url: str) -> None:
    video, weights = DATA / "media" / "cars.mp4", DATA / "weights"
    if not (video.is_file() and (weights / "yolov9t.pt").is_file()):
        pytest.skip(f"no cars.mp4 and weights at {DATA}: set PIPELINE_TEST_DATA to that folder")
    start("score")
    start("detect", {"PERCIPIO_MODEL_DIR": str(weights)})
    source = "cars"

    published = await percipio(
        redis_url,
        *("produce", "frames", "--source", source, "--input", str(video)),
        *("--limit", "30", "--as-fast-as-possible", "--json"),
    )
    assert published["published"] == 30
    await streams.settled(source, timeout_s=START_S)

    found = await streams.of("detections", source)
    assert len(found) == 30
    objects = [thing for entry in found for thing in entry.data["objects"]]
    cars = [thing["confidence"] for thing in objects if thing["label"] == "car"]
    assert 3 <= len(objects) / 30 <= 7
    assert len(cars) > 0.8 * len(objects)
    assert sum(confidence > 0.5 for confidence in cars) > 0.5 * len(cars)
    assert {(entry.data["width"], entry.data["height"]) for entry in found} == {(960, 540)}
    scores = await streams.scores(source)
    assert [score["n"] for score in scores] == [str(number) for number in range(1, 31)]
    followed = Counter(track["id"] for score in scores for track in score.data["tracks"])
    assert sum(frames >= 20 for frames in followed.values()) >= 2
    assert len(followed) <= 12
    assert int((await streams.state(source))["tracks"]) >= 2
    ledger = await streams.ledger(partition_of(source))
    assert ledger["frames_scored"] == 30


async def percipio(url: str, *arguments: str) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers.main", *arguments),
        env=os.environ | {"PERCIPIO_REDIS_URL": url},
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    told: dict[str, int] = json.loads(out)
    return told


async def owners(url: str, count: int) -> bool:
    """Tell whether as many workers own all partitions, going by `percipio status`."""
    status = await percipio(url, "status", "--json")
    parts: list[dict[str, str]] = status["partitions"]  # type: ignore[assignment]
    found = [part["owner"] for part in parts]
    return all(found) and len(set(found)) == count


async def consumers(streams: Streams, source: str, count: int) -> bool:
    info = await streams.group(partition_of(source), "recordings")
    return bool(info.get("consumers", 0) >= count)


async def found_some(streams: Streams, sources: list[str]) -> bool:
    return any([await streams.of("detections", source) for source in sources])


@pytest.mark.long
async def test_what_compiling_takes_is_not_kept(
    redis: Redis, start: Worker, tmp_path: Path
) -> None:
    """The first worker of an installation holds as much memory as those that start after it."""
    holds_mib = []
    for _ in range(2):
        worker = start("score", {"NUMBA_CACHE_DIR": str(tmp_path)})
        await eventually(lambda: redis.zcard(Keys().workers), timeout_s=START_S)
        holds_mib.append(psutil.Process(worker.pid).memory_info().rss / 2**20)
        worker.terminate()
        assert worker.wait(20) == 0

    assert holds_mib[0] < holds_mib[1] + 40, holds_mib
