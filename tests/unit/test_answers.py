"""Answers by picture: every bit comes back, damage is told, memory is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import ENTRY_BYTES, Answer, AnswerMemory
from pipeline.records import Detections


def answer(count: int, seed: int = 0) -> Answer:
    """Make an answer of `count` objects."""
    numbers = np.random.default_rng(seed)
    found = Detections(
        numbers.uniform(0, 4000, (count, 4)).astype(np.float32),
        numbers.uniform(0, 1, count).astype(np.float32),
        numbers.integers(0, 80, count, dtype=np.int32),
    )
    return Answer(found, 1920, 1080, 0.25)


@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_what_is_unpacked_is_what_was_packed(count: int, seed: int) -> None:
    before = answer(count, seed)

    after = Answer.unpack(before.pack())

    assert (after.width, after.height, after.cost_s) == (1920, 1080, 0.25)
    for name in ("xyxy", "confidence", "class_id"):
        np.testing.assert_array_equal(
            getattr(after.detections, name), getattr(before.detections, name), strict=True
        )


@given(st.binary(max_size=200))
def test_bytes_of_a_stranger_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        Answer.unpack(data)


@pytest.mark.parametrize("cut", [1, 16, 24])
def test_an_answer_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        Answer.unpack(answer(3).pack()[:-cut])


def test_a_number_that_is_not_finite_is_refused() -> None:
    damaged = answer(2)
    damaged.detections.xyxy[1, 2] = np.nan

    with pytest.raises(ValueError, match="finite"):
        Answer.unpack(damaged.pack())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400)), max_size=60))
def test_memory_never_exceeds_its_limit_and_knows_its_size(puts: list[tuple[int, int]]) -> None:
    memory = AnswerMemory(1500)
    newest: dict[bytes, bytes] = {}

    for key, size in puts:
        memory.put(b"%d" % key, b"x" * size)
        newest[b"%d" % key] = b"x" * size
        assert memory.size_bytes <= 1500

    kept = {key: found for key in newest if (found := memory.get(key)) is not None}
    assert kept == {key: newest[key] for key in kept}
    assert memory.size_bytes == sum(1 + len(v) + ENTRY_BYTES for v in kept.values())
    assert len(memory) == len(kept)


def test_the_longest_unused_goes_first() -> None:
    memory = AnswerMemory(2 * (1 + 10 + ENTRY_BYTES))
    memory.put(b"a", b"x" * 10)
    memory.put(b"b", b"x" * 10)
    memory.get(b"a")

    memory.put(b"c", b"x" * 10)

    assert [memory.get(name) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
