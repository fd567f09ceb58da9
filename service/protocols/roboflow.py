"""The routes of Roboflow's inference server that its SDK needs for object detection.

Boxes are given by their centre. Images are accepted in base64 only: the server fetches no URL for
a client, and "numpy" would be a pickle, which can run code.
"""

import base64
from contextlib import ExitStack
from functools import partial
from typing import Annotated, Final, Literal
from uuid import uuid4

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import BadRequest
from service.http.api_paths import ApiPaths, ErrorFormat
from service.http.exchange import Job, exchange, respond
from service.http.json_outline import Outline, outline_of
from service.http.params import BoxParams
from service.http.pictures import render
from service.http.schemas import Box, boxes
from service.http.uploads import from_base64, parsed, read_body
from service.http.validation import validated
from service.inference.admission import Body
from service.inference.backend import ImageRequest
from service.inference.models import Models
from service.inference.results import Answer
from service.lifecycle import Lifecycle
from service.manifest import Manifest
from service.protocols.model_names import find_variant, variants_by_name
from service.settings import Settings
from service.vision.postprocess import Query

PATHS: Final = ApiPaths(
    ("/info", "/info/*", "/model", "/model/*", "/infer", "/infer/*"),
    ErrorFormat(lambda status, text: {"message": text}, {415: 400, 422: 400}),
    key_in_request=("/model/*", "/infer/*"),
)
SEPARATOR: Final = "/"  # model ids: NAME, NAME/int8, ...
MAX_IMAGES: Final = 16  # of one request, which is answered when all of them are
CONFIDENCE: Final = 0.4  # the protocol's own defaults
IOU: Final = 0.3

Score = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=256)]  # errors repeat it


class EncodedImage(BaseModel):
    type: Name
    value: object


class ModelRequest(BaseModel):
    model_id: Name


class DetectRequest(ModelRequest):
    """The fields of ObjectDetectionInferenceRequest that are used."""

    image: object  # an EncodedImage or a list of them, which is validated once it is counted
    confidence: Score | Literal["best", "default"] = CONFIDENCE
    iou_threshold: float = Field(default=IOU, gt=0, le=1, allow_inf_nan=False)
    max_detections: int = Field(default=300, ge=1, le=1000)
    class_filter: list[Name] | None = Field(default=None, max_length=4096)
    class_agnostic_nms: bool = False
    visualize_predictions: bool = False


class Roboflow:
    """The handlers. Which models are served is the server's matter: adding one changes nothing."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, version: str) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._info = {"name": "qyolo", "version": version, "uuid": str(uuid4())}

    def add_routes(self, app: FastAPI) -> None:
        add = partial(app.add_api_route, include_in_schema=False)
        add("/info", self.info, methods=["GET"])
        add("/model/registry", self.registry, methods=["GET", "POST"])
        add("/model/add", self.add, methods=["POST"])
        add("/model/remove", self.add, methods=["POST"])
        add("/model/clear", self.registry, methods=["POST"])
        add("/infer/object_detection", self.detect, methods=["POST"])

    async def info(self) -> Response:
        return JSONResponse(self._info)

    async def registry(self) -> Response:
        return _registry(self._lifecycle.models)

    async def add(self, request: Request) -> Response:
        models = self._lifecycle.models
        with models.admission.body() as body:
            sent = await read_body(request, body)
        message = await parsed(sent, lambda data: validated(ModelRequest, outline_of(data).json))
        find_variant(message.model_id, models, SEPARATOR)
        return _registry(models)

    async def detect(self, request: Request) -> Response:
        models = self._lifecycle.models
        with ExitStack() as version:

            async def read(body: Body) -> Job[Response]:
                message, files = await parsed(await read_body(request, body), _read)
                model, variant = find_variant(message.model_id, models, SEPARATOR)
                backend = version.enter_context(await models.get(model))
                manifest = backend.variants.manifest
                query = self._query(message, manifest)
                drawn = partial(render, "image/jpeg", manifest.class_name)
                picture = drawn if message.visualize_predictions else None
                images = [ImageRequest(data, query, render=picture) for data in files]

                async def detect(variant: str) -> Response:
                    # One after the other, so that a request never takes more than one slot.
                    models.admission.expect_images(len(images))
                    answers = [await backend.detect(image, variant) for image in images]
                    bodies = [_detected(manifest, answer) for answer in answers]
                    content = bodies if isinstance(message.image, list) else bodies[0]
                    return respond(to_json(content), answers)

                return Job(backend, variant, detect)

            return await exchange(request, models.admission, read)

    def _query(self, message: DetectRequest, manifest: Manifest) -> Query:
        if message.class_agnostic_nms:
            raise BadRequest("class_agnostic_nms: boxes of different classes are never merged here")
        params = BoxParams(
            conf=CONFIDENCE if isinstance(message.confidence, str) else message.confidence,
            iou=message.iou_threshold,
            max_det=message.max_detections,
            classes=message.class_filter or [],
        )
        return params.query(self._settings, manifest.class_names)


def _registry(models: Models) -> Response:
    described = [
        {
            "model_id": model_id,
            "task_type": "object-detection",
            "batch_size": 1,
            "input_height": model.manifest.size.height,
            "input_width": model.manifest.size.width,
        }
        for model_id, (model, _) in variants_by_name(models, SEPARATOR).items()
    ]
    return JSONResponse({"models": described})


def _detected(manifest: Manifest, answer: Answer) -> dict[str, object]:
    detected = {
        "inference_id": str(uuid4()),
        "time": round(answer.timings["total"], 6),  # seconds
        "image": {"width": answer.width, "height": answer.height},
        "predictions": [_prediction(box) for box in boxes(manifest, answer.detections)],
    }
    if answer.picture is not None:
        detected["visualization"] = base64.b64encode(answer.picture).decode()
    return detected


def _prediction(box: Box) -> dict[str, object]:
    """A box as its centre and size in pixels of the source image."""
    left, top, right, bottom = box.box
    return {
        "x": round((left + right) / 2, 3),
        "y": round((top + bottom) / 2, 3),
        "width": round(right - left, 2),
        "height": round(bottom - top, 2),
        "confidence": box.score,
        "class": box.class_name,
        "class_id": box.class_id,
        "detection_id": str(uuid4()),
    }


def _read(data: bytes) -> tuple[DetectRequest, list[bytes]]:
    """A request, and the image files in it."""
    outline = outline_of(data)
    message = validated(DetectRequest, outline.json)
    return message, _files(message.image, outline)


def _files(sent: object, outline: Outline) -> list[bytes]:
    images = sent if isinstance(sent, list) else [sent]
    if not 1 <= len(images) <= MAX_IMAGES:
        raise BadRequest(f"image: send 1 to {MAX_IMAGES} images, not {len(images)}")
    return [_file(image, outline) for image in images]


def _file(sent: object, outline: Outline) -> bytes:
    image = validated(EncodedImage, sent, "itself", "image: ")
    if image.type != "base64" or not isinstance(image.value, str):
        raise BadRequest(f"image: send a text of type 'base64', not of type {image.type!r}")
    return from_base64(outline.text(image.value))
