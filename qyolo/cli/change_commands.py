"""The commands that change what a running server serves."""

import json
from typing import Annotated

import typer

from service.inference.reload import MIN_AGREEMENT

Name = Annotated[str | None, typer.Argument(help="Name of a model; default: the first one.")]
Url = Annotated[str, typer.Option(help="Address of the server.", envvar="QYOLO_URL")]
Key = Annotated[
    str | None,
    typer.Option(help="API key that is named admin on the server.", envvar="QYOLO_KEY"),
]
Agreement = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Least agreement with the boxes of the served version; 0: any."
    ),
]


def reload(
    model: Name = None,
    url: Url = "http://127.0.0.1:8000",
    key: Key = None,
    min_agreement: Agreement = MIN_AGREEMENT,
    new_classes: Annotated[
        bool, typer.Option("--new-classes", help="The classes may be others.")
    ] = False,
) -> None:
    """Have a running server serve the build that is in its model folder now.

    The server loads it beside the one that it serves, compares both on images, and switches
    without losing a request. If a check fails, nothing changes, and the exit code is 2.
    """
    from qyolo.client import Client

    asked = {"min_agreement": min_agreement, "new_classes": new_classes}
    typer.echo(json.dumps(Client(url, key).change(model, "reload", **asked), indent=2))
