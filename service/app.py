"""The application: everything above put together, and the table of routes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse

from service.access import CountRequests
from service.collection import Collection
from service.documentation import IMAGE_BODY, PICTURE, problems
from service.endpoints import Endpoints
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.problems import CatchUnforeseen, add_problem_handlers
from service.schemas import Alive, CompareAnswer, DetectAnswer, ModelInfo, Ready
from service.settings import Settings
from service.sources import ModelSource
from service.variants import Variants, load_variants


def create_app(
    settings: Settings,
    source: ModelSource,
    on_failure: Callable[[str], None] = lambda message: None,
    load: Callable[[Path, int], Variants] = load_variants,
) -> FastAPI:
    """The server of the folder that `source` gives; it answers probes before the folder is there.

    When the model cannot be served, `on_failure` is called with the reason, in another thread.
    """
    release = version("qyolo")
    metrics = Metrics(release)
    kept = settings.collect
    collection = None if kept is None else Collection(kept, settings.collect_limit)

    def open_pipeline(folder: Path) -> Pipeline:
        variants = load(folder, settings.threads)
        observe = metrics.model(variants.manifest).observe
        return Pipeline(variants, settings.capacity, settings.max_pixels, observe, collection)

    lifecycle = Lifecycle(source, open_pipeline, on_failure)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        lifecycle.start()
        try:
            yield
        finally:
            await lifecycle.stop()

    app = FastAPI(
        title="qyolo",
        summary="YOLO boxes over HTTP, by an int8 engine and by its float original",
        version=release,
        lifespan=lifespan,
        redirect_slashes=False,
        middleware=[Middleware(CountRequests, metrics=metrics), Middleware(CatchUnforeseen)],
    )
    add_problem_handlers(app)
    _add_routes(app, Endpoints(settings, lifecycle, metrics))
    return app


def _add_routes(app: FastAPI, endpoints: Endpoints) -> None:
    refusals = problems(400, 404, 413, 415, 422, 429, 500, 503)
    for path, handler in (
        ("/v1/detect", endpoints.detect),
        ("/v1/models/{variant}/detect", endpoints.detect_with),
    ):
        app.add_api_route(
            path,
            handler,
            methods=["POST"],
            tags=["detect"],
            response_model=DetectAnswer,
            responses={200: PICTURE, **refusals, **problems(406)},
            openapi_extra=IMAGE_BODY,
        )
    app.add_api_route(
        "/v1/compare",
        endpoints.compare,
        methods=["POST"],
        tags=["detect"],
        response_model=CompareAnswer,
        responses=refusals,
        openapi_extra=IMAGE_BODY,
    )
    get = partial(app.add_api_route, methods=["GET"])
    get(
        "/v1/models",
        endpoints.models,
        tags=["model"],
        response_model=ModelInfo,
        responses=problems(500, 503),
    )
    get("/v1/report", endpoints.report, tags=["model"], responses=problems(404, 500, 503))
    get(
        "/v1/report.html",
        endpoints.report_page,
        tags=["model"],
        response_class=HTMLResponse,
        responses=problems(404, 500, 503),
    )
    get("/healthz", endpoints.healthz, tags=["probes"], response_model=Alive)
    get(
        "/readyz",
        endpoints.readyz,
        tags=["probes"],
        response_model=Ready,
        responses={503: {"model": Ready, "description": "not ready, and why"}},
    )
    get("/metrics", endpoints.metrics, tags=["probes"], response_class=PlainTextResponse)
