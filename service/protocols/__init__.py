"""Protocols of others, so that clients which exist need not change: adapters, nothing else.

A request becomes a call of the pipeline, its answer the protocol's own form; limits, metrics and
request ids are everybody's. Errors are worded by `service.http.error_formats`.
"""

from fastapi import FastAPI

from service.lifecycle import Lifecycle
from service.middleware.auth import AccessPolicy
from service.protocols.deepstack import DeepStack
from service.protocols.oip.routes import OpenInference
from service.protocols.roboflow import Roboflow
from service.settings import Settings


def add_protocols(
    app: FastAPI, settings: Settings, lifecycle: Lifecycle, gate: AccessPolicy
) -> None:
    """Their routes, which stay out of the OpenAPI document: each protocol has one of its own."""
    OpenInference(settings, lifecycle, app.version).add_routes(app)
    DeepStack(settings, lifecycle, gate).add_routes(app)
    Roboflow(settings, lifecycle, gate, app.version).add_routes(app)
