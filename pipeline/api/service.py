"""Everything the routes serve from, put together, with the tasks that keep it going."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline import metrics
from pipeline.api.access import Access, Keys, Rates
from pipeline.api.cache import Cached, States
from pipeline.api.encoding import encode, tag_of
from pipeline.api.feed import Feed
from pipeline.api.frames import Frames
from pipeline.api.guard import DATA_HEADERS
from pipeline.api.held import Item
from pipeline.api.history import History
from pipeline.api.publishing import Publishing
from pipeline.api.replay import Replay
from pipeline.crew import Crew, read_crew
from pipeline.demand import Signal
from pipeline.errors import DependencyError
from pipeline.follow import Followers
from pipeline.health import Health
from pipeline.ledger import read_status
from pipeline.log import get_logger
from pipeline.settings import Settings
from pipeline.stream import Store
from pipeline.tasks import end_tasks

log = get_logger()

STATUS_S = 1.0
SOURCES_S = 1.0
CREW_S = 3.0
CHECK_S = 2.0
CLOCK_S = 60.0


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON answer with its ETag."""

    data: bytes
    tag: str


@dataclass(slots=True)
class Service:
    """What an API process has."""

    store: Store
    health: Health
    access: Access
    rates: Rates
    feed: Feed
    states: States
    replay: Replay
    frames: Frames
    history: History
    publishing: Publishing
    status: Cached[Body]
    sources: Cached[dict[str, int]]
    crew: Cached[Crew]
    stopping: asyncio.Event
    live: int = 0
    signal: Signal = field(default_factory=Signal)

    def stop(self) -> None:
        """End what would go on for ever: live connections."""
        self.stopping.set()
        self.feed.close()
        self.frames.close()


@asynccontextmanager
async def open_service(
    store: Store, settings: Settings, keys: Keys, health: Health
) -> AsyncIterator[Service]:
    """Start following, and give what routes need; ends all of it afterwards."""
    followers = Followers(store)
    states = States(store, DATA_HEADERS)
    quiet_ms = settings.streams.state_ttl_s * 1000
    feed = Feed(followers, store.keys, settings.api.held_bytes, quiet_ms)
    replay = Replay(store, followers, feed)
    frames = Frames(store, feed, replay.look_up)
    feed.told += [states.touch, frames.touch]

    async def scores_of(source: str) -> Iterable[Item]:
        return list((await replay.fill(source, "scores")).items)

    history = History(scores_of, quiet_ms)
    feed.scored.append(history.note)
    publishing = Publishing(store, settings.streams)
    service = Service(
        store,
        health,
        Access(store, keys),
        Rates(settings.api.rate_per_s),
        feed,
        states,
        replay,
        frames,
        history,
        publishing,
        Cached("status", lambda: _status(service), STATUS_S),
        Cached("sources", lambda: _sources(store), SOURCES_S),
        Cached("crew", lambda: _crew(store), CREW_S),
        asyncio.Event(),
    )
    await feed.start()
    await publishing.synchronize()
    async with asyncio.TaskGroup() as group:
        running = (feed.run(), states.run(), keys.run(), _watch(service))
        tasks = [group.create_task(each) for each in running]
        try:
            yield service
        finally:
            service.stop()
            await followers.close()
            await end_tasks(tasks)


async def _watch(service: Service) -> None:
    """Keep readiness, gauges and the clock; ready is who can reach Redis."""
    last_s, loop = 0.0, asyncio.get_running_loop()
    while True:
        try:
            await service.status.get()
            await _measure_redis(service.store)
            if loop.time() - last_s > CLOCK_S:
                await service.publishing.synchronize()
                last_s = loop.time()
        except DependencyError as error:
            metrics.FAILURES.labels("redis").inc()
            service.health.unready("Redis is away")
            log.warning("redis_away", error=str(error))
        else:
            if not service.stopping.is_set():
                service.health.ready()
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_S):
                await service.stopping.wait()
            return


async def _status(service: Service) -> Body:
    status = await read_status(service.store)
    found, crew = status.as_json(), await service.crew.get()
    found["workers"] = crew.as_json([part.owner for part in status.partitions])
    found["api"] = {
        "live": service.live,
        "lookups": metrics.api_lookups(),
        "freshness": service.feed.freshness(),
        "held": {"sources": len(service.feed.held), "bytes": service.feed.held.size_bytes},
    }
    for equation, gap in found["difference"].items():
        metrics.LEDGER_DIFFERENCE.labels(equation).set(gap)
    for name in ("frames", "recordings", "events", "detections"):
        streams = [part.streams[name] for part in status.partitions]
        metrics.STREAM_LAG.labels(name).set(sum(each.lag or 0 for each in streams))
        metrics.STREAM_PENDING.labels(name).set(sum(each.pending for each in streams))
        metrics.STREAM_OLDEST.labels(name).set(max(each.oldest_ms for each in streams) / 1e3)
    service.signal.show(status)
    metrics.DEAD_KEPT.set(sum(part.dead for part in status.partitions))
    metrics.UNOWNED.set(sum(part.owner is None for part in status.partitions))
    data = encode(found)
    return Body(data, tag_of(data))


async def _crew(store: Store) -> Crew:
    return await read_crew(store, await store.now_ms())


async def _sources(store: Store) -> dict[str, int]:
    """Give all sources, by name, with when each was last seen, Unix ms."""
    keys = [store.keys.of(part).sources for part in range(store.keys.partitions)]
    answers = await store.run_many([("ZRANGE", key, 0, -1, "WITHSCORES") for key in keys])
    found: dict[str, int] = {}
    for answer in answers:
        if isinstance(answer, Exception):
            raise DependencyError(f"Redis: sources: {answer}") from answer
        flat = zip(answer[::2], answer[1::2], strict=True)
        found.update((name.decode(), int(float(score))) for name, score in flat)
    return dict(sorted(found.items()))


async def _measure_redis(store: Store) -> None:
    answer: Any = await store.run("INFO", "memory")
    nodes = [answer] if "used_memory" in answer else list(answer.values())
    used = sum(int(node["used_memory"]) for node in nodes)
    metrics.REDIS_MEMORY.set(used)
    metrics.REDIS_MEMORY_LIMIT.set(sum(int(node.get("maxmemory", 0)) for node in nodes))
