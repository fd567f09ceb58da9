"""The backend of one process: bytes -> boxes, many requests at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from time import monotonic, perf_counter
from typing import Final, TypeVar

import numpy as np

from service.engines.cpu import usable_threads
from service.experiments.collection import Collection
from service.experiments.events import Compared
from service.experiments.shadow import Sampled, Shadow
from service.experiments.split import Experiment, Sample
from service.inference.admission import Admission, decode_workers
from service.inference.backend import ImageRequest
from service.inference.decode_memory import DecodeMemory
from service.inference.detector import Detector
from service.inference.results import Answer, Comparison, Event, RawAnswer
from service.inference.semaphore import Waiter
from service.inference.supervision import EngineLimits, SupervisedEngines
from service.inference.timings import Stopwatch
from service.inference.variants import VariantChoice, VariantSet
from service.inference.work_queue import Kind
from service.inference.workers import Workers
from service.vision.detections import Detections, Floats
from service.vision.image import EncodedImage, Photo, Pixels, full_size
from service.vision.postprocess import Query
from service.vision.preprocess import Prepared

NO_EXPERIMENT: Final = Experiment()
LIMITS: Final = EngineLimits()

T = TypeVar("T")


def workers_for(admission: Admission, streams: int, decode_memory: int = 0) -> Workers:
    """Threads for what is admitted, of which `streams` may run an engine at a time.

    `decode_memory`: bytes for images in progress; 0 takes a part of the cgroup's limit.
    """
    threads = streams + decode_workers(usable_threads())
    if admission.capacity is not None:
        threads = min(threads, admission.capacity)
    return Workers(threads, streams, DecodeMemory(decode_memory))


class Pipeline:
    """Implements `InferenceBackend` with the engines of this process.

    A request keeps one thread from decoding to rendering, so that what it has just written is in
    the cache of that core. All variants, and all models whose pipelines have the same `workers`,
    share the permits to infer: two engines at once would compete for the cores, and a comparison
    would measure that instead.
    """

    def __init__(
        self,
        variants: VariantSet[Detector],
        admission: Admission,
        max_pixels: int,
        emit: Callable[[Event], None] = lambda event: None,
        collection: Collection | None = None,
        experiment: Experiment = NO_EXPERIMENT,
        workers: Workers | None = None,
        limits: EngineLimits = LIMITS,
    ) -> None:
        """`workers`: the threads that it shares with other pipelines; None: its own."""
        self.variants = variants
        self.admission = admission
        self._max_pixels = max_pixels
        self._emit = emit
        self._collection = collection
        self._workers = workers or workers_for(admission, variants.streams)
        self._workers.join()
        self._engines = SupervisedEngines(variants, self._workers, limits, emit)
        self.choice = VariantChoice(variants, experiment, emit, self._engines.failures)
        self._shadow = None if experiment.shadow is None else self._open_shadow(experiment.shadow)

    async def detect(self, image: ImageRequest, variant: str) -> Answer:
        detector, clock = self._engines.require(variant), Stopwatch()

        def work(waiter: Waiter) -> Answer:
            with self._decoded(image, detector, clock, waiter) as (prepared, pixels):
                answer = self._answer(variant, prepared, image.query, clock, waiter)
                picture = _rendered(image, pixels, [answer])
            sampled = Sampled(variant, answer.detections, prepared, image.query)
            after = None if self._shadow is None else self._shadow.sample(sampled)
            answer = replace(answer, picture=picture, after_response=after)
            self._emit(answer)
            return answer

        return await self._run(self._kind(image, variant), work, clock)

    async def compare(self, image: ImageRequest, a: str, b: str) -> Comparison:
        detector, clock = self._engines.require(a), Stopwatch()
        self._engines.require(b)

        def work(waiter: Waiter) -> Comparison:
            # The variants of a model differ only in their engines: both get the same input.
            compared = replace(image, collect=False)
            with self._decoded(compared, detector, clock, waiter) as (prepared, pixels):
                shared = clock.read()
                answers = []
                for variant in (a, b):
                    own = clock.resume(shared)
                    answers.append(self._answer(variant, prepared, image.query, own, waiter))
                    self._emit(answers[-1])
                return Comparison(answers[0], answers[1], _rendered(image, pixels, answers))

        both = await self._run(self._kind(image, a, b), work, clock)
        compared = Compared("compare", a, b, both.a.detections, both.b.detections)
        self._workers.submit(lambda: self._emit(compared))
        return both

    async def infer(self, tensor: Floats, variant: str) -> RawAnswer:
        self._engines.require(variant)
        clock = Stopwatch()

        def work(waiter: Waiter) -> RawAnswer:
            output = self._engines.infer(
                variant, lambda detector: detector.infer_tensor(tensor), waiter, clock, False
            )
            answer = RawAnswer(variant, output, clock.read())
            self._emit(answer)
            return answer

        return await self._run(("tensor", self.variants.manifest.name, variant), work, clock)

    def examine(self, data: bytes, query: Query, variant: str | None = None) -> Detections:
        variant = variant or self.variants.manifest.default
        detector, waiter, clock = self._engines.require(variant), Waiter(), Stopwatch()
        encoded = detector.read_header(data, self._max_pixels)
        with self._workers.memory(encoded, False, waiter, clock):
            prepared = detector.preprocess(encoded.decode())
        raw = self._engines.infer(variant, lambda each: each.infer(prepared), waiter, clock)
        return detector.postprocess(raw, prepared, query)

    def failures(self) -> Mapping[str, str]:
        return self._engines.failures()

    def when_lost(self, call: Callable[[str], None]) -> None:
        self._engines.lost = call

    def close(self, timeout_s: float | None = None) -> bool:
        began = monotonic()
        if self._shadow is not None:
            self._shadow.close()
            self.admission.on_idle.discard(self._shadow.resume)
        self._engines.close()
        has_ended = self._workers.leave(timeout_s)
        left_s = None if timeout_s is None else max(0.0, timeout_s - (monotonic() - began))
        if has_ended := self._engines.drain(left_s) and has_ended:  # else an engine may still run
            self.variants.close()
        return has_ended

    def _kind(self, image: ImageRequest, *variants: str) -> Kind:
        """What decides how long an image takes and is known before it is decoded."""
        encoded = len(image.data) if isinstance(image.data, bytes) else 0
        name = self.variants.manifest.name
        return name, variants, image.render is not None, encoded.bit_length()

    async def _run(self, kind: Kind, work: Callable[[Waiter], T], clock: Stopwatch) -> T:
        with self.admission.slot(kind) as place:
            return await self._workers.run(work, clock, place)

    @contextmanager
    def _decoded(
        self, image: ImageRequest, detector: Detector, clock: Stopwatch, waiter: Waiter
    ) -> Iterator[tuple[Prepared, Pixels | None]]:
        """The input of an engine, and the source pixels if they are to be rendered.

        The memory is held until the photo is resized, or rendered.
        """
        data, drawn = image.data, image.render is not None
        if isinstance(data, np.ndarray):
            with clock.stage("preprocess"):
                prepared = detector.preprocess(Photo.from_pixels(data))
            self._collect(image)
            yield prepared, data if drawn else None
            return
        began = perf_counter()
        encoded = detector.read_header(data, self._max_pixels)
        header_s = perf_counter() - began
        with ExitStack() as memory:
            memory.enter_context(self._workers.memory(encoded, drawn, waiter, clock))
            began = perf_counter()
            photo = encoded.decode()
            clock.add("decode", header_s + perf_counter() - began)
            with clock.stage("preprocess"):
                prepared = detector.preprocess(photo)
            pixels = full_size(photo, data, self._max_pixels) if drawn else None
            del photo
            if pixels is None:
                memory.close()
            self._collect(image)
            yield prepared, pixels

    def _collect(self, image: ImageRequest) -> None:
        collection, data = self._collection, image.data
        if collection is None or not image.collect or (index := collection.reserve()) is None:
            return

        def keep() -> None:
            """Decodes again: a photo that waits for its turn would hold memory."""
            if isinstance(data, np.ndarray):
                collection.keep(index, data)
                return
            encoded = EncodedImage(data, self._max_pixels)
            with self._workers.memory(encoded, False, Waiter(), Stopwatch()):
                collection.keep(index, encoded.decode().pixels)

        self._workers.submit(keep)

    def _answer(
        self, variant: str, prepared: Prepared, query: Query, clock: Stopwatch, waiter: Waiter
    ) -> Answer:
        detector = self.variants.get(variant)
        raw = self._engines.infer(variant, lambda each: each.infer(prepared), waiter, clock)
        with clock.stage("postprocess"):
            detections = detector.postprocess(raw, prepared, query)
        source = prepared.letterbox
        return Answer(variant, source.source_width, source.source_height, detections, clock.read())

    def _open_shadow(self, sample: Sample) -> Shadow:
        detector = self.variants.get(sample.variant)

        def detect(prepared: Prepared, query: Query) -> Detections:
            raw = self._engines.infer(
                sample.variant, lambda each: each.infer(prepared), Waiter(), Stopwatch()
            )
            return detector.postprocess(raw, prepared, query)

        admission = self.admission
        shadow = Shadow(sample, detect, self._emit, lambda: admission.is_idle, self._workers.submit)
        admission.on_idle.add(shadow.resume)
        return shadow


def _rendered(
    image: ImageRequest, pixels: Pixels | None, answers: Sequence[Answer]
) -> bytes | None:
    return None if image.render is None or pixels is None else image.render(pixels, answers)
