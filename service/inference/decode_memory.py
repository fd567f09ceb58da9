"""The memory that all images in progress may take together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service.engines.cpu import memory_limit_mib
from service.errors import ImageTooLarge
from service.inference.semaphore import FairSemaphore, Waiter
from service.vision.image import EncodedImage

MIB: Final = 2**20
ENOUGH: Final = 512 * MIB  # for any image of 50 million pixels but some WebP
SHARE: Final = 4  # of the cgroup's memory: the rest is for the engine, uploads and a build


def default_decode_memory(limit_mib: int | None) -> int:
    """Bytes: a quarter of the memory limit, and no more than ENOUGH."""
    return ENOUGH if limit_mib is None else min(ENOUGH, limit_mib * MIB // SHARE)


class DecodeMemory:
    """A budget of bytes, by default from the cgroup's limit; images wait for their part of it."""

    def __init__(self, budget: int = 0) -> None:
        self._budget = budget or default_decode_memory(memory_limit_mib())
        self._free = FairSemaphore(self._budget)

    @contextmanager
    def reserve(self, image: EncodedImage, waiter: Waiter, drawn: bool = False) -> Iterator[None]:
        """Wait until the image fits; raises Cancelled, or ImageTooLarge if it never can."""
        cost = image.cost(drawn)
        if cost > self._budget:
            raise ImageTooLarge(
                f"the image is {image.width}x{image.height}; to decode it takes {cost // MIB} MiB "
                f"of memory, and there are {self._budget // MIB}"
            )
        with self._free.permit(waiter, cost):
            yield

    def cancel(self, waiter: Waiter) -> None:
        """End the waiter's wait."""
        self._free.cancel(waiter)

    def take_back(self, waiter: Waiter) -> None:
        """Give its part to others, though its image may not be freed."""
        self._free.take_back(waiter)
