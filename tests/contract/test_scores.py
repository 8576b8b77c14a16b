"""Scores and states, as everybody reads them (contract, section 4)."""

from __future__ import annotations

import random
import re
import time
from itertools import pairwise
from typing import Any

from tests.conftest import eventually
from tests.streams import Entry, Streams, a_source, at, pack, picture

PHASES = ("dormant", "awakening", "active", "focused", "emergent")
COMPONENTS = {"arousal", "differentiation", "integration", "workspace", "novelty"}
DATA = {
    "components",
    "confidence",
    "null",
    "emergence_strength",
    "core",
    "channels",
    "populations",
    "adaptation_rate",
    "correlation",
    "map_version",
    "engine_version",
    "latency_ms",
}
BIN_MS = 250


async def enliven(streams: Streams, source: str, bins: int = 120) -> None:
    """Publish 30 s up to now of four channels that drive one another, two events a bin."""
    random_of = random.Random(7)
    began_ms = int(time.time() * 1000) - bins * BIN_MS
    level = [0.0] * 4
    for number in range(2 * bins):
        drive = [0.9 * level[channel - 1] for channel in range(4)]
        level = [value + random_of.gauss(0, 1) for value in drive]
        values = {f"c{channel}": abs(value) for channel, value in enumerate(level)}
        await streams.event(
            source, values=pack(values), ts=began_ms + number * BIN_MS // 2, meta=pack({})
        )


async def test_a_score_of_an_event_says_what_the_contract_says(score_only: Streams) -> None:
    source = a_source()

    entry_id = await score_only.event(source, seq=5, producer="run-1")
    await score_only.settled(source)

    (score,) = await score_only.scores(source)
    assert (score["v"], score["source"], score["kind"]) == ("1", source, "event")
    assert (score["inputs"], score["n"]) == ("1", "1")
    assert (score["first"], score["last"]) == (entry_id, entry_id)
    assert (score["producer"], score["seq_first"], score["seq_last"]) == ("run-1", "5", "5")
    assert int(score["ts"]) == at(entry_id)[0]
    assert "late" not in score
    check_score(score)


async def test_a_score_without_numbers_names_none(score_only: Streams) -> None:
    source = a_source()

    await score_only.event(source)
    await score_only.settled(source)

    (score,) = await score_only.scores(source)
    assert not score.raw.keys() & {"producer", "seq_first", "seq_last"}


async def test_a_score_of_a_frame_has_tracks(deployment: Streams) -> None:
    source = a_source()

    for number in range(4):
        await deployment.frame(source, picture(3), ts=1_700_000_000_000 + 40 * number)
    await deployment.settled(source)

    scores = await deployment.scores(source)
    assert len(scores) == 4
    for score in scores:
        check_score(score)
        for track in score.data["tracks"]:
            check_track(track)
    ids = [{track["id"] for track in score.data["tracks"]} for score in scores]
    assert all(
        len(found) == len(score.data["tracks"]) for found, score in zip(ids, scores, strict=True)
    )


async def test_seq_of_a_frame_is_in_its_score(deployment: Streams) -> None:
    source = a_source()

    await deployment.frame(source, seq=9, producer="run-1", ts="1700000000123")
    await deployment.settled(source)

    (score,) = await deployment.scores(source)
    assert (score["producer"], score["seq_first"], score["seq_last"]) == ("run-1", "9", "9")
    assert score["ts"] == "1700000000123"


async def test_frames_and_events_share_one_count(deployment: Streams) -> None:
    source = a_source()

    for number in range(5):
        await deployment.event(source)
        await deployment.frame(source, picture(number))
    await deployment.settled(source)

    scores = await deployment.scores(source)
    check_counts(scores)
    assert int(scores[-1]["n"]) == 10
    assert [score["kind"] for score in scores].count("frame") == 5
    state = await deployment.state(source)
    assert (state["seq"], state["frames"], state["events"]) == ("10", "5", "5")


async def test_meta_of_a_frame_is_echoed_in_its_score(deployment: Streams) -> None:
    source = a_source()

    await deployment.frame(source, meta=pack({"camera": "left"}))
    await deployment.settled(source)

    (score,) = await deployment.scores(source)
    assert score.data["meta"] == {"camera": "left"}


async def test_one_channel_alone_scores_0(score_only: Streams) -> None:
    source = a_source()

    for number in range(80):
        await score_only.event(source, value=number % 5, ts=1_700_000_000_000 + 250 * number)
    await score_only.settled(source)

    assert {score["level"] for score in await score_only.scores(source)} == {"0.0000"}
    assert (await score_only.state(source))["phase"] == "dormant"


async def test_channels_that_drive_one_another_wake_a_source(score_only: Streams) -> None:
    source = a_source("alive")

    await enliven(score_only, source)
    await score_only.settled(source)

    scores = await score_only.scores(source)
    for score in scores:
        check_score(score)
    check_counts(scores)
    check_transitions(scores)
    # The newest may be low by chance: its window is compared with shuffled ones.
    highest = max(scores, key=lambda score: float(score["level"]))
    assert float(highest["level"]) > 0.1
    assert any(score["phase"] != "dormant" for score in scores)
    assert set(highest.data["components"]) == COMPONENTS
    assert all(0 <= value <= 1 for value in highest.data["components"].values())
    assert highest.data["core"]


