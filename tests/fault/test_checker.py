"""The checker itself: what it is for, it sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.partition import Keys
from tests.fault.checker import Outputs, Raw, chain, examine
from tests.fault.publish import Load, Publisher

STATUS: dict[str, Any] = {
    "balanced": True,
    "in_flight": 0,
    "difference": {},
    "ledger": {"frames_dropped_duplicate": 0, "events_dropped_duplicate": 0},
}


def _score(number: int) -> Raw:
    text = str(number).encode()
    fields = {b"kind": b"event", b"inputs": b"1", b"n": text, b"seq_first": text}
    return text, fields | {b"seq_last": text, b"level": b"0.1"}


def _outputs() -> Outputs:
    outputs = Outputs.__new__(Outputs)
    outputs.detections, outputs.dead, outputs.left = {"a": []}, [], Counter()
    outputs.scores = {"a": [_score(number) for number in range(1, 6)]}
    outputs.states = {"a": {b"seq": b"5", b"level": b"0.1"}}
    return outputs


def _publisher() -> Publisher:
    publisher = Publisher(lambda: None, Keys(), Load(), 1)
    publisher.sent["events", "a"] = 5
    return publisher


def _lose(outputs: Outputs) -> None:
    del outputs.scores["a"][2]


def _double(outputs: Outputs) -> None:
    outputs.scores["a"].insert(3, outputs.scores["a"][2])


def _reorder(outputs: Outputs) -> None:
    outputs.scores["a"][2:4] = reversed(outputs.scores["a"][2:4])


def _stale_state(outputs: Outputs) -> None:
    outputs.states["a"][b"level"] = b"0.2"


def _untrimmed(outputs: Outputs) -> None:
    outputs.left["events"] = 1


def test_what_is_right_is_clean() -> None:
    verdict = examine(_outputs(), _publisher(), STATUS)
    assert verdict.is_clean, verdict
    assert verdict.inputs == 5


@pytest.mark.parametrize("harm", [_lose, _double, _reorder, _stale_state, _untrimmed])
def test_what_is_wrong_is_seen(harm: Callable[[Outputs], None]) -> None:
    outputs = _outputs()
    harm(outputs)
    assert not examine(outputs, _publisher(), STATUS).is_clean


def test_a_ledger_that_does_not_balance_is_seen() -> None:
    assert not examine(_outputs(), _publisher(), STATUS | {"balanced": False}).is_clean


@pytest.mark.parametrize("numbers", [[1, 2], [1, 2, 2, 3], [1, 3, 2]])
def test_the_chain_depends_on_every_number_and_its_place(numbers: list[int]) -> None:
    assert chain(numbers) != chain([1, 2, 3])
