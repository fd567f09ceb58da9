"""The handlers of qyolo's own routes."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel

from service.errors import Forbidden, NotAcceptable, NotReady, ReportNotFound
from service.http.exchange import Job, exchange, respond
from service.http.negotiation import choose
from service.http.params import (
    CompareParams,
    DetectParams,
    ImageParams,
    RecalibrateParams,
    ReloadParams,
)
from service.http.pictures import render
from service.http.schemas import (
    Alive,
    Ready,
    RecalibrationAnswer,
    change_answer,
    compare_answer,
    detect_answer,
    model_info,
)
from service.http.uploads import read_image
from service.inference.admission import Body
from service.inference.backend import ImageRequest, Render
from service.inference.models import Model, Models
from service.inference.reload import Reloader
from service.inference.results import Answer, Comparison
from service.inference.variants import AUTO, VariantSet
from service.lifecycle import Lifecycle
from service.manifest import PAGE, REPORT, Manifest
from service.observability.metrics import Metrics
from service.recalibration import Recalibration
from service.settings import Settings
from service.vision.drawing import PictureType

# The page contains its styles and pictures; nothing else may load or run.
REPORT_POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
}
JSON: Final = "application/json"
ADMIN: Final = "admin"  # the name of the key that may change what is served
OFFERS: Final[tuple[Literal["application/json"] | PictureType, ...]] = (
    JSON,
    "image/jpeg",
    "image/png",
)


class Endpoints:
    """The handlers of one application."""

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        metrics: Metrics,
        reloader: Reloader,
        recalibration: Recalibration,
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._reloader = reloader
        self._recalibration = recalibration

    async def detect(self, request: Request, params: Annotated[DetectParams, Query()]) -> Response:
        """Find the objects in one image."""
        models = self._lifecycle.models
        model = models.find(params.model)
        return await self._detect(request, models, model, params.variant or AUTO, params)

    async def detect_with(
        self, request: Request, variant: str, params: Annotated[ImageParams, Query()]
    ) -> Response:
        """Find the objects in one image with the variant of the path.

        It is one of the first model; NAME or NAME:VARIANT is another model.
        """
        models = self._lifecycle.models
        model, named = models.resolve(variant)
        return await self._detect(request, models, model, named or AUTO, params)

    async def _detect(
        self, request: Request, models: Models, model: Model, variant: str, params: ImageParams
    ) -> Response:
        # Invalid requests are refused before their image is read.
        media_type, picture = _negotiated(request, model.manifest)
        model.require_variant(variant)
        query = params.query(self._settings, model.manifest.class_names)
        image_request = partial(ImageRequest, query=query, collect=params.collect, render=picture)
        with await models.get(model) as backend:

            async def read(body: Body) -> Job[Answer]:
                image = image_request(await read_image(request, body))
                return Job(backend, variant, partial(backend.detect, image))

            answer = await exchange(request, models.admission, read)
            manifest = backend.variants.manifest
            content = answer.picture or detect_answer(manifest, answer).model_dump_json()
        return respond(content, [answer], {"Content-Type": media_type, "Vary": "Accept"})

    async def compare(
        self, request: Request, params: Annotated[CompareParams, Query()]
    ) -> Response:
        """Find the objects in one image with two variants, and compare their boxes."""
        models = self._lifecycle.models
        model = models.find(params.model)
        media_type, picture = _negotiated(request, model.manifest)
        with await models.get(model) as backend:
            variants = backend.variants
            a, b = (
                variants.resolve(named or (preferred if preferred in variants.names else None))
                for named, preferred in ((params.a, "fp32"), (params.b, "int8"))
            )
            query = params.query(self._settings, variants.manifest.class_names)

            async def read(body: Body) -> Job[Comparison]:
                image = ImageRequest(await read_image(request, body), query, render=picture)
                return Job(backend, a, partial(backend.compare, image, b=b))

            both = await exchange(request, models.admission, read)
            content = (
                both.picture or compare_answer(variants.manifest, both.a, both.b).model_dump_json()
            )
        return Response(content, headers={"Content-Type": media_type, "Vary": "Accept"})

    async def models(self, request: Request) -> Response:
        """A model and its variants, and the names of all models that are served."""
        models = self._lifecycle.models
        return _json(model_info(models, models.find(_model_of(request))))

    async def reload(
        self, request: Request, model: str, params: Annotated[ReloadParams, Query()]
    ) -> Response:
        """Serve the build that is in the model's folder now, once it has passed the checks.

        Needs the API key that is named admin.
        """
        _require_admin(request)
        served = self._lifecycle.models.find(model)
        change = await self._reloader.reload(served, params.requirements)
        return _json(change_answer(change))

    async def recalibrate(
        self, request: Request, model: str, params: Annotated[RecalibrateParams, Query()]
    ) -> Response:
        """Build the model again, calibrated on the collected images, and compare it.

        Needs the API key that is named admin. Answers at once; GET tells how far it is.
        """
        _require_admin(request)
        served = self._lifecycle.models.find(model)
        self._recalibration.start(served, params.requirements, params.switch)
        return _json(self._recalibrated(served), 202)

    async def recalibration(self, request: Request, model: str) -> Response:
        """How far the last recalibration is, and what it came to."""
        _require_admin(request)
        return _json(self._recalibrated(self._lifecycle.models.find(model)))

    def _recalibrated(self, model: Model) -> RecalibrationAnswer:
        now = self._recalibration.status(model)
        return RecalibrationAnswer(
            model=model.name,
            state=now.state,
            detail=now.detail,
            change=None if now.change is None else change_answer(now.change),
            **({} if now.progress is None else asdict(now.progress)),
        )

    async def report(self, request: Request) -> Response:
        """What the build measured: ranges, precisions, agreement of int8 with fp32, times."""
        variants = await self._variants(request)
        return _report(variants.report, REPORT, JSON)

    async def report_page(self, request: Request) -> Response:
        """The report as one self-contained HTML page."""
        variants = await self._variants(request)
        return _report(variants.page, PAGE, "text/html", REPORT_POLICY)

    async def _variants(self, request: Request) -> VariantSet[Any]:
        models = self._lifecycle.models
        return (await models.get(models.find(_model_of(request)))).backend.variants

    async def healthz(self) -> Response:
        """The process is alive."""
        return _json(Alive())

    async def readyz(self) -> Response:
        """The server can detect; 503, with the phase and its progress, while it cannot."""
        now = self._lifecycle.readiness
        progress = {} if now.progress is None else asdict(now.progress)
        ready = Ready(status=now.state, detail=now.detail or None, **progress)
        if now.state == "ready":
            return _json(ready)
        return _json(ready, 503, NotReady.headers)

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics."""
        text, media_type = self._metrics.render(_accept(request))
        return Response(text, headers={"Content-Type": media_type})


def _negotiated(request: Request, manifest: Manifest) -> tuple[str, Render | None]:
    """The media type of the response, and how to draw its picture, if it is one.

    Raises NotAcceptable.
    """
    media_type = choose(_accept(request), OFFERS)
    if media_type is None:
        raise NotAcceptable(f"the answer can be {', '.join(OFFERS)}")
    if media_type == JSON:
        return media_type, None
    return media_type, partial(render, media_type, manifest.class_name)


def _require_admin(request: Request) -> None:
    if getattr(request.state, "key", None) != ADMIN:
        raise Forbidden(
            "this needs the API key that is named admin, as in QYOLO_API_KEYS=admin:SECRET"
        )


def _model_of(request: Request) -> str | None:
    return request.query_params.get("model")


def _accept(request: Request) -> str:
    return ",".join(request.headers.getlist("accept"))


def _report(
    content: bytes | None, file: str, media_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    if content is None:
        raise ReportNotFound(f"the model folder contains no {file}")
    return Response(content, headers=headers, media_type=media_type)


def _json(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), status, headers, JSON)
