"""APIs of other servers, so that their clients work unchanged.

Each protocol translates its requests to calls of the pipeline and declares its paths; limits,
metrics and request ids are the same for all.
"""

from typing import Final

from fastapi import FastAPI

from service.lifecycle import Lifecycle
from service.protocols import deepstack, roboflow
from service.protocols.deepstack import DeepStack
from service.protocols.oip import routes as oip
from service.protocols.oip.routes import OpenInference
from service.protocols.roboflow import Roboflow
from service.settings import Settings

PATHS: Final = (oip.PATHS, deepstack.PATHS, roboflow.PATHS)


def add_protocols(app: FastAPI, settings: Settings, lifecycle: Lifecycle) -> None:
    """Add their routes; the OpenAPI document omits them, since each protocol has its own."""
    OpenInference(settings, lifecycle, app.version).add_routes(app)
    DeepStack(settings, lifecycle).add_routes(app)
    Roboflow(settings, lifecycle, app.version).add_routes(app)
