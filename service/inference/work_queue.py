"""How long a request would wait, and which one is next: a queue that time bounds, not a count.

What an image takes is measured where images leave: the seconds since the one before left, or since
this one came if it found the queue empty. Under load that is the interval between two answers, with
all that slows them down: decoding on the same cores, changes of threads, other processes. An image
that found nothing before it had the pipeline to itself, and so took at least its share; it may only
lower an estimate. Each kind of request has an exponentially weighted mean; the first ones weigh as
in a plain mean, so that a slow first image is soon outvoted.

The predicted wait of a request is the work before it. Of the image in progress the part that has
passed is subtracted; once it is late, what it is late by is added, so that the prediction grows
while an engine stands still, and nobody joins a queue that does not move. It is a mean, and waits
vary: one image of the limit is left as a margin.

An image that takes long must not leave the engine idle: two for each one that the engine infers at
a time may be before another one, whatever they take. Before anything has been measured, no more
than these may: an image is taken to last as long as fills the limit with them.

Clients share the queue fairly. The order is start-time fair queueing (Goyal, Vin and Cheng, 1996):
a request starts, in virtual time, when its client's request before it ends, or now if that is past,
and the smallest start is next. Virtual time advances by the work done, divided by the clients that
have any. So a request waits for its own client's work, and of each other client's for no more than
that and one image: this is the work before it. A client alone may fill the queue; when a second one
comes, they take turns, and the first may wait longer than was predicted when it was alone.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, NamedTuple

WEIGHT: Final = 0.1  # of a new measurement; the last ten make up two thirds of the mean
SPARE_CLIENTS: Final = 64  # whose last requests are remembered though none is in progress

Kind = Hashable  # images of one kind take about as long as each other


@dataclass(slots=True, eq=False)
class Place:
    """A request's place in the queue until what `stack` holds is released."""

    client: str
    kind: Kind
    images: int  # that the request has left, this one included
    start: float  # in virtual time; requests are served in this order
    service_s: float  # of an image, as expected
    since: float
    has_begun: bool = True  # False: it waits, and may be overtaken
    ended: float | None = None  # when the work did, which the event loop may learn later
    is_done: bool = False
    stack: ExitStack = field(default_factory=ExitStack)


class Prediction(NamedTuple):
    """Seconds before a request would begin, and the most that it may wait."""

    wait_s: float
    limit_s: float


class WorkQueue:
    """The requests in progress, of which hardly one should wait longer than `max_wait_s`.

    `ready` images may always be before another one. None is no limit.
    """

    def __init__(
        self, max_wait_s: float | None, ready: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_wait_s = float("inf") if max_wait_s is None else max_wait_s
        self._ready = ready
        self._times = _ServiceTimes((max_wait_s or 0.0) / ready)
        self._clock = clock
        self._places: set[Place] = set()
        self._moved = 0.0  # when the work on an image last ended
        self._virtual = 0.0  # seconds that each client has been served, had it always had work
        self._ends: dict[str, float] = {}  # of each client's last request, in virtual time

    def __len__(self) -> int:
        return len(self._places)

    def predict(self, client: str | None = None) -> Prediction:
        """For a further request of the client; without one, behind everything in progress."""
        waiting = [place for place in self._places if place.ended is None]
        if not waiting:
            return Prediction(0.0, self._max_wait_s)
        images, work = 0, defaultdict[str, float](float)
        for place in waiting:
            images += place.images
            work[place.client] += place.images * self._times.of(place.kind)
        image_s = sum(work.values()) / images
        most = float("inf") if client is None else work.get(client, 0.0) + image_s
        before = sum(min(seconds, most) for seconds in work.values())
        ended = (place.ended for place in self._places if place.ended is not None)
        moved = max(self._moved, min(place.since for place in waiting), *ended)
        rest = abs(image_s - (self._clock() - moved))
        limit_s = max(self._max_wait_s - image_s, self._ready * image_s)
        return Prediction(before - image_s + rest, limit_s)

    def service_s(self, kind: Kind) -> float:
        """What an image of this kind is expected to take."""
        return self._times.of(kind)

    def enter(self, client: str, kind: Kind, images: int, start: float | None = None) -> Place:
        """Take a place for the first of several images; for the others pass on its `start`."""
        service_s = self._times.of(kind)
        if start is None:
            start = max(self._virtual, self._ends.get(client, 0.0))
            self._ends[client] = start + images * service_s
        place = Place(client, kind, images, start, service_s, self._clock())
        self._places.add(place)
        return place

    def leave(self, place: Place) -> None:
        """Give the place up; the time is measured if the work is done."""
        clients = {each.client for each in self._places}
        self._places.remove(place)
        ended = self._clock() if place.ended is None else place.ended
        if place.is_done:
            seconds = max(0.0, ended - max(self._moved, place.since))
            self._times.add(place.kind, seconds, self._moved > place.since)
        if place.has_begun:
            self._moved = max(self._moved, ended)
            self._virtual = max(self._virtual + place.service_s / len(clients), place.start)
        if not self._places:
            self._virtual = 0.0
            self._ends.clear()
        elif len(self._ends) > 2 * len(self._places) + SPARE_CLIENTS:
            self._ends = {who: end for who, end in self._ends.items() if end > self._virtual}


@dataclass(slots=True)
class _Mean:
    seconds: float
    count: int = 1

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += max(WEIGHT, 1 / self.count) * (seconds - self.seconds)


class _ServiceTimes:
    """Seconds of an image by kind; a kind that has not been measured is as all the others."""

    def __init__(self, first_s: float) -> None:
        self._first = _Mean(first_s)
        self._all: _Mean | None = None
        self._kinds: dict[Kind, _Mean] = {}

    def of(self, kind: Kind) -> float:
        return (self._kinds.get(kind) or self._all or self._first).seconds

    def add(self, kind: Kind, seconds: float, has_waited: bool) -> None:
        """`has_waited`: others were in progress before it, so that the seconds are its share."""
        self._all = _added(self._all, seconds, has_waited)
        self._kinds[kind] = _added(self._kinds.get(kind), seconds, has_waited)


def _added(mean: _Mean | None, seconds: float, has_waited: bool) -> _Mean:
    if mean is None:
        return _Mean(seconds)
    if has_waited or seconds < mean.seconds:
        mean.add(seconds)
    return mean
