"""HOST:PORT PHOTO TENSOR: the results of every tritonclient call for a detector, as JSON."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

host, photo, tensor_file = sys.argv[1:]
client = InferenceServerClient(host)
index = client.get_model_repository_index()
raw_model, box_model = dict.fromkeys(row["name"] for row in index)
tensor = np.load(tensor_file)


def picture(binary=True):
    data = Path(photo).read_bytes()
    sent = InferInput("image", [1], "BYTES")
    value = data if binary else base64.b64encode(data)
    return sent.set_data_from_numpy(np.array([value], object), binary_data=binary)


def floats(value=tensor, binary=True):
    sent = InferInput(port["name"], list(value.shape), "FP32")
    return sent.set_data_from_numpy(value, binary_data=binary)


def boxes(**options):
    """The answer as the client reads it; a threshold that the tiny model passes."""
    options = {"parameters": {"conf": 0.05, "max_det": 5}} | options
    sent = options.pop("sent", None) or picture()
    answer = client.infer(box_model, [sent], **options)
    return {
        "version": answer.get_response()["model_version"],
        "id": answer.get_response().get("id"),
        "boxes": answer.as_numpy("boxes").tolist(),
        "scores": answer.as_numpy("scores").tolist(),
        "class_ids": answer.as_numpy("class_ids").tolist(),
        "labels": [
            label.decode() if isinstance(label, bytes) else label
            for label in answer.as_numpy("labels").tolist()
        ],
    }


def head(sent=None, **options):
    return client.infer(raw_model, [sent or floats()], **options).as_numpy(output["name"]).tolist()


def refused(ask):
    try:
        ask()
    except InferenceServerException as exc:
        return [exc.status(), exc.message()]
    return None


metadata = client.get_model_metadata(raw_model)
(port,), (output,) = metadata["inputs"], metadata["outputs"]
as_json = [
    InferRequestedOutput(wanted, binary_data=False)
    for wanted in ("boxes", "scores", "class_ids", "labels")
]
of_class = [InferRequestedOutput("scores", class_count=2)]
results = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": [
        client.is_model_ready(box_model),
        client.is_model_ready(raw_model, "int8"),
        client.is_model_ready("other"),
    ],
    "metadata": metadata,
    "config": client.get_model_config(raw_model),
    "boxes": {
        "default": boxes(),
        "fp32": boxes(model_version="fp32"),
        "json": boxes(sent=picture(binary=False), outputs=as_json),
        "gzip": boxes(request_compression_algorithm="gzip", response_compression_algorithm="gzip"),
        "deflate": boxes(request_compression_algorithm="deflate"),
        "id": boxes(request_id="seven", priority=3, timeout=1_000_000),
        "dogs": boxes(parameters={"conf": 0.05, "classes": "dog"}),
        "none": boxes(parameters={"conf": 0.999}),
        "none_json": boxes(parameters={"conf": 0.999}, outputs=as_json),
    },
    "heads": {
        "default": head(),
        "fp32": head(model_version="fp32"),
        "json": head(floats(binary=False), outputs=[InferRequestedOutput(output["name"], False)]),
        "gzip": head(request_compression_algorithm="gzip"),
    },
    "refused": {
        "model": refused(lambda: client.get_model_metadata("other")),
        "shape": refused(lambda: head(floats(tensor[:, :, :32]))),
        "classification": refused(lambda: boxes(outputs=of_class)),
    },
}
json.dump(results, sys.stdout)
