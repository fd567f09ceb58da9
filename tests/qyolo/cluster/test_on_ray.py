"""`qyolo cluster` on a real Ray cluster of two nodes on this machine, over real HTTP.

The tests share one cluster, in this order: the last one that uses it kills a node.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.http.client_identity import CLIENT_HEADER
from service.lifecycle import FolderSource
from service.manifest import Variant, verify, write_manifest
from tests.fakes import manifest_of
from tests.qyolo.commands import qyolo
from tests.service.live import serving
from tests.service.pictures import encoded, gradient, jpeg
from tests.service.tiny import BIAS, tiny_model
from tests.waiting import wait_until

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra cluster is missing")

WAIT_LIMIT_S = 60.0
# As Ray counts them: 8 replicas of a quarter fit on both nodes during an update, 4 on one.
CPUS, CPUS_OF_A_REPLICA = 1, 0.25
JPEG = {"Content-Type": "image/jpeg"}
CLIENTS = 3
PAUSE_S = 0.02  # between a client's requests: replicas that start need the processor too
FAST_RAY = {
    # Ray notices a dead node after 2 s instead of 15.
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
    # Spare worker processes would only take time to start.
    "prestart_worker_first_driver": False,
    "enable_worker_prestart": False,
}


def write_folder(folder: Path, **centres: float) -> Path:
    """A model folder whose variants find the same box, each with its own centre in x."""
    variants = {}
    for name, centre in centres.items():
        model = tiny_model()
        bias = BIAS.copy()
        bias[0] = centre
        (old,) = [each for each in model.graph.initializer if each.name == "b"]
        old.CopyFrom(numpy_helper.from_array(bias, "b"))
        (folder / name).mkdir(parents=True)
        onnx.save(model, folder / name / "model.onnx")
        variants[name] = Variant(
            runtime="onnxruntime", precision="fp32", model=f"{name}/model.onnx"
        )
    (folder / "report.json").write_text('{"made": "here"}')
    write_manifest(folder, manifest_of(*centres, variants=variants))
    return folder


@dataclass(frozen=True)
class Running:
    """A cluster that serves `first`, and the node that the last test kills."""

    cluster: object
    second_node: object
    caches: tuple[Path, Path]
    port: int
    first: Path
    second: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, folder: Path) -> None:
        options = {
            "--address": self.cluster.address,
            "--port": self.port,
            "--min": 2,
            "--cpus": CPUS_OF_A_REPLICA,
        }
        options |= {"--ab": "fp32:1,int8:1"}
        flat = [part for pair in options.items() for part in pair]
        ran = qyolo("cluster", folder, *flat, QYOLO_CACHE_DIR=self.caches[0])
        assert ran.code == 0, ran.err


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    home = tmp_path_factory.mktemp("cluster")
    # Ray's sockets lie in it, and their paths must be short.
    scratch = Path(tempfile.mkdtemp(prefix="qyolo"))
    caches = home / "head", home / "node"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_TMPDIR", str(scratch))
    head, node = ({"num_cpus": CPUS, "env_vars": {"QYOLO_CACHE_DIR": str(c)}} for c in caches)
    head |= {"include_dashboard": False, "_system_config": FAST_RAY}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        second_node = cluster.add_node(**node)
        models = (
            write_folder(home / "first", fp32=20, int8=24),
            write_folder(home / "second", fp32=40, int8=44),
        )
        live = Running(cluster, second_node, caches, port, *models)
        live.deploy(models[0])
        yield live
    finally:
        cluster.shutdown()
        patch.undo()
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass
class Posts:
    """What clients have received that post all the time."""

    answers: list[httpx.Response] = field(default_factory=list)
    retries: Counter[str] = field(default_factory=Counter)  # by their reason
    errors: list[Exception] = field(default_factory=list)

    def await_more(self, count: int) -> None:
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted or self.errors, WAIT_LIMIT_S)


@contextmanager
def posting(url: str, body: bytes, retries: bool, clients: int = CLIENTS) -> Iterator[Posts]:
    """Clients post until the block ends; with `retries` they do so again after errors of Ray."""
    posts, enough = Posts(), threading.Event()

    def work() -> None:
        try:
            with httpx.Client(timeout=WAIT_LIMIT_S) as client:
                while not enough.is_set():
                    posts.answers.append(_post(client, url, body, posts.retries, retries))
                    time.sleep(PAUSE_S)
        except Exception as exc:
            posts.errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield posts
    finally:
        enough.set()
        for thread in threads:
            thread.join(WAIT_LIMIT_S)
    assert not posts.errors


def _post(
    client: httpx.Client, url: str, body: bytes, seen: Counter[str], retries: bool
) -> httpx.Response:
    """Retry after a broken connection and after an error that is Ray's and not qyolo's."""
    while True:
        try:
            answer = client.post(url, content=body, headers=JPEG)
        except httpx.TransportError as exc:
            if not retries:
                raise
            seen[type(exc).__name__] += 1
            continue
        is_ours = "json" in answer.headers.get("content-type", "")
        if not retries or answer.status_code < 500 or is_ours:
            return answer
        seen[str(answer.status_code)] += 1


def boxes(answer: httpx.Response) -> list[object]:
    return [each["box"] for each in answer.json()["detections"]]


def without_times(answer: httpx.Response) -> dict[str, object]:
    body = answer.json()
    for part in (body, body.get("a", {}), body.get("b", {})):
        part.pop("timings_ms", None)
    return body


def test_answers_equal_those_of_a_plain_server(running):
    picture = jpeg()
    with (
        serving(source=FolderSource(running.first), ab="fp32:1,int8:1") as plain,
        httpx.Client(base_url=running.url, timeout=WAIT_LIMIT_S) as client,
    ):
        wait_until(lambda: plain.client.get("/readyz").status_code == 200, WAIT_LIMIT_S)
        for path in ("/v1/models/fp32/detect", "/v1/models/int8/detect", "/v1/compare"):
            ours, theirs = (
                each.post(path, content=picture, headers=JPEG) for each in (client, plain.client)
            )
            assert ours.status_code == 200, ours.text
            assert without_times(ours) == without_times(theirs)
        for path in ("/v1/models", "/v1/report", "/v2/models/tiny", "/healthz", "/readyz"):
            assert client.get(path).json() == plain.client.get(path).json()
        drawn = [
            each.post("/v1/compare", content=picture, headers=JPEG | {"Accept": "image/png"})
            for each in (client, plain.client)
        ]
        assert drawn[0].content == drawn[1].content
        raw = {
            "inputs": [
                {
                    "name": "images",
                    "shape": [1, 3, 64, 64],
                    "datatype": "FP32",
                    "data": np.zeros(3 * 64 * 64).tolist(),
                }
            ]
        }
        tensors = [
            each.post("/v2/models/tiny/infer", json=raw).json()["outputs"][0]["shape"]
            for each in (client, plain.client)
        ]
        assert tensors[0] == tensors[1]


BAD_REQUESTS = [
    ("/v1/detect", b"no image", 415),
    ("/v1/detect", jpeg()[:300], 422),
    ("/v1/detect", b"", 400),
    ("/v1/detect?conf=7", jpeg(), 422),
    ("/v1/models/fp64/detect", jpeg(), 404),
]


def test_bad_input_is_the_same_problem_as_on_a_plain_server(running):
    with serving(source=FolderSource(running.first)) as plain:
        wait_until(lambda: plain.client.get("/readyz").status_code == 200, WAIT_LIMIT_S)
        for path, body, status in BAD_REQUESTS:
            theirs = plain.client.post(path, content=body, headers=JPEG)
            url = running.url + path
            ours = httpx.post(url, content=body, headers=JPEG, timeout=WAIT_LIMIT_S)
            assert ours.status_code == theirs.status_code == status
            assert ours.headers["content-type"] == theirs.headers["content-type"]
            assert ours.json() | {"instance": ""} == theirs.json() | {"instance": ""}


def test_the_split_sends_clients_to_both_deployments(running):
    with httpx.Client(base_url=running.url, timeout=WAIT_LIMIT_S) as client:
        seen = [
            client.post(
                "/v1/detect", content=jpeg(), headers=JPEG | {CLIENT_HEADER: str(n)}
            ).headers["X-Qyolo-Variant"]
            for n in range(12)
        ]
    assert set(seen) == {"fp32", "int8"}


def test_each_node_gets_the_folder_once(running):
    """Each cache holds one whole folder and nothing else."""
    for cache in running.caches:
        (folder,) = [path for path in (cache / "cluster").iterdir() if path.is_dir()]
        verify(folder)
        assert (folder / "manifest.json").read_bytes() == (
            running.first / "manifest.json"
        ).read_bytes()


def test_requests_beyond_the_capacity_get_429(running):
    slow = encoded(gradient(1500, 1500), "PNG")
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(
            httpx.post(
                f"{running.url}/v1/models/fp32/detect",
                content=slow,
                headers={"Content-Type": "image/png"},
                timeout=WAIT_LIMIT_S,
            )
        )

    threads = [threading.Thread(target=ask) for _ in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_LIMIT_S)
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}, counts
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["type"] == "urn:qyolo:problem:overloaded"


def replicas_of(running: Running, deployment: str) -> list[int]:
    """Process ids of this cluster's replicas: their environment names its caches."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_text()
            theirs = (process / "environ").read_bytes()
        except OSError:  # it has ended, or belongs to another user
            continue
        is_ours = any(os.fsencode(cache) in theirs for cache in running.caches)
        if is_ours and f"ServeReplica:qyolo:{deployment}" in title:
            found.append(int(process.name))
    return found


