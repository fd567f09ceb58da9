"""Watch a camera until a signal stops it."""

import json
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Final, TypeVar

import simplejpeg
import typer

from qyolo.camera.config import WatchConfig
from qyolo.camera.link import Link
from qyolo.camera.mjpeg import MjpegServer
from qyolo.camera.mqtt import Publisher
from qyolo.camera.occupancy import Change, Occupancy
from qyolo.camera.server import DetectionServer, Unavailable
from qyolo.camera.source import Source, default_name, public
from qyolo.errors import CommandError
from service.http.schemas import Box, ModelInfo
from service.vision.image import Pixels

JPEG_QUALITY: Final = 90
TICK_S: Final = 0.5  # how often a wait looks whether the camera is still available

T = TypeVar("T")

log = logging.getLogger(__name__)


def watch(config: WatchConfig) -> None:
    """Watch until SIGTERM, SIGINT or the end of a file. Raises CommandError."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    watch_until(stop, config)


def watch_until(stop: threading.Event, config: WatchConfig) -> None:
    """The same until `stop` is set."""
    with ExitStack() as stack:
        Watcher(config, stop, stack).run()


class Watcher:
    """Asks the server for one frame at a time, and reports what changes."""

    def __init__(self, config: WatchConfig, stop: threading.Event, stack: ExitStack) -> None:
        """What it opens is closed with `stack`."""
        self._config, self._stop = config, stop
        self._name = config.name or default_name(config.source)
        self._classes = list(filter(None, map(str.strip, (config.classes or "").split(","))))
        self._link = Link(f"server {public(config.server)}")
        self._occupancy = Occupancy(config.confirm, config.cooldown)
        self._answered_at = -float("inf")
        self._server = stack.enter_context(closing(DetectionServer(config.server, config.api_key)))
        self._publisher: Publisher | None = None
        if config.mqtt is not None:
            self._publisher = stack.enter_context(
                closing(Publisher(config.mqtt, config.mqtt_password, self._name))
            )
        self._viewer: MjpegServer | None = None
        if config.mjpeg_port is not None:
            self._viewer = stack.enter_context(
                closing(MjpegServer(config.mjpeg_host, config.mjpeg_port, config.insecure))
            )

    def run(self) -> None:
        model = None
        while model is None:
            if self._stop.is_set():
                return
            model = self._ask(lambda: self._server.model(model=self._config.served_model))
        self._introduce(model)
        with closing(Source(self._config.source, self._config.loop)) as source:
            while not self._stop.is_set() and not source.has_ended:
                next_at = time.monotonic() + 1 / self._config.fps
                image = source.newest(model.size, TICK_S)
                if image is not None:
                    self._look(image)
                self._wait(next_at - time.monotonic())

    def _introduce(self, model: ModelInfo) -> None:
        for name in self._classes:
            if name not in model.class_names:
                some = ", ".join(model.class_names[:10])
                raise CommandError(f"--classes: {model.model} has no {name!r}; it has {some}, ...")
        if self._publisher is not None:
            # The broker may still have what an earlier run saw.
            for name in self._classes or model.class_names:
                self._publisher.count(name, 0)
            for name in self._classes:
                self._publisher.discover(name)

    def _look(self, image: Pixels) -> None:
        jpeg = simplejpeg.encode_jpeg(image, JPEG_QUALITY, colorsubsampling="420")
        answer = self._ask(
            lambda: self._server.detect(
                jpeg,
                model=self._config.served_model,
                variant=self._config.variant,
                conf=self._config.conf,
                classes=",".join(self._classes) or None,
            )
        )
        if answer is None:
            return
        boxes, self._answered_at = answer.detections, time.monotonic()
        if self._viewer is not None:
            self._viewer.show(image, boxes)
        seen = Counter(box.class_name for box in boxes)
        for change in self._occupancy.update(seen, self._answered_at):
            self._report(change, boxes)
        self._wait(0)

    def _report(self, change: Change, boxes: list[Box]) -> None:
        """An event on stdout and to the broker, and the new state."""
        event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "camera": self._name,
            "event": "appeared" if change.count > change.before else "left",
            "class": change.class_name,
            "count": change.count,
            "scores": [box.score for box in boxes if box.class_name == change.class_name],
        }
        typer.echo(json.dumps(event))
        if self._publisher is not None:
            self._publisher.discover(change.class_name)
            self._publisher.count(change.class_name, change.count)
            self._publisher.event(json.dumps(event))

    def _ask(self, request: Callable[[], T]) -> T | None:
        """The answer of the server; None after the wait that an unavailable one calls for."""
        try:
            answer = request()
        except Unavailable as exc:
            self._wait(self._link.down(str(exc), exc.retry_after_s))
            return None
        self._link.up()
        return answer

    def _wait(self, seconds: float) -> None:
        """Wait, or until a signal; keeps the availability up to date."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            if self._publisher is not None:
                self._publisher.available(now - self._answered_at < self._config.cooldown)
            if now >= until or self._stop.wait(min(until - now, TICK_S)):
                return
