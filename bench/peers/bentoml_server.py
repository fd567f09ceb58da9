"""BentoML around the detector: `bentoml serve bentoml_server:Detect --port PORT`."""

from pathlib import Path
from typing import Any

import bentoml

from bench.peers.detector import Detector


@bentoml.service(workers=1)
class Detect:
    """One worker."""

    def __init__(self) -> None:
        self.detector = Detector()

    @bentoml.api
    def detect(self, file: Path) -> dict[str, list[Any]]:
        """BentoML stores an upload in a file."""
        return self.detector.detect(file.read_bytes())
