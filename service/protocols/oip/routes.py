"""Open Inference Protocol v2, as Triton, OpenVINO Model Server and KServe speak it.

https://github.com/kserve/open-inference-protocol: metadata, readiness and inference over REST,
with Triton's binary tensors, model configuration and repository index. The versions of a model are
its variants; without a version, the split or the default chooses.
"""

import asyncio
from functools import partial
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import VariantFailed
from service.http.api_paths import ApiPaths, ErrorFormat
from service.http.exchange import Job, exchange, respond
from service.http.uploads import read_body
from service.inference.admission import Body
from service.inference.models import Model
from service.lifecycle import Lifecycle
from service.protocols.oip.messages import HEADER_LENGTH, inflated, read_request, write_response
from service.protocols.oip.models import BoxModel, TensorModel, find_model, models_by_name
from service.protocols.oip.tensors import Port
from service.settings import Settings

PROBES: Final = ("/v2/health/live", "/v2/health/ready")
PATHS: Final = ApiPaths(
    ("/v2", "/v2/*"),
    # Triton has no statuses for a body of the wrong size or type; a full queue is "unavailable".
    ErrorFormat(
        lambda status, text: {"error": text}, {406: 400, 413: 400, 415: 400, 422: 400, 429: 503}
    ),
    public=PROBES,
    routine=PROBES,
)
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration")
CONFIG_TYPES: Final = {"FP32": "TYPE_FP32", "INT64": "TYPE_INT64", "BYTES": "TYPE_STRING"}


class OpenInference:
    """The handlers; a path names a model, and may name a version of it."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, version: str) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._version = version

    def add_routes(self, app: FastAPI) -> None:
        get = partial(app.add_api_route, methods=["GET"], include_in_schema=False)
        post = partial(app.add_api_route, methods=["POST"], include_in_schema=False)
        get("/v2", self.server)
        get("/v2/health/live", self.live)
        get("/v2/health/ready", self.ready)
        get("/v2/models", self.models)
        post("/v2/repository/index", self.index)
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            get(model, self.metadata)
            get(f"{model}/ready", self.model_ready)
            get(f"{model}/config", self.config)
            post(f"{model}/infer", self.infer)

    async def server(self) -> Response:
        return JSONResponse({"name": "qyolo", "version": self._version, "extensions": EXTENSIONS})

    async def live(self) -> Response:
        return JSONResponse({"live": True})

    async def ready(self) -> Response:
        self._lifecycle.require_ready()
        return JSONResponse({"ready": True})

    async def models(self) -> Response:
        return JSONResponse({"models": [*models_by_name(self._lifecycle.models)]})

    async def index(self) -> Response:
        rows = []
        for name, model in models_by_name(self._lifecycle.models).items():
            failures = model.failures
            if model.version is None:
                failures = dict.fromkeys(model.variants, "unloaded: the next request loads it")
            rows += [
                {
                    "name": name,
                    "version": version,
                    "state": "UNAVAILABLE" if version in failures else "READY",
                    "reason": failures.get(version, ""),
                }
                for version in model.variants
            ]
        return JSONResponse(rows)

    async def metadata(self, request: Request) -> Response:
        served, model, _ = self._find(request)
        return JSONResponse(
            {
                "name": model.name,
                "versions": served.variants,
                "platform": "qyolo",
                "inputs": [_described(model.input)],
                "outputs": [_described(output) for output in model.outputs],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        served, model, version = self._find(request)
        if served is self._lifecycle.models.first and version is None:
            self._lifecycle.require_ready()
        for name, why in served.failures.items():
            if name == version or (version is None and not served.able):
                raise VariantFailed(f"{name} failed: {why}")
        return JSONResponse({"name": model.name, "ready": True})

    async def config(self, request: Request) -> Response:
        _, model, _ = self._find(request)
        return JSONResponse(
            {
                "name": model.name,
                "platform": "qyolo",
                "max_batch_size": 0,
                "input": [_configured(model.input)],
                "output": [_configured(output) for output in model.outputs],
                "parameters": {
                    key: {"string_value": text} for key, text in model.parameters.items()
                },
            }
        )

    async def infer(self, request: Request) -> Response:
        served, model, version = self._find(request)
        models = self._lifecycle.models
        with await models.get(served) as backend:

            async def read(body: Body) -> Job[Response]:
                data = await read_body(request, body)
                encoding = request.headers.get("content-encoding", "identity").strip().lower()
                if encoding != "identity":
                    data = await self._inflated(data, encoding, body)
                length = request.headers.get(HEADER_LENGTH)
                # Megabytes are parsed and written in threads; the event loop serves everyone.
                message = await asyncio.to_thread(
                    read_request, data, length, model.input, model.outputs
                )

                async def infer(variant: str) -> Response:
                    answer, values = await model.infer(backend, message, variant)
                    content, headers = await asyncio.to_thread(
                        write_response, model.name, variant, message, values, model.outputs
                    )
                    return respond(content, [answer], headers)

                return Job(backend, version, infer)

            return await exchange(request, models.admission, read)

    async def _inflated(self, data: bytes, encoding: str, body: Body) -> bytes:
        """Inflate in a thread; what it makes is counted piece by piece."""
        steps, pieces, size = inflated(data, encoding, self._settings.max_bytes), [], 0
        while (piece := await asyncio.to_thread(next, steps, None)) is not None:
            size += len(piece)
            body.hold(len(data), reserved=size)
            pieces.append(piece)
        body.hold(size)
        return b"".join(pieces)

    def _find(self, request: Request) -> tuple[Model, TensorModel | BoxModel, str | None]:
        """The model that is served, and the model and the version of the path.

        Raises ModelNotFound or VariantNotFound.
        """
        name, version = request.path_params["model"], request.path_params.get("version")
        served, model = find_model(name, self._lifecycle.models, self._settings)
        served.require_variant(version)
        return served, model, version


def _described(port: Port) -> dict[str, object]:
    return {"name": port.name, "datatype": port.datatype, "shape": port.shape}


def _configured(port: Port) -> dict[str, object]:
    return {"name": port.name, "data_type": CONFIG_TYPES[port.datatype], "dims": port.shape}
