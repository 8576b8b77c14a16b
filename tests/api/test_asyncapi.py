"""docs/asyncapi.yaml and the OpenAPI say of every stream what the code writes and takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import numpy as np
import pytest
import yaml

from pipeline import wire
from pipeline.api import result_schemas
from pipeline.api.app import make_app
from pipeline.api.feed import Gap
from pipeline.api.held import make_item, write_message
from pipeline.api.reads import SOURCE
from pipeline.errors import EntryError, Reason
from pipeline.records import Detections
from pipeline.results import KINDS, Result, read_entry
from pipeline.score_entries import EVENT, FRAME, TICK, Scored, describe, score_fields
from pipeline.scoring.engine import Engine
from pipeline.wire import Envelope, FrameEntry
from pipeline.wire_results import dead_fields, detection_fields, read_result
from tests.unit.scoring.scoring_inputs import seen_and_told
from tests.unit.scoring.test_correlation import planted
from tests.unit.test_scorer import event, fields_of, frame, score, scorer_of

DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "docs/asyncapi.yaml").read_text()
)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BARE = Envelope(b"1700000000000-0", 1700000000000, "cam-1", 1700000000000)
FULL = replace(BARE, producer="run-1", seq=7, meta=wire.pack({"lot": 7}), traceparent=TRACE)
TIMING = {"queued_ms": 1.5, "decode_ms": 2.0, "infer_ms": 3.0, "batch": 4}
FACTS = {"model": "m@0", "width": 64, "height": 48, "cached": False, "timing": TIMING}
Entry = dict[str, Any]


def as_entry(flat: Sequence[bytes | str | int]) -> dict[bytes, bytes]:
    """Give a flat field list as Redis has it."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in flat]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def described(fields: Mapping[bytes, bytes]) -> Entry:
    """Give an entry as the document describes it: msgpack decoded, the rest as text."""
    packed = ("data", "meta", "entry", "values")
    return {
        name.decode(): msgpack.unpackb(raw, strict_map_key=False)
        if name.decode() in packed
        else raw.decode()
        for name, raw in fields.items()
    }


def detections_entries() -> list[dict[bytes, bytes]]:
    found = Detections(
        np.array([[1, 2, 3, 4]], np.float32), np.array([0.9], np.float32), np.zeros(1, np.int32)
    )
    return [
        as_entry(detection_fields(FrameEntry(head, b"x"), "frames", found, ["car"], FACTS))
        for head in (BARE, FULL)
    ]


@pytest.fixture(scope="module")
def score_data() -> tuple[Entry, list[Entry]]:
    """What the engine and the tracker say of a frame: score part of `data`, and tracks."""
    rows = fields_of(score(scorer_of(), event(0), frame(10), frame(60)))
    data = rows[-1]["data"]
    tracks = data.pop("tracks")
    del data["latency_ms"]
    return data, tracks


@pytest.fixture(scope="module")
def score_entries(score_data: tuple[Entry, list[Entry]]) -> list[dict[bytes, bytes]]:
    data, tracks = score_data
    shown = describe(0.5, "active", 1700000000000, data)

    def one(kind: str, was: str = "active", **more: Any) -> Scored:
        inputs, entry_id = (0, b"") if kind == TICK else (1, BARE.entry_id)
        at = (inputs, 3, entry_id, entry_id, 1700000000000)
        return Scored(kind, "cam-1", *at, was, shown, **more)

    numbers = ("run-1", 7, 7)
    made = (
        one(EVENT),
        one(EVENT, "awakening", is_late=True, numbers=numbers, echo=FULL),
        one(FRAME, tracks=tracks, numbers=numbers),
        one(TICK, "awakening"),
    )
    return [as_entry(score_fields(each, 1700000000100)) for each in made]


