"""BentoML around the same detector; MODEL_FOLDER and VARIANT are environment variables.

bentoml serve peer_bentoml:Detect --port PORT
"""

import os
from pathlib import Path

import bentoml

from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MOST_PIXELS
from service.vision.postprocess import Query


@bentoml.service(workers=1)
class Detect:
    """One worker."""

    def __init__(self) -> None:
        folder = Path(os.environ["MODEL_FOLDER"])
        self.detector = Detector.load(folder, read_manifest(folder), os.environ["VARIANT"])

    @bentoml.api
    def detect(self, file: Path) -> dict[str, list]:  # type: ignore[type-arg]
        """BentoML hands uploads over as files on the disk."""
        found = self.detector.detect(self.detector.decode(file.read_bytes(), MOST_PIXELS), Query())
        return {"boxes": found.xyxy.tolist(), "scores": found.scores.tolist()}
