"""The detector that the other servers wrap.

MODEL_FOLDER, VARIANT and WORKERS, the processes that have one, are environment variables.
"""

import os
from pathlib import Path
from typing import Any

from service.inference.detector import Detector as QyoloDetector
from service.manifest import read_manifest
from service.vision.detections import Detections
from service.vision.image import MAX_PIXELS
from service.vision.postprocess import Query


class Detector:
    """From the bytes of an image to boxes."""

    def __init__(self, worker: int = 0) -> None:
        """`worker` is the number of this process, from 0: it takes its share of the cores.

        OpenVINO pins its threads, and would pin those of every process to the same cores.
        """
        cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ["WORKERS"])
        os.sched_setaffinity(0, cores[worker % workers :: workers])
        folder = Path(os.environ["MODEL_FOLDER"])
        self._detector = QyoloDetector.load(folder, read_manifest(folder), os.environ["VARIANT"])

    def boxes(self, data: bytes) -> Detections:
        """As arrays."""
        return self._detector.detect(self._detector.decode(data, MAX_PIXELS), Query())

    def detect(self, data: bytes) -> dict[str, list[Any]]:
        """As JSON."""
        boxes = self.boxes(data)
        return {"boxes": boxes.xyxy.tolist(), "scores": boxes.scores.tolist()}
