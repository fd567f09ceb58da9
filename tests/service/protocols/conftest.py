"""Servers to ask: one whose boxes are known in advance, one with real engines."""

import pytest

from service.lifecycle import FolderSource
from tests.service.live import serving, two_variants
from tests.waiting import wait_until


@pytest.fixture(scope="package")
def fake():
    variants, *_ = two_variants()
    with serving(variants, max_bytes=2_000_000, max_pixels=1_000_000) as live:
        yield live


@pytest.fixture
def client(fake):
    return fake.client


@pytest.fixture(scope="package")
def real(tiny_folder):
    with serving(source=FolderSource(tiny_folder)) as live:
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        yield live


@pytest.fixture(scope="package")
def photo(photos):
    return photos / "photo00.jpg"
