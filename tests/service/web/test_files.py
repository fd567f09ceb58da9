"""The files of the page over a socket: media types, security headers, caching."""

import re
from html.parser import HTMLParser

import pytest

from service.progress import Progress
from service.web import SWAGGER, assets
from tests.fakes import HeldSource
from tests.service.live import serving

OURS = sorted(set(assets()) - set(SWAGGER))
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/app.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/page/swagger-ui.css", "text/css; charset=utf-8"),
    ],
)
def test_each_file_has_its_media_type_and_loads_from_this_server_only(client, path, media_type):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert {value for name, value in policy.items() if name != "img-src"} == {"'none'", "'self'"}
    assert policy["img-src"] == "'self' blob: data:"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["permissions-policy"].startswith("camera=(self)")


def test_a_cached_file_is_revalidated_and_not_sent_again(client):
    first = client.get("/page/app.js")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = client.get("/page/app.js", headers={"If-None-Match": known})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == etag
        assert "content-security-policy" in again.headers
    changed = client.get("/page/app.js", headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200
    assert client.get("/page/page.css").headers["etag"] != etag


def test_head_is_get_without_the_body(client):
    answer = client.head("/")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-length"] == str(len(client.get("/").content))


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "%2e%2e%2fapp.py", "", "APP.JS"])
def test_other_files_are_not_found(client, name):
    answer = client.get(f"/page/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_is_served_before_the_model_is_ready():
    with serving(source=HeldSource(Progress("calibrating", 1, 9))) as live:
        assert live.client.get("/readyz").status_code == 503
        assert live.client.get("/").status_code == 200
        live.exit()


def test_openapi_lists_no_page_and_metrics_count_all_files_as_one_route(client):
    client.get("/page/app.js")
    paths = client.get("/openapi.json").json()["paths"]
    assert not {path for path in paths if path == "/" or path.startswith(("/page", "/docs"))}
    text = client.get("/metrics").text
    assert 'route="/page/{name}"' in text
    assert "app.js" not in text


def test_fastapis_own_pages_are_off(client):
    assert "cdn" not in client.get("/docs").text
    assert client.get("/redoc").status_code == 404


@pytest.mark.parametrize("name", OURS)
def test_no_file_of_ours_names_another_server_or_a_missing_script(name):
    text = assets()[name].content.decode().replace(SVG_NAMESPACE, "")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}", text) == []
    assert set(re.findall(r'from "\./([\w.]+)"', text)) <= set(OURS)


class Parts(HTMLParser):
    """References of a page, and what its Content-Security-Policy would block."""

    def __init__(self):
        super().__init__()
        self.references, self.inline = [], []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.references += [named[key] for key in ("src", "href") if key in named]
        self.inline += [key for key in named if key == "style" or key.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in named):
            self.inline.append(tag)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_html_is_relative_and_has_nothing_inline(client, path):
    parts = Parts()
    parts.feed(client.get(path).text)
    assert parts.inline == []
    assert len(parts.references) > 5
    for reference in parts.references:
        assert not reference.startswith("/")  # a proxy may serve all this under a prefix
        if reference.startswith("page/"):
            assert client.get(f"/{reference}").status_code == 200
