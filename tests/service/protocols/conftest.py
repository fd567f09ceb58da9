"""A server with real engines, beside the one of every test, whose boxes are known."""

import pytest

from service.lifecycle import FolderSource
from tests.service.live import serving
from tests.waiting import wait_until


@pytest.fixture(scope="package")
def real(tiny_folder):
    with serving(source=FolderSource(tiny_folder)) as live:
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        yield live


@pytest.fixture(scope="package")
def photo(photos):
    return photos / "photo00.jpg"
