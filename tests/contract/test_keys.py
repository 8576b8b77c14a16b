"""Names, kinds and groups of what is in Redis (contract, section 2)."""

from __future__ import annotations

import time
import zlib

import pytest

from tests.contract.conftest import MAX_AGE_MS
from tests.streams import (
    GROUPS,
    OLD_FRAMES,
    OLD_RECORDINGS,
    PARTITIONS,
    Streams,
    a_source,
    key,
    key_in,
    picture,
)

KINDS = {
    "config": b"hash",
    "frames": b"stream",
    "recordings": b"stream",
    "events": b"stream",
    "detections": b"stream",
    "scores": b"stream",
    "dead": b"stream",
    "state:": b"hash",
    "sources": b"zset",
    "ledger": b"hash",
    "last:": b"string",
}


def test_robot_7_is_in_partition_7_of_16() -> None:
    assert zlib.crc32(b"robot-7") == 1424056295
    assert key("events", "robot-7") == "percipio:{p007}:events"


async def test_robot_7_is_taken_in_partition_7(score_only: Streams) -> None:
    async with score_only.counting("robot-7") as counted:
        observed = {"source": "robot-7", "channel": "motion", "value": "0.8"}
        await score_only.add_raw(7, "events", observed)

    assert counted == {"events_scored": 1}


async def test_the_deployment_is_recorded_for_everybody(score_only: Streams) -> None:
    config = await score_only.redis.hgetall("percipio:config")

    assert config[b"partitions"] == b"16"
    assert config[b"contract"] == b"1"


async def test_every_partition_has_its_groups_from_the_start(deployment: Streams) -> None:
    for part in range(PARTITIONS):
        for kind, group in GROUPS.items():
            groups = await deployment.redis.xinfo_groups(key_in(part, kind))

            assert [info["name"] for info in groups] == [group.encode()], (part, kind)


async def test_keys_hold_what_the_contract_says(deployment: Streams) -> None:
    source = a_source()
    await deployment.frame(source)
    await deployment.frame(source, kind="frames")
    await deployment.event(source)
    await deployment.event(source, channel="", value="")
    await deployment.settled(source)

    assert await deployment.redis.type("percipio:config") == b"hash"
    for kind, expected in KINDS.items():
        if kind != "config":
            name = key(kind + source if kind.endswith(":") else kind, source)

            assert await deployment.redis.type(name) == expected, name


async def test_a_source_is_listed_with_the_time_it_was_last_seen(score_only: Streams) -> None:
    source = a_source()
    began_ms = time.time() * 1000

    await score_only.event(source, ts="1000")
    await score_only.settled(source)

    seen_ms = await score_only.redis.zscore(key("sources", source), source)
    assert began_ms - 1000 <= seen_ms <= time.time() * 1000 + 1000


async def test_a_state_expires_a_day_after_the_last_input(score_only: Streams) -> None:
    source = a_source()

    await score_only.event(source)
    await score_only.settled(source)

    left_s = await score_only.redis.ttl(key(f"state:{source}", source))
    assert 86_000 <= left_s <= 86_400


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
async def test_the_newest_detected_frame_is_kept_for_a_minute_as_jpeg(
    deployment: Streams, suffix: str
) -> None:
    source = a_source()

    await deployment.frame(source, picture(suffix=suffix))
    await deployment.settled(source)

    image = await deployment.redis.get(key(f"last:{source}", source))
    assert image.startswith(b"\xff\xd8\xff")
    assert 0 < await deployment.redis.ttl(key(f"last:{source}", source)) <= 60


async def test_a_live_frame_that_waited_too_long_is_dropped_and_counted(
    deployment: Streams,
) -> None:
    source = a_source("old", partition=OLD_FRAMES)
    now_ms = int(time.time() * 1000)

    async with deployment.counting(source) as counted:
        old_id = f"{now_ms - 10 * MAX_AGE_MS}-0"
        await deployment.add("frames", source, {"image": picture(), "ts": now_ms}, id=old_id)
        new_id = await deployment.frame(source, kind="frames", ts="1000")

    assert counted == {"frames_dropped_age": 1, "frames_detected": 1, "frames_scored": 1}
    (found,) = await deployment.of("detections", source)
    assert (found["frame"], found["stream"]) == (new_id, "frames")
    state = await deployment.state(source)
    assert state["frames_dropped"] == "1"
    assert state["frames"] == "1"


async def test_a_recording_is_never_too_old(deployment: Streams) -> None:
    source = a_source("old", partition=OLD_RECORDINGS)
    long_ago_ms = int(time.time() * 1000) - 10 * MAX_AGE_MS

    async with deployment.counting(source) as counted:
        await deployment.add("recordings", source, {"image": picture()}, id=f"{long_ago_ms}-0")

    assert counted == {"frames_detected": 1, "frames_scored": 1}
