"""Frigate's zmq detector: tensors over a ZeroMQ socket, with neither JPEG nor HTTP.

A request is JSON ({"shape": [1, 640, 640, 3], "dtype": "uint8"}) and the bytes of the tensor. The
answer is JSON and f32[20,6]: class id, score, top, left, bottom and right of a box, as fractions of
the image; rows without a box are zeros. Source: frigate/detectors/plugins/zmq_ipc.py, Frigate 0.17.

Every request is answered, if need be with zeros and an `error` in the JSON: the client's REQ socket
can send nothing more before it has an answer.
"""

import asyncio
import ipaddress
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Final
from urllib.parse import urlsplit

import numpy as np
import zmq
import zmq.asyncio
from pydantic import BaseModel, Field

from service.errors import BadRequest, DeadlineExceeded, ServiceError
from service.http.validation import validated
from service.inference.backend import ImageRequest
from service.inference.results import Answer
from service.lifecycle import Lifecycle
from service.observability.metrics import Metrics
from service.protocols.deepstack import MAX_BOXES
from service.settings import Settings
from service.transport.listener import CannotListen
from service.vision.detections import Floats
from service.vision.image import Pixels
from service.vision.input_size import InputSize
from service.vision.postprocess import Query

CONFIDENCE: Final = 0.4  # Frigate drops boxes below it
CLIENT: Final = "frigate"  # one client of the queue and of the A/B split, however many sockets
MAX_HEADER_BYTES: Final = 4096
LINGER_MS: Final = 500  # for answers that are still being sent when the server stops
COLUMNS: Final = 6

Size = Annotated[int, Field(ge=0, le=65_535)]

log = logging.getLogger(__name__)


class Header(BaseModel):
    """The JSON of a request, as far as it matters: the model folder decides what Frigate cannot."""

    model_request: bool = False  # is the model there?
    model_data: bool = False  # the second frame is a model
    shape: list[Size] = Field(default_factory=list, max_length=8)
    dtype: str = Field(default="", max_length=32)


