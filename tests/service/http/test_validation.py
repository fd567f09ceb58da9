"""Bodies with thousands of errors: the response names one, and memory stays small."""

import tracemalloc
import warnings

import pytest

from qyolo.cli.commands import main
from service.errors import BadRequest
from service.http.uploads import JsonUpload
from service.http.validation import validated
from service.protocols.oip.messages import read_request
from service.protocols.oip.tensors import Port
from service.protocols.roboflow import DetectRequest

MANY = 200_000
IMAGES = Port("images", "FP32", (1, 3, 64, 64))
INPUT = '{"name":"images","datatype":"FP32","shape":[1,3,64,64],"data":[0]'


def fields(value: str) -> str:
    return "".join(f',"{number}":{value}' for number in range(MANY))


def infer(body: str) -> None:
    read_request(body.encode(), None, IMAGES, [])


BODIES = {
    "an upload": lambda: validated(JsonUpload, f'{{"image":""{fields("0")}}}'.encode()),
    "parameters": lambda: infer(f'{{"inputs":[{INPUT}}}],"parameters":{{"a":0{fields("[]")}}}}}'),
    "an input": lambda: infer(f'{{"inputs":[{INPUT},"parameters":{{"a":0{fields("0")}}}}}]}}'),
    "outputs": lambda: infer(f'{{"inputs":[{INPUT}}}],"outputs":[{"0," * MANY}0]}}'),
    "class names": lambda: validated(
        DetectRequest, f'{{"model_id":"","image":0,"class_filter":[{"0," * MANY}0]}}'.encode()
    ),
}


@pytest.mark.parametrize("send", BODIES.values(), ids=BODIES)
def test_many_errors_make_one_short_line(send):
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest) as caught:
            send()
        assert tracemalloc.get_traced_memory()[1] < 80 * 2**20  # each error would take 1 KiB
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 200


def test_pillow_s_warnings_are_not_remembered(monkeypatch):
    """Their texts contain numbers of the file, so Python would remember each one forever."""
    monkeypatch.setattr("sys.argv", ["qyolo", "--version"])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit):
            main()
        seen: dict[object, object] = {}
        warnings.warn_explicit("12 of 34 bytes", UserWarning, "x", 1, "PIL.TiffImagePlugin", seen)
        assert not [key for key in seen if key != "version"]
