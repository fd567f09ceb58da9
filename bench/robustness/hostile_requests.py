"""Hostile requests to every route that reads a body; a seed gives the same ones in every run."""

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final
from urllib.parse import quote

from bench.load import BOUNDARY, MULTIPART, form, post, post_jpeg, request_head
from bench.robustness.hostile_images import hostile, valid

DETECT_PATHS: Final = (
    "/v1/detect",
    "/v1/models/int8/detect",
    "/v1/models/fp32/detect",
    "/v1/compare",
)
OIP: Final = "/v2/models/{}/infer"
CHUNKED: Final = request_head(
    "POST /v1/detect HTTP/1.1", "Content-Type: image/jpeg", "Transfer-Encoding: chunked"
)
NO_END: Final = "broken framing"  # the family whose requests end the connection
FS: Final = "00-" + "f" * 5000
ACCEPTS: Final = (*("*/*",) * 12, "image/png", "image/jpeg", "text/html", "a;q=9,,;/")
WRONG_TYPES: Final = ("", "text/plain", "image", "a/b/c", "application/json", "multipart/mixed")
QUERIES: Final = (
    *("conf=nan", "conf=-1", "conf=1e999", "iou=0", "iou=inf", "max_det=0", "max_det=9" + "9" * 50),
    *("classes=" + "x," * 500, "classes=0&" * 500, "variant=../../etc/passwd", "variant=%00"),
    *("unknown=1", "conf=0.1&conf=x", "%ff=%fe", "collect=maybe", "a=fp32&b=nothing", "&&&===;;"),
)
NUMBERS: Final = ("9" * 4000, "9" * 5000, "1e400", "-1", "0.1e-400", "NaN", "true", "null", '"x"')


@dataclass(frozen=True, slots=True)
class Case:
    """`ends`: the connection cannot carry another request after this one."""

    family: str
    data: bytes
    ends: bool = False


def cases(count: int, seed: int, model: str) -> Iterator[Case]:
    """`model`: the name of the served model."""
    random = Random(seed)
    for _ in range(count):
        if random.random() < 0.6:
            picture = hostile(random)
            yield Case(picture.family, _carried(random, picture.data, model))
        else:
            family = random.choice(list(FAMILIES))
            yield Case(family, FAMILIES[family](random, model), ends=family == NO_END)


def _carried(random: Random, data: bytes, model: str) -> bytes:
    """A request that carries the image, in one of the encodings that the server accepts."""
    accept = f"Accept: {random.choice(ACCEPTS)}"
    path = random.choice(DETECT_PATHS)
    text = base64.b64encode(data).decode()
    match random.randrange(8):
        case 0 | 1:
            return post(path, "image/jpeg", data, accept)
        case 2:
            return post(path, MULTIPART, form(data), accept)
        case 3:
            return post(path, "application/json", json.dumps({"image": text}).encode(), accept)
        case 4:
            return post("/v1/vision/detection", MULTIPART, form(data, "image"))
        case 5:
            image = {"type": "base64", "value": text}
            query: dict[str, object] = {"model_id": model, "image": image}
            if random.random() < 0.3:
                query |= {"visualize_predictions": True, "image": [image] * 3}
            return post("/infer/object_detection", "application/json", json.dumps(query).encode())
        case 6:
            return post(path, random.choice(WRONG_TYPES), data, accept)
        case _:
            return _v2(f"{model}-boxes", {"name": "image"}, struct.pack("<I", len(data)) + data)


