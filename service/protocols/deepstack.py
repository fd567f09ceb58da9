"""DeepStack's detection, which CodeProject.AI took over: for Frigate, Blue Iris, Home Assistant.

The two read different keys of the answer, so the answer has both.
"""

from email.utils import formatdate
from functools import partial
from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.http.api_paths import ApiPaths, ErrorFormat
from service.http.exchange import Job, exchange, respond
from service.http.params import BoxParams
from service.http.schemas import Box, boxes
from service.http.uploads import Form, image_of, read_form
from service.http.validation import validated
from service.inference.admission import Body
from service.inference.backend import ImageRequest
from service.inference.results import Answer
from service.lifecycle import Lifecycle
from service.manifest import Manifest
from service.protocols.model_names import find_variant, variants_by_name
from service.settings import Settings
from service.vision.postprocess import Query

PATHS: Final = ApiPaths(
    ("/v1/vision", "/v1/vision/*"),
    ErrorFormat(
        lambda status, text: {"success": False, "error": text, "code": status, "duration": 0},
        {413: 400, 415: 400, 422: 400},
    ),
    key_in_request=("/v1/vision/*",),
)
SEPARATOR: Final = "-"  # custom models: NAME, NAME-int8, ...
MAX_BOXES: Final = 20  # Frigate's array holds 20 boxes; it fails at one more


class Options(BaseModel):
    """The form fields that are used; 0.4 is the default of Frigate and CodeProject.AI."""

    min_confidence: float = Field(default=0.4, ge=0, lt=1, allow_inf_nan=False)


class DeepStack:
    """The handlers."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._lifecycle = lifecycle

    def add_routes(self, app: FastAPI) -> None:
        post = partial(app.add_api_route, methods=["POST"], include_in_schema=False)
        post("/v1/vision/detection", self.detect)
        post("/v1/vision/custom/list", self.custom_list)
        post("/v1/vision/custom/{name}", self.detect)

    async def custom_list(self) -> Response:
        names = variants_by_name(self._lifecycle.models, SEPARATOR)
        return JSONResponse({"success": True, "models": list(names), "duration": 0})

    async def detect(self, request: Request) -> Response:
        models = self._lifecycle.models
        name = request.path_params.get("name", models.first.name)
        model, variant = find_variant(name, models, SEPARATOR)
        with await models.get(model) as backend:
            manifest = backend.variants.manifest

            async def read(body: Body) -> Job[Answer]:
                form = await read_form(request, body)
                image = ImageRequest(image_of(form), self._query(request, form, manifest))
                return Job(backend, variant, partial(backend.detect, image))

            answer = await exchange(request, models.admission, read)
        detected = _detected(manifest, answer, request.state.request_id)
        return respond(to_json(detected), [answer])

    def _query(self, request: Request, form: Form, manifest: Manifest) -> Query:
        options = validated(Options, form.fields)
        # Frigate stops at the first label it does not know, so the URL may list those it does.
        classes = request.query_params.getlist("classes")
        params = BoxParams(
            conf=options.min_confidence, iou=None, max_det=MAX_BOXES, classes=classes
        )
        return params.query(self._settings, manifest.class_names)


def _detected(manifest: Manifest, answer: Answer, request_id: str) -> dict[str, object]:
    """DeepStack's keys, then those that CodeProject.AI adds."""
    predictions = [_prediction(box) for box in boxes(manifest, answer.detections)]
    labels = ", ".join(dict.fromkeys(str(prediction["label"]) for prediction in predictions))
    timings = answer.timings
    device = manifest.device.upper()
    return {
        "success": True,
        "predictions": predictions,
        "duration": round(timings["total"], 4),
        "message": f"Found {labels}" if labels else "No objects found",
        "count": len(predictions),
        "code": 200,
        "command": "detect",
        "moduleId": "qyolo",
        "moduleName": f"{manifest.name} {answer.variant}",
        "inferenceMs": round(timings["infer"] * 1000),
        "processMs": round((timings["total"] - timings["queue"]) * 1000),
        "analysisRoundTripMs": round(timings["total"] * 1000),
        "executionProvider": device,
        "inferenceDevice": device,
        "canUseGPU": manifest.device == "gpu",
        "processedBy": "localhost",
        "timestampUTC": formatdate(usegmt=True),
        "requestId": request_id,
    }


def _prediction(box: Box) -> dict[str, object]:
    """A box in whole pixels of the source image."""
    corners = zip(("x_min", "y_min", "x_max", "y_max"), map(round, box.box), strict=True)
    return {"confidence": box.score, "label": box.class_name, **dict(corners)}
