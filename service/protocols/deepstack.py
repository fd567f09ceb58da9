"""DeepStack's detection, which CodeProject.AI took over: for Frigate, Blue Iris, Home Assistant.

Each of the two reads its own keys of the answer, so that one answer has both.
"""

from email.utils import formatdate
from typing import Final

from fastapi import FastAPI
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import BadRequest
from service.http.api_paths import ApiPaths, ErrorFormat
from service.http.client_identity import client_of
from service.http.disconnects import cancel_on_disconnect
from service.http.params import BoxParams
from service.http.routes import VARIANT_HEADER
from service.http.schemas import boxes
from service.http.uploads import Form, image_of, read_form
from service.http.validation import first_error
from service.inference.results import Answer
from service.lifecycle import Lifecycle
from service.manifest import Manifest
from service.middleware.auth import AccessPolicy
from service.protocols.key_in_body import admit
from service.protocols.model_names import find_variant, variants_by_name
from service.settings import Settings

PATHS: Final = ApiPaths(
    ("/v1/vision/*",),
    ErrorFormat(
        lambda status, text: {"success": False, "error": text, "code": status, "duration": 0},
        {413: 400, 415: 400, 422: 400},
    ),
    key_in_request=("/v1/vision/*",),
)
JOINT: Final = "-"  # custom models: NAME, NAME-int8, ...
MOST: Final = 20  # Frigate has room for 20 boxes and fails at one more


class Wishes(BaseModel):
    """The fields of the form that are heeded; 0.4 is where Frigate and CodeProject.AI begin."""

    min_confidence: float = Field(default=0.4, ge=0, lt=1, allow_inf_nan=False)


class Prediction(BaseModel):
    """A box in whole pixels of the source image."""

    confidence: float
    label: str
    x_min: int
    y_min: int
    x_max: int
    y_max: int


class Detected(BaseModel):
    """DeepStack's answer, then what CodeProject.AI adds."""

    success: bool = True
    predictions: list[Prediction]
    duration: float
    message: str
    count: int
    code: int = 200
    command: str = "detect"
    moduleId: str = "qyolo"
    moduleName: str
    inferenceMs: int
    processMs: int
    analysisRoundTripMs: int
    executionProvider: str
    inferenceDevice: str
    canUseGPU: bool
    processedBy: str = "localhost"
    timestampUTC: str
    requestId: str


class DeepStack:
    """The handlers."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, gate: AccessPolicy) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._gate = gate

    def add_routes(self, app: FastAPI) -> None:
        for path, handler in (
            ("/v1/vision/detection", self.detect),
            ("/v1/vision/custom/list", self.custom_list),
            ("/v1/vision/custom/{name}", self.detect),
        ):
            app.add_api_route(path, handler, methods=["POST"], include_in_schema=False)

    async def custom_list(self, request: Request) -> Response:
        has_form = request.headers.get("content-type", "").startswith("multipart/")
        form = await read_form(request, self._settings.max_bytes) if has_form else Form({}, {})
        admit(self._gate, request, form.fields.get("api_key"))
        names = variants_by_name(self._lifecycle.pipeline.variants, JOINT)
        return JSONResponse({"success": True, "models": list(names), "duration": 0})

    async def detect(self, request: Request) -> Response:
        pipeline = self._lifecycle.pipeline
        variants = pipeline.variants
        pipeline.ensure_room()
        form = await read_form(request, self._settings.max_bytes)
        admit(self._gate, request, form.fields.get("api_key"))
        name = request.path_params.get("name", variants.manifest.name)
        variant = find_variant(name, variants, JOINT)
        try:
            wishes = Wishes.model_validate(form.fields)
        except ValidationError as exc:
            raise BadRequest(first_error(exc)) from exc
        # Frigate stops at the first label that it does not know: the URL may name those it does.
        classes = request.query_params.getlist("classes")
        params = BoxParams(conf=wishes.min_confidence, iou=None, max_det=MOST, classes=classes)
        query = params.query(self._settings, variants.manifest.class_names)
        image = image_of(form)
        chosen = pipeline.choose(variant, client_of(request))
        answer = await cancel_on_disconnect(request, pipeline.detect(image, chosen, query))
        detected = _detected(variants.manifest, answer, request.state.request_id)
        headers = {VARIANT_HEADER: answer.variant}
        return Response(detected.model_dump_json(), 200, headers, "application/json")


def _detected(manifest: Manifest, answer: Answer, request_id: str) -> Detected:
    predictions = []
    for found in boxes(manifest, answer.detections):
        x_min, y_min, x_max, y_max = map(round, found.box)
        predictions.append(
            Prediction(
                confidence=found.score,
                label=found.class_name,
                x_min=x_min,
                y_min=y_min,
                x_max=x_max,
                y_max=y_max,
            )
        )
    labels = ", ".join(dict.fromkeys(prediction.label for prediction in predictions))
    timings = answer.timings
    total_ms = round(timings["total"] * 1000)
    device = manifest.device.upper()
    return Detected(
        predictions=predictions,
        duration=round(timings["total"], 4),
        message=f"Found {labels}" if labels else "No objects found",
        count=len(predictions),
        moduleName=f"{manifest.name} {answer.variant}",
        inferenceMs=round(timings["infer"] * 1000),
        processMs=round((timings["total"] - timings["queue"]) * 1000),
        analysisRoundTripMs=total_ms,
        executionProvider=device,
        inferenceDevice=device,
        canUseGPU=manifest.device == "gpu",
        timestampUTC=formatdate(usegmt=True),
        requestId=request_id,
    )
