import threading

import pytest

from service.errors import ImageTooLarge
from service.inference.decode_memory import ENOUGH, MIB, DecodeMemory, default_decode_memory
from service.inference.semaphore import Cancelled, Waiter
from service.vision.image import EncodedImage
from tests.service.pictures import png
from tests.waiting import WAIT_LIMIT_S, wait_until


def image() -> EncodedImage:
    return EncodedImage(png(100, 100), 10_000)


def test_the_default_is_a_quarter_of_the_limit_and_no_more_than_is_ever_needed():
    assert default_decode_memory(None) == ENOUGH == 512 * MIB
    assert default_decode_memory(2048) == 512 * MIB
    assert default_decode_memory(512) == 128 * MIB
    assert default_decode_memory(100_000) == ENOUGH


def test_an_image_that_never_fits_is_refused_and_one_that_fits_alone_waits():
    cost = image().cost()
    with (
        pytest.raises(ImageTooLarge, match="100x100"),
        DecodeMemory(cost - 1).reserve(image(), Waiter()),
    ):
        pass
    memory, order, waiter = DecodeMemory(2 * cost - 1), [], Waiter()

    def wait() -> None:
        with memory.reserve(image(), waiter):
            order.append("second")

    with memory.reserve(image(), Waiter()):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: waiter.wanted == cost)
        order.append("first")
    thread.join(WAIT_LIMIT_S)
    assert order == ["first", "second"]


def test_a_cancelled_image_stops_waiting():
    memory, waiter, ended = DecodeMemory(image().cost()), Waiter(), []

    def wait() -> None:
        with pytest.raises(Cancelled), memory.reserve(image(), waiter):
            pass
        ended.append(waiter)

    with memory.reserve(image(), Waiter()):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: waiter.wanted > 0)
        memory.cancel(waiter)
        thread.join(WAIT_LIMIT_S)
        assert ended == [waiter]
