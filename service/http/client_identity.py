"""The identity of a client, for its variant in an A/B split and for its rate limit."""

import ipaddress
from typing import Final

from starlette.requests import Request

CLIENT_HEADER: Final = "X-Qyolo-Client"
NETWORK_BITS: Final = 64  # the IPv6 prefix that a provider gives to one client


def client_of(request: Request) -> str:
    """The X-Qyolo-Client header, else the API key's name, else `network_of` the address."""
    if named := request.headers.get(CLIENT_HEADER):
        return named
    key = request.scope.get("state", {}).get("key")
    if key is not None:
        return str(key)
    return network_of(request.client.host) if request.client else ""


def network_of(address: str) -> str:
    """An IPv4 address unchanged; the /64 of an IPv6 address, since one client has all of it."""
    if ":" not in address:
        return address
    try:
        network = ipaddress.ip_network((address.partition("%")[0], NETWORK_BITS), strict=False)
    except ValueError:
        return address
    return str(network)
