"""A valid request for each route that takes an image or a tensor: path -> body, headers."""

import base64
import json

from tests.service.pictures import jpeg

_IMAGE = {"type": "base64", "value": base64.b64encode(jpeg()).decode()}
_FORM = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    + jpeg()
    + b"\r\n--x--\r\n"
)
_JPEG = {"Content-Type": "image/jpeg"}
_OIP = {"Inference-Header-Content-Length": "0"}

REQUESTS = {
    "/v1/detect": (jpeg(), _JPEG),
    "/v1/compare": (jpeg(), _JPEG),
    "/v1/vision/detection": (_FORM, {"Content-Type": "multipart/form-data; boundary=x"}),
    "/infer/object_detection": (json.dumps({"model_id": "tiny", "image": _IMAGE}).encode(), {}),
    "/v2/models/tiny-boxes/infer": (jpeg(), _OIP),
    "/v2/models/tiny/infer": (bytes(4 * 3 * 64 * 64), _OIP),
}
