"""What one writes in a quarter of an hour: FastAPI around the same detector.

    python bench/peer_fastapi.py PORT

MODEL_FOLDER and VARIANT are environment variables.
"""

import os
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, UploadFile

from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MOST_PIXELS
from service.vision.postprocess import Query

port, folder, variant = int(sys.argv[1]), Path(os.environ["MODEL_FOLDER"]), os.environ["VARIANT"]
detector = Detector.load(folder, read_manifest(folder), variant)
app = FastAPI()


@app.post("/detect")
def detect(file: UploadFile) -> dict[str, object]:
    """In a thread of FastAPI's pool."""
    found = detector.detect(detector.decode(file.file.read(), MOST_PIXELS), Query())
    return {"boxes": found.xyxy.tolist(), "scores": found.scores.tolist()}


uvicorn.run(app, port=port, log_level="warning")
