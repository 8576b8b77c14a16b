"""Answers of the network on a Redis Cluster: found on every primary, no harm when it is away."""

from __future__ import annotations

import asyncio
import random

from pipeline.answer_store import AnswerStore
from pipeline.partition import Keys
from pipeline.stream import Store
from tests.fault.cluster import Cluster


async def test_answers_are_shared_on_a_cluster_and_its_loss_is_no_error(cluster: Cluster) -> None:
    rng = random.Random(1)
    written = {rng.randbytes(20): b"%d" % number for number in range(100)}
    async with Store.open(cluster.url, Keys(), wait_s=60) as store:
        answers = AnswerStore(store, 1 << 20, 600)
        for digest, packed in written.items():
            answers.put(digest, packed)
        await answers.write()

        assert await AnswerStore(store, 1 << 20, 600).find(written) == written

        for node in cluster.nodes:
            node.kill()
        async with asyncio.timeout(30):
            assert await answers.find(written) == {}
            answers.put(*next(iter(written.items())))
            await answers.write()
