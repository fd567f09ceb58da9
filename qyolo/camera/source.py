"""Read a camera or a file, and keep only the newest frame."""

import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import av
import numpy as np

from qyolo.camera.link import Link
from qyolo.errors import CommandError
from service.vision.image import Pixels

TIMEOUT_S: Final = 10.0  # to open a source, and to get its next data
LONGEST_CLOSE_S: Final = 1.0  # FFmpeg cannot be interrupted while it waits for data


class Source:
    """A video that a thread decodes. A URL is opened again when it fails; a file has an end.

    A video of finite duration is played at its own speed, a live one as it arrives.
    """

    def __init__(self, url: str, loop: bool) -> None:
        self._url, self._loop, self._is_file = url, loop, "://" not in url
        self._link = Link(f"source {public(url)}")
        self._stop, self._arrived = threading.Event(), threading.Condition()
        self._frame: av.VideoFrame | None = None
        self._failure: str | None = "its thread has failed"
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether no frame will come any more. Raises CommandError if the file is unreadable."""
        if self._thread.is_alive() or self._frame is not None:
            return False
        if self._failure is not None:
            raise CommandError(f"cannot read {public(self._url)}: {self._failure}")
        return True

    def newest(self, longest_side: int, timeout_s: float) -> Pixels | None:
        """The newest frame as u8[H,W,3] RGB, shrunk to the given side; None if there is none.

        Each frame is returned once; those that came before it are dropped.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: self._frame is not None, timeout_s)
            frame, self._frame = self._frame, None
        if frame is None:
            return None
        scale = min(1.0, longest_side / max(frame.width, frame.height))
        width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
        rgb = frame.reformat(width, height, "rgb24", interpolation="AREA")
        return np.asarray(rgb.to_ndarray(), np.uint8)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(LONGEST_CLOSE_S)

    def _run(self) -> None:
        reason = None
        while not self._stop.is_set():
            reason = self._play()
            if self._is_file and (reason is not None or not self._loop):
                break
            if not self._is_file and not self._stop.is_set():
                self._stop.wait(self._link.down(reason or "the stream has ended"))
        self._failure = reason

    def _play(self) -> str | None:
        """Decode until the end; returns why it failed, without the URL and its password."""
        options = {"rtsp_flags": "prefer_tcp"} if self._url.startswith("rtsp") else {}
        try:
            with av.open(self._url, options=options, timeout=TIMEOUT_S) as container:
                if not container.streams.video:
                    return "it has no video"
                self._decode(container)
        except av.error.ExitError:
            return f"no data for {TIMEOUT_S:g} s"
        except av.FFmpegError as exc:
            return exc.strerror
        return None

    def _decode(self, container: av.container.InputContainer) -> None:
        begin = None
        for packet in container.demux(video=0):
            frames: list[av.VideoFrame] = []
            # A stream that is joined between key frames begins with some.
            with suppress(av.error.InvalidDataError):
                frames = packet.decode()
            for frame in frames:
                if container.duration is not None and frame.time is not None:
                    now = time.monotonic()
                    begin = now - frame.time if begin is None else begin
                    self._stop.wait(begin + frame.time - now)
                if self._stop.is_set():
                    return
                self._link.up()
                with self._arrived:
                    self._frame = frame
                    self._arrived.notify()


def public(url: str) -> str:
    """The URL without user, password and query; a path as it is."""
    return re.sub(r"^(\w+://)(?:[^/]*@)?([^?]*).*", r"\1\2", url)


def default_name(url: str) -> str:
    """The host of a URL or the stem of a file's name, in characters that a name may have."""
    name = urlsplit(url).hostname if "://" in url else Path(url).stem
    return re.sub(r"[^a-z0-9_-]", "_", (name or "camera").lower())
