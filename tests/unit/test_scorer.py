"""A partition's scoring: every input ends once, batches may be cut anywhere, states are movable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import EntryError, Reason
from pipeline.memory import AT_REST, Remembered, is_at_rest
from pipeline.records import Detections
from pipeline.score_inputs import Input, Inputs
from pipeline.scorer import PartitionScorer, Result
from pipeline.scoring.channels import VISION
from pipeline.scoring.engine import Engine, warm_up
from pipeline.scoring.parameters import Parameters
from pipeline.wire import Envelope, EventEntry, id_key
from pipeline.wire_results import DetectionEntry

T0 = 1_700_000_000_000
warm_up()  # a compilation takes longer than a test may


def event(
    at_ms: int, values: dict[str, float] | None = None, source: str = "s", **more: Any
) -> Input:
    entry_id = b"%d-0" % (T0 + at_ms)
    head = Envelope(entry_id, T0 + at_ms, source, T0 + at_ms, **more)
    value = EventEntry(head, {"a": 1.0} if values is None else values, None)
    return Input("events", entry_id, {b"source": source.encode()}, value)


def frame(
    at_ms: int,
    boxes: int = 1,
    source: str = "s",
    done_ms: int = 50,
    *,
    kind: tuple[int, str] = (0, "person"),
    model: str = "m@0",
) -> Input:
    entry_id = b"%d-1" % (T0 + at_ms + done_ms)
    head = Envelope(entry_id, T0 + at_ms + done_ms, source, T0 + at_ms)
    xyxy = np.array([[10 + 60 * k, 10, 50 + 60 * k, 50] for k in range(boxes)], np.float32)
    found = Detections(
        xyxy.reshape(-1, 4), np.full(boxes, 0.9, np.float32), np.full(boxes, kind[0], np.int32)
    )
    frame_id = b"%d-0" % (T0 + at_ms)
    labels = (kind[1],) * boxes
    value = DetectionEntry(head, frame_id, "frames", model, 640, 480, found, labels)
    return Input("detections", entry_id, {}, value)


def fields_of(result: Result) -> list[dict[str, Any]]:
    rows: list[dict[Any, Any]] = [dict(zip(f[::2], f[1::2], strict=True)) for f in result.scores]
    for row in rows:
        row["data"] = msgpack.unpackb(row["data"])
    return rows


def score(scorer: PartitionScorer, *inputs: Input) -> Result:
    return scorer.score(Inputs.of(inputs), T0)


def scorer_of(*sources: str) -> PartitionScorer:
    scorer = PartitionScorer(Engine())
    scorer.learn(dict.fromkeys(sources or ("s",)))
    return scorer


def test_consecutive_events_share_an_entry() -> None:
    """One entry accounts for them all: inputs, n, first, last."""
    (row,) = fields_of(scorer_of().score(Inputs.of([event(0), event(10), event(20)]), T0 + 30))

    assert (row["kind"], row["inputs"], row["n"]) == ("event", 3, 3)
    assert (row["first"], row["last"]) == (b"%d-0" % T0, b"%d-0" % (T0 + 20))
    assert row["data"]["latency_ms"] == 10


@pytest.mark.parametrize("more", [{"meta": b"\x80"}, {"traceparent": b"00-x"}])
def test_an_event_with_something_to_echo_is_alone(more: dict[str, Any]) -> None:
    """Its neighbours keep their own entries."""
    inputs = [event(0), event(10), event(20, **more), event(30)]
    rows = fields_of(score(scorer_of(), *inputs))

    assert [row["inputs"] for row in rows] == [2, 1, 1]
    assert [row["n"] for row in rows] == [2, 3, 4]


def test_producers_do_not_share_an_entry() -> None:
    """seq_first and seq_last belong to one producer."""
    inputs = [
        event(at, producer=producer, seq=seq)
        for at, producer, seq in [(0, "p", 1), (1, "p", 2), (2, "q", 1), (3, "p", 3)]
    ]
    rows = fields_of(score(scorer_of(), *inputs))

    assert [(r["producer"], r["seq_first"], r["seq_last"]) for r in rows] == [
        ("p", 1, 2),
        ("q", 1, 1),
        ("p", 3, 3),
    ]


def test_a_duplicate_is_dropped_and_counted() -> None:
    """The second of a number makes no entry."""
    scorer = scorer_of()
    first = score(scorer, *[event(0, producer="p", seq=7)])
    again = score(scorer, *[event(5, producer="p", seq=7), event(6, producer="p", seq=8)])

    assert first.ledger()["events_scored"] == 1
    assert again.ledger()["events_dropped_duplicate"] == 1
    assert again.ledger()["events_scored"] == 1
    assert [row["n"] for row in fields_of(again)] == [2]


@pytest.mark.parametrize(("later_ms", "is_new"), [(3_599_000, False), (3_601_000, True)])
def test_duplicates_prolong_nothing(later_ms: int, *, is_new: bool) -> None:
    """The hour counts from the last new number, here and on an owner that knows what is kept."""
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    for at_ms in (0, 2000):
        remember(kept, score(scorer, event(at_ms, producer="p", seq=7)))

    for each in (scorer, moved(kept)):
        result = score(each, event(later_ms, producer="p", seq=7))
        assert result.ledger()["events_scored"] == is_new
        assert result.ledger()["events_dropped_duplicate"] == (not is_new)


def test_a_bad_entry_leaves_its_neighbours_alone() -> None:
    """One name more than there is room for, and an unreadable one, are dead letters."""
    many = {f"c{k}": 1.0 for k in range(17)}
    broken = Input("events", b"5-0", {b"source": b"s"}, EntryError(Reason.BAD_FIELD, "no"))
    result = score(scorer_of(), *[event(0), event(1, many), broken, event(2)])

    assert result.ledger()["events_dead"] == 2
    assert [row["n"] for row in fields_of(result)] == [2]
    letters = [dict(zip(f[::2], f[1::2], strict=True)) for f in result.dead]
    assert [letter["reason"] for letter in letters] == ["bad_field", "bad_field"]
    (write,) = result.sources
    assert write.add["dead"] == 2


def test_a_frame_has_tracks_and_an_entry_of_its_own() -> None:
    """Ids begin at the first frame's time and stay."""
    scorer = scorer_of()
    rows = fields_of(score(scorer, *[frame(100 * k, 2) for k in range(6)]))

    assert [row["inputs"] for row in rows] == [1] * 6
    ids = {track["id"] for row in rows for track in row["data"]["tracks"]}
    assert len(ids) == 2
    assert min(ids) >= T0
    assert rows[-1]["data"]["tracks"][0]["label"] == "person"


