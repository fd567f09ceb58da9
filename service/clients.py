"""The name under which a client keeps its variant."""

from typing import Final

from starlette.requests import Request

from service.rate_limit import site_of

CLIENT_HEADER: Final = "X-Qyolo-Client"


def client_of(request: Request) -> str:
    """What it calls itself, else the name of its API key, else its address (of IPv6 its /64)."""
    if named := request.headers.get(CLIENT_HEADER):
        return named
    key = request.scope.get("state", {}).get("key")
    if key is not None:
        return str(key)
    return site_of(request.client.host) if request.client else ""
