"""The application: everything above put together, and the table of routes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse

from service.engines.cpu import usable_threads
from service.experiments.collection import Collection
from service.experiments.split import BadExperiment, Experiment, read_experiment
from service.http.api_paths import ApiPaths, PathSet
from service.http.client_identity import CLIENT_HEADER
from service.http.openapi import (
    BOTH_SIDES,
    CLIENT,
    IMAGE_BODY,
    PICTURE,
    document_keys,
    problems,
)
from service.http.problems import ErrorResponses, UnhandledErrors
from service.http.query_route import QueryRoute
from service.http.routes import VARIANT_HEADER, Endpoints
from service.http.schemas import Alive, CompareAnswer, DetectAnswer, ModelInfo, Ready
from service.inference.backend import InferenceBackend
from service.inference.detector import Detector
from service.inference.events import Event
from service.inference.pipeline import Pipeline, room
from service.inference.variants import VariantSet, load_variants
from service.lifecycle import Lifecycle, ModelSource
from service.manifest import Manifest
from service.middleware.access_log import REQUEST_ID, AccessLog
from service.middleware.api_keys import read_keys
from service.middleware.auth import AccessPolicy, Auth
from service.middleware.background import Afterwards
from service.middleware.deadlines import Deadlines
from service.middleware.rate_limit import RateLimit
from service.middleware.security_headers import SecurityHeaders
from service.observability.metrics import Metrics
from service.observability.tracing import (
    TRACEPARENT,
    TRACERESPONSE,
    TraceStages,
    Tracing,
    request_spans,
)
from service.protocols import PATHS as PROTOCOL_PATHS
from service.protocols import add_protocols
from service.settings import Settings, listed
from service.web import PATHS as PAGE_PATHS
from service.web import add_page

METRICS: Final = "/metrics"
APIS: Final = (
    ApiPaths(
        ("*",),
        public=("/healthz", "/readyz", "/openapi.json", *PAGE_PATHS),
        routine=("/healthz", "/readyz", METRICS),
    ),
    *PROTOCOL_PATHS,
)
PUBLIC: Final = tuple(path for api in APIS for path in api.public)
ROUTINE: Final = PathSet(path for api in APIS for path in api.routine)
KEY_IN_REQUEST: Final = PathSet(path for api in APIS for path in api.key_in_request)

# What watches the answers of a model.
Watch = Callable[[Manifest], Callable[[Event], None]]


def create_app(
    settings: Settings,
    source: ModelSource,
    on_failure: Callable[[str], None] = lambda message: None,
    load: Callable[[Path, int, bool], VariantSet[Detector]] = load_variants,
    traces: Tracing | None = None,
    remote: Callable[[Path, Experiment, Watch], InferenceBackend] | None = None,
) -> FastAPI:
    """The server of the folder that `source` gives; it answers probes before the folder is there.

    `remote` opens what answers in place of a pipeline of this process. When the model cannot be
    served, `on_failure` is called with the reason, in another thread.
    Raises BadKeys or BadExperiment.
    """
    metrics = Metrics(version("qyolo"))
    policy = _access_policy(settings)
    errors = ErrorResponses(APIS)
    experiment = read_experiment(settings.ab, settings.shadow)
    kept = settings.collect
    collection = None if kept is None else Collection(kept, settings.collect_limit)

    def watch(manifest: Manifest) -> Callable[[Event], None]:
        return metrics.model(manifest).observe

    def open_pipeline(folder: Path) -> InferenceBackend:
        if remote is not None:
            return remote(folder, experiment, watch)
        variants = load(folder, settings.threads, settings.throughput)
        try:
            experiment.check(variants.names)
        except BadExperiment:
            variants.close()
            raise
        observe = watch(variants.manifest)
        threads = settings.threads or usable_threads()
        capacity = settings.capacity or room(variants.streams, threads)
        return Pipeline(variants, capacity, settings.max_pixels, observe, collection, experiment)

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
        version="1",  # of the interface: which release answers is nobody's business
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        middleware=_middleware(settings, metrics, policy, errors, traces),
        telemetry=request_spans(traces, ROUTINE),
    )
    app.state.lifecycle = lifecycle
    errors.add_handlers(app)
    if policy.needs_key:
        document_keys(app)
    _add_routes(app, Endpoints(settings, lifecycle, metrics))
    add_page(app)
    add_protocols(app, settings, lifecycle, policy)
    return app


def _access_policy(settings: Settings) -> AccessPolicy:
    secret, rate = settings.api_keys, settings.rate_limit
    given = None if secret is None else secret.get_secret_value()
    keys = read_keys(given, settings.api_keys_file)
    return AccessPolicy(keys, None if rate is None else RateLimit(rate, settings.rate_burst))


def _middleware(
    settings: Settings,
    metrics: Metrics,
    policy: AccessPolicy,
    errors: ErrorResponses,
    traces: Tracing | None,
) -> list[Middleware]:
    """From the outermost to the innermost; only what the settings need."""
    stack = [
        Middleware(AccessLog, metrics=metrics, routine=ROUTINE),
        Middleware(SecurityHeaders),
    ]
    if settings.shadow is not None:
        stack.insert(0, Middleware(Afterwards))
    if origins := listed(settings.cors_origins):
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", CLIENT_HEADER, REQUEST_ID, TRACEPARENT],
            expose_headers=[VARIANT_HEADER, REQUEST_ID, TRACERESPONSE, "Retry-After"],
        )
        stack.append(cors)
    stack.append(Middleware(UnhandledErrors, errors=errors))
    if not policy.admits_all:
        public = PathSet((*PUBLIC, METRICS) if settings.open_metrics else PUBLIC)
        stack.append(
            Middleware(
                Auth, policy=policy, errors=errors, public=public, key_in_request=KEY_IN_REQUEST
            )
        )
    limits = {"deadline_s": settings.deadline_s, "body_s": settings.body_timeout_s}
    stack.append(Middleware(Deadlines, errors=errors, **limits))
    if traces is not None:
        stack.append(Middleware(TraceStages, provider=traces))
    return stack


def _add_routes(app: FastAPI, endpoints: Endpoints) -> None:
    refusals = problems(400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)
    post = partial(app.router.add_api_route, methods=["POST"], route_class_override=QueryRoute)
    for path, handler, body in (
        ("/v1/detect", endpoints.detect, IMAGE_BODY | CLIENT),
        ("/v1/models/{variant}/detect", endpoints.detect_with, IMAGE_BODY),
    ):
        post(
            path,
            handler,
            tags=["detect"],
            response_model=DetectAnswer,
            responses={200: PICTURE, **refusals, **problems(406)},
            openapi_extra=body,
        )
    post(
        "/v1/compare",
        endpoints.compare,
        tags=["detect"],
        response_model=CompareAnswer,
        responses={200: BOTH_SIDES, **refusals, **problems(406)},
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
    get(METRICS, endpoints.metrics, tags=["probes"], response_class=PlainTextResponse)