def test_a_straggler_is_scored_late_and_moves_no_track() -> None:
    """A frame behind the newest is counted, marked, and has no tracks."""
    scorer = scorer_of()
    score(scorer, *[frame(100 * k) for k in range(4)])
    result = score(scorer, *[frame(50)])
    (row,) = fields_of(result)

    assert (row["late"], row["data"]["tracks"]) == (1, [])
    assert result.ledger()["frames_late"] == 1


def test_silence_lets_the_level_fall_and_says_so() -> None:
    """Ticks make entries without inputs until the source is at rest."""
    rng = np.random.default_rng(3)
    state, inputs = np.zeros(4), []
    for k in range(400):
        state = 0.5 * state + 0.45 * np.roll(state, 1) + rng.normal(size=4)
        inputs.append(event(k * 250, {f"c{j}": float(x) for j, x in enumerate(np.abs(state))}))
    scorer = scorer_of()
    before = fields_of(score(scorer, *inputs))
    level = float(before[-1]["level"])
    ticks: list[dict[str, Any]] = []
    for second in range(1, 40):
        now_ms = T0 + 400 * 250 + 1000 * second
        ticks += fields_of(scorer.tick(now_ms))

    assert level > 0.1
    assert all((row["kind"], row["inputs"], row["n"]) == ("tick", 0, 400) for row in ticks)
    assert (float(ticks[-1]["level"]), ticks[-1]["phase"]) == AT_REST
    assert fields_of(scorer.tick(T0 + 400 * 250 + 50_000)) == []


def test_a_tick_that_is_not_shown_leaves_the_source_as_it_is() -> None:
    """So a straggler is judged by what was written: here and by an owner that knows no more."""
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    remember(kept, score(scorer, *[event(250 * k, {"a": float(k % 7)}) for k in range(80)]))
    before = state_of(scorer, "s")

    assert scorer.tick(T0 + 80 * 250 + 5000).scores == []

    assert state_of(scorer, "s") == before
    other = PartitionScorer(Engine())
    other.learn({"s": Remembered(**kept["s"])})
    straggler = event(80 * 250 + 100, {"a": 3.0})
    assert score(scorer, straggler).scores == score(other, straggler).scores
    assert state_of(scorer, "s") == state_of(other, "s")


