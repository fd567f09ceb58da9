"""API keys where the protocols of others put them: in a form, a JSON body or a query."""

from typing import Final

from starlette.requests import Request

from service.middleware.auth import AccessPolicy, key_of

ROOTS: Final = ("/v1/vision/", "/model/", "/infer/")


def may_carry_key(path: str) -> bool:
    """Whether the handler of this path asks the gate itself."""
    return path.startswith(ROOTS)


def admit(gate: AccessPolicy, request: Request, presented: str | None) -> None:
    """Let a request in by the key it carries, unless a header let it in; raises what a gate does.

    Clients without a key send an empty one.
    """
    if key_of(request.headers) is None:
        gate.admit(request.scope, presented or None)
