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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.http.client_identity import CLIENT_HEADER
from service.manifest import Variant, verify, write_manifest
from tests import plain_http
from tests.fakes import manifest_of
from tests.qyolo.commands import qyolo
from tests.service.live import serving_folder
from tests.service.pictures import encoded, gradient, jpeg
from tests.service.tiny import BIAS, tiny_model
from tests.waiting import wait_until

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra cluster is missing")

WAIT_LIMIT_S = 60.0
# As Ray counts them: 8 replicas of a quarter fit on both nodes during an update, 4 on one.
CPUS, CPUS_OF_A_REPLICA = 1, 0.25
JPEG = {"Content-Type": "image/jpeg"}
CLIENTS = 3
PAUSE_S = 0.05  # between a client's requests: replicas that start need the processor too
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
        options = ("--address", self.cluster.address, "--port", self.port, "--min", 2)
        options += ("--cpus", CPUS_OF_A_REPLICA, "--ab", "fp32:1,int8:1")
        ran = qyolo("cluster", folder, *options, QYOLO_CACHE_DIR=self.caches[0])
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
class Clients:
    """Clients that post all the time; with `retries` they post again after errors of Ray."""

    url: str
    body: bytes
    retries: bool
    answers: list[httpx.Response] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)  # by the reason
    stopped: threading.Event = field(default_factory=threading.Event)

    def await_more(self, count: int) -> None:
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted or self.stopped.is_set(), WAIT_LIMIT_S)

    def run(self) -> None:
        try:
            with plain_http.client(timeout=WAIT_LIMIT_S) as client:
                while not self.stopped.is_set():
                    self.answers.append(self._post(client))
                    time.sleep(PAUSE_S)
        finally:
            self.stopped.set()

    def _post(self, client: httpx.Client) -> httpx.Response:
        while True:
            try:
                answer = client.post(self.url, content=self.body, headers=JPEG)
            except httpx.TransportError as exc:
                if not self.retries:
                    raise
                self.retried[type(exc).__name__] += 1
                continue
            is_ours = "json" in answer.headers.get("content-type", "")
            if not self.retries or answer.status_code < 500 or is_ours:
                return answer
            self.retried[str(answer.status_code)] += 1


@contextmanager
def posting(url: str, body: bytes, retries: bool, count: int = CLIENTS) -> Iterator[Clients]:
    """So many clients until the block ends; each of their answers must be 200."""
    clients = Clients(url, body, retries)
    with ThreadPoolExecutor(count) as pool:
        jobs = [pool.submit(clients.run) for _ in range(count)]
        try:
            yield clients
        finally:
            clients.stopped.set()
        for job in jobs:
            job.result(WAIT_LIMIT_S)
    assert {answer.status_code for answer in clients.answers} == {200}


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
        serving_folder(running.first, ab="fp32:1,int8:1") as plain,
        plain_http.client(base_url=running.url, timeout=WAIT_LIMIT_S) as client,
    ):
        for path in ("/v1/models/fp32/detect", "/v1/models/int8/detect", "/v1/compare"):
            ours, theirs = (
                each.post(path, content=picture, headers=JPEG) for each in (client, plain.client)
            )
            assert ours.status_code == 200, ours.text
            assert without_times(ours) == without_times(theirs)
        for path in ("/v1/models", "/v1/report", "/v2/models/tiny", "/healthz", "/readyz"):
            assert client.get(path).json() == plain.client.get(path).json()
        tensor = {"name": "images", "shape": [1, 3, 64, 64], "datatype": "FP32"}
        raw = {"inputs": [tensor | {"data": np.zeros(3 * 64 * 64).tolist()}]}
        pictures, shapes = set(), set()
        for each in (client, plain.client):
            headers = JPEG | {"Accept": "image/png"}
            pictures.add(each.post("/v1/compare", content=picture, headers=headers).content)
            answer = each.post("/v2/models/tiny/infer", json=raw).json()
            shapes.add(tuple(answer["outputs"][0]["shape"]))
        assert (len(pictures), len(shapes)) == (1, 1)


BAD_REQUESTS = [
    ("/v1/detect", b"no image", 415),
    ("/v1/detect", jpeg()[:300], 422),
    ("/v1/detect", b"", 400),
    ("/v1/detect?conf=7", jpeg(), 422),
    ("/v1/models/fp64/detect", jpeg(), 404),
]


