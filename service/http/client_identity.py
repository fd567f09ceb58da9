"""Who a client is: for its variant in an A/B split, and for its rate limit."""

import ipaddress
from typing import Final

from starlette.requests import Request

CLIENT_HEADER: Final = "X-Qyolo-Client"
NETWORK_BITS: Final = 64  # prefix of IPv6 that a provider gives to one client


def client_of(request: Request) -> str:
    """What it calls itself, else the name of its API key, else its address (of IPv6 its /64)."""
    if named := request.headers.get(CLIENT_HEADER):
        return named
    key = request.scope.get("state", {}).get("key")
    if key is not None:
        return str(key)
    return network_of(request.client.host) if request.client else ""


def network_of(address: str) -> str:
    """Whom an address stands for: itself, or the network that an IPv6 client chooses it from."""
    if ":" not in address:
        return address
    try:
        network = ipaddress.ip_network((address.partition("%")[0], NETWORK_BITS), strict=False)
    except ValueError:
        return address
    return str(network)
