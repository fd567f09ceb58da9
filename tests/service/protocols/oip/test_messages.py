"""Bodies of the Open Inference Protocol: any bytes are read, or refused as a bad request."""

import gzip
import json
import struct
import zlib
from contextlib import suppress

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from service.errors import BadRequest, PayloadTooLarge
from service.protocols.oip.messages import (
    HEADER_LENGTH,
    InferRequest,
    inflated,
    read_request,
    write_response,
)
from service.protocols.oip.models import BOX_OUTPUTS
from service.protocols.oip.tensors import Port

PICTURE = Port("image", "BYTES", (1,))
TENSOR = Port("images", "FP32", (1, 2))
LIKELY = json.dumps({"inputs": [{"name": "images", "shape": [1, 2], "datatype": "FP32"}]}).encode()

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
inputs = st.fixed_dictionaries(
    {"name": st.just("images"), "shape": st.just([1, 2]), "datatype": st.just("FP32")},
    optional={"data": junk, "parameters": junk},
)


@given(
    st.one_of(st.binary(max_size=64), st.binary(max_size=12).map(lambda tail: LIKELY + tail)),
    st.none() | st.integers(-1, 100).map(str) | st.just(str(len(LIKELY))) | st.text(max_size=3),
    st.sampled_from([PICTURE, TENSOR]),
)
def test_any_bytes_are_a_request_or_a_bad_request(body, length, port):
    with suppress(BadRequest):
        read_request(body, length, port, BOX_OUTPUTS)


@given(inputs, st.one_of(st.none(), st.just([]), st.lists(junk, max_size=2)), junk)
def test_any_json_is_a_request_or_a_bad_request(sent, outputs, parameters):
    body = {"inputs": [sent], "outputs": outputs, "parameters": parameters}
    try:
        asked = read_request(json.dumps(body).encode(), None, TENSOR, BOX_OUTPUTS)
    except BadRequest:
        return
    assert asked.value.shape == (1, 2)
    assert asked.value.dtype == np.float32


@given(
    st.integers(0, 5).flatmap(
        lambda rows: st.tuples(
            npst.arrays(np.float32, (rows, 4), elements=st.floats(width=32, allow_nan=False)),
            npst.arrays(np.float32, rows, elements=st.floats(0, 1, width=32)),
            npst.arrays(np.int64, rows),
            st.lists(st.text(max_size=5), min_size=rows, max_size=rows),
        )
    ),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_response_can_be_parsed_again(columns, binary):
    names = [port.name for port in BOX_OUTPUTS]
    asked = InferRequest(b"", {}, dict(zip(names, binary, strict=True)))
    values = dict(zip(names, columns, strict=True))
    body, headers = write_response("m", "int8", asked, values, BOX_OUTPUTS)
    length = int(headers.get(HEADER_LENGTH, len(body)))
    tail = body[length:]
    for output, column in zip(json.loads(body[:length])["outputs"], columns, strict=True):
        assert output["shape"] == list(np.shape(column))
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = output["data"]
            flat = column if isinstance(column, list) else column.ravel().tolist()
            assert data == [None if isinstance(x, float) and np.isinf(x) else x for x in flat]
            continue
        data, tail = tail[:size], tail[size:]
        if isinstance(column, list):
            assert data == b"".join(
                struct.pack("<I", len(text.encode())) + text.encode() for text in column
            )
        else:
            np.testing.assert_array_equal(np.frombuffer(data, column.dtype), column.ravel())
    assert tail == b""


@given(st.binary(max_size=200), st.sampled_from([gzip.compress, zlib.compress]))
def test_compressed_bodies_are_inflated_up_to_the_limit(body, compress):
    packed = compress(body)
    assert b"".join(inflated(packed, "gzip", len(body))) == body
    with pytest.raises(BadRequest):
        list(inflated(packed[:-1], "deflate", 200))
    if body:
        with pytest.raises(PayloadTooLarge):
            list(inflated(packed, "gzip", len(body) - 1))


@given(st.binary(max_size=64))
def test_any_bytes_are_inflated_or_refused(body):
    with suppress(BadRequest, PayloadTooLarge):
        assert sum(map(len, inflated(body, "deflate", 100))) <= 100
