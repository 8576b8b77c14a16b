"""The straightforward pipeline, to compare with: what one writes first, and it works.

    python -m benchmarks.baseline URL [--recompute event|window] [--hold]

One entry per read, JSON, the source's state fetched from Redis and put back, the whole window
computed anew for every event, one synchronous write after the other; no batch, no cache. Its levels
are those of percipio (`tests/unit/test_baseline.py`). It is kinder to itself than it might be: it
computes no correlations, keeps no ledger, and an event whose worker dies between two writes is
counted twice.

`--recompute window` computes only when the window has changed, `--hold` keeps every source's
objects in the process and only writes them: the first two things one would improve.
"""

from __future__ import annotations

import argparse
import json
import signal
from dataclasses import dataclass, field
from types import FrameType

from redis import Redis
from redis.exceptions import ResponseError

from benchmarks.plain_source import Measures, Source
from pipeline.scoring.parameters import PHASES

EVENTS, SCORES, GROUP = "plain:events", "plain:scores", "score"
BLOCK_MS = 200


def state_key(source: str) -> str:
    """Name the key of a source's state."""
    return f"plain:state:{source}"


@dataclass
class Baseline:
    """Reads an event, scores it, writes the result; then the next.

    Attributes:
        always: compute the window for every event, not only when it has changed.
        hold: keep the sources' objects; else each event fetches its source's state.
    """

    client: Redis
    always: bool = True
    hold: bool = False
    held: dict[str, Source] = field(default_factory=dict)
    handled: int = 0

    def prepare(self) -> None:
        """Make the stream and its group."""
        try:
            self.client.xgroup_create(EVENTS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def handle_one(self, block_ms: int = BLOCK_MS) -> bool:
        """Handle the next event; False when there is none."""
        answer = self.client.xreadgroup(GROUP, "worker", {EVENTS: ">"}, count=1, block=block_ms)
        if not answer:
            return False
        [(_, [(entry_id, fields)])] = answer
        event = json.loads(fields[b"event"])
        source = self._recall(event["source"])
        measures = source.observe(event["ts"], event["values"], always=self.always)
        self.client.set(state_key(source.name), source.to_json())
        self.client.xadd(SCORES, {"score": self._result(source, event["ts"], measures)})
        self.client.xack(EVENTS, GROUP, entry_id)
        self.handled += 1
        return True

    def _recall(self, name: str) -> Source:
        if not self.hold:
            return Source.from_json(self.client.get(state_key(name)), name)
        if name not in self.held:
            self.held[name] = Source.from_json(self.client.get(state_key(name)), name)
        return self.held[name]

    @staticmethod
    def _result(source: Source, ts_ms: int, measures: Measures) -> str:
        arousal, workspace, novelty = source.then
        return json.dumps(
            {
                "source": source.name,
                "ts": ts_ms,
                "n": source.events,
                "level": round(source.level, 4),
                "phase": PHASES[source.phase],
                "components": {
                    "arousal": arousal,
                    "differentiation": measures.differentiation,
                    "integration": measures.integration,
                    "workspace": workspace,
                    "novelty": novelty,
                },
            }
        )


def main() -> None:
    """Handle events until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--recompute", choices=("event", "window"), default="event")
    parser.add_argument("--hold", action="store_true")
    args = parser.parse_args()
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    with Redis.from_url(args.url) as client:
        baseline = Baseline(client, args.recompute == "event", args.hold)
        baseline.prepare()
        while not stopping:
            baseline.handle_one()


if __name__ == "__main__":
    main()