def test_replicas_that_die_under_load_cost_their_clients_nothing(running):
    """The ingress retries, not the clients: there are so many of them, with so large a picture,
    that a replica has some of their requests when it dies.
    """
    url = f"{running.url}/v1/models/fp32/detect"
    slow = encoded(gradient(2000, 2000), "PNG")
    with posting(url, slow, retries=False, clients=2 * CLIENTS) as posts:
        posts.await_more(5)
        victims = replicas_of(running, "fp32")
        assert len(victims) == 2
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            posts.await_more(10)
    assert {answer.status_code for answer in posts.answers} == {200}

    def retried() -> bool:  # either replica of the ingress may answer
        text = httpx.get(f"{running.url}/metrics").text
        return 'qyolo_replica_retries_total{variant="fp32"}' in text

    wait_until(retried, WAIT_LIMIT_S)


def test_another_folder_takes_over_without_a_lost_request(running):
    url = f"{running.url}/v1/models/fp32/detect"
    with posting(url, jpeg(), retries=False) as posts:
        posts.await_more(5)
        running.deploy(running.second)
        posts.await_more(10)
    assert {answer.status_code for answer in posts.answers} == {200}
    first, last = boxes(posts.answers[0]), boxes(posts.answers[-1])
    assert first != last
    assert {str(boxes(answer)) for answer in posts.answers} == {str(first), str(last)}
    final = httpx.post(url, content=jpeg(), headers=JPEG, timeout=WAIT_LIMIT_S)
    assert boxes(final) == last


def test_a_node_that_dies_under_load_loses_no_request(running):
    """Clients whose connection ends with the node retry; all get the right boxes."""
    url = f"{running.url}/v1/models/int8/detect"
    with posting(url, jpeg(), retries=True) as posts:
        posts.await_more(20)
        running.cluster.remove_node(running.second_node, allow_graceful=False)
        posts.await_more(100)
    assert {answer.status_code for answer in posts.answers} == {200}
    assert len({str(boxes(answer)) for answer in posts.answers}) == 1
    assert posts.retries.total() <= CLIENTS * 10, posts.retries


def test_without_ray_the_command_names_the_extra(tmp_path):
    hidden = "import sys; sys.modules['ray'] = None; from qyolo.cli.commands import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", hidden, "cluster", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == "qyolo: a cluster needs the extra cluster: pip install 'qyolo[cluster]'\n"


def test_without_a_cluster_the_command_says_how_to_start_one(tmp_path):
    folder = write_folder(tmp_path / "model", fp32=20)
    ran = qyolo("cluster", folder, "--address", "127.0.0.1:1")
    assert ran.code == 2
    assert ran.err.startswith("qyolo: no Ray cluster at '127.0.0.1:1'"), ran.err
    assert ran.err.count("\n") == 1
