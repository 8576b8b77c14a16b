"""Channels: free naming, room beside frames, map files, versions; labels of any model."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import EntryError, Reason, SettingsError
from pipeline.records import Detections
from pipeline.scoring.batch import EVENT, FRAME, InputBuilder
from pipeline.scoring.channels import VISION, Assignment, Channel, ChannelMap, ChannelMaps
from pipeline.scoring.engine import Engine
from pipeline.scoring.kernel import CLASS, DISPLACED, MEAN, SURPRISE
from pipeline.scoring.vision import FrameValues, VisionChannels, place_of, vision_channel_of
from tests.unit.scoring.scoring_inputs import START_MS, bin_start, bins, coupled

FRAME_VALUES = FrameValues((1.0, 0.0, 2.0, 0.0, 0.5, 0.0, 0.01, 0.2), {0: 1})

MAP = """
version = 1

[[map]]
sources = "cam-*"
nodes = { 0 = "crowd", 4 = "doors" }
[map.channels]
"vision.people" = 0
"vision.people_changes" = 1
door = { place = 8, kind = "sum" }
window = { place = 8, kind = "sum" }
temperature = { place = 10, kind = "mean", signed = true }

[[map]]
sources = "log-*"
[map.channels]
"*" = { place = 15, kind = "sum" }
"""


def names(count: int, prefix: str = "n") -> dict[str, float]:
    return {f"{prefix}{k}": 1.0 for k in range(count)}


def test_free_names_spread_over_nodes_first() -> None:
    """The first four names get a node each, the next four their second places."""
    engine = Engine()

    codes, values = engine.encode_event(engine.slot("a"), names(16))

    assert codes[:8] == [8, 10, 12, 14, 9, 11, 13, 15]
    assert sorted(codes) == list(range(16))
    assert values == [1.0] * 16


def test_the_seventeenth_name_has_no_room() -> None:
    """One name too many makes the event a bad field, places none of its names, says the room."""
    engine = Engine()
    slot = engine.slot("a")
    engine.encode_event(slot, names(15))

    with pytest.raises(EntryError, match=r"'x0'.* 16 names.*n0, n1") as error:
        engine.encode_event(slot, names(2, "x"))

    assert error.value.reason is Reason.BAD_FIELD
    assert engine.encode_event(slot, {"y": 1.0, "n0": 2.0}) == ([1, 8], [1.0, 2.0])


def test_frames_keep_half_of_the_room() -> None:
    """Once a source has sent a frame it has room for eight names."""
    engine = Engine()
    slot = engine.slot("a")
    codes, _ = engine.encode_frame(slot, FRAME_VALUES)
    engine.encode_event(slot, names(8))

    assert codes == [16, 1, 18, 19, 20, 5 | MEAN | SURPRISE, 22, 23, CLASS | 0]
    with pytest.raises(EntryError, match="8 names beside its frames"):
        engine.encode_event(slot, names(1, "x"))


def test_names_beyond_eight_keep_their_places() -> None:
    """Ten names before the first frame hold node 3; its vision channels go without, whole."""
    engine = Engine()
    slot = engine.slot("a")
    engine.encode_event(slot, names(10))

    codes, _ = engine.encode_frame(slot, FRAME_VALUES)

    assert [c for c in codes if c & DISPLACED] == [DISPLACED | 6, DISPLACED | 7]
    assert engine.encode_event(slot, {"n9": 1.0})[0] == [7]
    with pytest.raises(EntryError, match="no room"):
        engine.encode_event(slot, names(1, "x"))


def snapshot_after(engine: Engine, inputs: list[tuple[int, list[int], list[float]]]) -> object:
    builder = InputBuilder()
    for k, (kind, codes, values) in enumerate(inputs):
        builder.add(0, START_MS + 250 * k, kind, codes, values)
    engine.step(builder.build())
    return engine.snapshot(0)


def test_coverage_falls_without_room() -> None:
    """Vision channels without a place count as declared and not alive."""
    shares = []
    for count in (8, 10):
        engine = Engine()
        slot = engine.slot("a")
        first = engine.encode_event(slot, names(count))
        frame = engine.encode_frame(slot, FRAME_VALUES)
        quiet: tuple[list[int], list[float]] = ([], [])
        inputs = [(EVENT, *first), (FRAME, *frame)] + [(EVENT, *quiet)] * 20
        snapshot = snapshot_after(engine, inputs)
        alive = int(snapshot["active"]).bit_count()  # type: ignore[index]
        filled = int(snapshot["bins"]) / 64  # type: ignore[index]
        shares.append(float(snapshot["confidence"]) / filled / alive)  # type: ignore[index]

    assert shares[0] == pytest.approx(1 / 16)
    assert shares[1] == pytest.approx(1 / 18)


def test_map_version_is_as_of_the_snapshot() -> None:
    """Later names change the version of later entries only; equal naming gives equal versions."""
    values = coupled(np.random.default_rng(1), 40)
    versions = []
    for source in ("a", "b"):
        engine = Engine()
        slot = engine.slot(source)
        engine.encode_event(slot, {"x": 1, "y": 1})
        batch = bins(engine, slot, values[:, [0, 1]])
        batch.code[:] = np.tile([8, 10], len(values))
        result = engine.step(batch)
        early = result.snapshots[-1]
        versions.append(engine.data(slot, early)["map_version"])
        engine.encode_event(slot, {"z": 1})
        assert engine.data(slot, early)["map_version"] == versions[-1]
    engine.step(bins(engine, slot, np.ones((8, 13)), 41))

    assert versions[0] == versions[1]
    assert len(versions[0]) == 12
    assert engine.data(slot, engine.snapshot(slot))["map_version"] != versions[1]


def test_map_file() -> None:
    """A map file places names, kinds, signs, vision channels and node names by source pattern."""
    engine = Engine(maps=ChannelMaps.parse(MAP, "channels.toml"))
    camera, log, other = (engine.slot(name) for name in ("cam-1", "log-1", "robot"))

    codes, _ = engine.encode_event(camera, {"door": 1, "window": 2, "temperature": -3})
    frame, _ = engine.encode_frame(camera, FRAME_VALUES)

    assert codes == [8, 8, 10 | MEAN]
    assert frame == [0 | MEAN, 1, CLASS | 0]
    assert engine.encode_event(log, {"anything": 1})[0] == [15]
    assert engine.encode_event(other, {"anything": 1})[0] == [8]
    data = engine.data(camera, engine.snapshot(camera))
    assert data["populations"]["population_id"] == ["crowd", "doors", "temperature"]
    assert data["populations"]["specialization"] == ["vision", "event", "event"]
    with pytest.raises(EntryError, match=r"'bell' is not in the channel map for cam-"):
        engine.encode_event(camera, {"bell": 1})
    with pytest.raises(EntryError, match=r"'door'.*negative"):
        engine.encode_event(camera, {"door": -1})


def test_another_map_starts_anew() -> None:
    """A state saved under one assignment is not continued under another."""
    engine = Engine()
    slot = engine.slot("cam-1")
    engine.step(bins(engine, slot, np.ones((20, 16))))
    mapped = Engine(maps=ChannelMaps.parse(MAP, "channels.toml"))

    assert mapped.source_ts(mapped.restore("cam-1", engine.save(slot))) is None


def test_a_map_may_widen_the_bins() -> None:
    """A map's `bin_ms` holds for its sources alone, and levels say so."""
    maps = ChannelMaps.parse(
        'version = 1\n[[map]]\nsources = "agent-*"\nbin_ms = 1000\n'
        'channels = { "*" = { place = 8 } }',
        "channels.toml",
    )
    engine = Engine(maps=maps)
    agent, camera = engine.slot("agent-1"), engine.slot("cam-1")
    builder = InputBuilder()
    for slot in (agent, camera):
        for second in range(32):
            builder.add(slot, START_MS + 1000 * second, EVENT, [8], [1.0])
    engine.step(builder.build())

    wide, plain = engine.snapshot(agent), engine.snapshot(camera)
    assert (wide["bins"], plain["bins"]) == (pytest.approx(30, abs=2), 64)
    assert engine.bin_start(agent, START_MS + 999) - engine.bin_start(agent, START_MS) in (0, 1000)
    versions = [engine.data(s, engine.snapshot(s))["engine_version"] for s in (agent, camera)]
    assert versions[0] == versions[1].replace("250ms", "1000ms")
    again = Engine(maps=maps)
    assert again.save(again.restore("agent-1", engine.save(agent))) == engine.save(agent)
    other = Engine()
    assert other.source_ts(other.restore("agent-1", engine.save(agent))) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 2", "version 2, must be 1"),
        ("version = 1\nmaps = []", "unknown keys"),
        ('version = 1\n[[map]]\nsources = "a"\nbin_ms = 9', "bin_ms 9, must be 10 to 60000"),
        ("version = [", "Invalid value"),
        ('version = 1\n[[map]]\nsource = "a"', "needs `sources`"),
        ('version = 1\n[[map]]\nsources = "a"\nchannels = { x = 16 }', "place 16 of x"),
        ('version = 1\n[[map]]\nsources = "a"\nchannels = { "x y" = 1 }', "no channel name"),
        (
            'version = 1\n[[map]]\nsources = "a"\nchannels = { x = { place = 1, kind = "max" } }',
            "x",
        ),
        ('version = 1\n[[map]]\nsources = "a"\nnodes = { 9 = "n" }', "node '9'"),
        ('version = 1\n[[map]]\nsources = "a"\nbin_ms = 0', "bin_ms 0, must be 10 to"),
        ('version = 1\n[[map]]\nsources = "a"\nbin_ms = 2.5', "whole number"),
        (
            'version = 1\n[[map]]\nsources = "a"\n[map.channels]\nx = 1\n'
            'y = { place = 1, kind = "mean" }',
            "both sum and mean",
        ),
    ],
)
def test_wrong_map_files(text: str, message: str) -> None:
    """A wrong file stops the process with a message that says where."""
    with pytest.raises(SettingsError, match=rf"^channels\.toml: .*{message}"):
        ChannelMaps.parse(text, "channels.toml")