def test_shown_ticks_are_remembered() -> None:
    """Whoever takes over after a shown tick goes on exactly as its owner would have."""
    rng, level = np.random.default_rng(3), np.zeros(4)
    inputs = []
    for k in range(400):
        level = 0.5 * level + 0.45 * np.roll(level, 1) + rng.normal(size=4)
        inputs.append(event(k * 250, {f"c{j}": float(x) for j, x in enumerate(np.abs(level))}))
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    remember(kept, score(scorer, *inputs))
    shown = 0
    for second in range(1, 12):
        result = scorer.tick(T0 + 400 * 250 + 1000 * second)
        shown += len(result.scores)
        remember(kept, result)
        other = PartitionScorer(Engine())
        other.learn({"s": Remembered(**kept["s"])})
        assert state_of(other, "s") == state_of(scorer, "s")

    assert shown > 2


def test_a_frame_whose_time_is_not_newer_is_a_straggler() -> None:
    """In order by id, behind by `ts`: scored, marked and counted, and it moves no track."""
    scorer = scorer_of()
    score(scorer, *[frame(100 * k) for k in range(4)])
    behind = frame(400)
    assert isinstance(behind.value, DetectionEntry)
    behind.value.envelope = replace(behind.value.envelope, ts_ms=T0 + 250)
    same = frame(350)
    assert isinstance(same.value, DetectionEntry)
    same.value.envelope = replace(same.value.envelope, ts_ms=T0 + 300)
    (alike,) = fields_of(score(scorer, same))
    result = score(scorer, behind)
    (row,) = fields_of(result)

    assert (alike.get("late"), alike["data"]["tracks"]) == (None, [])
    assert (row["late"], row["data"]["tracks"]) == (1, [])
    assert result.ledger()["frames_late"] == 1
    assert [r.get("late") for r in fields_of(score(scorer, frame(500)))] == [None]


def test_a_straggler_says_nothing_of_motion() -> None:
    """What moved no track has measured no motion: the channel keeps its mean."""
    scorer = scorer_of()
    moving = [frame(100 * k, 1) for k in range(8)]
    for k, one in enumerate(moving):
        assert isinstance(one.value, DetectionEntry)
        one.value.detections.xyxy[:] += 20 * k
    score(scorer, *moving)
    slot = scorer._memories["s"].slot
    before = scorer._engine._rows[slot].copy()
    late = frame(750)
    assert isinstance(late.value, DetectionEntry)
    late.value.envelope = replace(late.value.envelope, ts_ms=T0 + 699)
    score(scorer, late)
    after = scorer._engine._rows[slot]

    motion, people = VISION.index("vision.motion"), VISION.index("vision.people")
    assert after["count"][motion] == before["count"][motion] > 0
    assert after["count"][people] == before["count"][people] + 1


def test_a_source_whose_every_input_is_refused_leaves_the_memory() -> None:
    """Names that bring nothing are not kept for ever."""
    scorer = scorer_of("s", "t")
    score(scorer, event(0), event(1, {f"c{k}": 1.0 for k in range(17)}, source="t"))
    scorer.tick(T0 + 200_000)
    assert len(scorer) == 2

    scorer.tick(T0 + 400_000)
    scorer.tick(T0 + 800_000)

    assert len(scorer) == 0


def test_time_passes_as_far_as_a_stream_of_frames_has_been_worked_off() -> None:
    """For sources that have lately sent frames to it, and for no others."""
    scorer = scorer_of("seen", "told")
    score(scorer, frame(0, source="seen", done_ms=3000), event(0, source="told"))

    def waits(reached_ms: int, now_ms: int) -> list[str]:
        scorer.silence.reached_ms = {"frames": T0 + reached_ms, "recordings": 0}
        scorer.silence.find(T0 + now_ms)
        return scorer.silence._due

    assert waits(999, 10_000) == ["told"]
    assert waits(1000, 10_000) == ["seen", "told"]
    fades_ms = scorer.silence._fades_ms("seen")
    assert scorer.silence.lasts_ms("seen", scorer._memories["seen"], T0 + 90_000) == 1000
    waits(fades_ms, 90_000)
    assert scorer.silence.lasts_ms("seen", scorer._memories["seen"], T0 + 90_000) == 90_000


