"""One scenario of MLPerf's LoadGen against a server; run by bench/loadgen.py in LoadGen's venv.

python loadgen_client.py PORT PATH PICTURE SCENARIO SECONDS RATE FOLDER
"""

import http.client
import json
import queue
import sys
import threading
from pathlib import Path

import mlperf_loadgen as loadgen

CONNECTIONS = 32
BOUND_NS = 100_000_000  # of the server scenario's p99: LoadGen needs one; we print the percentile


def main() -> None:
    port, path, picture, scenario, seconds, rate, folder = sys.argv[1:]
    body = Path(picture).read_bytes()
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    failed: list[int] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", int(port))
        while True:
            sample = waiting.get()
            status = _ask(connection, path, body)
            if status != 200:
                failed.append(status)
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample, 0, 0)])

    for _ in range(CONNECTIONS):
        threading.Thread(target=work, daemon=True).start()

    def issue(samples: list[loadgen.QuerySample]) -> None:
        for sample in samples:
            waiting.put(sample.id)

    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(float(seconds) * 1000)
    settings.min_query_count = 100
    settings.server_target_qps = float(rate)
    settings.server_target_latency_ns = BOUND_NS
    settings.single_stream_expected_latency_ns = 20_000_000
    output = loadgen.LogOutputSettings()
    output.outdir = folder
    logs = loadgen.LogSettings()
    logs.log_output = output
    system = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(1, 1, lambda samples: None, lambda samples: None)
    loadgen.StartTestWithLogSettings(system, library, settings, logs)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
    print(json.dumps({"failed": len(failed)}))


def _ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
    """The status; opens the connection again if the server has closed it because it was idle."""
    for last in (False, True):
        try:
            connection.request("POST", path, body, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            if last:
                raise
    raise AssertionError


if __name__ == "__main__":
    main()