class Frigate:
    """The socket, bound on creation; `answering` answers its requests."""

    def __init__(
        self, endpoint: str, settings: Settings, lifecycle: Lifecycle, metrics: Metrics
    ) -> None:
        """Raises CannotListen."""
        self._settings = settings
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._query = Query(CONFIDENCE, settings.iou, MAX_BOXES)
        self._requests: set[asyncio.Task[None]] = set()
        self._last_error: type[ServiceError] | None = None
        self._context = zmq.asyncio.Context()
        try:
            self._socket = self._bind(endpoint)
        except CannotListen:
            self._context.destroy(linger=0)
            raise
        log.info("Frigate's zmq detector can connect to %s", endpoint)

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer inside the block; then requests in progress have what remains of the drain."""
        receiver = asyncio.create_task(self._receive())
        try:
            yield
        finally:
            receiver.cancel()
            await asyncio.wait({receiver})
            if self._requests:
                await asyncio.wait(self._requests, timeout=self._lifecycle.remaining_s())
            for request in self._requests:
                request.cancel()
            self._socket.close(LINGER_MS)
            await asyncio.to_thread(self._context.term)

    def _bind(self, endpoint: str) -> zmq.asyncio.Socket:
        socket = self._context.socket(zmq.ROUTER)  # REP would answer one client after the other
        socket.maxmsgsize = self._settings.max_bytes  # a larger frame ends the connection
        socket.tcp_keepalive = 1
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as exc:
            raise CannotListen(f"cannot listen on {endpoint}: {exc.strerror}") from exc
        bound = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if not (self._settings.insecure or self._is_local(bound)):
            raise CannotListen(
                f"others can reach {endpoint}, where no API key is asked for: choose an ipc:// "
                "endpoint or 127.0.0.1, or serve everyone with --insecure"
            )
        return socket

    def _is_local(self, bound: str) -> bool:
        """Whether only this machine and its containers reach an endpoint of numeric address."""
        url = urlsplit(bound)
        if url.scheme == "ipc":
            return True
        reached = self._settings.published or ipaddress.ip_address(url.hostname or "::")
        return reached.is_loopback

    async def _receive(self) -> None:
        while True:
            frames = await self._socket.recv_multipart(copy=False)
            request = asyncio.create_task(self._respond(frames))
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _respond(self, frames: Sequence[zmq.Frame]) -> None:
        client, *rest = frames
        if not rest or rest[0].bytes:  # REQ sends an empty frame first; others wait for no answer
            return
        answer: Answer | None = None
        status = 200
        with self._metrics.in_flight.track_inprogress():
            try:
                header = _header_of(rest[1:])
                if header.model_request or header.model_data:
                    reply = _model_state(header)
                else:
                    answer = await self._detect(header, rest[1:])
                    reply = _boxes(_rows(answer))
                    self._last_error = None
            except ServiceError as exc:
                status, reply = exc.status, self._refusal(exc)
            except Exception:
                log.exception("a request of Frigate failed")
                status, reply = 500, _boxes(error=ServiceError.title)
            await self._socket.send_multipart([client.bytes, b"", *reply])
        self._metrics.count_zmq_request(status)
        if answer is not None and answer.after_response is not None:
            answer.after_response()

    async def _detect(self, header: Header, content: Sequence[zmq.Frame]) -> Answer:
        models = self._lifecycle.models
        if len(content) != 2:
            raise BadRequest(f"send a header and a tensor, not {len(content)} frames")
        tensor = content[1]
        with await models.get(models.first) as backend, models.admission.request(CLIENT) as body:
            body.hold(len(tensor))
            pixels = await _pixels_of(header, tensor, backend.variants.manifest.size)
            chosen = backend.choice.choose(None, CLIENT)
            try:
                async with asyncio.timeout(self._settings.deadline_s):
                    return await backend.detect(ImageRequest(pixels, self._query), chosen.variant)
            except TimeoutError as exc:
                raise DeadlineExceeded(f"no answer within {self._settings.deadline_s:g} s") from exc

    def _refusal(self, exc: ServiceError) -> list[bytes]:
        """Zeros; of errors of the same kind in a row, the first one is logged."""
        if type(exc) is not self._last_error:
            log.warning("Frigate gets no boxes: %s", exc)
        self._last_error = type(exc)
        return _boxes(error=str(exc) if exc.status < 500 else exc.title)


def _header_of(content: Sequence[zmq.Frame]) -> Header:
    if not content or len(content[0]) > MAX_HEADER_BYTES:
        raise BadRequest(f"send a JSON header of at most {MAX_HEADER_BYTES} bytes first")
    return validated(Header, content[0].bytes, "header")


def _model_state(header: Header) -> list[bytes]:
    """Frigate asks once whether the model is there, and sends its own where there is none.

    It is told so during a build too: after a no, Frigate would not ask again until it restarts.
    """
    if header.model_data:
        return [json.dumps({"model_saved": False, "model_loaded": True}).encode()]
    return [json.dumps({"model_available": True, "model_loaded": True}).encode()]


async def _pixels_of(header: Header, tensor: zmq.Frame, size: InputSize) -> Pixels:
    """A tensor -> u8[height,width,3] RGB; bytes in NHWC are not copied. Raises BadRequest."""
    rows, planes = [1, size.height, size.width, 3], [1, 3, size.height, size.width]
    if header.shape not in (rows, planes):
        raise BadRequest(
            f"the shape is {header.shape}, the model reads {rows}: set width to {size.width} and "
            f"height to {size.height} in Frigate's model"
        )
    if header.dtype not in ("uint8", "float32"):
        raise BadRequest(
            f"the dtype is {header.dtype!r}: set input_dtype to int in Frigate's model"
        )
    dtype = np.dtype(header.dtype)
    expected = 3 * size.height * size.width * dtype.itemsize
    if len(tensor) != expected:
        raise BadRequest(f"the tensor has {len(tensor)} bytes, not {expected}")
    array = np.frombuffer(tensor.buffer, dtype).reshape(header.shape)
    if header.shape == rows and dtype == np.uint8:
        pixels: Pixels = array[0]
        return pixels
    # In a thread, since it takes milliseconds.
    return await asyncio.to_thread(_converted, array, header.shape == planes)


def _converted(array: Pixels | Floats, is_planes: bool) -> Pixels:
    if array.dtype != np.uint8:
        if not (array.min() >= 0 and array.max() <= 1):  # nor NaN
            raise BadRequest("floats must be in 0..1: set input_dtype to int in Frigate's model")
        array = (array * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(array[0].transpose(1, 2, 0) if is_planes else array[0], np.uint8)


def _rows(answer: Answer) -> Floats:
    """f32[20,6], best first."""
    rows = np.zeros((MAX_BOXES, COLUMNS), np.float32)
    found = answer.detections
    left, top, right, bottom = found.xyxy.T / np.array([[answer.width], [answer.height]] * 2)
    columns = [found.class_ids, found.scores, top, left, bottom, right]
    rows[: len(found)] = np.stack(columns, axis=-1)
    return rows


def _boxes(rows: Floats | None = None, error: str | None = None) -> list[bytes]:
    if rows is None:
        rows = np.zeros((MAX_BOXES, COLUMNS), np.float32)
    header: dict[str, object] = {"shape": rows.shape, "dtype": "float32"}
    if error is not None:
        header["error"] = error
    return [json.dumps(header).encode(), rows.tobytes()]
