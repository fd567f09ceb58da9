"""What each route does."""

from typing import Annotated, Final, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel

from service.errors import NotAcceptable, NotReady, ReportNotFound
from service.http.client_identity import client_of
from service.http.disconnects import cancel_on_disconnect
from service.http.negotiation import choose
from service.http.params import CompareParams, DetectParams, ImageParams
from service.http.schemas import Alive, Ready, compare_answer, detect_answer, model_info
from service.http.uploads import read_image
from service.lifecycle import Lifecycle
from service.observability.metrics import Metrics
from service.settings import Settings
from service.vision.drawing import PictureType

# The page brings its style and pictures along; nothing else may load or run.
SEALED: Final = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
}
VARIANT_HEADER: Final = "X-Qyolo-Variant"
OFFERS: Final[tuple[Literal["application/json"] | PictureType, ...]] = (
    "application/json",
    "image/jpeg",
    "image/png",
)


class Endpoints:
    """The handlers of one application."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._metrics = metrics

    async def detect(self, request: Request, params: Annotated[DetectParams, Query()]) -> Response:
        """Find the objects in one image."""
        return await self._detect(request, params.variant, params)

    async def detect_with(
        self, request: Request, variant: str, params: Annotated[ImageParams, Query()]
    ) -> Response:
        """Find the objects in one image with the variant of the path."""
        return await self._detect(request, variant, params)

    async def _detect(self, request: Request, variant: str | None, params: ImageParams) -> Response:
        pipeline = self._lifecycle.pipeline
        manifest = pipeline.variants.manifest
        media_type, picture = _wanted(request)
        # All that can be refused without the image is refused before it is read.
        pipeline.variants.get(variant)
        query = params.query(self._settings, manifest.class_names)
        pipeline.ensure_room()
        data = await read_image(request, self._settings.max_bytes)
        chosen = pipeline.choose(variant, client_of(request))
        finding = pipeline.detect(data, chosen, query, picture, params.collect)
        answer = await cancel_on_disconnect(request, finding)
        headers = {"Vary": "Accept", VARIANT_HEADER: answer.variant}
        if answer.picture is not None:
            return Response(answer.picture, headers=headers, media_type=media_type)
        return _json(detect_answer(manifest, answer), headers=headers)

    async def compare(
        self, request: Request, params: Annotated[CompareParams, Query()]
    ) -> Response:
        """Find the objects in one image with two variants, and say how they agree."""
        pipeline = self._lifecycle.pipeline
        variants = pipeline.variants
        media_type, picture = _wanted(request)
        a = params.a or ("fp32" if "fp32" in variants.names else None)
        b = params.b or ("int8" if "int8" in variants.names else None)
        for name in (a, b):
            variants.get(name)
        query = params.query(self._settings, variants.manifest.class_names)
        pipeline.ensure_room()
        data = await read_image(request, self._settings.max_bytes)
        both = await cancel_on_disconnect(request, pipeline.compare(data, a, b, query, picture))
        headers = {"Vary": "Accept"}
        if both.picture is not None:
            return Response(both.picture, headers=headers, media_type=media_type)
        return _json(compare_answer(variants.manifest, both.a, both.b), headers=headers)

    async def models(self) -> Response:
        """The model that is served, and its variants."""
        pipeline = self._lifecycle.pipeline
        return _json(model_info(pipeline.variants.manifest, pipeline.experiment))

    async def report(self) -> Response:
        """What the build measured: ranges, precisions, agreement of int8 with fp32, times."""
        report = self._lifecycle.pipeline.variants.report
        if report is None:
            raise ReportNotFound("the model folder holds no report")
        return Response(report, media_type="application/json")

    async def report_page(self) -> Response:
        """The report to look at: one HTML page that holds everything it shows."""
        page = self._lifecycle.pipeline.variants.page
        if page is None:
            raise ReportNotFound("the model folder holds no report.html")
        return Response(page, media_type="text/html", headers=SEALED)

    async def healthz(self) -> Response:
        """The process is alive."""
        return _json(Alive())

    async def readyz(self) -> Response:
        """The server can detect; 503, with the phase and its progress, while it cannot."""
        now = self._lifecycle.readiness
        ready = Ready(status=now.state, detail=now.detail or None)
        if now.progress is not None:
            ready.phase = now.progress.phase
            ready.done, ready.total = now.progress.done, now.progress.total
        if now.state == "ready":
            return _json(ready)
        return _json(ready, 503, {"Retry-After": str(NotReady.retry_after_s)})

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics."""
        text, media_type = self._metrics.render(_accept(request))
        return Response(text, headers={"Content-Type": media_type})


def _wanted(request: Request) -> tuple[str, PictureType | None]:
    """The media type of the answer, and that of its picture where it is one."""
    media_type = choose(_accept(request), OFFERS)
    if media_type is None:
        raise NotAcceptable(f"the answer can be {', '.join(OFFERS)}")
    return media_type, None if media_type == "application/json" else media_type


def _accept(request: Request) -> str:
    return ",".join(request.headers.getlist("accept"))


def _json(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(), status, headers, "application/json")
