import asyncio

import pytest

from service.middleware.background import Afterwards, afterwards


def call(app, sent=None):
    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        if sent is not None:
            sent.append(message)

    asyncio.run(Afterwards(app)({"type": "http"}, receive, send))


def test_work_begins_when_the_answer_has_been_sent():
    told = []

    async def app(scope, receive, send):
        async def answer():
            afterwards(lambda: told.append("work"))

        await asyncio.create_task(answer())  # in a task of its own, as an answer is made
        await send("head")
        await send("body")

    call(app, told)
    assert told == ["head", "body", "work"]


def test_a_request_that_fails_ends_too():
    told = []

    async def app(scope, receive, send):
        afterwards(lambda: told.append("work"))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        call(app)
    assert told == ["work"]


def test_outside_a_request_it_begins_at_once():
    told = []
    afterwards(lambda: told.append("work"))
    assert told == ["work"]
