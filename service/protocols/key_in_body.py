"""API keys where the protocols of others put them: in a form, a JSON body or a query."""

from starlette.requests import Request

from service.middleware.auth import AccessPolicy, key_in_headers


def admit(gate: AccessPolicy, request: Request, presented: str | None) -> None:
    """Let a request in by the key it carries, unless a header let it in; raises what a gate does.

    Clients without a key send an empty one.
    """
    if key_in_headers(request.headers) is None:
        gate.admit(request.scope, presented or None)