def test_what_a_slow_detector_sees_is_correlated_with_events() -> None:
    """An event says half a second later how many there are; the frame is detected only then."""
    rng, inputs = np.random.default_rng(5), []
    people = rng.integers(0, 5, 400)
    for k, count in enumerate(people.tolist()):
        inputs.append(frame(250 * k, boxes=count, done_ms=700))
        inputs.append(event(250 * k + 600, {"said": float(count)}))
    inputs.sort(key=lambda one: id_key(one.entry_id))
    scorer, rows = scorer_of(), list[dict[str, Any]]()
    for start in range(0, 800, 40):
        rows += fields_of(score(scorer, *inputs[start : start + 40]))

    data = rows[-1]["data"]
    assert data["correlation"]["pair"]["vision"] == "people"
    assert data["correlation"]["pair"]["event"] == "said"
    assert data["correlation"]["pair"]["lag_ms"] in (500, 750)
    assert data["correlation"]["pair"]["r"] > 0.4
    assert data["patched"] <= 3
    assert data["grace_ms"] > 0


def test_a_source_that_was_away_is_where_it_would_be() -> None:
    """Put out of memory at rest and brought back, it gives what one gives that stayed."""
    kept: dict[str, dict[str, bytes]] = {"s": {}}
    goes, stays = PartitionScorer(Engine()), PartitionScorer(Engine())
    stays.silence._cold_ms = 10**9
    first = [*level_makers(), *[frame(250 * k, 2) for k in range(36, 40)]]
    for scorer in (goes, stays):
        scorer.learn({"s": None})
        remember(kept if scorer is goes else {"s": {}}, score(scorer, *first))
    for second in range(12, 340):
        for scorer in (goes, stays):
            result = scorer.tick(T0 + 1000 * second)
            remember(kept if scorer is goes else {"s": {}}, result)
    assert goes.unknown(["s"]) == ["s"]
    assert not stays.unknown(["s"])

    goes.learn({"s": Remembered(**kept["s"])})
    again = [event(400_000 + 250 * k, {"c0": 1.0 + k % 3, "new": 2.0}) for k in range(80)]
    again.append(frame(421_000, 2))
    found = [fields_of(score(scorer, *again)) for scorer in (goes, stays)]

    assert found[0] == found[1]
    assert state_of(goes, "s") == state_of(stays, "s")


def level_makers() -> list[Input]:
    """Give 34 bins of coupled events: too few for a level as they come, enough for the next one."""
    rng, drive, inputs = np.random.default_rng(3), np.zeros(4), []
    for k in range(34):
        drive = 0.9 * np.roll(drive, 1) + 0.44 * rng.standard_normal(4)
        inputs.append(event(250 * k, {f"c{j}": float(abs(x)) for j, x in enumerate(drive)}))
    return inputs


def test_a_source_leaves_before_what_is_kept_of_it_expires() -> None:
    """Its next input then finds what Redis has, as it would with another owner."""
    scorer = PartitionScorer(Engine(), kept_ms=60_000)
    scorer.learn({"s": None})
    score(scorer, event(0))
    for second in range(1, 31):
        scorer.tick(T0 + 1000 * second)
    assert not scorer.unknown(["s"])

    scorer.tick(T0 + 31_000)
    assert scorer.unknown(["s"]) == ["s"]


def test_the_state_says_why_a_level_is_low() -> None:
    """One channel scores 0, and a window takes 64 bins; once neither holds nothing is said."""
    scorer = scorer_of("s", "t", "u")
    notes = []
    for source, bins, names in (("s", 20, "a"), ("t", 30, "ab"), ("u", 130, "ab")):
        inputs = [event(250 * k, dict.fromkeys(names, 1.0), source) for k in range(bins)]
        (write,) = score(scorer, *inputs).sources
        state = dict(zip(write.state[::2], write.state[1::2], strict=True))
        notes.append(state.get("note"))
        assert ("note" in write.absent) == ("note" not in state)

    assert str(notes[0]).startswith("one channel alone always scores 0; the window holds 1")
    assert str(notes[1]).startswith("the window holds 2")
    assert notes[2] is None


def moved(kept: dict[str, dict[str, bytes]]) -> PartitionScorer:
    """Give a scorer that knows no more than what was kept."""
    scorer = PartitionScorer(Engine())
    scorer.learn({name: Remembered(**row) for name, row in kept.items()})
    return scorer


