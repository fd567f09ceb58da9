import pytest
from starlette.requests import Request

from service.http.client_identity import client_of, network_of


def request(host: str | None = None, key: str | None = None, name: str | None = None) -> Request:
    headers = [] if name is None else [(b"x-qyolo-client", name.encode())]
    client = None if host is None else (host, 1234)
    return Request({"type": "http", "headers": headers, "client": client, "state": {"key": key}})


@pytest.mark.parametrize(
    ("asks", "name"),
    [
        (request("10.0.0.1", "door", "camera-1"), "camera-1"),
        (request("10.0.0.1", "door", ""), "door"),
        (request("10.0.0.1"), "10.0.0.1"),
        (request("2001:db8::1"), "2001:db8::/64"),  # a host has many addresses, and changes them
        (request(), ""),  # a Unix socket
    ],
)
def test_the_header_comes_before_the_key_and_the_address(asks, name):
    assert client_of(asks) == name


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
    ],
)
def test_an_ipv6_address_stands_for_its_network(address, site):
    assert network_of(address) == site