async def test_silence_is_told_by_ticks(score_only: Streams) -> None:
    source = a_source("silent")
    await enliven(score_only, source)
    await score_only.settled(source)
    inputs = len(await score_only.scores(source))

    async def has_calmed() -> bool:
        ticks = (await score_only.of("scores", source))[inputs:]
        return any("transition" in tick for tick in ticks)

    await eventually(has_calmed, 40, "a lower phase")

    scores = await score_only.of("scores", source)
    check_counts(scores)
    check_transitions(scores)
    ticks = [score for score in scores if score["kind"] == "tick"]
    assert ticks == scores[inputs:]
    for before, tick in pairwise(scores[inputs - 1 :]):
        check_score(tick)
        assert tick["inputs"] == "0"
        assert not tick.raw.keys() & {"first", "last", "late"}
        assert tick["phase"] != before["phase"] or moved(before, tick) >= 0.0499
        assert int(tick["ts"]) >= int(before["ts"])


async def test_a_heartbeat_is_an_input_that_observes_nothing(score_only: Streams) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        await score_only.event(source)
        beat = await score_only.add("events", source, {"kind": "heartbeat"})

    assert counted == {"events_scored": 2}
    scores = await score_only.scores(source)
    check_counts(scores)
    assert (scores[-1]["last"], scores[-1]["n"]) == (beat, "2")


async def test_a_state_says_what_the_contract_says(score_only: Streams) -> None:
    source = a_source()
    await enliven(score_only, source, bins=70)
    began_ms = time.time() * 1000
    last = await score_only.event(source, channel="c0")
    await score_only.settled(source)

    state = await score_only.state(source)
    (*_, score) = await score_only.scores(source)
    assert state["v"] == "1"
    assert re.fullmatch(r"[01]\.\d{4}", state["level"])
    assert state["phase"] in PHASES
    assert {name for name in COMPONENTS if 0 <= float(state[name]) <= 1} == COMPONENTS
    assert 0 <= float(state["confidence"]) <= 1
    assert int(state["ts"]) == at(last)[0]
    assert int(state["level_ts"]) <= int(state["ts"]) + BIN_MS
    assert began_ms - 1000 <= int(state["updated_ms"]) <= time.time() * 1000 + 1000
    assert (state["seq"], state["events"]) == ("141", "141")
    assert int(state.get("frames", "0")) == 0
    for name in ("map_version", "engine_version"):
        assert state[name] == str(score.data[name])


async def test_a_state_counts_from_the_start(score_only: Streams) -> None:
    source = a_source()

    await score_only.event(source)
    await score_only.settled(source)

    state = await score_only.state(source)
    counts = {"frames": "0", "events": "1", "late": "0", "frames_dropped": "0", "dead": "0"}
    assert {name: state.get(name) for name in counts} == counts


async def test_unknown_components_are_absent_from_a_new_state(score_only: Streams) -> None:
    source = a_source()

    await score_only.event(source)
    await score_only.settled(source)

    state = await score_only.state(source)
    (score,) = await score_only.scores(source)
    known = {name for name, value in score.data["components"].items() if value is not None}
    assert COMPONENTS & set(state) == known
    assert all(state[name] for name in known)


async def test_a_state_names_the_model_and_counts_tracks(deployment: Streams) -> None:
    source = a_source()

    await deployment.frame(source)
    await deployment.settled(source)

    (found,) = await deployment.of("detections", source)
    state = await deployment.state(source)
    assert state["model"] == found.data["model"]
    assert int(state["tracks"]) >= 0
    assert (state["frames"], state["seq"]) == ("1", "1")


def moved(before: Entry, after: Entry) -> float:
    return abs(float(after["level"]) - float(before["level"]))


def check_score(score: Entry) -> None:
    """Hold one entry against the list of fields."""
    assert re.fullmatch(r"[01]\.\d{4}", score["level"])
    assert 0 <= float(score["level"]) <= 1
    assert score["phase"] in PHASES
    data = score.data
    assert data.keys() >= (DATA - {"latency_ms"} if score["kind"] == "tick" else DATA)
    assert set(data["components"]) <= COMPONENTS
    known = [value for value in data["components"].values() if value is not None]
    assert all(0 <= value <= 1 for value in known)
    assert 0 <= data["confidence"] <= 1
    assert data["null"] is None or 0 <= data["null"] <= 1
    assert 0 <= data["emergence_strength"] <= 1
    assert all(isinstance(name, str) for name in data["core"])
    assert data.get("latency_ms", 0) >= 0
    assert ("tracks" in data) == (score["kind"] == "frame")


def check_track(track: dict[str, Any]) -> None:
    assert set(track) >= {"id", "label", "confidence", "box", "age_ms", "velocity"}
    assert isinstance(track["label"], str)
    assert 0 <= track["confidence"] <= 1
    assert len(track["box"]) == 4
    assert track["age_ms"] >= 0
    assert len(track["velocity"]) == 2


def check_counts(scores: list[Entry]) -> None:
    count = 0
    for score in scores:
        count += int(score["inputs"])
        assert int(score["n"]) == count


def check_transitions(scores: list[Entry]) -> None:
    """Every change of phase, and nothing else, is told as one."""
    assert "transition" in {name for score in scores for name in score.raw}
    phase = "dormant"
    for score in scores:
        expected = None if score["phase"] == phase else f"{phase}>{score['phase']}"
        assert score.get("transition") == expected
        phase = score["phase"]
        assert phase in PHASES
