"""What `percipio produce` publishes: pictures or event lines, each at its pace."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TypedDict, Unpack

from pipeline.client import Client
from pipeline.errors import DependencyError, EntryError, FullError, SettingsError
from pipeline.event_lines import MAX_LINE_BYTES, EventLines
from pipeline.log import get_logger
from pipeline.outgoing import Event, draft_event
from pipeline.video import Camera, Captured, open_reader

log = get_logger()

_CHUNK_BYTES = 1 << 16
_CHUNKS_AHEAD = 4
_WRONG_SHOWN = 10


@dataclass(slots=True)
class Summary:
    """What was done, as `--json` prints it.

    Attributes:
        stream: where it went.
        published: entries that Redis has confirmed.
        bytes: of pictures or lines.
        invalid: pictures or lines that were wrong and left out.
        held_back_s: how long full streams made us wait.
        lost: entries that Redis did not take.
    """

    source: str
    stream: str
    published: int = 0
    bytes: int = 0
    invalid: int = 0
    seconds: float = 0.0
    held_back_s: float = 0.0
    lost: int = 0

    @property
    def exit_code(self) -> int:
        """The process's: 3 when something was lost, 1 when nothing was valid."""
        if self.lost:
            return DependencyError.exit_code
        return 1 if self.invalid and not self.published else 0

    def as_text(self) -> str:
        """Give one readable line."""
        text = (
            f"{self.source}: {self.published} to {self.stream}, {self.bytes / 1e6:.1f} MB in "
            f"{self.seconds:.1f} s, held back {self.held_back_s:.1f} s, lost {self.lost}"
        )
        return f"{text}, {self.invalid} not valid" if self.invalid else text


class Limits(TypedDict):
    """What every feed keeps to: the most it publishes, and whether it ends at what is wrong."""

    limit: int | None
    strict: bool


class Feed(ABC):
    """One input on its way to a source."""

    is_live = False
    total: int | None = None

    def __init__(self, source: str, stream: str, unit: str, limits: Limits) -> None:
        self.summary = Summary(source, stream)
        self.on_progress: Callable[[int], object] = int
        self._unit = unit
        self._left = limits["limit"] if limits["limit"] is not None else sys.maxsize
        self._strict = limits["strict"]
        self._offered = 0

    @abstractmethod
    async def publish(self, client: Client) -> None:
        """Publish until the end."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the input."""

    def _count(self, entries: int, size_bytes: int) -> None:
        self._left -= entries
        self._offered += entries
        self.summary.bytes += size_bytes
        self.on_progress(self._offered)

    def _leave_out(self, number: int, error: EntryError) -> None:
        """Count what is wrong; name it on standard error, the first ten times.

        Raises:
            EntryError: the same, where one wrong line ends it.
        """
        text = f"{self._unit} {number}: {error}"
        if self._strict:
            raise EntryError(error.reason, text) from error
        self.summary.invalid += 1
        if self.summary.invalid <= _WRONG_SHOWN:
            print(f"percipio: {text}", file=sys.stderr)
        elif self.summary.invalid == _WRONG_SHOWN + 1:
            print("percipio: more that is wrong is only counted", file=sys.stderr)


