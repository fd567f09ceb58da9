"""Watch a camera until a signal stops it."""

import json
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Final, TypeVar

import simplejpeg
import typer
from pydantic import BaseModel, ValidationError

from qyolo.camera.config import WatchConfig
from qyolo.camera.link import Link
from qyolo.camera.mjpeg import MjpegServer
from qyolo.camera.mqtt import Publisher
from qyolo.camera.occupancy import Change, Occupancy
from qyolo.camera.source import Source, default_name, public
from qyolo.client import Connection, Unreachable
from qyolo.errors import CommandError
from service.http.schemas import Box, DetectAnswer, ModelInfo
from service.vision.image import Pixels

JPEG_QUALITY: Final = 90
TICK_S: Final = 0.5  # how often a wait looks whether the camera is still available
TIMEOUT_S: Final = 10.0  # of a request
TEMPORARY: Final = (408, 429)  # the request took too long; too many of them

T = TypeVar("T", bound=BaseModel)


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
        self._server = Connection(config.server, config.api_key, TIMEOUT_S)
        stack.callback(self._server.close)
        self._publisher = Publisher(config.mqtt, config.mqtt_password, self._name)
        stack.callback(self._publisher.close)
        self._viewer: MjpegServer | None = None
        if config.mjpeg_port is not None:
            self._viewer = MjpegServer(config.mjpeg_host, config.mjpeg_port, config.insecure)
            stack.callback(self._viewer.close)

    def run(self) -> None:
        while (model := self._ask(ModelInfo, "GET", "/v1/models")) is None:
            if self._stop.is_set():
                return
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
        # The broker may still have what an earlier run saw.
        for name in self._classes or model.class_names:
            self._publisher.count(name, 0)
        for name in self._classes:
            self._publisher.discover(name)

    def _look(self, image: Pixels) -> None:
        jpeg = simplejpeg.encode_jpeg(image, JPEG_QUALITY, colorsubsampling="420")
        wanted = {"variant": self._config.variant, "conf": self._config.conf}
        classes = ",".join(self._classes) or None
        answer = self._ask(DetectAnswer, "POST", "/v1/detect", jpeg, **wanted, classes=classes)
        if answer is None:
            return
        boxes, self._answered_at = answer.detections, time.monotonic()
        if self._viewer is not None:
            self._viewer.frame = image, boxes
        seen = Counter(box.class_name for box in boxes)
        for change in self._occupancy.update(seen, self._answered_at):
            self._report(change, boxes)

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
        self._publisher.discover(change.class_name)
        self._publisher.count(change.class_name, change.count)
        self._publisher.event(json.dumps(event))

    def _ask(
        self, kind: type[T], method: str, path: str, jpeg: bytes | None = None, **query: object
    ) -> T | None:
        """The server's answer; None after the wait that an unavailable one calls for.

        Raises CommandError for an answer that trying again will not change.
        """
        try:
            query["model"] = self._config.served_model
            answer = self._server.ask(method, path, query, jpeg)
        except Unreachable as exc:
            self._wait(self._link.down(str(exc)))
            return None
        if answer.is_ok:
            self._link.up()
            try:
                return kind.model_validate_json(answer.content)
            except ValidationError as exc:
                raise CommandError("--server: the answer is not that of a qyolo server") from exc
        title, detail = answer.problem()
        reason = f"status {answer.status}, {title}"
        if answer.status in TEMPORARY or answer.status >= 500:
            self._wait(self._link.down(reason, answer.retry_after_s))
            return None
        if answer.status == 401:
            detail = "set QYOLO_API_KEY or --api-key"
        raise CommandError(f"the server refuses: {reason}: {detail}")

    def _wait(self, seconds: float) -> None:
        """Wait, or until a signal; keeps the availability up to date."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            self._publisher.available(now - self._answered_at < self._config.cooldown)
            if now >= until or self._stop.wait(min(until - now, TICK_S)):
                return
