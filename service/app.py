"""The application: its table of routes, its middleware, and the model behind them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse

from service.errors import BadModelFolder, ServiceError
from service.experiments.collection import Collection
from service.experiments.split import Experiment, read_experiments
from service.http.api_paths import ApiPaths, PathSet
from service.http.client_identity import CLIENT_HEADER
from service.http.exchange import DEADLINE_HEADER, INSTEAD_OF, VARIANT_HEADER
from service.http.openapi import (
    BOTH_SIDES,
    CLIENT,
    IMAGE_BODY,
    MODEL,
    PICTURE,
    document_keys,
    problems,
)
from service.http.params import ParamsRoute
from service.http.problems import ErrorResponses
from service.http.routes import Endpoints
from service.http.schemas import (
    Alive,
    ChangeAnswer,
    CompareAnswer,
    DetectAnswer,
    ModelInfo,
    Ready,
    RecalibrationAnswer,
)
from service.inference.admission import READY, Admission
from service.inference.backend import InferenceBackend
from service.inference.comparison import Checks
from service.inference.detector import Detector
from service.inference.models import Model, ModelFolder, Models
from service.inference.pipeline import Pipeline, workers_for
from service.inference.reload import Reloader, watching
from service.inference.results import Event
from service.inference.supervision import EngineLimits
from service.inference.variants import VariantSet, load_variants
from service.inference.workers import Workers
from service.lifecycle import Lifecycle, ModelSource
from service.manifest import Manifest, read_manifest
from service.middleware.access_log import REQUEST_ID, AccessLog
from service.middleware.api_keys import read_keys
from service.middleware.auth import AccessPolicy, Auth
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
from service.protocols import add_protocols, frigate_socket
from service.recalibration import Rebuild, Recalibration
from service.settings import Settings
from service.vision.postprocess import Query
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

ObserveModel = Callable[[Manifest], Callable[[Event], None]]  # the observer of a model's events


@dataclass(frozen=True, slots=True)
class ServedAs:
    """How a model folder is served."""

    experiment: Experiment
    observe: ObserveModel
    collect: Path | None = None  # folder for its images
    name: str | None = None  # None: its build's


@dataclass(frozen=True, slots=True)
class Changes:
    """How served models may change."""

    # A folder of images on which two versions of a model are compared where none are collected.
    samples: Path | None = None
    # By the names of the models that can be built again.
    rebuilds: Mapping[str, Rebuild] = field(default_factory=dict)


NO_SAMPLES: Final = Changes()
OpenBackend = Callable[[Path, ServedAs], InferenceBackend]


def create_app(
    settings: Settings,
    source: ModelSource,
    on_failure: Callable[[str], None] = lambda message: None,
    open_backend: OpenBackend | None = None,
    traces: Tracing | None = None,
    name: str | None = None,
    others: Sequence[ModelFolder] = (),
    changes: Changes | None = NO_SAMPLES,
) -> FastAPI:
    """The application that serves the model folder of `source`; it answers probes during the build.

    `open_backend` opens a folder, by default as a pipeline of this process. `on_failure` is
    called with the reason, maybe in another thread, if the models cannot be served or Frigate's
    socket cannot be opened. `name`: under which the source's model is served, by default its
    build's; `others`: more models. Without `changes` there are no routes that change a
    model. Raises BadKeys or BadExperiment.
    """
    metrics = Metrics(version("qyolo"))
    policy = _access_policy(settings)
    errors = ErrorResponses(APIS)
    experiments = read_experiments(settings.ab, settings.shadow)
    opener = open_backend or local_backend(settings)

    def collected(name: str) -> Path | None:
        """The folder of a model's images."""
        return settings.collect and (settings.collect / name if others else settings.collect)

    def open_model(folder: Path, name: str | None, experiment: Experiment) -> InferenceBackend:
        collect = None
        if settings.collect is not None:
            collect = collected(name or read_manifest(folder).name if others else "")
        return opener(folder, ServedAs(experiment, metrics.observer, collect, name))

    def describe(model: Model) -> None:
        metrics.describe(model.manifest, model.memory_bytes if model.version else 0)

    def images_of(name: str) -> Sequence[Path]:
        folders = (collected(name), None if changes is None else changes.samples)
        return [path for path in folders if path is not None]

    def open_models(folder: Path) -> Models:
        folders = (ModelFolder(folder, name), *others)
        limit = settings.model_memory
        models = Models(folders, open_model, experiments, limit, checks, describe)
        metrics.predicted_wait.set_function(lambda: models.admission.predicted_wait_s)
        return models

    query = Query(settings.conf, settings.iou, settings.max_det)
    checks = Checks(images_of, query, metrics.count_reload)
    lifecycle = Lifecycle(source, open_models, on_failure, settings.drain_s)
    reloader = Reloader(lambda: lifecycle.models, checks)
    recalibration = Recalibration(
        reloader,
        collected,
        {} if changes is None else changes.rebuilds,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            lifecycle.running(),
            frigate_socket(settings, lifecycle, metrics, on_failure),
            watching(reloader, settings.watch_s),
            recalibration.running(),
        ):
            yield

    app = FastAPI(
        title="qyolo",
        summary="YOLO boxes over HTTP, by an int8 engine and by its float original",
        version="1",  # of the API: the document is public, the release is not
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
    endpoints = Endpoints(settings, lifecycle, metrics, reloader, recalibration)
    _add_routes(app, endpoints)
    if changes is not None:
        _add_changes(app, endpoints)
    add_page(app)
    add_protocols(app, settings, lifecycle)
    return app


def local_backend(
    settings: Settings,
    load: Callable[[Path, int, bool], VariantSet[Detector]] = load_variants,
) -> OpenBackend:
    """A function that opens model folders as pipelines of this process.

    They share one admission and its threads, which fit the first model.
    """
    collections: dict[Path, Collection] = {}
    shared: list[tuple[Admission, Workers]] = []

    def share(streams: int) -> tuple[Admission, Workers]:
        if not shared:
            admission = Admission(
                settings.capacity or None,
                settings.max_bytes,
                settings.max_inflight_bytes,
                settings.max_wait_s,
                max(READY * streams, settings.waiting_images),
            )
            shared.append((admission, workers_for(admission, streams, settings.decode_memory)))
        admission, workers = shared[0]
        if streams < workers.streams:
            raise BadModelFolder(
                f"this model infers {streams} images at a time, the first one {workers.streams}: "
                "serve models for the processor and for a GPU without --throughput"
            )
        return admission, workers

    def open_pipeline(folder: Path, served: ServedAs) -> Pipeline:
        variants = load(folder, settings.threads, settings.throughput)
        try:
            served.experiment.check(variants.names)
            admission, workers = share(variants.streams)
        except ServiceError:
            variants.close()
            raise
        if served.name is not None:
            variants.rename(served.name)
        if (collect := served.collect) is not None and collect not in collections:
            collections[collect] = Collection(collect, settings.collect_limit)
        return Pipeline(
            variants,
            admission,
            settings.max_pixels,
            served.observe(variants.manifest),
            None if collect is None else collections[collect],
            served.experiment,
            workers,
            EngineLimits.of(settings.deadline_s, settings.drain_s),
        )

    return open_pipeline


def _access_policy(settings: Settings) -> AccessPolicy:
    secret, rate = settings.api_keys, settings.rate_limit
    listed = None if secret is None else secret.get_secret_value()
    keys = read_keys(listed, settings.api_keys_file)
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
    origins = [origin.strip() for origin in (settings.cors_origins or "").split(",")]
    if any(origins):
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[*filter(None, origins)],
            allow_methods=["GET", "POST"],
            allow_headers=[
                *("Authorization", "X-API-Key", CLIENT_HEADER),
                *(DEADLINE_HEADER, REQUEST_ID, TRACEPARENT),
            ],
            expose_headers=[VARIANT_HEADER, INSTEAD_OF, REQUEST_ID, TRACERESPONSE, "Retry-After"],
        )
        stack.append(cors)
    # Starlette handles unexpected errors outside of all middleware: those responses would be
    # neither logged nor counted, and would lack the headers above.
    stack.append(Middleware(ExceptionMiddleware, handlers={Exception: errors.respond}))
    limits = {"deadline_s": settings.deadline_s, "body_s": settings.body_timeout_s}
    stack.append(Middleware(Deadlines, **limits))
    if not policy.admits_all:
        public = PathSet((*PUBLIC, METRICS) if settings.open_metrics else PUBLIC)
        stack.append(Middleware(Auth, policy=policy, public=public, key_in_request=KEY_IN_REQUEST))
    if traces is not None:
        stack.append(Middleware(TraceStages, provider=traces))
    return stack