class FrameFeed(Feed):
    """Pictures: to `recordings`, of a camera or `live` to `frames`."""

    def __init__(
        self,
        source: str,
        text: str,
        *,
        fps: float | None,
        loop: bool,
        live: bool,
        fast: bool,
        **limits: Unpack[Limits],
    ) -> None:
        self._reader = open_reader(text, fps=fps, loop=loop)
        self._is_camera = isinstance(self._reader, Camera)
        self.is_live = live or self._is_camera
        super().__init__(source, "frames" if self.is_live else "recordings", "picture", limits)
        self._least_s = 1 / fps if fps and self._is_camera else 0.0
        self._is_paced = not (fast or self._is_camera) and self._reader.has_rate
        self.total = min(self._reader.count or sys.maxsize, self._left)
        if self.total == sys.maxsize:
            self.total = None

    async def publish(self, client: Client) -> None:
        """Publish each picture when it is due."""
        pictures = enumerate(self._reader, 1)
        began: tuple[float, int | None] | None = None
        due_s = 0.0
        while self._left and (found := await asyncio.to_thread(next, pictures, None)):
            number, picture = found
            began_s, began_ms = began = began or (monotonic(), self._began_ms(client))
            if self._is_paced:
                await asyncio.sleep(began_s + picture.at_s - monotonic())
            if picture.at_s < due_s:
                continue
            on_time = picture.at_s <= due_s + self._least_s
            due_s = (due_s if on_time else picture.at_s) + self._least_s
            await self._publish_one(client, number, picture, self._ts_ms(client, picture, began_ms))

    def _began_ms(self, client: Client) -> int | None:
        """Give the time of the first picture; without waiting, so that the last one's is now.

        None where nothing tells how far pictures are apart: Redis's own time is then the best.
        """
        if self._is_paced:
            return client.now_ms()
        count = self._reader.count if self._reader.has_rate and not self.is_live else None
        return client.now_ms() - round(1000 * count / self._reader.fps) if count else None

    def _ts_ms(self, client: Client, found: Captured, began_ms: int | None) -> int | None:
        if self._is_camera:
            return client.now_ms() - round(1000 * (monotonic() - found.at_s))
        return None if began_ms is None else began_ms + round(1000 * found.at_s)

    async def _publish_one(
        self, client: Client, number: int, found: Captured, ts_ms: int | None
    ) -> None:
        try:
            await client.publish_frame(
                self.summary.source, found.image, live=self.is_live, ts_ms=ts_ms
            )
        except EntryError as error:
            self._leave_out(number, error)
        except FullError as error:
            if not self.summary.lost:
                log.warning("entries_lost", source=self.summary.source, reason=str(error))
            self.summary.lost += 1
        else:
            self._count(1, len(found.image))

    def close(self) -> None:
        """Let go of the camera."""
        self._reader.close()


class EventFeed(Feed):
    """Lines of a file or of standard input."""

    def __init__(
        self, source: str, text: str, *, real_time: bool, **limits: Unpack[Limits]
    ) -> None:
        super().__init__(source, "events", "line", limits)
        self._lines = EventLines(source)
        self._real_time = real_time
        self._number = 0
        self._first: tuple[float, int] | None = None
        self.total = limits["limit"]
        try:
            self._input = 0 if text == "-" else os.open(text, os.O_RDONLY)
        except OSError as error:
            raise SettingsError(f"{text}: {error.strerror}") from error

    async def publish(self, client: Client) -> None:
        """Publish lines as they come, together where several are there."""
        async for lines in _read_lines(self._input):
            events = [event for line in lines if (event := self._read(line, client)) is not None]
            events = events[: self._left]
            if self._real_time:
                for event in events:
                    await self._wait_for(event)
                    await client.publish_events([event])
                    self._count(1, 0)
            else:
                await client.publish_events(events)
                self._count(len(events), 0)
            if not self._left:
                return

    def _read(self, line: bytes, client: Client) -> Event | None:
        self._number += 1
        try:
            event = self._lines.read(line)
            if event is not None:
                draft_event(event, client.keys, client.now_ms())
        except EntryError as error:
            self._leave_out(self._number, error)
            return None
        self.summary.bytes += len(line)
        return event

    async def _wait_for(self, event: Event) -> None:
        """Wait as long after the first event as their `ts` are apart."""
        if event.ts_ms is None:
            return
        if self._first is None:
            self._first = monotonic(), event.ts_ms
        began_s, began_ms = self._first
        await asyncio.sleep(began_s + (event.ts_ms - began_ms) / 1000 - monotonic())

    def close(self) -> None:
        """Close the file."""
        if self._input:
            os.close(self._input)


async def _read_lines(file: int) -> AsyncIterator[Sequence[bytes]]:
    """Give the lines that are there, as soon as there are any; read in a thread."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS_AHEAD)

    def offer(chunk: bytes, taken: threading.Event) -> None:
        putting = loop.create_task(chunks.put(chunk))
        putting.add_done_callback(lambda _: taken.set())

    own = os.dup(file)  # the caller may close its own while a read is under way

    def read() -> None:
        chunk = b"-"
        try:
            while chunk:
                chunk, taken = os.read(own, _CHUNK_BYTES), threading.Event()
                loop.call_soon_threadsafe(offer, chunk, taken)
                taken.wait()
        except RuntimeError:  # the loop has ended
            return
        finally:
            os.close(own)

    # A daemon: nothing can wake a thread from reading a terminal.
    threading.Thread(target=read, name="lines", daemon=True).start()
    rest = b""
    while chunk := await chunks.get():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        yield lines
    yield [rest]
