"""Execute a graph in ONNX Runtime on the CPU, as every build does, whatever its runtime."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import onnx
import onnxruntime as ort

from service.engines.onnxruntime_engine import EXACT_INT8
from service.vision.detections import Floats

# Images that are executed at a time, each by its share of the threads: on two cores that is nearly
# twice as fast as one image on both. More images take more memory: each holds its activations.
AT_ONCE: Final = 2

T = TypeVar("T")


def open_session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A session on the CPU that logs fatal errors only."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry(*EXACT_INT8)
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def over_images(
    model: onnx.ModelProto,
    images: Iterable[Floats],
    threads: int,
    digest: Callable[[int, Floats, list[Floats]], T],
) -> Iterator[T]:
    """`digest(number, image, outputs)` for each image f32[1,3,H,W], in the order of the images.

    Threads execute the graph and `digest` on AT_ONCE images at a time; `images` is read as needed.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    (source,) = (each.name for each in model.graph.input if each.name not in constants)
    return over_feeds(
        model,
        ({source: image} for image in images),
        threads,
        lambda number, feed, outputs: digest(number, feed[source], outputs),
    )


def over_feeds(
    model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, Floats]],
    threads: int,
    digest: Callable[[int, Mapping[str, Floats], list[Floats]], T],
) -> Iterator[T]:
    """The same for a graph with any inputs; a feed has a value for each of them."""
    workers = max(1, min(threads, AT_ONCE))
    session = open_session(model, max(1, threads // workers))
    inputs = [each.name for each in session.get_inputs()]

    def execute(number: int, feed: Mapping[str, Floats]) -> T:
        return digest(number, feed, session.run(None, {name: feed[name] for name in inputs}))

    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for number, feed in enumerate(feeds):
                pending.append(pool.submit(execute, number, feed))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
