"""The pipeline we compare with is honest: it works, and its levels are the engine's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from redis import Redis

from benchmarks import plain_measures
from benchmarks.baseline import EVENTS, SCORES, Baseline, state_key
from benchmarks.load import START_MS, Load
from benchmarks.plain_source import Source
from pipeline.embedded import EmbeddedRedis
from pipeline.scoring.batch import EVENT, InputBuilder
from pipeline.scoring.engine import Engine

Event = tuple[int, dict[str, float]]


def regular(channels: int, count: int) -> list[Event]:
    """Give events of one source, one every 100 ms."""
    load = Load(1, channels, every_ms=100)
    return [(ts, values) for _, ts, values in islice(load.events(), count)]


def ragged() -> Iterator[Event]:
    """Give 500 events of which some come late and some never, with a silence of 12 s."""
    rng = np.random.default_rng(5)
    for ts, values in regular(4, 620):
        if START_MS + 30_000 < ts < START_MS + 42_000:
            continue
        yield ts - (3000 if rng.random() < 0.05 else 0), values


def compare(events: list[Event]) -> tuple[float, float, int, int]:
    """Give the largest difference of the level, the largest level, and both phases at the end."""
    engine, plain, builder = Engine(), Source("cam-1"), InputBuilder()
    slot = engine.slot("cam-1")
    worst = largest = 0.0
    for ts, values in events:
        builder.add(slot, ts, EVENT, *engine.encode_event(slot, values))
        level = float(engine.step(builder.build()).level[0])
        plain.observe(ts, values, always=False)
        worst, largest = max(worst, abs(level - plain.level)), max(largest, level)
    return worst, largest, int(engine.snapshot(slot)["phase"]), plain.phase


STORIES = pytest.mark.parametrize(
    "events",
    [regular(4, 500), regular(16, 250), list(ragged())],
    ids=["4 channels", "16 channels", "late and silent"],
)


@STORIES
def test_nothing_but_rounding_differs(events: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """With values rounded to halves as the engine rounds them the levels are the same to 2e-5."""
    exact = plain_measures.transform
    monkeypatch.setattr(plain_measures, "transform", lambda x: float(np.float16(exact(x))))

    worst, largest, phase, plain_phase = compare(events)

    assert largest > 0.2
    assert worst < 2e-5
    assert phase == plain_phase


@STORIES
def test_rounding_matters_little(events: list[Event]) -> None:
    """With doubles instead of halves a bit near its mean may turn: a few hundredths of level."""
    assert compare(events)[0] < 0.05


def test_computing_anew_changes_nothing() -> None:
    """The window computed for every event gives what computing it when it changes gives."""
    always, seldom = Source("a"), Source("a")
    for ts, values in regular(4, 120):
        ours = always.observe(ts, values)
        theirs = seldom.observe(ts, values, always=False)
        assert ours.level == theirs.level == seldom.level
        assert ours.differentiation == theirs.differentiation

    assert always.to_json() == seldom.to_json()
    assert always.level > 0


@pytest.mark.parametrize("hold", [False, True])
def test_the_pipeline_works(redis_server: EmbeddedRedis, redis_url: str, hold: bool) -> None:
    """Each event becomes one result and one state, also when another process goes on."""
    load = Load(3, 2)
    events = list(islice(load.events(), 30))
    with Redis.from_url(redis_url) as client:
        first, second = (Baseline(client, hold=hold) for _ in range(2))
        first.prepare()
        for source, ts, values in events:
            event = {"source": source, "ts": ts, "values": values}
            client.xadd(EVENTS, {"event": json.dumps(event)})

        for baseline, count in ((first, 12), (second, 18)):
            assert all(baseline.handle_one() for _ in range(count))

        assert not second.handle_one(block_ms=1)
        results = [json.loads(fields[b"score"]) for _, fields in client.xrange(SCORES)]
        assert [(r["source"], r["ts"]) for r in results] == [(s, ts) for s, ts, _ in events]
        assert [r["n"] for r in results[-3:]] == [10, 10, 10]
        assert client.xpending(EVENTS, "score")["pending"] == 0
        state = Source.from_json(client.get(state_key("s2")), "s2")
        expected = Source("s2")
        for source, ts, values in events:
            if source == "s2":
                expected.observe(ts, values)
        assert state == expected
