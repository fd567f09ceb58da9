"""A plain FastAPI handler around the detector: `fastapi_server.py PORT`."""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile

from bench.peers.detector import Detector

detector = Detector()
app = FastAPI()


@app.post("/detect")
def detect(file: UploadFile) -> dict[str, list[Any]]:
    """Runs in a thread of Starlette's pool."""
    return detector.detect(file.file.read())


uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
