"""The identity of a client, for its A/B variant, its share of the queue and its rate limit."""

import ipaddress
from functools import lru_cache
from typing import Final

from starlette.requests import Request

CLIENT_HEADER: Final = "X-Qyolo-Client"
NETWORK_BITS: Final = 64  # the IPv6 prefix that a provider gives to one client


def client_of(request: Request) -> str:
    """The X-Qyolo-Client header, else `account_of` the request."""
    return request.headers.get(CLIENT_HEADER) or account_of(request)


def account_of(request: Request) -> str:
    """The API key's name, else `network_of` the address: what a client cannot make up."""
    key = request.scope.get("state", {}).get("key")
    if key is not None:
        return str(key)
    return network_of(request.client.host) if request.client else ""


@lru_cache(maxsize=1024)
def address_of(text: str) -> str | None:
    """The IP address that the text is, in its shortest form and without a zone; None for others.

    An IPv4-mapped address (::ffff:a.b.c.d), by which a socket of both families knows a client that
    uses IPv4, becomes the IPv4 address.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def network_of(client: str) -> str:
    """An IPv4 address unchanged; the /64 of an IPv6 address, since one client has all of it."""
    address = address_of(client)
    if address is None or ":" not in address:
        return address or client
    return str(ipaddress.ip_network((address, NETWORK_BITS), strict=False))
