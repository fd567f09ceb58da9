"""Scripts that measure qyolo and print Markdown; `--help` of each says what it measures.

Run one from the root of the repository, in the project's environment:

    .venv/bin/python bench/overhead.py --help

The scripts in this folder measure the server:

- `overhead`: what HTTP adds to the engine.
- `servers`: qyolo beside FastAPI, LitServe, BentoML and Triton.
- `capacity`: cost of an image; latency against load, beside a queueing model (`queueing`).
- `saturation`: throughput over HTTP against `benchmark_app`, and overload.
- `loadgen`: two scenarios of MLPerf's LoadGen.
- `cluster`: two Ray replicas against one.
- `start`: time from `qyolo up` to ready.
- `jpeg`: decoders of JPEG by time and AP. `frigate`: its zmq detector beside DeepStack's protocol.

`quantization/` measures accuracy, speed and cost of quantizing; `robustness/` sends tens of
thousands of hostile or good requests. `peers/` are the other servers and quantizers, each in a
pinned environment of its own. All scripts share `serving`, `load` and `command_line`.

Each script is an entry point, and the import of this package comes before that of a runtime: it
turns the runtimes' telemetry off.
"""

from qyolo.process import set_up_process

set_up_process()
