"""An answer as it arrives: events go in, text comes out."""

import asyncio

import pytest

from modelyard.errors import EngineError, InvalidRequest, ShuttingDown
from modelyard.protocol.events import Accepted, Cancelled, Failed, Finished, Token
from modelyard.protocol.values import Usage
from modelyard.yard.requests.token_stream import TokenStream

WAIT_S = 20.0
FINISHED = Finished(1, "stop", Usage(5, 2, 0))


async def soon(awaitable):
    async with asyncio.timeout(WAIT_S):
        return await awaitable


def generation(*events):
    generation = TokenStream("a")
    for event in events:
        generation.put(event)
    return generation


async def test_text_that_arrives_between_two_looks_is_one_piece():
    answer = generation(Accepted(1, 5), Token(1, "Hel"), Token(1, "lo"))
    assert await soon(anext(answer)) == "Hello"
    answer.put(Token(1, " world"))
    answer.put(FINISHED)
    assert await soon(anext(answer)) == " world"
    with pytest.raises(StopAsyncIteration):
        await soon(anext(answer))


async def test_a_reader_that_waits_is_woken_by_text_and_by_the_end():
    answer = generation(Accepted(1, 5))
    reading = asyncio.create_task(answer.text())
    await asyncio.sleep(0)
    answer.put(Token(1, "one"))
    await asyncio.sleep(0)
    assert not reading.done()
    answer.put(Token(1, " two"))
    answer.put(FINISHED)
    assert await soon(reading) == "one two"
    assert answer.finished is FINISHED


async def test_an_error_comes_after_the_text_before_it_and_stays():
    error = EngineError("a", "segfault")
    answer = generation(Accepted(1, 5), Token(1, "half"), Failed(1, error))
    assert await soon(anext(answer)) == "half"
    for _ in range(2):
        with pytest.raises(EngineError) as raised:
            await soon(anext(answer))
        assert raised.value is error
    assert answer.finished is None


async def test_the_whole_text_of_a_failed_answer_is_the_error():
    answer = generation(Accepted(1, 5), Token(1, "half"), Failed(1, EngineError("a", "segfault")))
    with pytest.raises(EngineError):
        await soon(answer.text())


async def test_accepted_waits_for_the_prompt_to_be_checked_and_tells_its_length():
    answer = generation()
    accepting = asyncio.create_task(answer.accepted())
    await asyncio.sleep(0)
    assert not accepting.done()
    answer.put(Accepted(1, 5))
    await soon(accepting)
    assert answer.prompt_tokens == 5


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_accepted_raises_the_refusal(is_waiting):
    answer = generation()
    accepting = asyncio.create_task(answer.accepted())
    if is_waiting:
        await asyncio.sleep(0)
    answer.put(Failed(1, InvalidRequest("too odd", "prompt")))
    with pytest.raises(InvalidRequest, match="too odd"):
        await soon(accepting)


async def test_an_accepted_answer_that_failed_since_is_still_read_for_its_text():
    answer = generation(Accepted(1, 5), Token(1, "half"), Failed(1, EngineError("a", "segfault")))
    await soon(answer.accepted())
    assert await soon(anext(answer)) == "half"


async def test_an_answer_that_the_engine_cancelled_says_that_the_server_shuts_down():
    with pytest.raises(ShuttingDown):
        await soon(anext(generation(Accepted(1, 5), Cancelled(1))))


@pytest.mark.parametrize(
    ("events", "is_over"),
    [
        ([], False),
        ([Accepted(1, 5), Token(1, "x")], False),
        ([Accepted(1, 5), FINISHED], True),
        ([Failed(1, ShuttingDown())], True),
        ([Accepted(1, 5), Cancelled(1)], True),
    ],
)
async def test_an_answer_is_over_with_its_last_event(events, is_over):
    assert generation(*events).is_over is is_over


async def test_a_reader_that_gives_up_takes_no_text_with_it():
    answer = generation(Accepted(1, 5))
    reading = asyncio.create_task(anext(answer))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    answer.put(Token(1, "kept"))
    assert await soon(anext(answer)) == "kept"


async def test_a_whole_answer_wakes_its_reader_once():
    answer = generation(Accepted(1, 5))
    looks = []

    async def read():
        text = await answer.text()
        looks.append(text)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    waiting = answer._waiting
    for _ in range(100):
        answer.put(Token(1, "x"))
        await asyncio.sleep(0)
    assert answer._waiting is waiting
    assert not waiting.done()
    answer.put(FINISHED)
    await soon(reading)
    assert looks == ["x" * 100]


async def test_a_reader_is_asked_on_the_spot_and_woken_when_it_says_yes():
    answer = generation(Accepted(1, 5))
    taken = []

    def has_enough():
        taken.append(answer.take_text())
        return len(taken) == 3

    reading = asyncio.create_task(answer.until(has_enough))
    await asyncio.sleep(0)
    answer.put(Token(1, "one"))
    assert taken == ["", "one"]
    answer.add(Token(1, " two"))
    answer.add(Token(1, " three"))
    assert taken == ["", "one"]
    answer.wake()
    answer.wake()
    assert taken == ["", "one", " two three"]
    answer.put(Token(1, "later"))
    await soon(reading)
    assert answer.take_text() == "later"
