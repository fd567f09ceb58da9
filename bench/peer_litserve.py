"""LitServe around the same detector.

    python bench/peer_litserve.py PORT

MODEL_FOLDER and VARIANT are environment variables.
"""

import os
import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request

from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MOST_PIXELS
from service.vision.postprocess import Query

port, folder, variant = int(sys.argv[1]), Path(os.environ["MODEL_FOLDER"]), os.environ["VARIANT"]


class Detect(litserve.LitAPI):
    """One worker, in a process of its own."""

    def setup(self, device: str) -> None:
        self.detector = Detector.load(folder, read_manifest(folder), variant)

    def decode_request(self, request: Request) -> bytes:
        """LitServe hands the form over, and looks at the annotation to know that it is one."""
        data: bytes = request["file"].file.read()
        return data

    def predict(self, data: bytes) -> Any:
        return self.detector.detect(self.detector.decode(data, MOST_PIXELS), Query())

    def encode_response(self, found: Any) -> dict[str, object]:
        return {"boxes": found.xyxy.tolist(), "scores": found.scores.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Detect(api_path="/detect"), accelerator="cpu")
    server.run(port=port, generate_client_file=False, log_level="warning")
