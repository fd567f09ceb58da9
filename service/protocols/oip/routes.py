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
from service.lifecycle import Lifecycle
from service.protocols.oip.messages import HEADER_LENGTH, inflated, read_request, write_response
from service.protocols.oip.models import Model, find_model, names_of
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
        return JSONResponse({"models": names_of(self._lifecycle.backend.variants.manifest)})

    async def index(self) -> Response:
        backend = self._lifecycle.backend
        variants, failures = backend.variants, backend.failures()
        states = {True: "UNAVAILABLE", False: "READY"}
        return JSONResponse(
            [
                {
                    "name": name,
                    "version": version,
                    "state": states[version in failures],
                    "reason": failures.get(version, ""),
                }
                for name in names_of(variants.manifest)
                for version in variants.names
            ]
        )

    async def metadata(self, request: Request) -> Response:
        model, _ = self._find(request)
        return JSONResponse(
            {
                "name": model.name,
                "versions": self._lifecycle.backend.variants.names,
                "platform": "qyolo",
                "inputs": [_described(model.input)],
                "outputs": [_described(output) for output in model.outputs],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        model, version = self._find(request)
        if version is None:
            self._lifecycle.require_ready()
        elif why := self._lifecycle.backend.failures().get(version):
            raise VariantFailed(f"{version} failed: {why}")
        return JSONResponse({"name": model.name, "ready": True})

    async def config(self, request: Request) -> Response:
        model, _ = self._find(request)
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
        model, version = self._find(request)

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
                answer, values = await model.infer(message, variant)
                content, headers = await asyncio.to_thread(
                    write_response, model.name, variant, message, values, model.outputs
                )
                return respond(content, [answer], headers)

            return Job(version, infer)

        return await exchange(request, self._lifecycle.backend, read)

    async def _inflated(self, data: bytes, encoding: str, body: Body) -> bytes:
        """Inflate in a thread; what it makes is counted piece by piece."""
        steps, pieces, size = inflated(data, encoding, self._settings.max_bytes), [], 0
        while (piece := await asyncio.to_thread(next, steps, None)) is not None:
            size += len(piece)
            body.hold(len(data), reserved=size)
            pieces.append(piece)
        body.hold(size)
        return b"".join(pieces)

    def _find(self, request: Request) -> tuple[Model, str | None]:
        """The model and the version of the path; raises ModelNotFound or VariantNotFound."""
        backend = self._lifecycle.backend
        version = request.path_params.get("version")
        backend.variants.resolve(version)
        return find_model(request.path_params["model"], backend, self._settings), version


def _described(port: Port) -> dict[str, object]:
    return {"name": port.name, "datatype": port.datatype, "shape": port.shape}


def _configured(port: Port) -> dict[str, object]:
    return {"name": port.name, "data_type": CONFIG_TYPES[port.datatype], "dims": port.shape}
