"""One trial: a deployment, a load, something that goes wrong, and a verdict."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.deployment import find_deployment
from pipeline.errors import PercipioError
from pipeline.ledger import read_status
from pipeline.partition import Keys
from tests.fault.checker import Outputs, Verdict, examine
from tests.fault.publish import Crowd, KeepingPublisher, Load, Publisher
from tests.fault.rig import Fleet, Nursery

PARTITIONS = 4
LEASE_MS = 1500
PATIENCE_S = 180.0
"""For what takes seconds on a machine of its own; others may keep this one busy."""
SETTINGS = {
    "PERCIPIO_PARTITIONS": str(PARTITIONS),
    "PERCIPIO_LEASE_MS": str(LEASE_MS),
    "PERCIPIO_CLAIM_IDLE_MS": "1000",
    "PERCIPIO_FRAME_MAX_AGE_MS": "86400000",
    "PERCIPIO_FRAMES_BACKLOG": "1000000",
    "PERCIPIO_BATCH_SIZE": "8",
    "PERCIPIO_KEEP_LAST_FRAME": "0",
    "PERCIPIO_LOG_FORMAT": "text",
    "PERCIPIO_GRACE_S": "10",
}


@dataclass
class Trial:
    """A deployment under test.

    Attributes:
        url: of Redis, for workers and checks; a publisher may have another way.
    """

    url: str
    nursery: Nursery
    seed: int
    connect: Callable[[], Any]
    fleet: Fleet = field(init=False)
    keys: Keys = field(default_factory=lambda: Keys(partitions=PARTITIONS))
    dice: random.Random = field(init=False)
    publisher: Publisher | None = None

    def __post_init__(self) -> None:
        self._first_log = self.nursery.count
        self.fleet = Fleet(self.nursery, SETTINGS | {"PERCIPIO_REDIS_URL": self.url})
        self.dice = random.Random(self.seed)

    def publish(self, load: Load) -> Publisher:
        """Begin to publish with plain XADD."""
        return self._begin(Publisher(self.connect, self.keys, load, self.seed))

    def publish_and_keep(self, load: Load) -> Publisher:
        """Begin to publish through the SDK, which repairs what Redis loses."""
        return self._begin(KeepingPublisher(self.url, self.keys, load, self.seed))

    def gather(self, load: Load, url: str) -> Crowd:
        """Begin to publish from a client of the SDK for each source."""
        crowd = Crowd(url, self.keys, load, self.seed)
        self._begin(crowd)
        return crowd

    def _begin(self, publisher: Publisher) -> Publisher:
        self.publisher = publisher
        publisher.start()
        return publisher

    def status(self) -> dict[str, Any]:
        """What `percipio status --json` prints."""
        return asyncio.run(self._status())

    async def _status(self) -> dict[str, Any]:
        async with find_deployment(self.url, self.keys.prefix) as store:
            return (await read_status(store)).as_json()

    def is_quiet(self) -> bool:
        """Whether everything published has been done."""
        assert self.publisher is not None
        if not self.publisher.is_done:
            return False
        with suppress(PercipioError):
            status = self.status()
            return bool(status["balanced"]) and not status["in_flight"]
        return False

    def wait_until_owned(self) -> None:
        """Wait until every partition has an owner, and each score worker has some."""
        wanted = min(PARTITIONS, len(self.fleet.pids("score")))
        self.wait_until(lambda: all(found := self.owners()) and len(set(found)) == wanted)

    def wait_until_quiet(self, timeout_s: float = PATIENCE_S, **extra: str) -> float:
        """Keep the fleet alive until nothing is left to do; gives the seconds it took."""
        began_s = time.monotonic()
        while not self.is_quiet():
            if time.monotonic() - began_s > timeout_s:
                return timeout_s
            self.fleet.revive(**extra)
            time.sleep(0.1)
        return time.monotonic() - began_s

    def wait_until(self, check: Callable[[], object], timeout_s: float = PATIENCE_S) -> float:
        """Wait for something; gives the seconds it took."""
        began_s = time.monotonic()
        while not check():
            assert time.monotonic() - began_s < timeout_s, f"waited {timeout_s:g} s"
            time.sleep(0.02)
        return time.monotonic() - began_s

    def look_s(self) -> float:
        """Give how long it takes to see who owns what: what happens is seen so much later."""
        began_s = time.monotonic()
        self.owners()
        return time.monotonic() - began_s

    def owners(self) -> list[str | None]:
        """Who owns each partition."""
        with suppress(PercipioError):
            return [row["owner"] for row in self.status()["partitions"]]
        return []

    def judge(self) -> Verdict:
        """Compare what came out with what went in."""
        assert self.publisher is not None
        with self.connect() as client:
            return examine(Outputs(client, self.keys), self.publisher, self.status())

    def judge_with_junk(self, junk: int) -> Verdict:
        """The same where somebody else's entries ended as dead letters beside."""
        verdict = self.judge()
        assert verdict.dead == junk, verdict
        return verdict

    def repair(self) -> dict[str, int]:
        """Give what the publisher sent again, and how much of it Redis had lost."""
        assert self.publisher is not None
        ledger = self.status()["ledger"]
        known = ledger["events_dropped_duplicate"] + ledger["frames_dropped_duplicate"]
        again = self.publisher.repeated
        return {"sent_again": again, "of_that_lost": max(0, again - known)}

    def words(self) -> str:
        """Give what this trial's workers have logged."""
        logs = sorted(self.nursery.folder.glob("*.log"))
        # by number: a worker that was killed at once has left none
        mine = [log for log in logs if int(log.name.split("-")[0]) > self._first_log]
        return "".join(log.read_text() for log in mine)

    def end(self) -> None:
        """Stop everything."""
        if self.publisher is not None:
            self.publisher.stop.set()
            self.publisher.join(20)
        self.fleet.stop()


def note(path: Path | None, row: str, verdict: dict[str, Any]) -> None:
    """Add a row to the table's file, and print it."""
    line = json.dumps({"row": row, **verdict})
    print(line)
    if path is not None:
        with open(path, "a") as out:
            out.write(line + "\n")