def test_coco_labels_go_by_supercategory() -> None:
    """People, vehicles, animals and the rest have their channel; twelve class buckets."""
    places = vision_channel_of(["person", "truck", "zebra", "cup", "toothbrush"])

    assert [VISION[p.channel] for p in places] == [
        "vision.people", "vision.vehicles", "vision.animals", "vision.objects", "vision.objects",
    ]  # fmt: skip
    assert [p.bucket for p in places] == [0, 1, 3, 6, 11]


def test_a_labels_place_does_not_depend_on_the_others() -> None:
    """A label goes by its name or its class id alone, so that frames need not show all of them."""
    labels = ["person", "forklift", "pallet"]

    assert vision_channel_of(labels)[2] == place_of("pallet", 2)


def test_other_labels_spread() -> None:
    """Labels that are not COCO's go round the four mass channels and all class buckets."""
    places = vision_channel_of([f"part-{k}" for k in range(17)])

    assert [VISION[p.channel].split(".")[1] for p in places[:5]] == [
        "objects", "people", "vehicles", "animals", "objects",
    ]  # fmt: skip
    assert [p.bucket for p in places] == [*range(16), 0]


def test_frame_values() -> None:
    """Mass is summed confidence, classes are counted, spread is relative to the diagonal."""
    vision = VisionChannels({0: "person", 1: "car"})
    boxes = np.array([[0, 0, 2, 2], [8, 0, 10, 2], [0, 0, 2, 2]], np.float32)
    seen = Detections(boxes, np.array([0.9, 0.8, 0.5], np.float32), np.array([0, 0, 1], np.int32))

    frame = vision.measure(seen, 30, 40, people_changes=2, motion=0.1)
    empty = vision.measure(Detections.empty(), 30, 40, people_changes=0, motion=0.0)

    spread = np.std([1, 9, 1]) / 50
    assert frame.values == pytest.approx((1.7, 2, 0.5, 0, 0, 0, 0.1, spread))
    assert frame.classes == {0: 2, 1: 1}
    assert empty.values == (0.0,) * 8