@pytest.mark.parametrize(("number", "label", "changes"), [(7, "truck", 0), (0, "person", 1)])
def test_labels_move_with_their_tracks(number: int, label: str, changes: int) -> None:
    """After a restart a track keeps its name, and counts as what it is when it ends."""
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    remember(kept, score(scorer, *[frame(100 * k, kind=(number, label)) for k in range(5)]))
    place = VISION.index("vision.people_changes")
    for each in (scorer, moved(kept)):
        score(each, frame(5000, 0))
        assert each._engine._rows[each._memories["s"].slot]["sum"][place] == changes

    (entry,) = fields_of(score(moved(kept), frame(500, kind=(number, label))))

    assert [track["label"] for track in entry["data"]["tracks"]] == [label]


def test_cameras_take_little_room() -> None:
    """Ten tracks and the rest of what is known besides the score fit 762 bytes; labels are shared.

    Redis keeps 762 bytes in 768, and the next in 896.
    """
    scorer, kept = scorer_of("s", "t"), dict[str, dict[str, bytes]](s={}, t={})
    remember(kept, score(scorer, *[frame(100 * k, 10, name) for k in range(5) for name in "st"]))

    memories = [scorer._memories[name] for name in "st"]
    assert [memory.tracks for memory in memories] == [10, 10]
    assert len(kept["s"]["facts"]) <= 762
    assert memories[0].labels is memories[1].labels


def test_another_model_may_follow() -> None:
    """Tracks of a class that the newest model's frames have not shown end like any other."""
    scorer = scorer_of()
    score(scorer, *[frame(100 * k, kind=(56, "chair")) for k in range(5)])

    result = score(scorer, *[frame(4000 + 100 * k, kind=(1, "cat"), model="n@1") for k in range(3)])

    assert fields_of(result)[-1]["data"]["tracks"][0]["label"] == "cat"


def test_what_is_remembered_outlives_an_unreadable_state() -> None:
    """Counts, numbers and tracks stay when the engine must begin anew, and the entry says so."""
    rng, drive, inputs = np.random.default_rng(3), np.zeros(4), []
    for k in range(200):
        drive = 0.9 * np.roll(drive, 1) + 0.44 * rng.standard_normal(4)
        values = {f"c{j}": float(x) for j, x in enumerate(rng.poisson(np.exp(1 + drive)))}
        inputs.append(event(250 * k, values, producer="p", seq=k))
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    remember(kept, score(scorer, *inputs))
    phase = scorer._memories["s"].phase
    kept["s"]["state"] = b"PS" + bytes([99]) + kept["s"]["state"][3:]

    result = score(
        moved(kept), *[event(50_000 + k, producer="p", seq=s) for k, s in enumerate((199, 200))]
    )

    assert result.ledger()["events_dropped_duplicate"] == 1
    (row,) = fields_of(result)
    assert (row["n"], row["phase"], row["transition"]) == (201, "dormant", f"{phase}>dormant")
    assert phase != "dormant"


def test_a_name_that_came_too_late_is_described_all_the_same() -> None:
    """Names of events behind the window, and of duplicates, leave no hole in what is described."""
    scorer = scorer_of()
    late = event(20_000, {"z": 1.0})
    assert isinstance(late.value, EventEntry)
    late = replace(
        late,
        value=replace(late.value, envelope=replace(late.value.envelope, ts_ms=T0 - 60_000)),
    )
    score(scorer, event(0, producer="p", seq=1), *[event(250 * k) for k in range(80)])
    score(scorer, late, event(20_001, {"y": 1.0}, producer="p", seq=1))
    rows = fields_of(
        score(scorer, *[event(20_002 + 250 * k, {"a": 1.0, "b": 1.0}) for k in range(9)])
    )
    data = rows[-1]["data"]

    assert data["populations"]["population_id"] == ["a", "z", "b"]
    assert data["channels"].keys() == {"a", "z", "b"}
    assert data["correlation"]["consciousness_correlation"] is None


def test_who_is_at_rest_need_not_be_recalled() -> None:
    """`facts` tell whether silence still changes a source; what cannot be read is not at rest."""
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    remember(kept, score(scorer, event(0)))
    assert is_at_rest(kept["s"]["facts"], T0 + 1)
    assert not is_at_rest(kept["s"]["facts"], T0)
    scorer._memories["s"].show(0.2, "awakening")

    assert not is_at_rest(scorer._memories["s"].facts(), T0 + 1)
    assert not is_at_rest(b"\xc1", T0 + 1)
    assert not is_at_rest(b"", T0 + 1)


