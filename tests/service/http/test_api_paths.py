import pytest

from service.http.api_paths import PathSet


@pytest.mark.parametrize(
    ("path", "is_in"),
    [
        ("/", True),
        ("/page/app.js", True),
        ("/v2", True),
        ("/page", False),
        ("/v1", False),
        ("//", False),
        ("", False),
    ],
)
def test_a_star_stands_for_any_end_of_a_path(path, is_in):
    assert (path in PathSet(["/", "/v2", "/page/*"])) is is_in
