"""A plain FastAPI handler around the detector: `uvicorn bench.peers.fastapi_server:app`.

MAX_WAIT_MS is an environment variable: how long a request to /detect/bounded waits for its turn.
"""

import asyncio
import os
from multiprocessing import current_process
from typing import Any, Final

from fastapi import FastAPI, HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool

from bench.peers.detector import Detector

MAX_WAIT_S: Final = int(os.environ["MAX_WAIT_MS"]) / 1000
AT_ONCE: Final = 2  # one image in the engine while the next is decoded

app = FastAPI()
detector = Detector(int(current_process().name.partition("-")[2] or 0))  # uvicorn numbers workers
turns = asyncio.Semaphore(AT_ONCE)


@app.post("/detect")
def detect(file: UploadFile) -> dict[str, list[Any]]:
    """Runs in a thread of Starlette's pool."""
    return detector.detect(file.file.read())


@app.post("/detect/bounded")
async def detect_bounded(file: UploadFile) -> dict[str, list[Any]]:
    """The same, but a request that has waited for MAX_WAIT_MS gets 429."""
    try:
        await asyncio.wait_for(turns.acquire(), MAX_WAIT_S)
    except TimeoutError:
        raise HTTPException(429, headers={"Retry-After": "1"}) from None
    try:
        return await run_in_threadpool(detector.detect, await file.read())
    finally:
        turns.release()
