"""Frames that need no network: seen before byte by byte, or of a camera that stands still.

A look-up never fails a frame: what is not known, or what Redis does not tell, is detected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from pipeline import metrics
from pipeline.answer_store import AnswerStore
from pipeline.answers import Answer, AnswerMemory
from pipeline.image import probe, thumbnail
from pipeline.log import get_logger
from pipeline.still import StillGate, Thumbnail
from pipeline.wire import FrameEntry, id_key

FORMAT = 1
"""Raised when decoding, scaling or suppression change what is found in a picture."""
_DIGEST_BYTES = 20


@dataclass(slots=True)
class Look:
    """What is known of a frame before the network sees it.

    Attributes:
        source: whose frame it is.
        frame: its entry id as numbers.
        digest: of its bytes and of all that decides what is found in them; None without a cache.
        thumbnail: None without a gate, or once the answer is known.
        answer: what was found in it, None when that is not known.
    """

    source: str
    frame: tuple[int, int]
    digest: bytes | None = None
    thumbnail: Thumbnail | None = None
    answer: Answer | None = None


class Reuse:
    """The cache by content, in memory and in Redis, and the gate of still cameras.

    Args:
        identity: names everything beside the picture that decides what is found: model,
            runtime, size, thresholds, classes.
        memory: None for no cache, neither here nor in Redis.
        store: None for none in Redis.
        gate: None for none.
    """

    def __init__(
        self,
        identity: str = "",
        memory: AnswerMemory | None = None,
        store: AnswerStore | None = None,
        gate: StillGate | None = None,
    ) -> None:
        self._salt = hashlib.sha256(f"{FORMAT}|{identity}\0".encode())
        self._memory = memory
        self._store = store if memory is not None else None
        self._gate = gate

    @property
    def is_on(self) -> bool:
        """Whether anything is looked up at all."""
        return self._memory is not None or self._gate is not None

    def look(self, frame: FrameEntry) -> Look:
        """Look a frame up in memory, then at its thumbnail; decoders call it from their threads.

        Raises:
            EntryError: the picture's header is wrong, or it does not decode.
        """
        look = Look(frame.envelope.source, id_key(frame.envelope.entry_id))
        if self._memory is not None:
            salted = self._salt.copy()
            salted.update(frame.image)
            look.digest = salted.digest()[:_DIGEST_BYTES]
            self.look_again(look)
        if look.answer is None and self._gate is not None:
            info = probe(frame.image)
            look.thumbnail = thumbnail(frame.image)
            size_wh = (info.width, info.height)
            look.answer = self._gate.recall(look.source, look.thumbnail, size_wh, monotonic())
            if look.answer is not None:
                _count_hit(look.answer, "still")
        return look

    def look_again(self, look: Look) -> None:
        """Look into memory only: an equal frame may have been detected since."""
        if self._memory is None or look.digest is None or look.answer is not None:
            return
        packed = self._memory.get(look.digest)
        if packed is not None:
            look.answer = Answer.unpack(packed)
            _count_hit(look.answer, "memory")

    async def ask(self, looks: Sequence[Look]) -> None:
        """Ask Redis for what memory does not know, all in one round trip."""
        if self._store is None or self._memory is None:
            return
        wanted = {look.digest: look for look in looks if look.digest and look.answer is None}
        for digest, packed in (await self._store.find(wanted)).items():
            look = wanted[digest]
            try:
                look.answer = Answer.unpack(packed)
            except ValueError as error:
                get_logger().warning("answer_damaged", error=str(error))
                continue
            self._memory.put(digest, packed)
            _count_hit(look.answer, "redis")

    def keep(self, look: Look, answer: Answer) -> None:
        """Remember what the network found in a frame."""
        if self.is_on:
            metrics.CACHE.labels("miss", "none").inc()
        if self._gate is not None and look.thumbnail is not None:
            self._gate.note(look.source, look.thumbnail, answer, look.frame, monotonic())
        if self._memory is None or look.digest is None:
            return
        packed = answer.pack()
        self._memory.put(look.digest, packed)
        metrics.CACHE_BYTES.labels("memory").set(self._memory.size_bytes)
        if self._store is not None:
            self._store.put(look.digest, packed)


def _count_hit(answer: Answer, via: str) -> None:
    metrics.CACHE.labels("hit", via).inc()
    metrics.CACHE_SAVED.inc(answer.cost_s)
