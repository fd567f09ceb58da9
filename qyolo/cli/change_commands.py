"""The commands that change what a running server serves."""

import json
import time
from contextlib import closing
from typing import Annotated, Final

import typer

from qyolo.errors import CommandError
from service.vision.agreement import MIN_AGREEMENT

Name = Annotated[str | None, typer.Argument(help="Name of a model; default: the first one.")]
Server = Annotated[str, typer.Option(help="Address of the server.", envvar="QYOLO_SERVER")]
Key = Annotated[
    str | None,
    typer.Option(help="API key that is named admin on the server.", envvar="QYOLO_API_KEY"),
]
Agreement = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Least agreement with the boxes of the served version; 0: any."
    ),
]
NewClasses = Annotated[bool, typer.Option("--new-classes", help="The classes may be others.")]
POLL_S: Final = 1.0


def reload(
    model: Name = None,
    server: Server = "http://127.0.0.1:8000",
    api_key: Key = None,
    min_agreement: Agreement = MIN_AGREEMENT,
    new_classes: NewClasses = False,
) -> None:
    """Have a running server serve the build that is in its model folder now.

    The server loads it beside the one that it serves, compares both on images, and switches
    without losing a request. If a check fails, nothing changes, and the exit code is 2.
    """
    from qyolo.client import Client

    asked = {"min_agreement": min_agreement, "new_classes": new_classes}
    with closing(Client(server, api_key)) as client:
        typer.echo(json.dumps(client.change(model, "reload", **asked), indent=2))


def recalibrate(
    model: Name = None,
    server: Server = "http://127.0.0.1:8000",
    api_key: Key = None,
    switch: Annotated[
        bool, typer.Option("--switch", help="Serve it, if it passes the checks.")
    ] = False,
    min_agreement: Agreement = MIN_AGREEMENT,
) -> None:
    """Have a running server build a model again, calibrated on the images that it has collected.

    Prints how far the new build and the served one agree with fp32 on those images. With --switch
    the new one is served then; one that has been compared before is served as it is. If the build
    or a check fails, nothing changes, and the exit code is 2.
    """
    from qyolo.client import Client

    asked = {"min_agreement": min_agreement, "switch": switch}
    with closing(Client(server, api_key)) as client:
        now, shown = client.change(model, "recalibrate", **asked), ""
        while now["state"] in ("building", "comparing"):
            phase = now["phase"] or now["state"]
            if phase != shown:
                typer.echo(f"qyolo: {phase}", err=True)
            shown = phase
            time.sleep(POLL_S)
            now = client.state(now["model"], "recalibrate")
    if now["state"] == "failed":
        raise CommandError(f"the recalibration failed: {now['detail']}")
    typer.echo(json.dumps(now["change"], indent=2))