def test_bad_input_is_the_same_problem_as_on_a_plain_server(running):
    with serving_folder(running.first) as plain:
        for path, body, status in BAD_REQUESTS:
            theirs = plain.client.post(path, content=body, headers=JPEG)
            url = running.url + path
            ours = plain_http.post(url, content=body, headers=JPEG, timeout=WAIT_LIMIT_S)
            assert ours.status_code == theirs.status_code == status
            assert ours.headers["content-type"] == theirs.headers["content-type"]
            assert ours.json() | {"instance": ""} == theirs.json() | {"instance": ""}


def test_the_split_sends_clients_to_both_deployments(running):
    seen = set()
    with plain_http.client(base_url=running.url, timeout=WAIT_LIMIT_S) as client:
        for n in range(12):
            headers = JPEG | {CLIENT_HEADER: str(n)}
            answer = client.post("/v1/detect", content=jpeg(), headers=headers)
            seen.add(answer.headers["X-Qyolo-Variant"])
    assert seen == {"fp32", "int8"}


def test_each_node_gets_the_folder_once(running):
    """Each cache contains one complete folder and nothing else."""
    for cache in running.caches:
        (folder,) = [path for path in (cache / "cluster").iterdir() if path.is_dir()]
        verify(folder)
        assert (folder / "manifest.json").read_bytes() == (
            running.first / "manifest.json"
        ).read_bytes()


def test_requests_beyond_the_capacity_get_429(running):
    slow = {"content": encoded(gradient(1500, 1500), "PNG"), "timeout": WAIT_LIMIT_S}
    slow |= {"headers": {"Content-Type": "image/png"}}
    url = f"{running.url}/v1/models/fp32/detect"
    with ThreadPoolExecutor(48) as pool:
        answers = list(pool.map(lambda _: plain_http.post(url, **slow), range(48)))
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}, counts
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= WAIT_LIMIT_S  # the predicted wait
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
    with posting(url, slow, retries=False, count=2 * CLIENTS) as clients:
        clients.await_more(5)
        victims = replicas_of(running, "fp32")
        assert len(victims) == 2
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            clients.await_more(10)

    def retried() -> bool:  # either replica of the ingress may answer
        text = plain_http.get(f"{running.url}/metrics").text
        return 'qyolo_replica_retries_total{model="tiny",variant="fp32"}' in text

    wait_until(retried, WAIT_LIMIT_S)


def test_an_update_to_another_folder_loses_no_request(running):
    url = f"{running.url}/v1/models/fp32/detect"
    with posting(url, jpeg(), retries=False) as clients:
        clients.await_more(5)
        running.deploy(running.second)
        clients.await_more(10)
    first, last = boxes(clients.answers[0]), boxes(clients.answers[-1])
    assert first != last
    assert {str(boxes(answer)) for answer in clients.answers} == {str(first), str(last)}
    final = plain_http.post(url, content=jpeg(), headers=JPEG, timeout=WAIT_LIMIT_S)
    assert boxes(final) == last


def test_a_node_that_dies_under_load_loses_no_request(running):
    """Clients whose connection ends with the node retry; all get the right boxes."""
    url = f"{running.url}/v1/models/int8/detect"
    with posting(url, jpeg(), retries=True) as clients:
        clients.await_more(20)
        running.cluster.remove_node(running.second_node, allow_graceful=False)
        clients.await_more(100)
    assert len({str(boxes(answer)) for answer in clients.answers}) == 1
    assert clients.retried.total() <= CLIENTS * 10, clients.retried


def test_without_ray_the_command_names_the_extra(tmp_path):
    hidden = "import sys; sys.modules['ray'] = None; from qyolo.cli.commands import main; main()"
    command = [sys.executable, "-c", hidden, "cluster", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "qyolo: a cluster needs the extra cluster: pip install 'qyolo[cluster]'\n"


def test_without_a_cluster_the_command_says_how_to_start_one(tmp_path):
    folder = write_folder(tmp_path / "model", fp32=20)
    ran = qyolo("cluster", folder, "--address", "127.0.0.1:1")
    assert ran.code == 2
    assert ran.err.startswith("qyolo: no Ray cluster at '127.0.0.1:1'"), ran.err
    assert ran.err.count("\n") == 1
