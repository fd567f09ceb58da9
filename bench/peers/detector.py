"""The detector that the other servers wrap; MODEL_FOLDER and VARIANT are environment variables."""

import os
from pathlib import Path
from typing import Any

from service.inference.detector import Detector as QyoloDetector
from service.manifest import read_manifest
from service.vision.image import MAX_PIXELS
from service.vision.postprocess import Query


class Detector:
    """From the bytes of an image to JSON."""

    def __init__(self) -> None:
        folder = Path(os.environ["MODEL_FOLDER"])
        self._detector = QyoloDetector.load(folder, read_manifest(folder), os.environ["VARIANT"])

    def detect(self, data: bytes) -> dict[str, list[Any]]:
        boxes = self._detector.detect(self._detector.decode(data, MAX_PIXELS), Query())
        return {"boxes": boxes.xyxy.tolist(), "scores": boxes.scores.tolist()}