def _add_routes(app: FastAPI, endpoints: Endpoints) -> None:
    refusals = problems(400, 401, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504)
    post = partial(
        app.router.add_api_route,
        methods=["POST"],
        tags=["detect"],
        route_class_override=ParamsRoute,
    )
    detect = partial(post, response_model=DetectAnswer, responses={200: PICTURE, **refusals})
    detect("/v1/detect", endpoints.detect, openapi_extra=IMAGE_BODY | CLIENT)
    detect("/v1/models/{variant}/detect", endpoints.detect_with, openapi_extra=IMAGE_BODY)
    post(
        "/v1/compare",
        endpoints.compare,
        response_model=CompareAnswer,
        responses={200: BOTH_SIDES, **refusals},
        openapi_extra=IMAGE_BODY,
    )
    model = partial(app.add_api_route, methods=["GET"], tags=["model"], openapi_extra=MODEL)
    absent = problems(404, 500, 503)
    model("/v1/models", endpoints.models, response_model=ModelInfo, responses=absent)
    model("/v1/report", endpoints.report, responses=absent)
    model("/v1/report.html", endpoints.report_page, response_class=HTMLResponse, responses=absent)
    probe = partial(app.add_api_route, methods=["GET"], tags=["probes"])
    probe("/healthz", endpoints.healthz, response_model=Alive)
    probe(
        "/readyz",
        endpoints.readyz,
        response_model=Ready,
        responses={503: {"model": Ready, "description": "not ready; the body says why"}},
    )
    probe(METRICS, endpoints.metrics, response_class=PlainTextResponse)


def _add_changes(app: FastAPI, endpoints: Endpoints) -> None:
    add = partial(
        app.router.add_api_route, tags=["model"], responses=problems(401, 403, 404, 409, 500, 503)
    )
    refusals = problems(401, 403, 404, 409, 422, 429, 500, 503, 504)
    post = partial(add, methods=["POST"], route_class_override=ParamsRoute, responses=refusals)
    post("/v1/models/{model}/reload", endpoints.reload, response_model=ChangeAnswer)
    path = "/v1/models/{model}/recalibrate"
    post(path, endpoints.recalibrate, response_model=RecalibrationAnswer, status_code=202)
    add(path, endpoints.recalibration, methods=["GET"], response_model=RecalibrationAnswer)
