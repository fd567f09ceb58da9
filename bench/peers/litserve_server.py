"""LitServe around the detector: `litserve_server.py PORT`."""

import sys

import litserve
from fastapi import Request

from bench.peers.detector import Detector


class Detect(litserve.LitAPI):
    """One worker, in a process of its own."""

    def setup(self, device: str) -> None:
        self.detector = Detector()

    def decode_request(self, request: Request) -> bytes:
        """LitServe passes a parsed form, because of this annotation."""
        data: bytes = request["file"].file.read()
        return data

    def predict(self, data: bytes) -> dict[str, object]:
        return self.detector.detect(data)

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Detect(api_path="/detect"), accelerator="cpu")
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
