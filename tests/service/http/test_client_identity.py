import pytest
from starlette.requests import Request

from service.http.client_identity import address_of, client_of, network_of


@pytest.mark.parametrize(
    ("client", "name"), [(("2001:db8::1", 1234), "2001:db8::/64"), (None, "")], ids=["IPv6", "Unix"]
)
def test_a_client_without_a_name_or_a_key_is_its_network(client, name):
    """tests/service/http/test_ab.py has the names, the keys and IPv4."""
    assert client_of(Request({"type": "http", "headers": [], "client": client})) == name


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no:address", "no:address"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201%eth0", "192.0.2.1"),
    ],
)
def test_a_client_is_its_ipv4_address_or_its_ipv6_network(address, site):
    assert network_of(address) == site


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0 key=admin", "fe80::1"),
        ("x status=200 key=admin", None),
        ("192.0.2.1 key=admin", None),
        ("", None),
    ],
)
def test_only_an_address_is_an_address(text, address):
    assert address_of(text) == address
