"""bytes -> boxes, many requests at a time: a bounded house, a thread pool, one engine thread."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final, TypeVar

from service.answer import Answer
from service.collection import Collection
from service.cpu import usable_threads
from service.detections import Floats
from service.detector import Detector, Query
from service.drawing import PictureType, draw, encode
from service.errors import Overloaded
from service.image import Pixels, decode_image
from service.preprocess import Prepared
from service.timings import Stopwatch
from service.variants import Variants

# Each holds a whole decoded image, and eight decode faster than any engine here infers.
MAX_WORKERS: Final = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A decoded image; its pixels are kept only for drawing, for a queue of them is heavy."""

    width: int
    height: int
    prepared: Prepared
    pixels: Pixels | None


class Pipeline:
    """Answers images; owns the variants.

    Inference has one thread for all variants: two at once would share the processor's cores and
    spoil each other's latency.
    """

    def __init__(
        self,
        variants: Variants,
        capacity: int,
        max_pixels: int,
        observe: Callable[[Answer], None] = lambda answer: None,
        collection: Collection | None = None,
    ) -> None:
        self.variants = variants
        self._capacity = capacity
        self._max_pixels = max_pixels
        self._observe = observe
        self._collection = collection
        self._inside = 0
        self._workers = ThreadPoolExecutor(min(MAX_WORKERS, usable_threads()), "image")
        self._engine = ThreadPoolExecutor(1, "engine")

    async def detect(
        self,
        data: bytes,
        variant: str | None,
        query: Query,
        picture: PictureType | None = None,
        collect: bool = True,
    ) -> Answer:
        """The boxes of one encoded image, and on request the image with its boxes.

        `collect`: whether the image may join the collection, where there is one. Raises
        VariantNotFound, Overloaded, EngineFailed and what `decode_image` raises. Drawing and
        collecting are in none of the timings.
        """
        name, detector = self.variants.get(variant)
        with self._slot():
            clock = Stopwatch()
            drawn = picture is not None
            opened = await self._open(data, detector, clock, keep_pixels=drawn, collect=collect)
            answer = await self._answer(name, detector, opened, query, clock)
            if picture is None or opened.pixels is None:
                return answer
            pixels, media_type = opened.pixels, picture

            def paint() -> bytes:
                name_of = self.variants.manifest.class_name
                return encode(draw(pixels, answer.detections, name_of), media_type)

            return replace(answer, picture=await self._run(self._workers, Stopwatch(), paint))

    async def compare(
        self, data: bytes, a: str | None, b: str | None, query: Query
    ) -> tuple[Answer, Answer]:
        """The boxes of two variants, one after the other on the same input.

        Each answer's timings are those that it would have had alone: the shared stages and its own.
        """
        (name_a, detector_a), (name_b, detector_b) = self.variants.get(a), self.variants.get(b)
        with self._slot():
            clock = Stopwatch()
            # Variants differ in their engines only, so one's input is the other's too.
            opened = await self._open(data, detector_a, clock, keep_pixels=False, collect=False)
            shared = clock.read()
            return (
                await self._answer(name_a, detector_a, opened, query, Stopwatch(shared)),
                await self._answer(name_b, detector_b, opened, query, Stopwatch(shared)),
            )

    def ensure_room(self) -> None:
        """Raise Overloaded when the house is full, so that no upload is read in vain."""
        if self._inside >= self._capacity:
            raise Overloaded(f"{self._capacity} requests are in the house; try again shortly")

    def close(self) -> None:
        """Wait for what runs, then free the engines."""
        self._workers.shutdown()
        self._engine.shutdown()
        self.variants.close()

    @contextmanager
    def _slot(self) -> Iterator[None]:
        self.ensure_room()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def _open(
        self, data: bytes, detector: Detector, clock: Stopwatch, keep_pixels: bool, collect: bool
    ) -> _Opened:
        def work() -> _Opened:
            with clock.stage("decode"):
                pixels = decode_image(data, self._max_pixels)
            with clock.stage("preprocess"):
                prepared = detector.prepare(pixels)
            if self._collection is not None and collect:
                self._collect(self._collection, pixels)
            height, width, _ = pixels.shape
            return _Opened(width, height, prepared, pixels if keep_pixels else None)

        return await self._run(self._workers, clock, work)

    def _collect(self, collection: Collection, pixels: Pixels) -> None:
        """Written when a worker has nothing better to do: no answer waits for it."""
        slot = collection.place()
        if slot is not None:
            self._workers.submit(collection.keep, slot, pixels)

    async def _answer(
        self, name: str, detector: Detector, opened: _Opened, query: Query, clock: Stopwatch
    ) -> Answer:
        def infer() -> Floats:
            with clock.stage("infer"):
                return detector.infer(opened.prepared)

        raw = await self._run(self._engine, clock, infer)

        def finish() -> Answer:
            with clock.stage("postprocess"):
                found = detector.finish(raw, opened.prepared, query)
            return Answer(name, opened.width, opened.height, found, clock.read())

        answer = await self._run(self._workers, clock, finish)
        self._observe(answer)
        return answer

    async def _run(self, pool: Executor, clock: Stopwatch, work: Callable[[], T]) -> T:
        """The work's result; when cancelled, work that has begun takes its caller's slot over."""
        asked = perf_counter()

        def timed() -> T:
            clock.add("queue", perf_counter() - asked)
            return work()

        job = pool.submit(timed)
        done = asyncio.wrap_future(job)
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            if not job.cancel():
                self._inside += 1
                done.add_done_callback(self._leave)
            raise
        return done.result()

    def _leave(self, done: asyncio.Future[T]) -> None:
        self._inside -= 1
        if not done.cancelled():
            done.exception()  # nobody else asks for it, and asyncio would complain
