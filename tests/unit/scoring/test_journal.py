"""A journal holds what the engine was given: applied again it gives the same state, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scoring import journal
from pipeline.scoring.batch import EVENT, HEARTBEAT, TICK, InputBuilder, one_tick
from pipeline.scoring.engine import Engine, warm_up
from pipeline.scoring.kernel import step

T0 = 1_700_000_000_000


def test_a_replayed_engine_is_where_the_first_one_is() -> None:
    """Events of two sources, a heartbeat, a straggler and a tick."""
    engine, again, inputs = Engine(), Engine(), InputBuilder()
    names = ("a", "b")
    rng = np.random.default_rng(3)
    codes = {name: engine.encode_event(engine.slot(name), {"x": 1, "y": 2})[0] for name in names}
    saved = {name: engine.save(engine.slot(name)) for name in names}
    for k in range(300):
        name = names[k % 2]
        inputs.add(engine.slot(name), T0 + 90 * k, EVENT, codes[name], rng.gamma(2, 1, 2).tolist())
    inputs.add(engine.slot("a"), T0 + 27_100, HEARTBEAT)
    inputs.add(engine.slot("b"), T0 + 26_000, EVENT, codes["b"], [3.0, 4.0])
    batch = inputs.build()
    order = np.argsort(batch.slot, kind="stable")
    made = journal.records(batch, order, [0, 151, 302])
    engine.step(batch)
    inputs.add(engine.slot("a"), T0 + 30_000, TICK)
    engine.step(inputs.build())
    journals = {"a": made[0] + journal.tick(T0 + 30_000), "b": made[1]}

    again.replay([(again.restore(name, saved[name]), journals[name]) for name in names])

    for name in names:
        assert again.save(again.slot(name)) == engine.save(engine.slot(name))


def test_nothing_is_compiled_after_the_warm_up() -> None:
    """Arrays that cannot be written to are another signature, compiled at the first takeover."""
    warm_up()
    engine, inputs = Engine(), InputBuilder()
    slot = engine.slot("a")
    inputs.add(slot, T0, EVENT, *engine.encode_event(slot, {"x": 1.0}))
    batch = inputs.build()
    (made,) = journal.records(batch, np.array([0]), [0, 1])

    engine.step(batch)
    engine.replay([(slot, made + journal.tick(T0 + 30_000))])
    engine.peek(one_tick(slot, T0 + 60_000))

    assert len(step.signatures) == 1


@pytest.mark.parametrize("cut", [1, 7, 20, -1])
def test_a_damaged_journal_is_refused_whole(cut: int) -> None:
    """Nothing of it is applied."""
    engine, inputs = Engine(), InputBuilder()
    slot = engine.slot("a")
    inputs.add(slot, T0, EVENT, [0, 1], [1.0, 2.0])
    (record,) = journal.records(inputs.build(), np.zeros(1, np.int64), [0, 1])
    before = engine.save(slot)

    with pytest.raises(ValueError, match="journal of"):
        engine.replay([(slot, record), (slot, record[:cut])])

    assert engine.save(slot) == before
