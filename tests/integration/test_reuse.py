"""Frames that need no network: equal ones, those of other workers, those of a still camera."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from pipeline.answer_store import AnswerStore
from pipeline.answers import AnswerMemory
from pipeline.detect_feed import DetectFeed, DetectLimits
from pipeline.detect_stage import DetectWork, Network
from pipeline.entries import InputLimits
from pipeline.image import decode, encode_jpeg
from pipeline.inputs import Inputs
from pipeline.ledger import differences, read_status
from pipeline.partition import Keys
from pipeline.records import Detections, Image, Picture
from pipeline.reuse import Reuse
from pipeline.still import StillGate
from pipeline.stream import Store
from pipeline.wire import unpack
from tests.streams import picture

KEYS = Keys(partitions=2)


@dataclass
class Counting:
    """A network that counts; its box is as bright as the picture."""

    pictures: int = 0
    fails: bool = False

    def decode(self, data: bytes) -> Picture:
        return decode(data)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        self.pictures += len(pictures)
        if self.fails and any(p.image.any() for p in pictures):
            raise RuntimeError("poison")
        return [self._found(one) for one in pictures]

    def _found(self, one: Picture) -> Detections:
        box = np.array([[0, 0, one.image.mean(), one.image.std()]], np.float32)
        return Detections(box, np.array([0.5], np.float32), np.array([0], np.int32))


@dataclass
class Bench:
    """One deployment, and workers that take turns on it."""

    store: Store
    redis: Any
    network: Counting = field(default_factory=Counting)

    def answers(self, limit_bytes: int = 1 << 20, ttl_s: int = 60) -> AnswerStore:
        return AnswerStore(self.store, limit_bytes, ttl_s)

    async def publish(self, *images: bytes, source: str = "s") -> None:
        for image in images:
            key = KEYS.of_source(source).recordings
            await self.redis.xadd(key, {"source": source, "image": image})

    async def work(self, reuse: Reuse) -> list[dict[str, Any]]:
        """Do all that waits with one worker; gives the `data` of what it wrote, in order."""
        before = [await self.redis.xlen(KEYS.of(n).detections) for n in range(2)]
        stop = asyncio.Event()
        with ThreadPoolExecutor(1) as decoders:
            limits, network = (
                DetectLimits(batch_size=4),
                Network(self.network, "m@0", ("box",), encode_jpeg),
            )
            work = DetectWork(network, limits, KEYS.partitions, decoders, reuse)
            inputs = Inputs(self.store, "w", InputLimits())
            feed = DetectFeed(inputs, limits, work.prepare, work.turn)
            while await self._in_flight():
                if batch := await feed.next_batch(stop):
                    await feed.commit(await work.handle(batch))
        rows = []
        for number in range(2):
            found = await self.redis.xrange(KEYS.of(number).detections)
            rows += [unpack(fields[b"data"], "data") for _, fields in found[before[number] :]]
        return rows

    async def _in_flight(self) -> int:
        return sum(part.in_flight for part in (await read_status(self.store)).partitions) - sum(
            part.streams["detections"].lag or 0
            for part in (await read_status(self.store)).partitions
        )


@pytest.fixture
async def bench(redis_url: str, redis: Any) -> AsyncIterator[Bench]:
    async with Store.open(redis_url, KEYS) as store:
        yield Bench(store, redis)


def cached(rows: list[dict[str, Any]]) -> list[bool]:
    return [row["cached"] for row in rows]


async def test_equal_pictures_are_detected_once(bench: Bench) -> None:
    one, other = picture(1), picture(2)
    await bench.publish(one, one, other, one, other, one, one, other, one)

    rows = await bench.work(Reuse("id", AnswerMemory(1 << 20)))

    assert bench.network.pictures == 2
    assert cached(rows).count(False) == 2
    assert len({repr(row["objects"]) for row in rows}) == 2
    assert {row["timing"]["infer_ms"] for row in rows if row["cached"]} == {0}
    terms = (await read_status(bench.store)).terms
    assert (terms["frames_detected"], terms["frames_cached"]) == (2, 7)
    assert differences(terms)["frames"] == 0


async def test_results_of_an_equal_picture_are_equal_to_the_last_bit(bench: Bench) -> None:
    await bench.publish(picture(1))
    first = await bench.work(Reuse())
    await bench.publish(picture(1), picture(1))
    answers = bench.answers()
    await bench.work(Reuse("id", AnswerMemory(1 << 20), answers))
    await answers.write()
    await bench.publish(picture(1))

    again = await bench.work(Reuse("id", AnswerMemory(1 << 20), answers))

    assert cached(again) == [True]
    assert again[0]["objects"] == first[0]["objects"]
    assert (again[0]["width"], again[0]["height"]) == (160, 120)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
async def test_another_worker_finds_it_in_redis_and_viewers_see_it(
    bench: Bench, suffix: str
) -> None:
    await bench.publish(picture(1, suffix))
    answers = bench.answers()
    await bench.work(Reuse("id", AnswerMemory(1 << 20), answers))
    await answers.write()
    await bench.publish(picture(1, suffix), source="another")

    rows = await bench.work(Reuse("id", AnswerMemory(1 << 20), bench.answers()))

    assert cached(rows) == [True]
    assert bench.network.pictures == 1
    newest = await bench.redis.get(KEYS.of_source("another").last("another"))
    assert newest.startswith(b"\xff\xd8")


async def test_another_network_shares_nothing(bench: Bench) -> None:
    await bench.publish(picture(1))
    answers = bench.answers()
    await bench.work(Reuse("yolov9t|0.25", AnswerMemory(1 << 20), answers))
    await answers.write()
    await bench.publish(picture(1))

    rows = await bench.work(Reuse("yolov9t|0.5", AnswerMemory(1 << 20), answers))

    assert cached(rows) == [False]


async def test_damage_in_redis_is_detected_again(bench: Bench) -> None:
    reuse = Reuse("id", AnswerMemory(1 << 20), answers := bench.answers())
    await bench.publish(picture(1), picture(2))
    await bench.work(reuse)
    await answers.write()
    for number in range(2):
        for name in await bench.redis.hkeys(KEYS.of(number).answers):
            await bench.redis.hset(KEYS.of(number).answers, name, b"damaged")
    await bench.redis.delete(KEYS.of(1).answers)
    await bench.redis.set(KEYS.of(1).answers, "of a stranger")
    await bench.publish(picture(1), picture(2))

    rows = await bench.work(Reuse("id", AnswerMemory(1 << 20), again := bench.answers()))
    await again.write()

    await bench.publish(picture(1), picture(2))
    healed = await bench.work(Reuse("id", AnswerMemory(1 << 20), again))
    assert (cached(rows), cached(healed)) == ([False] * 2, [True] * 2)


async def test_a_full_redis_keeps_no_answers_and_loses_no_frame(bench: Bench) -> None:
    await bench.publish(*(picture(n) for n in range(4)))
    answers = bench.answers()
    await bench.redis.config_set("maxmemory", 1)
    try:
        rows = await bench.work(Reuse("id", AnswerMemory(1 << 20), answers))
        await answers.write()
    finally:
        await bench.redis.config_set("maxmemory", 0)

    assert cached(rows) == [False] * 4
    assert not [n for n in range(2) if await bench.redis.exists(KEYS.of(n).answers)]


async def test_answers_in_redis_are_bounded_in_size_and_life(bench: Bench) -> None:
    limit_bytes, rng = 40_000, np.random.default_rng(0)
    answers = bench.answers(limit_bytes, ttl_s=77)
    for _ in range(40):
        for _ in range(20):
            answers.put(rng.bytes(20), bytes(300))
        await answers.write()

    total = 0
    for number in range(2):
        for key in (KEYS.of(number).answers, KEYS.of(number).old_answers):
            sizes = await bench.redis.hgetall(key)
            total += sum(len(name) + len(value) for name, value in sizes.items())
            assert 0 < await bench.redis.ttl(key) <= 77
    batch_bytes = 20 * 320
    assert limit_bytes / 2 < total < limit_bytes + 2 * batch_bytes


async def test_what_was_written_is_found_until_it_is_the_oldest(bench: Bench) -> None:
    answers = bench.answers(1 << 16)
    written = {np.random.default_rng(n).bytes(20): b"%d" % n for n in range(50)}
    for digest, packed in written.items():
        answers.put(digest, packed)
    await answers.write()

    assert await answers.find([*written, b"x" * 20]) == written


async def test_a_poison_is_a_dead_letter_each_time(bench: Bench) -> None:
    """What the network did not survive is no answer."""
    bench.network.fails = True
    await bench.publish(picture(1), picture(1), picture(1))

    assert await bench.work(Reuse("id", AnswerMemory(1 << 20))) == []

    assert (await read_status(bench.store)).terms["frames_dead"] == 3


def noisy(base: Image, seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 3, base.shape)
    return encode_jpeg(np.clip(base + noise, 0, 255).astype(np.uint8))


async def test_a_still_camera_asks_the_network_once_a_run(bench: Bench) -> None:
    base = np.full((240, 320, 3), 90, np.uint8)
    changed = base.copy()
    changed[100:140, 100:140] = 250
    reuse = Reuse("id", AnswerMemory(1 << 20), None, StillGate(8, 20))
    await bench.publish(noisy(base, 0))
    await bench.work(reuse)
    await bench.publish(*(noisy(base, n) for n in range(1, 31)))
    still = await bench.work(reuse)
    await bench.publish(noisy(changed, 99))
    (moved,) = await bench.work(reuse)

    assert cached(still).count(False) in (1, 2, 3)  # renewed after 10 and about 11 more
    assert moved["cached"] is False
    terms = (await read_status(bench.store)).terms
    assert terms["frames_cached"] == cached(still).count(True)


async def test_a_camera_that_changes_its_size_is_detected(bench: Bench) -> None:
    """Thumbnails of both sizes are equal, boxes would not be."""
    reuse = Reuse("id", None, None, StillGate(8, 20))
    await bench.publish(encode_jpeg(np.full((360, 640, 3), 90, np.uint8)))
    await bench.work(reuse)
    await bench.publish(encode_jpeg(np.full((720, 1280, 3), 90, np.uint8)))

    (found,) = await bench.work(reuse)

    assert (found["cached"], found["width"]) == (False, 1280)


async def test_a_picture_that_does_not_decode_dies_at_the_gate_too(bench: Bench) -> None:
    await bench.publish(picture(1)[:-2], b"no picture", picture(2))

    rows = await bench.work(Reuse("id", AnswerMemory(1 << 20), None, StillGate(8, 20)))

    assert cached(rows) == [False]
    assert (await read_status(bench.store)).terms["frames_dead"] == 2
