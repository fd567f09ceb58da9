"""bytes -> boxes, many requests at a time: a bounded house, a thread pool, the engine's thread."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Final, TypeVar

from service.afterwards import afterwards
from service.agreement import match
from service.answer import Answer, Comparison, RawAnswer
from service.collection import Collection
from service.cpu import usable_threads
from service.detections import Floats, Ints
from service.detector import Detector, Query
from service.drawing import Panel, PictureType, draw, draw_beside, encode
from service.errors import Overloaded
from service.image import Photo, Pixels, whole
from service.observations import Assigned, Compared, Observation
from service.preprocess import Prepared
from service.shadow import Sampled, Shadow
from service.split import Experiment
from service.timings import Stopwatch
from service.variants import AUTO, Variants

# Each holds a whole decoded image, and eight decode faster than any engine here infers.
MAX_WORKERS: Final = 8

NO_EXPERIMENT: Final = Experiment()

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
    spoil each other's latency. Loaded for throughput, it has one for each stream.
    """

    def __init__(
        self,
        variants: Variants,
        capacity: int,
        max_pixels: int,
        observe: Callable[[Observation], None] = lambda seen: None,
        collection: Collection | None = None,
        experiment: Experiment = NO_EXPERIMENT,
    ) -> None:
        self.variants = variants
        self.experiment = experiment
        self._capacity = capacity
        self._max_pixels = max_pixels
        self._observe = observe
        self._collection = collection
        self._inside = 0
        self._workers = ThreadPoolExecutor(min(MAX_WORKERS, usable_threads()), "image")
        self._engine = ThreadPoolExecutor(variants.streams, "engine")
        sample = experiment.shadow
        self._shadow = (
            None if sample is None else Shadow(sample, variants.get(sample.variant)[1], observe)
        )

    def choose(self, variant: str | None, client: str) -> str:
        """The variant that is named; where none is, the client's own by the split, or the default.

        Raises VariantNotFound.
        """
        split = self.experiment.split
        if split is None or variant not in (None, AUTO):
            return self.variants.get(variant)[0]
        chosen = split.choose(client)
        self._observe(Assigned(chosen))
        return chosen

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
            self._sample(answer, opened.prepared, query)
            if picture is None or opened.pixels is None:
                return answer
            pixels, media_type = opened.pixels, picture

            def paint() -> bytes:
                name_of = self.variants.manifest.class_name
                return encode(draw(pixels, answer.detections, name_of), media_type)

            return replace(answer, picture=await self._run(self._workers, Stopwatch(), paint))

    async def compare(
        self,
        data: bytes,
        a: str | None,
        b: str | None,
        query: Query,
        picture: PictureType | None = None,
    ) -> Comparison:
        """The boxes of two variants, one after the other on the same input.

        Each answer's timings are those that it would have had alone: the shared stages and its own.
        On request both are drawn beside each other.
        """
        (name_a, detector_a), (name_b, detector_b) = self.variants.get(a), self.variants.get(b)
        with self._slot():
            clock = Stopwatch()
            # Variants differ in their engines only, so one's input is the other's too.
            drawn = picture is not None
            opened = await self._open(data, detector_a, clock, keep_pixels=drawn, collect=False)
            shared = clock.read()
            both = Comparison(
                await self._answer(name_a, detector_a, opened, query, Stopwatch(shared)),
                await self._answer(name_b, detector_b, opened, query, Stopwatch(shared)),
            )
            seen = Compared("compare", name_a, name_b, both.a.detections, both.b.detections)
            self._workers.submit(self._observe, seen)  # no answer waits for it
            if picture is None or opened.pixels is None:
                return both
            pixels, media_type = opened.pixels, picture

            def paint() -> bytes:
                name_of = self.variants.manifest.class_name
                return encode(draw_beside(pixels, panels(both), name_of), media_type)

            return replace(both, picture=await self._run(self._workers, Stopwatch(), paint))

    async def infer(self, tensor: Floats, variant: str | None) -> RawAnswer:
        """The raw output of one variant to an input that the caller has prepared.

        Raises VariantNotFound, Overloaded and EngineFailed.
        """
        name, detector = self.variants.get(variant)
        with self._slot():
            clock = Stopwatch()

            def work() -> Floats:
                with clock.stage("infer"):
                    return detector.run(tensor)

            output = await self._run(self._engine, clock, work)
            answer = RawAnswer(name, output, clock.read())
            self._observe(answer)
            return answer

    def ensure_room(self) -> None:
        """Raise Overloaded when the house is full, so that no upload is read in vain."""
        if self._inside >= self._capacity:
            raise Overloaded(f"{self._capacity} requests are in the house; try again shortly")

    def close(self) -> None:
        """Wait for what runs, then free the engines."""
        if self._shadow is not None:
            self._shadow.close()
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
            self._work_off()

    async def _open(
        self, data: bytes, detector: Detector, clock: Stopwatch, keep_pixels: bool, collect: bool
    ) -> _Opened:
        def work() -> _Opened:
            with clock.stage("decode"):
                photo = detector.open(data, self._max_pixels)
            with clock.stage("preprocess"):
                prepared = detector.prepare(photo)
            if self._collection is not None and collect:
                self._collect(self._collection, photo, data)
            pixels = whole(photo, data, self._max_pixels) if keep_pixels else None
            return _Opened(photo.width, photo.height, prepared, pixels)

        return await self._run(self._workers, clock, work)

    def _collect(self, collection: Collection, photo: Photo, data: bytes) -> None:
        """Written when a worker has nothing better to do: no answer waits for it."""
        slot = collection.place()
        if slot is not None:
            self._workers.submit(
                lambda: collection.keep(slot, whole(photo, data, self._max_pixels))
            )

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

    def _sample(self, answer: Answer, prepared: Prepared, query: Query) -> None:
        """Let the shadow see this image too, when its answer has been sent."""
        if self._shadow is None:
            return
        sampled = self._shadow.sample(answer, prepared, query)
        if sampled is not None:
            afterwards(partial(self._shadow_later, self._shadow, sampled))

    def _shadow_later(self, shadow: Shadow, sampled: Sampled) -> None:
        shadow.enqueue(sampled)
        self._work_off()

    def _work_off(self) -> None:
        """The shadow gets the engine while nobody is in the house, and gives way to who comes."""
        if self._shadow is not None and self._is_empty() and self._shadow.waits:
            with suppress(RuntimeError):  # the engine's thread has ended
                self._engine.submit(self._shadow.work_off, self._is_empty)

    def _is_empty(self) -> bool:
        return self._inside == 0

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
        self._work_off()
        if not done.cancelled():
            done.exception()  # nobody else asks for it, and asyncio would complain


def panels(both: Comparison) -> tuple[Panel, Panel]:
    """Both sides of a comparison, to be drawn beside each other."""
    pairs = match(both.a.detections, both.b.detections)
    return (
        _panel(both.a, pairs.only_a, both.b.variant),
        _panel(both.b, pairs.only_b, both.a.variant),
    )


def _panel(answer: Answer, alone: Ints, other: str) -> Panel:
    count = len(answer.detections)
    caption = f"{answer.variant}: {count} {'box' if count == 1 else 'boxes'}"
    if len(alone):
        caption += f", {len(alone)} that {other} does not see"
    return Panel(caption, answer.detections, frozenset(alone.tolist()))
