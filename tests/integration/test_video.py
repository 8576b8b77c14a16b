"""Readers of videos, pictures and streams; a stream that is cut comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from pipeline.errors import DependencyError, SettingsError
from pipeline.image_header import Format, probe
from pipeline.video import Camera, Folder, VideoFile, open_reader


def a_jpeg(level: int = 90) -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), level, np.uint8))[1].tobytes()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "six.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for n in range(6):
        writer.write(np.full((48, 64, 3), 40 * n, np.uint8))
    writer.release()
    return path


def test_a_video_gives_its_frames_as_jpeg_with_their_times(video: Path) -> None:
    reader = open_reader(str(video))

    frames = list(reader)

    assert (reader.fps, reader.count, reader.has_rate) == (10.0, 6, True)
    assert [round(frame.at_s, 3) for frame in frames] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert {probe(frame.image) for frame in frames} == {probe(a_jpeg())}


def test_a_video_goes_round_at_another_rate(video: Path) -> None:
    reader = VideoFile(video, fps=5, loop=True)

    frames = [frame for frame, _ in zip(reader, range(14), strict=False)]

    assert reader.count is None
    assert [round(frame.at_s * 5) for frame in frames] == list(range(14))


def test_a_folder_gives_its_pictures_untouched_in_the_order_of_numbers(tmp_path: Path) -> None:
    pictures = {"f2.jpg": a_jpeg(1), "f10.JPG": a_jpeg(2), "f1.png": b"\x89PNG not looked at"}
    for name, data in {**pictures, "notes.txt": b"x"}.items():
        (tmp_path / name).write_bytes(data)

    reader = open_reader(str(tmp_path))
    frames = list(reader)

    assert [f.image for f in frames] == [pictures[n] for n in ("f1.png", "f2.jpg", "f10.JPG")]
    assert (reader.count, reader.has_rate) == (3, False)
    assert [f.image for f in open_reader(str(tmp_path / "f2.jpg"))] == [pictures["f2.jpg"]]
    assert [f.at_s for f, _ in zip(Folder(tmp_path, fps=2, loop=True), range(4), strict=False)] == [
        0.0,
        0.5,
        1.0,
        1.5,
    ]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"no video")
    (tmp_path / "empty").mkdir()

    with pytest.raises(SettingsError, match="no such file"):
        open_reader(str(tmp_path / "away.mp4"))
    with pytest.raises(SettingsError, match="holds no picture"):
        open_reader(str(tmp_path / "empty"))
    with pytest.raises(DependencyError, match="not a video"):
        open_reader(str(tmp_path / "no.mp4"))
    with pytest.raises(DependencyError, match="webcam 97 is not there"):
        open_reader("97")


class MjpegHandler(BaseHTTPRequestHandler):
    """A camera of the network: two rounds of pictures, then the connection is cut."""

    connections: ClassVar[list[float]] = []
    frames_a_connection = 5

    def do_GET(self) -> None:
        self.connections.append(time.monotonic())
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for n in range(self.frames_a_connection):
            picture = a_jpeg(20 * n)
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: ")
            self.wfile.write(b"%d\r\n\r\n%s\r\n" % (len(picture), picture))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def mjpeg() -> Iterator[str]:
    MjpegHandler.connections.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), MjpegHandler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/live.mjpg"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_stream_that_is_cut_is_opened_again(mjpeg: str) -> None:
    with Camera(mjpeg, pauses_s=(0.02, 0.1)) as camera:
        frames = iter(camera)
        while len(MjpegHandler.connections) < 4:
            frame = next(frames)
        replaced = camera.replaced

    assert probe(frame.image).format is Format.JPEG
    assert frame.at_s <= time.monotonic()
    assert replaced >= 0
    assert list(frames) == []


def test_only_the_newest_picture_is_held(mjpeg: str) -> None:
    with Camera(mjpeg, pauses_s=(0.02, 0.05)) as camera:
        while len(MjpegHandler.connections) < 4:
            time.sleep(0.01)
        taken = [next(iter(camera))]

    assert camera.replaced >= 2 * MjpegHandler.frames_a_connection
    assert time.monotonic() - taken[0].at_s < 30


def test_a_stream_that_is_not_there_is_waited_for_and_can_be_closed() -> None:
    began_s = time.monotonic()
    with Camera("http://127.0.0.1:1/none.mjpg", pauses_s=(0.01, 0.02)) as camera:
        closing = threading.Timer(0.3, camera.close)
        closing.start()
        frames = list(camera)
        closing.join()

    assert frames == []
    assert time.monotonic() - began_s < 10
