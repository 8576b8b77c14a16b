"""Makes a worker kill itself at a chosen step: before, during or after a call.

`KILL_AT` is `step,moment,chance,seed`; steps: acquire, read, work, commit, release, claim, renew.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from pipeline import claims, detect_stage, inputs, ownership, score_inputs, score_stage, scorer
from tests.fault.fake_detect import COMMANDS, obey

PLACES: dict[str, list[tuple[Any, str]]] = {
    "acquire": [(ownership.Ownership, "acquire")],
    "read": [(ownership.Ownership, "read"), (inputs.Inputs, "read")],
    "work": [(score_stage.PartitionWork, "handle"), (detect_stage.DetectWork, "handle")],
    "commit": [(ownership.Ownership, "commit"), (inputs.Inputs, "commit")],
    "release": [(ownership.Ownership, "release"), (claims.Claims, "hand_back")],
    "claim": [(claims.Claims, "take")],
    "renew": [(ownership.Ownership, "renew"), (claims.Claims, "renew")],
}
MOMENTS = ("before", "during", "after")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wrapped(
    call: Callable[..., Awaitable[Any]], moment: str, chance: float, dice: random.Random
) -> Callable[..., Awaitable[Any]]:
    @wraps(call)
    async def killing(*args: Any, **kwargs: Any) -> Any:
        if dice.random() >= chance:
            return await call(*args, **kwargs)
        if moment == "before":
            _die()
        if moment == "during":  # a request on its way, its reply not read
            asyncio.get_running_loop().call_later(dice.uniform(0, 0.002), _die)
        answer = await call(*args, **kwargs)
        _die()
        return answer

    return killing


def _obeying(score: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(score)
    def obeying(me: Any, given: score_inputs.Inputs, now_ms: int) -> Any:
        for index, fields in enumerate(given.fields):
            kind = fields.get(b"kind", b"").decode()
            if index not in given.bad and kind in COMMANDS:
                obey(kind, 0)
        return score(me, given, now_ms)

    return obeying


def install() -> None:
    """Wrap what `KILL_AT` names; nothing without it. Events whose kind is a command are obeyed."""
    scorer.PartitionScorer.score = _obeying(scorer.PartitionScorer.score)  # type: ignore[method-assign]
    if not (order := os.environ.get("KILL_AT")):
        return
    step, moment, chance, seed = order.split(",")
    dice = random.Random(f"{seed}-{os.getpid()}")
    for owner, name in PLACES[step]:
        setattr(owner, name, _wrapped(getattr(owner, name), moment, float(chance), dice))
