"""Serve the newest frame with its boxes, as an MJPEG stream and as a JPEG."""

import asyncio
import ipaddress
import logging
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from qyolo.errors import CommandError
from service.http.schemas import Box
from service.vision.detections import Detections
from service.vision.drawing import draw, encode
from service.vision.image import Pixels

POLL_S: Final = 0.05
NO_STORE: Final = {"Cache-Control": "no-store"}

Frame = tuple[Pixels, list[Box]]

log = logging.getLogger(__name__)


class MjpegServer:
    """Serves from a thread. A frame is drawn only if somebody looks at it."""

    def __init__(self, host: str, port: int, insecure: bool) -> None:
        """Raises CommandError if it cannot, or must not, listen there."""
        listener = _listen(host, port, insecure)
        self._frame: Frame | None = None
        routes = [Route("/", self._stream), Route("/snapshot.jpg", self._snapshot)]
        quiet: dict[str, Any] = {"log_config": None, "log_level": "warning", "access_log": False}
        self._server = uvicorn.Server(
            uvicorn.Config(Starlette(routes=routes), lifespan="off", limit_concurrency=32, **quiet)
        )
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        log.info("the stream with boxes is on http://%s:%s", host, listener.getsockname()[1])

    def show(self, image: Pixels, boxes: list[Box]) -> None:
        """Replace the frame: u8[H,W,3] RGB, and boxes in its pixels."""
        self._frame = image, boxes

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _snapshot(self, request: Request) -> Response:
        if self._frame is None:
            return Response("no frame yet", 503, {"Retry-After": "1"}, "text/plain")
        jpeg = await run_in_threadpool(_picture, *self._frame)
        return Response(jpeg, headers=NO_STORE, media_type="image/jpeg")

    async def _stream(self, request: Request) -> Response:
        kind = "multipart/x-mixed-replace; boundary=frame"
        return StreamingResponse(self._parts(), headers=NO_STORE, media_type=kind)

    async def _parts(self) -> AsyncIterator[bytes]:
        # Browsers show a part when they have read the boundary after it.
        yield b"--frame\r\n"
        shown = None
        while not self._server.should_exit:
            if self._frame is None or self._frame is shown:
                await asyncio.sleep(POLL_S)
                continue
            shown = self._frame
            jpeg = await run_in_threadpool(_picture, *shown)
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n--frame\r\n"


def _picture(image: Pixels, boxes: list[Box]) -> bytes:
    names = {box.class_id: box.class_name for box in boxes}
    detections = Detections(
        np.array([box.box for box in boxes], np.float32).reshape(-1, 4),
        np.array([box.score for box in boxes], np.float32),
        np.array([box.class_id for box in boxes], np.int64),
    )
    return encode(draw(image, detections, names.__getitem__), "image/jpeg")


def _listen(host: str, port: int, insecure: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as exc:
        raise CommandError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    address = listener.getsockname()[0]
    if not insecure and not ipaddress.ip_address(address).is_loopback:
        listener.close()
        raise CommandError(f"others can reach {address} and see the camera: allow it by --insecure")
    return listener