def test_a_level_that_silence_raises_is_shown() -> None:
    """34 bins are too few for a level when they come, and enough at the next evaluation."""
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    rows = fields_of(score(scorer, *level_makers()))
    scorer_kept = scorer._memories["s"]
    assert (float(rows[-1]["level"]), rows[-1]["phase"]) == AT_REST

    last_ms = T0 + 33 * 250
    assert scorer.silence.may_change("s", scorer_kept.facts(), last_ms + 20_000)
    assert not scorer.silence.may_change("s", scorer_kept.facts(), last_ms + 30_000)
    ticks: list[dict[str, Any]] = []
    for second in range(2, 40):
        result = scorer.tick(last_ms + 1000 * second)
        ticks += fields_of(result)
        remember(kept, result)

    assert max(float(tick["level"]) for tick in ticks) > 0.1
    assert (float(ticks[-1]["level"]), ticks[-1]["phase"]) == AT_REST
    assert scorer.tick(last_ms + 60_000).evaluations == 0


@pytest.mark.parametrize("hop_bins", [1, 4])
@pytest.mark.parametrize(
    ("channels", "every_ms", "shown", "share"),
    [(1, 1000, 0, 0.3), (4, 1000, 4, 1.6), (4, 173, 4, 0.4)],
)
def test_silence_is_evaluated_a_few_times_only(
    *,
    hop_bins: int,
    channels: int,
    every_ms: int,
    shown: int,
    share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is shown, and when, is as if every look had evaluated all of it, and nothing ahead.

    One channel shows nothing; where a level falls, shown ticks leave little to evaluate again.
    """
    monkeypatch.setattr("pipeline.silence.EVALUATED_AT_ONCE", 10**9)
    plain, ours = (PartitionScorer(Engine(Parameters(hop_bins=hop_bins))) for _ in "12")
    inputs = [
        event(250 * k, {f"c{c}": 1.0 + (k * (c + 3)) % 7 for c in range(channels)}, source)
        for k in range(60)
        for source in ("s", "t")
    ]
    for scorer in (plain, ours):
        scorer.learn(dict.fromkeys(("s", "t")))
        score(scorer, *inputs)
    rows: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    evaluations = [0, 0]
    for at_ms in range(0, 30_000, every_ms):
        for k, (scorer, ahead) in enumerate(((plain, 1), (ours, 31))):
            monkeypatch.setattr("pipeline.silence.MOST_AHEAD", ahead)
            for memory in plain._memories.values():
                memory.rests_ms = 0
            result = scorer.tick(T0 + 60 * 250 + at_ms)
            rows[k].extend(fields_of(result))
            evaluations[k] += result.evaluations

    assert rows[0] == rows[1]
    assert len(rows[0]) >= shown
    assert evaluations[1] < share * evaluations[0]


def test_what_is_remembered_outlives_unreadable_tracks() -> None:
    """Numbers and counts stay, the score goes on to the bit, and new tracks have new ids."""
    scorer, kept = scorer_of(), dict[str, dict[str, bytes]](s={})
    inputs = [frame(100 * k) for k in range(5)]
    inputs += [event(600 + 250 * k, producer="p", seq=k) for k in range(5)]
    remember(kept, score(scorer, *inputs))
    facts = msgpack.unpackb(kept["s"]["facts"], strict_map_key=False)
    facts[2] = bytes([99]) + facts[2][1:]
    kept["s"]["facts"] = msgpack.packb(facts)

    other = moved(kept)
    result = score(other, event(2000, producer="p", seq=4), event(2100, producer="p", seq=5))

    assert result.ledger()["events_dropped_duplicate"] == 1
    assert [row["n"] for row in fields_of(result)] == [11]
    score(scorer, event(2000, producer="p", seq=4), event(2100, producer="p", seq=5))
    assert state_of(other, "s")[0] == state_of(scorer, "s")[0]
    fresh = [fields_of(score(other, frame(3000 + 100 * k)))[0] for k in range(3)][-1]
    assert fresh["data"]["tracks"][0]["id"] > T0 + 2000


def test_a_frame_far_behind_in_time_is_late() -> None:
    """Behind the window by `ts`, it changes no score, and is marked and counted."""
    scorer = scorer_of()
    score(scorer, *[event(250 * k) for k in range(100)])
    far = frame(25_000)
    assert isinstance(far.value, DetectionEntry)
    far.value.envelope = replace(far.value.envelope, ts_ms=T0 - 60_000)
    result = score(scorer, far)

    assert fields_of(result)[0]["late"] == 1
    assert result.ledger()["frames_late"] == 1


def remember(kept: dict[str, dict[str, bytes]], result: Result) -> None:
    """Do what a commit does to the hashes that remember sources."""
    for write in result.sources:
        fields: Any = write.memory or []
        row = kept[write.name]
        row.update(zip(fields[::2], fields[1::2], strict=True))
        if write.journal is not None:
            row["journal"] = row.get("journal", b"") + write.journal


def state_of(scorer: PartitionScorer, source: str) -> tuple[bytes, bytes]:
    """Give all that is known of a source, bit for bit."""
    memory = scorer._memories[source]
    return scorer._engine.save(memory.slot), memory.facts()


KINDS = st.sampled_from(("frame", "event", "numbered"))
INPUTS = st.lists(
    st.tuples(st.sampled_from("st"), st.integers(1, 400), st.integers(0, 5), KINDS),
    min_size=1,
    max_size=60,
)


def _inputs(rows: list[tuple[str, int, int, str]]) -> list[Input]:
    """Make frames, events, and numbered ones of two publishers, among them duplicates."""
    made, at_ms = [], 0
    for source, step_ms, value, kind in rows:
        at_ms += step_ms
        if kind == "frame":
            made.append(frame(at_ms, value % 3, source, done_ms=0))
            continue
        values = {"a": float(value), "b": 1.0}
        number = {"producer": "pq"[value % 2], "seq": at_ms // 300} if kind == "numbered" else {}
        made.append(event(at_ms, values, source, **number))
    return made


def assert_split_changes_nothing(
    rows: list[tuple[str, int, int, str]],
    size_of: Callable[[int], int],
    is_moved: Callable[[], bool],
) -> None:
    """Score inputs at once, and in batches with new owners between; compare what is left."""
    inputs = _inputs(rows)
    whole = scorer_of("s", "t")
    expected = score(whole, *inputs)
    split, found, start = scorer_of("s", "t"), list[Result](), 0
    kept: dict[str, dict[str, bytes]] = {"s": {}, "t": {}}
    while start < len(inputs):
        size = size_of(len(inputs) - start)
        if is_moved():
            split = PartitionScorer(Engine())
            split.learn({name: Remembered(**row) if row else None for name, row in kept.items()})
        result = score(split, *inputs[start : start + size])
        remember(kept, result)
        found.append(result)
        start += size

    for source in {row[0] for row in rows}:
        assert state_of(split, source) == state_of(whole, source)
    last = {row["source"]: row for result in found for row in fields_of(result)}
    for row in fields_of(expected):
        if row["n"] == last[row["source"]]["n"]:
            assert last[row["source"]]["level"] == row["level"]
    total = sum((result.ledger() for result in found), start=found[0].ledger().__class__())
    assert total == +expected.ledger()


@settings(deadline=None, max_examples=25)
@given(INPUTS, st.data())
def test_any_split_into_batches_gives_the_same(
    rows: list[tuple[str, int, int, str]], data: st.DataObject
) -> None:
    """State, levels, counts and duplicates do not depend on where batches end, nor on moves."""
    assert_split_changes_nothing(
        rows,
        lambda left: data.draw(st.integers(1, left)),
        lambda: data.draw(st.booleans()),
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_long_story_in_small_batches_gives_the_same(seed: int) -> None:
    """The same of 200 inputs, in batches of at most five."""
    rng = np.random.default_rng(seed)
    kinds = ("frame", "event", "numbered", "numbered")
    rows = [
        ("st"[rng.integers(2)], int(rng.integers(1, 200)), int(rng.integers(6)), kinds[k])
        for k in rng.integers(4, size=200)
    ]
    assert any("duplicate" in str(k) for k in score(scorer_of("s", "t"), *_inputs(rows)).refused)
    assert_split_changes_nothing(
        rows, lambda left: int(rng.integers(1, min(left, 5) + 1)), lambda: rng.random() < 0.5
    )


def test_grouping_keeps_every_input_once() -> None:
    """Of interleaved sources each keeps its order."""
    scorer = scorer_of("s", "t")
    result = score(scorer, *[event(k, source="st"[k % 2]) for k in range(10)])

    assert [(r["source"], r["inputs"]) for r in fields_of(result)] == [("s", 5), ("t", 5)]
