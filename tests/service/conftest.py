"""One server for every test that needs no settings of its own."""

import pytest

from tests.service.live import serving


@pytest.fixture(scope="session")
def live():
    with serving(max_bytes=2_000_000, max_pixels=1_000_000) as running:
        yield running


@pytest.fixture
def client(live):
    return live.client
