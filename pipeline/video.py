"""Pictures from files, folders, cameras and streams; the home of OpenCV's VideoCapture.

All readers block and are meant for a thread; each gives encoded pictures, one after the other.
"""

from __future__ import annotations

import random
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import numpy as np

from pipeline.errors import DependencyError, SettingsError
from pipeline.log import get_logger
from pipeline.records import Image

try:
    import cv2
except ImportError as error:
    raise DependencyError(f"OpenCV does not load: {error}") from error

log = get_logger()

JPEG_QUALITY = 90
PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp"))
_FPS_IF_UNKNOWN = 25.0
_TIMEOUT_MS = 5000
_PAUSES_S = (0.5, 10.0)
_JOIN_S = 2 * _TIMEOUT_MS / 1000


@dataclass(frozen=True, slots=True)
class Captured:
    """One picture.

    Attributes:
        image: JPEG, or the bytes of the file.
        at_s: of a recording, the time since its beginning (over all rounds of a loop); of a
            camera, when it was taken, by `time.monotonic()`.
    """

    image: bytes
    at_s: float


class Reader(ABC):
    """Pictures of one input; a context manager.

    Attributes:
        fps: pictures a second; 25 where nothing tells.
        has_rate: something does tell.
        count: pictures there are; None when that is not known or has no end.
    """

    fps: float = _FPS_IF_UNKNOWN
    has_rate = False
    count: int | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Captured]:
        """Give one picture after the other; blocks."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - files are closed by their iteration
        """Let go of what is open."""


class VideoFile(Reader):
    """The frames of a video file, as JPEG.

    Args:
        path: of the file.
        fps: frames a second; the file's own by default.
        loop: begin anew at the end, for ever.

    Raises:
        DependencyError: OpenCV cannot read it.
    """

    def __init__(self, path: Path, *, fps: float | None = None, loop: bool = False) -> None:
        self._path = path
        self._loop = loop
        with closing(_File(path)) as file:
            self.fps = fps or file.fps
            self.count = None if loop else file.count
        self.has_rate = True

    def __iter__(self) -> Iterator[Captured]:
        number = 0
        while True:
            began_at = number
            with closing(_File(self._path)) as file:
                while (image := file.read()) is not None:
                    yield Captured(_encode(image), number / self.fps)
                    number += 1
            if number == began_at:
                raise DependencyError(f"{self._path}: holds no frame that OpenCV can decode")
            if not self._loop:
                return


class _File:
    """An open video file."""

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DependencyError(f"{path}: not a video that OpenCV can read")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if 0.1 <= fps <= 1000 else _FPS_IF_UNKNOWN
        self.count = int(count) if 0 < count < 1e9 else None

    def read(self) -> Image | None:
        got, image = self._capture.read()
        return np.asarray(image, np.uint8) if got else None

    def close(self) -> None:
        self._capture.release()


class Folder(Reader):
    """The pictures of a folder in the order of their names, numbers by value; bytes as they are.

    Args:
        path: of the folder, or of one picture.
        fps: pictures a second.
        loop: begin anew at the end, for ever.

    Raises:
        SettingsError: there is no picture in it.
    """

    def __init__(self, path: Path, *, fps: float | None = None, loop: bool = False) -> None:
        found = path.iterdir() if path.is_dir() else [path]
        self._files = sorted(
            (file for file in found if file.suffix.lower() in PICTURES), key=_natural
        )
        if not self._files:
            raise SettingsError(f"{path}: holds no picture ({', '.join(sorted(PICTURES))})")
        self._loop = loop
        self.fps, self.has_rate = fps or _FPS_IF_UNKNOWN, fps is not None
        self.count = None if loop else len(self._files)

    def __iter__(self) -> Iterator[Captured]:
        number = 0
        while True:
            for file in self._files:
                try:
                    yield Captured(file.read_bytes(), number / self.fps)
                except OSError as error:
                    raise DependencyError(f"{file}: {error.strerror}") from error
                number += 1
            if not self._loop:
                return


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort `frame2` before `frame10`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


class Camera(Reader):
    """A webcam or network stream, connected again for ever; iterate it in one thread.

    Holds one picture: one that nobody has taken when the next arrives is replaced by it.

    Args:
        address: number of a webcam, or a URL.
        pauses_s: shortest and longest pause between attempts.

    Raises:
        DependencyError: a webcam that is not there; a network stream may still come.
    """

    def __init__(self, address: int | str, pauses_s: tuple[float, float] = _PAUSES_S) -> None:
        self.address = address
        self.replaced = 0
        self._pauses_s = pauses_s
        self._stop = threading.Event()
        self._arrived = threading.Condition()
        self._newest: tuple[Image, float] | None = None
        if isinstance(address, int):
            with closing(_Connection(address)) as attempt:
                if attempt.read() is None:
                    raise DependencyError(f"webcam {address} is not there")
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Captured]:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._newest is not None or self._stop.is_set())
                if self._stop.is_set() or self._newest is None:
                    return
                (image, at_s), self._newest = self._newest, None
            yield Captured(_encode(image), at_s)

    def close(self) -> None:
        """End the iteration and let go of the camera."""
        self._stop.set()
        with self._arrived:
            self._arrived.notify_all()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        shortest_s, longest_s = self._pauses_s
        pause_s, is_away = shortest_s, False
        while not self._stop.is_set():
            if self._watch():
                pause_s, is_away = shortest_s, False
            if self._stop.is_set():
                return
            if not is_away:
                log.warning("camera_away", camera=str(self.address))
                is_away = True
            self._stop.wait(random.uniform(pause_s / 2, pause_s))
            pause_s = min(longest_s, 2 * pause_s)

    def _watch(self) -> bool:
        """Read until the camera fails; tells whether it gave anything."""
        has_given = False
        with closing(_Connection(self.address)) as connection:
            while not self._stop.is_set() and (image := connection.read()) is not None:
                if not has_given:
                    log.info("camera_there", camera=str(self.address))
                    has_given = True
                with self._arrived:
                    self.replaced += self._newest is not None
                    self._newest = image, monotonic()
                    self._arrived.notify_all()
        return has_given


class _Connection:
    """One attempt at a camera, with an end to its patience in opening and in reading."""

    def __init__(self, address: int | str) -> None:
        if isinstance(address, int):
            self._capture = cv2.VideoCapture(address)
            return
        patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS]
        patience += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, patience)

    def read(self) -> Image | None:
        with suppress(cv2.error):
            got, image = self._capture.read()
            return np.asarray(image, np.uint8) if got else None
        return None

    def close(self) -> None:
        self._capture.release()


def open_reader(text: str, *, fps: float | None = None, loop: bool = False) -> Reader:
    """Open what a user names: a file, a folder, the number of a webcam or a URL.

    Raises:
        SettingsError: there is no such file.
        DependencyError: it is there but cannot be read.
    """
    if text.isdecimal() and not Path(text).exists():
        return Camera(int(text))
    if re.match(r"[a-z][a-z0-9+.-]*://", text):
        return Camera(text)
    path = Path(text)
    if not path.exists():
        raise SettingsError(f"{text}: no such file or folder")
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return Folder(path, fps=fps, loop=loop)
    return VideoFile(path, fps=fps, loop=loop)


def _encode(image: Image) -> bytes:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise DependencyError(f"OpenCV cannot encode a frame of {image.shape}")
    return data.tobytes()
