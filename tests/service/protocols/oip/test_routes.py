"""Open Inference Protocol v2 over a socket: valid and invalid requests."""

import base64
import gzip
import json
import struct
import zlib

import numpy as np
import pytest

from service.progress import Progress
from tests.fakes import FakeEngine, HeldSource, variants_of
from tests.service.live import INT8_RAW, serving, two_variants
from tests.service.pictures import jpeg
from tests.waiting import wait_until

HEADER = "Inference-Header-Content-Length"
SHAPE = [1, 3, 64, 64]
TENSOR = np.random.default_rng(3).random(SHAPE, np.float32)
RAW = "/v2/models/tiny/infer"
BOXES = "/v2/models/tiny-boxes/infer"


def image_input(**changes: object) -> dict:
    return {"name": "image", "shape": [1], "datatype": "BYTES"} | changes


def tensor_input(**changes: object) -> dict:
    return {"name": "images", "shape": SHAPE, "datatype": "FP32"} | changes


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD = base64_of(jpeg())


def prefixed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def binary(head: dict, tail: bytes, length: object = None, **headers: str) -> dict:
    """The keyword arguments of a request with `tail` behind its JSON."""
    text = json.dumps(head).encode()
    size = len(text) if length is None else length
    return {"content": text + tail, "headers": {HEADER: str(size)} | headers}


