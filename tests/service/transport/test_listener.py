import socket

import pytest

from service.settings import Settings
from service.transport.listener import CannotListen, open_listener

EVERYWHERE = "0.0.0.0"
KEY = "a-key-of-the-camera"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"host": "localhost"},
        {"host": EVERYWHERE, "api_keys": KEY},
        {"host": EVERYWHERE, "api_keys_file": "keys"},
        {"host": EVERYWHERE, "published": "127.0.0.1"},
    ],
)
def test_a_loopback_address_or_keys_are_enough(settings, caplog):
    with open_listener(Settings(port=0, **settings)) as listener:
        socket.create_connection(listener.getsockname()).close()
    assert not caplog.records


@pytest.mark.parametrize("published", [None, "192.0.2.7"])
def test_an_address_that_others_can_reach_needs_keys(published, caplog):
    settings = {"host": EVERYWHERE, "port": 0, "published": published}
    with pytest.raises(CannotListen, match=f"others can reach {published or EVERYWHERE}") as error:
        open_listener(Settings(**settings))
    assert "QYOLO_API_KEYS" in str(error.value)
    assert "--insecure" in str(error.value)
    open_listener(Settings(**settings, insecure=True)).close()
    assert "has no API keys" in caplog.text


def test_a_port_in_use_is_named():
    with open_listener(Settings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: Address"):
            open_listener(Settings(port=port))
