"""bytes -> boxes, many requests at a time: a bounded house, a thread for each, turns to infer."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Final, TypeVar

from service.engines.cpu import usable_threads
from service.experiments.collection import Collection
from service.experiments.events import Compared
from service.experiments.shadow import Sampled, Shadow
from service.experiments.split import Experiment
from service.inference.admission import BaseBackend
from service.inference.detector import Detector
from service.inference.events import Event
from service.inference.results import Answer, Comparison, RawAnswer
from service.inference.semaphore import FairSemaphore, Waiter
from service.inference.timings import Stopwatch
from service.inference.variants import VariantSet
from service.middleware.background import afterwards
from service.vision.agreement import match
from service.vision.detections import Floats, Ints
from service.vision.drawing import Panel, PictureType, draw, draw_side_by_side, encode
from service.vision.image import Photo, Pixels, full_size
from service.vision.postprocess import Query
from service.vision.preprocess import Prepared

# Each holds a whole decoded image, and eight decode faster than any engine here infers.
MAX_DECODE_WORKERS: Final = 8

NO_EXPERIMENT: Final = Experiment()


def decode_workers(threads: int) -> int:
    """Images to decode at a time: more would take from inference what it needs more."""
    return min(MAX_DECODE_WORKERS, max(1, threads // 2))


def room(streams: int, threads: int) -> int:
    """Requests that a house holds unless told otherwise.

    The images that are inferred, as many that are ready for when these are done, and those that are
    decoded. More would only wait, for longer: see bench/saturation.py.
    """
    return 2 * streams + decode_workers(threads)


T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A decoded image; its pixels are kept only for drawing, for a queue of them is heavy."""

    width: int
    height: int
    prepared: Prepared
    pixels: Pixels | None


class Pipeline(BaseBackend[Detector]):
    """Answers images in this process.

    A request keeps its thread from its first byte to its last box: what it has just written is in
    that core's cache. Variants take turns at inference: two at once would share the processor's
    cores and spoil each other's latency. Loaded for throughput, there is a turn for each stream.
    """

    def __init__(
        self,
        variants: VariantSet[Detector],
        capacity: int,
        max_pixels: int,
        observe: Callable[[Event], None] = lambda seen: None,
        collection: Collection | None = None,
        experiment: Experiment = NO_EXPERIMENT,
    ) -> None:
        super().__init__(variants, capacity, observe, experiment)
        self._max_pixels = max_pixels
        self._collection = collection
        at_work = min(capacity, variants.streams + decode_workers(usable_threads()))
        self._workers = ThreadPoolExecutor(at_work, "image")
        self._turns = FairSemaphore(variants.streams)
        sample = experiment.shadow
        self._shadow = (
            None
            if sample is None
            else Shadow(sample, variants.get(sample.variant)[1], self._turns, observe)
        )

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
        clock = Stopwatch()

        def work(guest: Waiter) -> tuple[Answer, Prepared]:
            drawn = picture is not None
            opened = self._open(data, detector, clock, keep_pixels=drawn, collect=collect)
            answer = self._answer(name, detector, opened, query, clock, guest)
            if picture is not None and opened.pixels is not None:
                shown = draw(opened.pixels, answer.detections, self.variants.manifest.class_name)
                answer = replace(answer, picture=encode(shown, picture))
            return answer, opened.prepared

        with self._slot():
            answer, prepared = await self._run(clock, work)
            self._sample(answer, prepared, query)
            return answer

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
        clock = Stopwatch()

        def work(guest: Waiter) -> Comparison:
            # VariantSet[Detector] differ in their engines only, so one's input is the other's too.
            drawn = picture is not None
            opened = self._open(data, detector_a, clock, keep_pixels=drawn, collect=False)
            shared = clock.read()
            both = Comparison(
                self._answer(name_a, detector_a, opened, query, Stopwatch(shared), guest),
                self._answer(name_b, detector_b, opened, query, Stopwatch(shared), guest),
            )
            if picture is not None and opened.pixels is not None:
                name_of = self.variants.manifest.class_name
                shown = draw_side_by_side(opened.pixels, panels(both), name_of)
                both = replace(both, picture=encode(shown, picture))
            return both

        with self._slot():
            both = await self._run(clock, work)
        seen = Compared("compare", name_a, name_b, both.a.detections, both.b.detections)
        self._workers.submit(self._observe, seen)  # no answer waits for it
        return both

    async def infer(self, tensor: Floats, variant: str | None) -> RawAnswer:
        """The raw output of one variant to an input that the caller has prepared.

        Raises VariantNotFound, Overloaded and EngineFailed.
        """
        name, detector = self.variants.get(variant)
        clock = Stopwatch()

        def work(guest: Waiter) -> RawAnswer:
            with self._turn(clock, guest):
                output = detector.infer_tensor(tensor)
            answer = RawAnswer(name, output, clock.read())
            self._observe(answer)
            return answer

        with self._slot():
            return await self._run(clock, work)

    def close(self) -> None:
        """Wait for what runs, then free the engines."""
        if self._shadow is not None:
            self._shadow.close()
        self._workers.shutdown()
        self.variants.close()

    def _open(
        self, data: bytes, detector: Detector, clock: Stopwatch, keep_pixels: bool, collect: bool
    ) -> _Opened:
        with clock.stage("decode"):
            photo = detector.decode(data, self._max_pixels)
        with clock.stage("preprocess"):
            prepared = detector.preprocess(photo)
        if self._collection is not None and collect:
            self._collect(self._collection, photo, data)
        pixels = full_size(photo, data, self._max_pixels) if keep_pixels else None
        return _Opened(photo.width, photo.height, prepared, pixels)

    def _collect(self, collection: Collection, photo: Photo, data: bytes) -> None:
        """Written when a worker has nothing better to do: no answer waits for it."""
        slot = collection.place()
        if slot is not None:
            self._workers.submit(
                lambda: collection.keep(slot, full_size(photo, data, self._max_pixels))
            )

    def _answer(
        self,
        name: str,
        detector: Detector,
        opened: _Opened,
        query: Query,
        clock: Stopwatch,
        guest: Waiter,
    ) -> Answer:
        with self._turn(clock, guest):
            raw = detector.infer(opened.prepared)
        with clock.stage("postprocess"):
            found = detector.postprocess(raw, opened.prepared, query)
        answer = Answer(name, opened.width, opened.height, found, clock.read())
        self._observe(answer)
        return answer

    @contextmanager
    def _turn(self, clock: Stopwatch, guest: Waiter) -> Iterator[None]:
        with ExitStack() as stack:
            with clock.stage("queue"):
                stack.enter_context(self._turns.turn(guest))
            stack.enter_context(clock.stage("infer"))
            yield

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
            with suppress(RuntimeError):  # the workers have ended
                self._workers.submit(self._shadow.work_off, self._is_empty)

    def _is_empty(self) -> bool:
        return self._inside == 0

    async def _run(self, clock: Stopwatch, work: Callable[[Waiter], T]) -> T:
        """The work's result; when cancelled, work that has begun takes its caller's slot over."""
        guest, asked = Waiter(), perf_counter()

        def timed() -> T:
            clock.add("queue", perf_counter() - asked)
            return work(guest)

        job = self._workers.submit(timed)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if not job.cancel():
                self._turns.leave(guest)
                self._inside += 1
                loop = asyncio.get_running_loop()
                job.add_done_callback(lambda _: self._leave_in(loop))
            raise

    def _leave_in(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it the house
            loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        super()._leave()
        self._work_off()


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
