"""The snippets of docs/how-to/clients.md, run unchanged but for address and model; Frigate's."""

import json
import re
import sys
from pathlib import Path
from textwrap import indent

import pytest
import yaml

from service.settings import Settings
from tests.processes import run
from tests.service.live import DOG, PERSON
from tests.service.pictures import jpeg
from tests.service.protocols.clients import interpreter
from tests.waiting import WAIT_LIMIT_S

PAGES = Path(__file__).parents[3] / "docs/how-to"
SNIPPETS = re.findall(r"```python\n(.*?)```", (PAGES / "clients.md").read_text("utf-8"), re.DOTALL)
FRIGATE = (PAGES / "frigate.md").read_text("utf-8")


def snippet(word: str) -> str:
    (found,) = [text for text in SNIPPETS if word in text]
    return found


def run_snippet(python: str, code: str, folder: Path) -> str:
    (folder / "photo.jpg").write_bytes(jpeg())
    return run(python, "-c", code, cwd=folder, timeout=6 * WAIT_LIMIT_S)


@pytest.fixture
def adapt(live):
    """Replace the address and the model of a snippet by those of the test server."""

    def adapted(text: str) -> str:
        assert "127.0.0.1:8000" in text
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{live.port}").replace(
            "qyolo-nano", "tiny"
        )

    return adapted


def test_the_http_snippet_prints_the_boxes(adapt, tmp_path):
    shown = run_snippet(sys.executable, adapt(snippet("import httpx")), tmp_path)
    assert shown.splitlines()[0] == "person 0.85 [76.25, 37.5, 123.75, 62.5]"
    assert len(shown.splitlines()) == 2


def test_the_tritonclient_snippet_prints_the_boxes(adapt, tmp_path):
    shown = run_snippet(
        interpreter("tritonclient"), adapt(snippet("import tritonclient")), tmp_path
    )
    assert "person" in shown
    assert "76.25" in shown


def test_the_inference_sdk_snippet_prints_the_boxes(adapt, tmp_path):
    shown = run_snippet(
        interpreter("inference-sdk"), adapt(snippet("import InferenceHTTPClient")), tmp_path
    )
    assert "'class': 'person'" in shown


def test_the_supervision_snippet_reads_the_boxes(tmp_path):
    answers = [[PERSON, DOG], []]
    code = f"""
import json
from types import SimpleNamespace
for rows in {answers!r}:
    answer = SimpleNamespace(json=lambda: {{"detections": rows}})
{indent(snippet("sv.Detections"), "    ")}
    print(json.dumps([boxes.xyxy.tolist(), boxes.confidence.tolist(), boxes.class_id.tolist()]))
"""
    seen = run_snippet(interpreter("inference-sdk"), code, tmp_path).splitlines()
    for line, rows in zip(seen, answers, strict=True):
        expected = [[row[key] for row in rows] for key in ("box", "score", "class_id")]
        assert json.loads(line) == expected


def test_frigates_endpoint_is_that_of_the_command():
    (endpoint,) = re.findall(r"^qyolo up --zmq (\S+)", FRIGATE, re.MULTILINE)
    zmq, _ = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", FRIGATE, re.DOTALL))
    assert zmq["detectors"]["qyolo"]["endpoint"] == endpoint == Settings(zmq=endpoint).zmq
    assert zmq["model"]["width"] == zmq["model"]["height"]


def test_frigates_address_is_a_route(live):
    (url,) = re.findall(r"api_url: http://127\.0\.0\.1:8000(\S+)", FRIGATE)
    url = url.replace(",car", "")  # the tiny model knows no cars
    answer = live.client.post(url, files={"image": jpeg()}, data={"api_key": ""})
    assert [row["label"] for row in answer.json()["predictions"]] == ["person"]
