"""API keys where other protocols put them: in a form, a JSON body or a query."""

from starlette.requests import Request

from service.middleware.auth import AccessPolicy, key_in_headers


def check_key(policy: AccessPolicy, request: Request, presented: str | None) -> None:
    """Check a key from the body or the query, unless a header had one, which is checked before.

    Clients without a key send an empty one. Raises what `AccessPolicy.admit` raises.
    """
    if key_in_headers(request.headers) is None:
        policy.admit(request.scope, presented or None)