@pytest.fixture(scope="module")
def paired_data() -> Entry:
    """What the engine says of a source whose events follow what it sees."""
    engine = Engine()
    slot = engine.slot("cam-1")
    engine.step(seen_and_told(engine, slot, planted(np.random.default_rng(3), 700, 3)))
    engine._assignments[slot] = engine._assignments[slot].with_frames()
    engine.encode_event(slot, dict.fromkeys([f"e{k}" for k in range(8)], 1.0))
    data: Entry = msgpack.unpackb(wire.pack(engine.data(slot, engine.snapshot(slot))))
    return data


def dead_entries() -> list[dict[bytes, bytes]]:
    error = EntryError(Reason.BAD_FIELD, "ts: wrong")
    named = {b"source": b"cam-1", b"ts": b"x"}
    return [
        as_entry(dead_fields("events", b"1-0", fields, error, 1))
        for fields in (named, {b"a": b"b"})
    ]


def check(schema: Any, value: object) -> None:
    """Check a value against a schema of the document, its references followed."""
    whole = {"components": DOCUMENT["components"], "allOf": [schema]}
    jsonschema.Draft7Validator(whole).validate(value)


def compare(name: str, instances: Sequence[Entry], schema: Mapping[str, Any]) -> None:
    """Compare the fields of instances, which show all there are, with those of a schema."""
    seen = {field for each in instances for field in each}
    always = set(instances[0]).intersection(*instances)

    assert set(schema["properties"]) == seen, name
    assert set(schema.get("required", ())) == always, name


def test_the_document_is_whole() -> None:
    """Its version is the package's, every reference leads somewhere, every schema is one."""
    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place, reference
    for schema in SCHEMAS.values():
        jsonschema.Draft7Validator.check_schema(schema)
    assert DOCUMENT["info"]["version"] == make_app().version
    assert SCHEMAS["source"]["pattern"] == SOURCE


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


@pytest.mark.parametrize(("name", "known"), [("frame", wire._FRAME), ("event", wire._EVENT)])
def test_inputs_have_the_fields_that_are_taken(name: str, known: frozenset[bytes]) -> None:
    assert set(SCHEMAS[name]["properties"]) == {field.decode() for field in known}


def test_an_input_that_is_taken_is_one_of_the_document() -> None:
    fields = {b"source": b"robot-7", b"values": wire.pack({"motion": 0.8}), b"traceparent": TRACE}
    fields |= {b"ts": b"1700000000000", b"seq": b"1", b"producer": b"p", b"meta": wire.pack({})}
    wire.read_event(b"1700000000000-0", fields, 7, 16)

    check(SCHEMAS["event"], described(fields))
    del fields[b"seq"]
    with pytest.raises(EntryError):
        wire.read_event(b"1700000000000-0", fields, 7, 16)
    with pytest.raises(jsonschema.ValidationError):
        check(SCHEMAS["event"], described(fields))


def test_detections_have_the_fields_that_are_written() -> None:
    entries = [described(each) for each in detections_entries()]
    data = [each["data"] for each in entries]
    parts = SCHEMAS["detectionsData"]["properties"]

    for each in entries:
        check(SCHEMAS["detections"], each)
    compare("detections", entries, SCHEMAS["detections"])
    compare("data", data, SCHEMAS["detectionsData"])
    compare("objects", data[0]["objects"], parts["objects"]["items"])
    compare("timing", [data[0]["timing"]], parts["timing"])


def test_scores_have_the_fields_that_are_written(
    score_entries: list[dict[bytes, bytes]], score_data: tuple[Entry, list[Entry]]
) -> None:
    entries = [described(each) for each in score_entries]
    parts = SCHEMAS["scoreData"]["properties"]

    for each in entries:
        check(SCHEMAS["score"], each)
    compare("score", entries, SCHEMAS["score"])
    compare("data", [each["data"] for each in entries], SCHEMAS["scoreData"])
    compare("components", [score_data[0]["components"]], parts["components"])
    compare("tracks", score_data[1], parts["tracks"]["items"])


