"""Serve the newest frame with its boxes, as an MJPEG stream and as a JPEG."""

import asyncio
import ipaddress
import logging
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
from service.transport.listener import listen
from service.vision.detections import Detections
from service.vision.drawing import draw, encode
from service.vision.image import Pixels

POLL_S: Final = 0.05
NO_STORE: Final = {"Cache-Control": "no-store"}
PART: Final = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n--frame\r\n"
PARTS: Final = "multipart/x-mixed-replace; boundary=frame"

log = logging.getLogger(__name__)


class MjpegServer:
    """Serves from a thread. A frame is drawn only if somebody looks at it."""

    def __init__(self, host: str, port: int, insecure: bool) -> None:
        """Raises CannotListen, or CommandError if others could see the camera."""
        listener = listen(host, port)
        address = listener.getsockname()[0]
        if not insecure and not ipaddress.ip_address(address).is_loopback:
            listener.close()
            raise CommandError(
                f"others can reach {address} and see the camera: allow it by --insecure"
            )
        # u8[H,W,3] RGB, and boxes in its pixels.
        self.frame: tuple[Pixels, list[Box]] | None = None
        app = Starlette(routes=[Route("/", self._stream), Route("/snapshot.jpg", self._snapshot)])
        quiet: dict[str, Any] = {"log_config": None, "log_level": "warning", "access_log": False}
        config = uvicorn.Config(app, lifespan="off", limit_concurrency=32, **quiet)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()
        log.info("the stream with boxes is on http://%s:%s", host, listener.getsockname()[1])

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _snapshot(self, request: Request) -> Response:
        if self.frame is None:
            return Response("no frame yet", 503, {"Retry-After": "1"}, "text/plain")
        jpeg = await run_in_threadpool(_picture, *self.frame)
        return Response(jpeg, headers=NO_STORE, media_type="image/jpeg")

    async def _stream(self, request: Request) -> Response:
        return StreamingResponse(self._parts(), headers=NO_STORE, media_type=PARTS)

    async def _parts(self) -> AsyncIterator[bytes]:
        # Browsers show a part when they have read the boundary after it.
        yield b"--frame\r\n"
        shown = None
        while not self._server.should_exit:
            if self.frame is None or self.frame is shown:
                await asyncio.sleep(POLL_S)
                continue
            shown = self.frame
            jpeg = await run_in_threadpool(_picture, *shown)
            yield PART % (len(jpeg), jpeg)


def _picture(image: Pixels, boxes: list[Box]) -> bytes:
    names = {box.class_id: box.class_name for box in boxes}
    detections = Detections(
        np.array([box.box for box in boxes], np.float32).reshape(-1, 4),
        np.array([box.score for box in boxes], np.float32),
        np.array([box.class_id for box in boxes], np.int64),
    )
    return encode(draw(image, detections, names.__getitem__), "image/jpeg")