def _v2(model: str, changes: Mapping[str, object], tail: bytes, length: str | None = None) -> bytes:
    """Open Inference Protocol with the binary data extension."""
    sent = {"name": "image", "datatype": "BYTES", "shape": [1]}
    size = {"parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [{**sent, **size, **changes}]}).encode()
    header = f"Inference-Header-Content-Length: {len(head) if length is None else length}"
    return post(OIP.format(model), "application/octet-stream", head + tail, header)


def _multipart(random: Random, model: str) -> bytes:
    picture = valid("JPEG")
    complete = form(picture)
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="n"\r\n\r\nx\r\n'.encode()
    inner = f"multipart/form-data; boundary={BOUNDARY}x"
    body = random.choice(
        (
            lambda: complete[: random.randrange(len(complete))],
            lambda: complete[:-6] + b"\r\n",
            lambda: form(picture, preamble=field * random.choice((16, 17, 10_000))),
            lambda: form(complete),
            lambda: form(picture, "else"),
            lambda: form(picture, "\xff\0é" * 9),
            lambda: complete.replace(b"filename", b"filname"),
            lambda: complete.replace(b'"file"', b'file"; name="image" name='),
            lambda: complete.replace(b"\r\n\r\n", b"\r\nA: " + b"b" * 10**6 + b"\r\n\r\n", 1),
            lambda: complete.replace(b"\r\n\r\n", b"\r\nA: b" * 10**5 + b"\r\n\r\n", 1),
            lambda: complete.replace(b"\r\n\r\n", f"\r\nContent-Type: {inner}\r\n\r\n".encode(), 1),
            lambda: complete.replace(b"\r\n", b"\n"),
            lambda: b"\r\n" * 10**5 + complete,
            lambda: complete + random.randbytes(1000),
            lambda: form(f"\r\n--{BOUNDARY}".encode() * 10**4),
            lambda: form(b"\r\n--a-bounda" * 10**5),
            lambda: b"",
        )
    )()
    media_type = random.choice(
        (
            *(MULTIPART,) * 4,
            *("multipart/form-data", "multipart/form-data; boundary=", f"{MULTIPART}; charset=no"),
            *(f"{MULTIPART}{'x' * 300}", 'multipart/form-data; boundary="', "multipart/mixed"),
        )
    )
    return post(random.choice((*DETECT_PATHS, "/v1/vision/detection")), media_type, body)


def _json(random: Random, model: str) -> bytes:
    many = 300_000 if random.random() < 0.05 else 100
    number = random.choice(NUMBERS)
    text = base64.b64encode(valid("PNG")).decode()
    body = random.choice(
        (
            "[" * many,
            '{"image":' * many,
            '{"image":"x"' + "".join(f',"{n}":0' for n in range(many)) + "}",
            f'{{"image":{number}}}',
            '{"image":"' + text[:-3] + '"}',
            '{"image":"data:;base64,' + text + "\u00e9" + '"}',
            '{"image":"\\ud800"}',
            '{"image":"' + "A" * many,
            '{"image":"","image":"' + text + '"}',
            f'{{"model_id":"{model}","image":[' + "[]," * many + "0]}",
            f'{{"model_id":"{model}","image":"","class_filter":[' + "0," * many + "0]}",
            f'{{"model_id":"{model}","image":{{"type":"numpy","value":"{text}"}}}}',
            f'{{"model_id":"{model}","image":{{"type":"url","value":"http://127.0.0.1:9/"}}}}',
            f'{{"model_id":"{model}","image":0,"confidence":{number}}}',
            f'{{"model_id":"{model}","image":0,"max_detections":{number}}}',
            '{"inputs":[],"outputs":[' + "0," * many + "0]}",
            '{"inputs":[],"parameters":{"a":0' + "".join(f',"{n}":[]' for n in range(many)) + "}}",
            f'{{"inputs":[{{"name":"images","datatype":"FP32","shape":[{number}],"data":[]}}]}}',
            '{"inputs":[{"name":"images","datatype":"FP32","shape":[1,3,64,64],"data":'
            f"[{'[],' * many}{number}]}}]}}",
            "\x00\xff",
            "",
        )
    )
    paths = (*DETECT_PATHS[:2], "/infer/object_detection", "/model/add", OIP.format(model))
    return post(random.choice(paths), "application/json", body.encode("latin-1"))


def _tensors(random: Random, model: str) -> bytes:
    tail = random.randbytes(random.choice((0, 3, 4, 100)))
    boxes = f"{model}-boxes"
    path = OIP.format(random.choice((model, boxes)))
    lengths = ("-1", "1e3", "9" * 12, "9" * 400, "x", "0")
    sizes = {"parameters": {"binary_data_size": random.choice((-1, 2**70))}}
    return random.choice(
        (
            lambda: _v2(boxes, {}, tail, random.choice(lengths)),
            lambda: _v2(boxes, {}, tail, str(random.randrange(200))),
            lambda: _v2(boxes, {}, struct.pack("<I", 2**32 - 1) + tail),
            lambda: _v2(boxes, sizes, tail),
            lambda: _v2(model, {"name": "images", "datatype": "FP32", "shape": [2**62] * 8}, tail),
            lambda: _v2(model, {"shape": [0] * 100_000}, tail),
            lambda: _v2(model, {"parameters": {"shared_memory_region": "x"}}, tail),
            lambda: _v2("no" * 1000, {}, tail),
            lambda: _v2(quote("../../é\0"), {}, tail),
            lambda: post(path, "", _gzip_bomb(), "Content-Encoding: gzip"),
            lambda: post(path, "", zlib.compress(b"[" * 2**20), "Content-Encoding: deflate"),
            lambda: post(path, "", gzip.compress(b"{}")[:-3], "Content-Encoding: gzip"),
            lambda: post(path, "", tail, "Content-Encoding: br"),
        )
    )()


@cache
def _gzip_bomb() -> bytes:
    """Above the server's limit after decompression."""
    return gzip.compress(bytes(30 * 2**20))


def _framing(random: Random, model: str) -> bytes:
    """The data after it on the connection is no request, or never arrives."""
    picture = valid("JPEG")
    complete = post_jpeg("/v1/detect", picture)
    size = f"{len(picture):x}\r\n".encode()
    return random.choice(
        (
            lambda: CHUNKED + b"-5\r\nx",
            lambda: CHUNKED + b"ffffffffffffffffff\r\nx",
            lambda: CHUNKED + b"5;" + b"a" * 50_000 + b"\r\nabcde\r\n",
            lambda: CHUNKED + size + picture,
            lambda: CHUNKED + b"0\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
            lambda: complete[: random.randrange(1, len(complete))],
            lambda: post("/v1/detect", "image/jpeg", b"", "Content-Length: 5"),
            lambda: post("/v1/detect", "image/jpeg", b"", f"A: {'b' * 2**20}"),
            lambda: post("/v1/detect", "image/jpeg", b"", *["A: b"] * 5000),
            lambda: request_head("POST /v1/detect HTTP/1.1", "Content-Length: 9" + "9" * 90),
            lambda: request_head("POST /v1/detect HTTP/1.1", "Transfer-Encoding: zip"),
            lambda: request_head(f"GET /{'a' * 100_000} HTTP/1.1"),
            lambda: random.randbytes(random.choice((1, 500, 100_000))),
            lambda: b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),  # TLS
            lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
    )()


def _routes(random: Random, model: str) -> bytes:
    picture = valid("JPEG")
    path = f"{random.choice(DETECT_PATHS)}?{random.choice(QUERIES)}"
    junk = quote(random.choice(("../../etc/passwd", "\0", "é\u2028", "%", "a" * 3000)))
    headers = ("X-Qyolo-Client: " + "c" * 9000, "Content-Encoding: gzip", f"Traceparent: {FS}")
    single_bytes = b"".join(b"1\r\n%c\r\n" % byte for byte in picture)
    return random.choice(
        (
            post_jpeg(path, picture),
            post_jpeg(path, picture),
            post_jpeg(f"/v1/models/{junk}/detect", picture),
            post(f"/v1/vision/custom/{junk}", MULTIPART, form(picture)),
            post_jpeg(f"/{junk}", picture),
            post("/v1/detect", "image/jpeg", picture, random.choice(headers)),
            post_jpeg("/v1/detect", bytes(random.choice((10**5, 21 * 2**20)))),
            post("/healthz", "text/plain", bytes(10**6)),
            request_head(f"{random.choice(('PUT', 'TRACE', 'BREW'))} /v1/detect HTTP/1.1"),
            CHUNKED + f"{len(picture):x}\r\n".encode() + picture + b"\r\n0\r\n\r\n",
            CHUNKED + single_bytes + b"0\r\n\r\n",
        )
    )


FAMILIES: Final[dict[str, Callable[[Random, str], bytes]]] = {
    "broken multipart": _multipart,
    "broken JSON": _json,
    "broken tensors": _tensors,
    NO_END: _framing,
    "odd routes, queries, headers": _routes,
}