def outputs_of(answer) -> dict[str, object]:
    """Values by name, from either form."""
    assert answer.status_code == 200, answer.text
    content, tail = answer.content, b""
    if HEADER in answer.headers:
        length = int(answer.headers[HEADER])
        content, tail = content[:length], content[length:]
    values = {}
    for output in json.loads(content)["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values[output["name"]] = output["data"]
            continue
        data, tail = tail[:size], tail[size:]
        kind = {"FP32": "<f4", "INT64": "<i8"}.get(output["datatype"])
        values[output["name"]] = data if kind is None else np.frombuffer(data, kind).tolist()
    assert tail == b""
    return values


def assert_error(answer, status: int, words: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()
    assert list(error) == ["error"]
    assert words in error["error"]


def test_server_and_health(client):
    server = client.get("/v2").json()
    assert server["name"] == "qyolo"
    assert "binary_tensor_data" in server["extensions"]
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200


def test_there_is_a_model_for_tensors_and_one_for_images(client):
    assert client.get("/v2/models").json() == {"models": ["tiny", "tiny-boxes"]}
    index = client.post("/v2/repository/index", json={"ready": True}).json()
    assert [(row["name"], row["version"], row["state"]) for row in index] == [
        (name, version, "READY") for name in ("tiny", "tiny-boxes") for version in ("fp32", "int8")
    ]


@pytest.mark.parametrize("path", ["/v2/models/tiny", "/v2/models/tiny/versions/int8"])
def test_metadata_of_the_tensor_model(client, path):
    described = client.get(path).json()
    assert described["name"] == "tiny"
    assert described["versions"] == ["fp32", "int8"]
    assert described["inputs"] == [tensor_input()]
    assert described["outputs"] == [
        {"name": "output0", "datatype": "FP32", "shape": [-1, -1, -1]}  # not in the manifest
    ]
    assert client.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}
    assert client.get(f"{path}/config").json()["max_batch_size"] == 0


def test_metadata_of_the_image_model(client):
    described = client.get("/v2/models/tiny-boxes").json()
    assert described["inputs"] == [image_input()]
    assert [(row["name"], row["datatype"], row["shape"]) for row in described["outputs"]] == [
        ("boxes", "FP32", [-1, 4]),
        ("scores", "FP32", [-1]),
        ("class_ids", "INT64", [-1]),
        ("labels", "BYTES", [-1]),
    ]


PICTURES = {
    "json": {"json": {"inputs": [image_input(data=[GOOD])]}},
    "binary": binary(
        {
            "inputs": [image_input(parameters={"binary_data_size": len(jpeg()) + 4})],
            "parameters": {"binary_data_output": True},
        },
        prefixed(jpeg()),
    ),
    "without its size": binary({"inputs": [image_input()]}, prefixed(jpeg())),
    "raw": {"content": jpeg(), "headers": {HEADER: "0"}},
}


@pytest.mark.parametrize("sent", PICTURES.values(), ids=PICTURES)
def test_an_image_in_any_form_gives_boxes_in_its_pixels(client, sent):
    answer = client.post("/v2/models/tiny-boxes/versions/fp32/infer", **sent)
    values = outputs_of(answer)
    assert values["boxes"] == [75.0, 37.5, 125.0, 62.5, 25.0, 12.5, 50.0, 37.5]
    assert values["scores"] == pytest.approx([0.9, 0.6])
    assert values["class_ids"] == [0, 2]
    assert values["labels"] in (["person", "dog"], prefixed(b"person") + prefixed(b"dog"))
    assert answer.headers["x-qyolo-variant"] == "fp32"


@pytest.fixture(scope="module")
def watched():
    """A client, and engines that record their inputs."""
    variants, fp32, int8 = two_variants()
    with serving(variants) as live:
        yield live.client, fp32, int8


TENSORS = {
    "json, flat": {"json": {"inputs": [tensor_input(data=TENSOR.ravel().tolist())]}},
    "json, nested": {"json": {"inputs": [tensor_input(data=TENSOR.tolist())]}},
    "binary": binary(
        {"inputs": [tensor_input(parameters={"binary_data_size": TENSOR.nbytes})]},
        TENSOR.tobytes(),
    ),
    "raw": {"content": TENSOR.tobytes(), "headers": {HEADER: "0"}},
}


@pytest.mark.parametrize("sent", TENSORS.values(), ids=TENSORS)
def test_a_tensor_in_any_form_reaches_the_engine_and_its_output_returns(watched, sent):
    client, fp32, int8 = watched
    values = outputs_of(client.post(RAW, **sent))
    np.testing.assert_array_equal(int8.tensor, TENSOR)
    assert int8.tensor.flags.aligned
    assert fp32.calls == 0
    np.testing.assert_array_equal(values["output0"], INT8_RAW.ravel())


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("name", ["json", "binary"])
def test_a_compressed_body_is_inflated_before_it_is_split(client, compress, name):
    sent = client.build_request("POST", BOXES, **PICTURES[name])
    headers = {key: value for key, value in sent.headers.items() if key != "content-length"}
    headers["content-encoding"] = "gzip" if compress is gzip.compress else "deflate"
    answer = client.post(BOXES, content=compress(sent.content), headers=headers)
    assert outputs_of(answer)["class_ids"] == [0, 1]


def test_outputs_have_the_requested_order_and_form(client):
    wanted = [{"name": "labels"}, {"name": "scores", "parameters": {"binary_data": True}}]
    body = {"id": "a-7", "inputs": [image_input(data=[GOOD])], "outputs": wanted}
    answer = client.post(BOXES, json=body)
    length = int(answer.headers[HEADER])
    head = json.loads(answer.content[:length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("tiny-boxes", "int8", "a-7")
    labels, scores = head["outputs"]
    assert labels["data"] == ["person", "traffic light"]
    assert "data" not in scores
    np.testing.assert_allclose(np.frombuffer(answer.content[length:], "<f4"), [0.85, 0.5])


@pytest.mark.parametrize(
    ("parameters", "labels"),
    [
        ({"conf": 0.95}, []),
        ({"iou": 1, "conf": 0.7}, ["person", "person"]),
        ({"max_det": 1}, ["person"]),
        ({"classes": "dog"}, ["dog"]),
        ({"classes": "dog,0", "timeout": 5, "sequence_id": "a"}, ["person", "dog"]),
    ],
)
def test_parameters_select_boxes(client, parameters, labels):
    body = {"inputs": [image_input(data=[GOOD])], "parameters": parameters}
    answer = client.post("/v2/models/tiny-boxes/versions/fp32/infer", json=body)
    assert outputs_of(answer)["labels"] == labels


@pytest.mark.parametrize(
    ("name", "value"),
    [("confidence", 1), ("conf", 2), ("conf", [1]), ("classes", 2), ("classes", "cat")],
)
def test_a_bad_parameter_is_400_and_named(client, name, value):
    body = {"inputs": [image_input(data=[GOOD])], "parameters": {name: value}}
    assert_error(client.post(BOXES, json=body), 400, "cat" if value == "cat" else name)


def test_nan_is_null_in_json():
    class NanForTensors(FakeEngine):
        def infer(self, image):
            return (np.zeros_like(self.raw),)

    engine = NanForTensors(np.full((1, 1, 8), np.nan, np.float32))
    with serving(variants_of({"fp32": engine})) as live:
        answer = live.client.post(RAW, **TENSORS["json, flat"])
    assert outputs_of(answer)["output0"] == [None] * 8


def test_a_number_beyond_float32_becomes_infinite(watched):
    client, _, int8 = watched
    data = [1e300, *[0.0] * (TENSOR.size - 1)]
    outputs_of(client.post(RAW, json={"inputs": [tensor_input(data=data)]}))
    assert int8.tensor[0, 0, 0, 0] == np.inf


def bad(inputs: object, **more: object) -> dict:
    return {"json": {"inputs": inputs, **more}}


def packed(body: bytes, encoding: str = "gzip") -> dict:
    return {"content": body, "headers": {"Content-Encoding": encoding}}


def sized(size: int) -> dict:
    """A request that declares so many bytes behind its JSON."""
    described = image_input(parameters={"binary_data_size": size})
    return binary({"inputs": [described]}, prefixed(jpeg()))


BAD_PICTURES = {
    "not json": ({"content": b"{"}, "body"),
    "another shape of json": ({"json": [1]}, "body"),
    "no inputs": ({"json": {}}, "inputs"),
    "no input": (bad([]), "inputs"),
    "two inputs": (bad([image_input(data=[GOOD])] * 2), "inputs"),
    "another name": (bad([image_input(name="images", data=[GOOD])]), "no input 'images'"),
    "a long name": (bad([image_input(name="x" * 300, data=[GOOD])]), "name"),
    "another type": (bad([image_input(datatype="UINT8", data=[1])]), "BYTES [1]"),
    "two pictures": (bad([image_input(shape=[2], data=[GOOD] * 2)]), "BYTES [1]"),
    "two values": (bad([image_input(data=[GOOD] * 2)]), "one text"),
    "not a text": (bad([image_input(data=[7])]), "one text"),
    "not base64": (bad([image_input(data=["?"])]), "base64"),
    "no data": (bad([image_input()]), "no data"),
    "not an image": (bad([image_input(data=[base64_of(b"hello")])]), "not a JPEG"),
    "a torn image": (bad([image_input(data=[base64_of(jpeg()[:-500])])]), "truncated"),
    "bytes without header": (bad([image_input(parameters={"binary_data_size": 9})]), HEADER),
    "header beyond the body": (binary({"inputs": [image_input()]}, b"", 10**9), HEADER),
    "a long header": (binary({"inputs": [image_input()]}, b"", "9" * 5000), HEADER),
    "header of no number": (binary({"inputs": [image_input()]}, b"", "many"), HEADER),
    "size beyond the body": (sized(2**70), "binary_data_size"),
    "size below the body": (sized(8), "binary_data_size"),
    "negative size": (sized(-1), "binary_data_size"),
    "data and bytes": (binary({"inputs": [image_input(data=[GOOD])]}, b"abcd"), "bytes behind"),
    "incomplete length": (binary({"inputs": [image_input()]}, b"ab"), "length"),
    "another length": (
        binary({"inputs": [image_input()]}, struct.pack("<I", 2**32 - 1) + b"ab"),
        "declares",
    ),
    "shared memory": (
        bad([image_input(parameters={"shared_memory_region": "a"})]),
        "shared_memory_region",
    ),
    "an unknown output": (
        bad([image_input(data=[GOOD])], outputs=[{"name": "masks"}]),
        "no output 'masks'",
    ),
    "no gzip": (packed(b"{}"), "gzip"),
    "incomplete gzip": (packed(gzip.compress(jpeg())[:-9]), "gzip"),
    "more than gzip": (packed(gzip.compress(b"{}") + b"x"), "gzip"),
    "another encoding": (packed(b"{}", "br"), "gzip"),
    "a gzip bomb": (packed(gzip.compress(bytes(10**8))), "larger than 2000000"),
    "too much": ({"content": bytes(2_000_001)}, "larger than 2000000"),
}


@pytest.mark.parametrize(("sent", "words"), BAD_PICTURES.values(), ids=BAD_PICTURES)
def test_a_bad_request_is_400_and_says_what_is_wrong(client, sent, words):
    assert_error(client.post(BOXES, **sent), 400, words)


DEEP = "[" * 150 + "]" * 150
NUMBERS = "12288 numbers"
BAD_TENSORS = {
    "another shape": (bad([tensor_input(shape=[3, 64, 64], data=[0])]), "FP32 [1, 3, 64, 64]"),
    "a long shape": (bad([tensor_input(shape=[1] * 1000, data=[0])]), "shape"),
    "another type": (bad([tensor_input(datatype="FP16", data=[0])]), "not FP16"),
    "too many": (bad([tensor_input(data=[0] * (TENSOR.size + 1))]), NUMBERS),
    "strings": (bad([tensor_input(data=["1"] * TENSOR.size)]), "more than 10000"),
    "few strings": (bad([tensor_input(data=["1"] * 100)]), NUMBERS),
    "objects": (bad([tensor_input(data=[{}] * TENSOR.size)]), "more than 10000"),
    "few objects": (bad([tensor_input(data=[{}] * 100)]), NUMBERS),
    "long lists that are ragged": (
        bad([tensor_input(data=[[0.5] * (TENSOR.size - 6000), [0.5] * 6000])]),
        NUMBERS,
    ),
    "a number beside long lists": (
        bad([tensor_input(data=[1, [0.5] * (TENSOR.size - 1)])]),
        NUMBERS,
    ),
    "a text among many numbers": (
        bad([tensor_input(data=[0.5] * (TENSOR.size - 1) + ["1"])]),
        "more than 10000",
    ),
    "many booleans": (bad([tensor_input(data=[True] * TENSOR.size)]), NUMBERS),
    "huge integers": (bad([tensor_input(data=[10**50] * TENSOR.size)]), NUMBERS),
    "a huge integer": (bad([tensor_input(data=[0.5, 10**400])]), NUMBERS),
    "ragged": (bad([tensor_input(data=[[1, 2], [3]])]), NUMBERS),
    "deep": (
        {"content": json.dumps({"inputs": [tensor_input(data=["?"])]}).replace('"?"', DEEP)},
        NUMBERS,
    ),
    "too deep": ({"content": "[" * 100_000}, "body"),
    "incomplete bytes": (binary({"inputs": [tensor_input()]}, TENSOR.tobytes()[:-1]), "49152"),
    "incomplete raw bytes": (
        {"content": TENSOR.tobytes()[:-4], "headers": {HEADER: "0"}},
        "49152 bytes",
    ),
    "a parameter": (
        bad([tensor_input(data=TENSOR.ravel().tolist())], parameters={"conf": 0.5}),
        "no parameter 'conf'",
    ),
}


@pytest.mark.parametrize(("sent", "words"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_a_bad_tensor_is_400_and_says_what_is_needed(client, sent, words):
    assert_error(client.post(RAW, **sent), 400, words)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/models/other", 404, "there are: tiny, tiny-boxes"),
        ("GET", "/v2/models/tiny/versions/1", 404, "there are: fp32, int8"),
        ("POST", "/v2/models/other/infer", 404, "no model"),
        ("POST", "/v2/models/tiny/versions/1/infer", 404, "no variant"),
        ("GET", "/v2/nothing", 404, "Not Found"),
        ("GET", RAW, 405, "Method Not Allowed"),
    ],
)
def test_unknown_paths_models_and_versions_are_refused(client, method, path, status, words):
    assert_error(client.request(method, path), status, words)


def test_during_a_build_the_server_is_live_but_not_ready():
    with serving(source=HeldSource(Progress("calibrating", 12, 96))) as live:
        wait_until(lambda: live.client.get("/readyz").json()["phase"] is not None)
        for path in ("/v2/health/live", "/v2"):
            assert live.client.get(path).status_code == 200
        for path in ("/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/ready"):
            assert_error(live.client.get(path), 503, "calibrating 12 of 96")
        assert_error(live.client.post(RAW, **TENSORS["raw"]), 503, "calibrating 12 of 96")


def test_inference_needs_the_key_and_probes_do_not():
    with serving(api_keys="0123456789abcdef") as live:
        assert live.client.get("/v2/health/ready").status_code == 200
        assert_error(live.client.post(RAW, **TENSORS["raw"]), 401, "API key")