def test_populations_and_correlation_have_the_fields_that_are_written(
    score_data: tuple[Entry, list[Entry]], paired_data: Entry
) -> None:
    """In both documents, with a pair of what is seen and reported and without one."""
    parts = SCHEMAS["scoreData"]["properties"]
    pair = parts["correlation"]["properties"]["pair"]

    for data in (score_data[0], paired_data):
        check(SCHEMAS["scoreData"], data)
        result_schemas.Populations.model_validate(data["populations"], strict=True)
        result_schemas.Correlation.model_validate(data["correlation"], strict=True)
        assert len({len(x) for x in data["populations"].values() if isinstance(x, list)}) == 1
        for name in ("populations", "correlation"):
            compare(name, [data[name]], parts[name])
    compare("pair", [paired_data["correlation"]["pair"]], pair)
    assert score_data[0]["correlation"]["pair"] is None
    assert len(paired_data["populations"]["population_id"]) == 8
    assert set(paired_data["populations"]["specialization"]) == {"vision", "event"}
    for model, schema in (
        (result_schemas.Populations, parts["populations"]),
        (result_schemas.Correlation, parts["correlation"]),
        (result_schemas.Pair, pair),
    ):
        assert set(model.model_json_schema()["properties"]) == set(schema["properties"])
        assert set(model.model_json_schema()["required"]) == set(schema["required"])


def test_dead_letters_have_the_fields_that_are_written() -> None:
    entries = [described(each) for each in dead_entries()]

    for each in entries:
        check(SCHEMAS["letter"], each)
    compare("letter", entries, SCHEMAS["letter"])
    assert set(SCHEMAS["letter"]["properties"]["reason"]["enum"]) == {each.value for each in Reason}


def test_answers_have_the_fields_of_the_streams(score_entries: list[dict[bytes, bytes]]) -> None:
    """The OpenAPI names every field that a result has, and no other."""
    for model, entries in (
        (result_schemas.Detection, detections_entries()),
        (result_schemas.Score, score_entries),
    ):
        results = [{"result": "", "id": ""} | read_result(each) for each in entries]
        assert set(model.model_fields) == {field for each in results for field in each}
        required = {name for name, each in model.model_fields.items() if each.is_required()}
        assert required <= set(results[0]).intersection(*results)


def test_a_state_has_the_fields_that_are_written(score_data: tuple[Entry, list[Entry]]) -> None:
    """The names of the facts are those of CONTRACT 4, and a scorer's."""
    components = dict.fromkeys(score_data[0]["components"], 0.5)
    shown = describe(0.5, "active", 1700000000000, score_data[0] | {"components": components})
    facts = "v source ts updated_ms seq frames events tracks late frames_dropped dead"
    named = {str(name) for name in shown.state[::2]} | {*facts.split(), "last_problem", "model"}

    assert set(result_schemas.State.model_fields) == named


def test_live_messages_are_those_of_the_document(score_entries: list[dict[bytes, bytes]]) -> None:
    messages = DOCUMENT["components"]["messages"]
    for kind, entries in enumerate((detections_entries(), score_entries)):
        for fields in entries:
            result = read_entry((7, kind), b"1700000000000-0", fields)
            assert isinstance(result, Result)
            item = make_item(
                replace(result, positions={(7, kind): (1, 0, 1)}), (7, kind), (1, 0, 1)
            )
            check(messages["liveResult"]["payload"], json.loads(item.body))
            check(messages["socketResult"]["payload"], json.loads(item.as_message()))
            gap = Gap("slow")
            gap.add(item)
            check(messages["liveGap"]["payload"], gap.as_json())
            told = write_message("gap", "", json.dumps(gap.as_json()).encode())
            check(messages["socketGap"]["payload"], json.loads(told))
    quiet = write_message("quiet", "eJxj", b"null")
    check(messages["socketQuiet"]["payload"], json.loads(quiet))
    assert set(SCHEMAS["result"]["properties"]["result"]["enum"]) == set(KINDS)