def test_class_surprise_adapts() -> None:
    """The same class again surprises less and less, a new one more."""
    engine = Engine()
    slot = engine.slot("a")
    surprises = []
    for k, bucket in enumerate([0] * 30 + [7]):
        builder = InputBuilder()
        frame = FrameValues(FRAME_VALUES.values, {bucket: 1})
        builder.add(slot, START_MS + 250 * k, FRAME, *engine.encode_frame(slot, frame))
        engine.step(builder.build())
        surprises.append(float(engine._rows[slot]["sum"][5]))

    assert surprises[29] < 0.1 * surprises[0]
    assert surprises[30] > 10 * surprises[29]


def test_places_are_named_after_what_feeds_them() -> None:
    free = Assignment(("a", "b"))
    assert free.place_names() == {8: "a", 10: "b"}
    assert free.with_frames().place_names() == {8: "a", 10: "b"} | dict(enumerate(VISION))

    shared = ChannelMap("*", {"x": Channel(3), "y": Channel(3), "vision.people": Channel(0, True)})
    assert Assignment(fixed=shared).place_names() == {0: "vision.people", 3: "x+y"}


def test_data_says_what_a_bin_brought_on_each_channel() -> None:
    engine, inputs = Engine(), InputBuilder()
    slot = engine.slot("s")
    for number in range(65):
        values = {"a": float(number), "b": -2.0}
        codes, numbers = engine.encode_event(slot, values)
        inputs.add(slot, bin_start(engine, slot, number), EVENT, codes, numbers)
    stepped = engine.step(inputs.build())

    data = engine.data(slot, stepped.snapshots[stepped.snapshot[-1]])
    closed = np.arange(57.0, 61.0)  # every fourth bin is evaluated when it closes
    assert data["channels"] == pytest.approx({"a": closed.mean(), "b": -2.0}, rel=2e-3)
