"""Run a graph in ONNX Runtime, the build's own executor whatever engine is built."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import onnx
import onnxruntime as ort

from service.vision.detections import Floats

# Images that are executed at a time, each by its share of the threads: on two cores nearly twice as
# fast as one image by both. More would take more memory: each holds all its activations.
AT_ONCE: Final = 2

T = TypeVar("T")


def open_session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A session on the CPU that keeps its advice to itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def over_images(
    model: onnx.ModelProto,
    images: Iterable[Floats],
    threads: int,
    digest: Callable[[int, Floats, list[Floats]], T],
) -> Iterator[T]:
    """What `digest` makes of each image's number, itself and the graph's outputs, in their order.

    A few images at a time, in threads, where `digest` runs as well; the images are drawn as needed.
    """
    workers = max(1, min(threads, AT_ONCE))
    session = open_session(model, max(1, threads // workers))
    (source,) = session.get_inputs()

    def execute(number: int, image: Floats) -> T:
        return digest(number, image, session.run(None, {source.name: image}))

    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for number, image in enumerate(images):
                pending.append(pool.submit(execute, number, image))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
