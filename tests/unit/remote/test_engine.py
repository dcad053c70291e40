"""An engine whose model other servers have, on servers that answer, fail, hang and break off as the tests say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from modelyard.errors import (
    ModelyardError,
    RemoteFailed,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnavailable,
    UnsupportedOperation,
)
from modelyard.protocol.delta_text import MARKED
from modelyard.protocol.events import (
    Accepted,
    Cancelled,
    Embedded,
    Event,
    Failed,
    Finished,
    Loaded,
    Ranked,
    Returned,
    Stopped,
    Token,
)
from modelyard.protocol.forwarding import Forwarding
from modelyard.protocol.messages import Message
from modelyard.protocol.prompts import Chat, Text
from modelyard.protocol.requests import Cancel, Embed, Rank, Stop, Submit, Tokenize
from modelyard.protocol.values import SequenceId, Usage
from modelyard.remote.addresses import Address, choose
from modelyard.remote.bodies import conversation_key
from modelyard.remote.engine import RemoteEngine, remote_engine
from modelyard.remote.settings import RemoteSettings
from support.odd_server import free_port
from support.scripted_remote import (
    USAGE,
    WAIT_S,
    Answering,
    breaks,
    chunk,
    hangs,
    refuses,
    says,
    scripted_remote,
    sends,
)

ONE = SequenceId(1)


class Stage:
    """An engine, and what it has published."""

    def __init__(self) -> None:
        self.engine: RemoteEngine
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def publish(self, events: Sequence[Event]) -> None:
        self.events += events
        self._news.set()

    async def until(self, is_reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not is_reached():
                self._news.clear()
                await self._news.wait()

    async def ending(self, message: Message) -> Event:
        """Send a request, and return its last event."""
        self.engine.send(message)
        sequence = message.sequence  # type: ignore[union-attr]
        endings = (Finished, Failed, Cancelled, Returned, Embedded, Ranked)

        def found() -> list[Event]:
            return [each for each in self.events if isinstance(each, endings) and each.sequence == sequence]

        await self.until(lambda: bool(found()))
        return found()[0]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Token))


@contextlib.asynccontextmanager
async def staged(*urls: str, timeout_s: float = WAIT_S, api_key: str = "") -> AsyncIterator[Stage]:
    stage = Stage()
    settings = RemoteSettings("big", urls, "their-name", api_key, timeout_s)
    stage.engine = await remote_engine(settings, stage.publish)
    stage.engine.start()
    assert isinstance(stage.events[0], Loaded)
    yield stage
    stage.engine.send(Stop())
    await stage.until(lambda: isinstance(stage.events[-1], Stopped))
    assert stage.engine.join(0)


def hello(number: int = 1, **fields: Any) -> Submit:
    return Submit(SequenceId(number), Chat(({"role": "user", "content": "Hello"},)), **fields)


def session_for(url: str, *urls: str) -> str:
    """A session whose requests go to ``url`` first."""
    return next(
        session
        for session in map(str, range(1000))
        if choose([Address(each) for each in urls], conversation_key(hello(), session), 0.0) == Address(url)
    )


def error_of(event: Event) -> ModelyardError:
    assert isinstance(event, Failed)
    return event.error


async def test_a_chat_is_asked_for_and_passed_on_as_it_arrives() -> None:
    more = asyncio.Event()

    async def script(answering: Answering) -> None:
        await answering.head()
        await answering.event(chunk("Hello"))
        await more.wait()
        await answering.event(chunk(" world", "stop"))
        await answering.event(USAGE)
        await answering.event("[DONE]")
        await answering.end()

    async with scripted_remote(script) as remote, staged(remote.url, api_key="sk-secret") as stage:
        stage.engine.send(hello(max_tokens=9, forwarding=Forwarding(("aa", "bb"), "my-session", "my-request")))
        await stage.until(lambda: stage.text == "Hello")
        more.set()
        await stage.until(lambda: isinstance(stage.events[-1], Finished))
        assert stage.text == "Hello world"
        assert [event for event in stage.events if isinstance(event, Accepted)] == [Accepted(ONE, 0, MARKED)]
        assert stage.events[-1] == Finished(ONE, "stop", Usage(7, 2, 0))
        asked = remote.asked[0]
        assert asked.path == "/v1/chat/completions"
        assert asked.body == {
            "model": "their-name",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 9,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert asked.headers["authorization"] == "Bearer sk-secret"
        assert asked.headers["x-modelyard-hops"] == "aa,bb"
        assert asked.headers["x-session-id"] == "my-session"
        assert asked.headers["x-request-id"] == "my-request"


async def test_connections_are_used_again() -> None:
    async with scripted_remote(says("a")) as remote, staged(remote.url) as stage:
        for number in range(1, 6):
            await stage.ending(hello(number))
        # One of them was opened by the probe of the start.
        assert remote.connections <= 2


async def test_an_answer_without_usage_counts_no_tokens() -> None:
    async with scripted_remote(says("a", "b", has_usage=False)) as remote, staged(remote.url) as stage:
        assert await stage.ending(hello()) == Finished(ONE, "stop", Usage(0, 0, 0))


async def test_a_server_that_does_not_stream_is_read_whole() -> None:
    answer = {"choices": [{"message": {"content": "Whole"}, "finish_reason": "length"}], "usage": USAGE["usage"]}
    async with scripted_remote(refuses(200, answer)) as remote, staged(remote.url) as stage:
        assert await stage.ending(hello()) == Finished(ONE, "length", Usage(7, 2, 0))
        assert stage.text == "Whole"


async def test_a_text_completion_has_no_marks() -> None:
    events = ({"choices": [{"text": "a\x10b", "finish_reason": "length"}]}, "[DONE]")
    async with scripted_remote(sends(*events)) as remote, staged(remote.url) as stage:
        await stage.ending(Submit(ONE, Text("Once")))
        assert stage.text == "a\x10b"
        assert remote.asked[0].path == "/v1/completions"


async def test_vectors_and_scores_are_asked_for() -> None:
    vectors = {
        "data": [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}],
        "usage": {"prompt_tokens": 5},
    }
    scores = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
    async with scripted_remote(refuses(200, vectors), refuses(200, scores)) as remote, staged(remote.url) as stage:
        embedded = await stage.ending(Embed(ONE, (Text("a"), Text("b"))))
        assert isinstance(embedded, Embedded)
        assert embedded.vectors.tolist() == [[1, 0], [0, 1]]
        assert embedded.prompt_tokens == 5
        ranked = await stage.ending(Rank(SequenceId(2), "q", ("x", "y")))
        assert isinstance(ranked, Ranked)
        assert ranked.scores.round(3).tolist() == [pytest.approx(0.1), pytest.approx(0.9)]
        assert [asked.path for asked in remote.asked] == ["/v1/embeddings", "/v1/rerank"]


async def test_tokens_are_not_known_here() -> None:
    async with scripted_remote(says("a")) as remote, staged(remote.url) as stage:
        stage.engine.send(Tokenize(ONE, Text("a")))
        assert isinstance(error_of(stage.events[-1]), UnsupportedOperation)


# What the server refuses


async def test_a_refusal_has_the_servers_own_words_status_and_code() -> None:
    refusal = {"error": {"message": "Too long.", "code": "context_length_exceeded", "param": "messages"}}
    async with scripted_remote(refuses(400, refusal), says("never")) as remote, staged(remote.url) as stage:
        error = error_of(await stage.ending(hello()))
        assert isinstance(error, RemoteRefused)
        assert str(error) == "The server of 'big' refuses the request: Too long."
        assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")


async def test_a_limit_of_the_server_is_passed_on_with_its_time() -> None:
    limit = refuses(429, {"error": "slow down"}, retry_after="7")
    async with scripted_remote(limit) as remote, staged(remote.url) as stage:
        error = error_of(await stage.ending(hello()))
        assert (error.status, error.retry_after_s, error.type) == (429, 7, "rate_limit_error")
        # The next request is sent all the same: only the server knows its limits.
        await stage.ending(hello(2))
        assert len(remote.asked) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "Check api_key_env"),
        (404, "Check the address in remote, and remote_model"),
        (307, "Write the final address in remote"),
        (500, "overheated (status 500)"),
    ],
)
async def test_a_fault_of_the_server_is_no_fault_of_the_client(status: int, words: str) -> None:
    fault = refuses(status, {"error": {"message": "overheated"}}, location="http://127.0.0.1:1/")
    async with scripted_remote(fault) as remote, staged(remote.url, api_key="sk-secret") as stage:
        error = error_of(await stage.ending(hello()))
        assert isinstance(error, RemoteFailed)
        assert words in str(error)
        assert "sk-secret" not in str(error)


@pytest.mark.parametrize(
    "script",
    [
        refuses(200, b"<html>Welcome</html>"),
        refuses(200, ["no", "object"]),
        refuses(200, {"hello": "world"}),
        sends("{not json"),
        sends(chunk("cut")),
        sends("[DONE]"),
        sends(),
        sends({"error": {"message": "boom"}}),
        breaks(),
    ],
)
async def test_what_is_no_answer_is_an_error(script: Any) -> None:
    async with scripted_remote(script) as remote, staged(remote.url) as stage:
        error = error_of(await stage.ending(hello()))
        assert isinstance(error, RemoteFailed)


async def test_an_error_in_a_stream_has_the_servers_words() -> None:
    event = {"error": {"message": "No.", "type": "invalid_request_error", "code": "bad_tool"}}
    async with scripted_remote(sends(event)) as remote, staged(remote.url) as stage:
        error = error_of(await stage.ending(hello()))
        assert (error.status, error.code) == (400, "bad_tool")


async def test_a_silent_server_is_not_waited_for_longer_than_allowed() -> None:
    async with scripted_remote(hangs) as remote, staged(remote.url, timeout_s=0.05) as stage:
        error = error_of(await stage.ending(hello()))
        assert isinstance(error, RemoteTimeout)


# Several servers


async def test_another_server_answers_where_one_cannot_be_reached() -> None:
    with free_port() as port:
        dead_url = f"http://127.0.0.1:{port}/v1"
        async with scripted_remote(says("ok")) as remote, staged(dead_url, remote.url) as stage:
            forwarding = Forwarding(session=session_for(dead_url, dead_url, remote.url))
            endings = [await stage.ending(hello(number, forwarding=forwarding)) for number in range(1, 4)]
            assert all(isinstance(ending, Finished) for ending in endings)
            dead, alive = stage.engine.status()
            assert (dead.is_up, alive.is_up) == (False, True)
            assert dead.problem
            assert dead.retry_in_s is not None


@pytest.mark.parametrize("fault", [refuses(500, {}), refuses(503, {}), breaks(), sends(chunk(role="assistant")), hangs])
async def test_another_server_answers_where_one_fails_before_its_first_text(fault: Any) -> None:
    async with (
        scripted_remote(fault) as first,
        scripted_remote(says("ok")) as second,
        staged(first.url, second.url, timeout_s=0.2) as stage,
    ):
        for number in range(1, 6):
            session = session_for(first.url, first.url, second.url)
            ending = await stage.ending(hello(number, forwarding=Forwarding(session=session)))
            assert isinstance(ending, Finished)
        assert stage.text == "ok" * 5
        assert first.asked
        accepted = [event.sequence for event in stage.events if isinstance(event, Accepted)]
        assert accepted == [1, 2, 3, 4, 5]


async def test_an_answer_that_breaks_in_the_middle_ends_with_an_error() -> None:
    async with (
        scripted_remote(breaks("Half an")) as first,
        scripted_remote(breaks("Half an")) as second,
        staged(first.url, second.url) as stage,
    ):
        ending = await stage.ending(hello())
        assert isinstance(ending, Failed)
        assert "the connection broke before the answer was complete" in str(ending.error)
        # The piece that arrived counts, although no usage did.
        assert ending.usage == Usage(0, 1, 0)
        assert len(first.asked) + len(second.asked) == 1


async def test_requests_of_a_conversation_go_to_the_same_server() -> None:
    async with (
        scripted_remote(says("a")) as first,
        scripted_remote(says("b")) as second,
        staged(first.url, second.url) as stage,
    ):
        for number in range(1, 7):
            await stage.ending(hello(number, forwarding=Forwarding(session="s")))
        assert sorted([len(first.asked), len(second.asked)]) == [0, 6]


async def test_a_server_that_answers_again_gets_requests_again() -> None:
    async with scripted_remote(breaks(), breaks(), says("back")) as remote, staged(remote.url) as stage:
        remote.answers_probes = False
        assert isinstance(error_of(await stage.ending(hello())), RemoteFailed)
        error = error_of(await stage.ending(hello(2)))
        assert isinstance(error, RemoteUnavailable)
        assert error.retry_after_s >= 1
        remote.probed.clear()
        remote.answers_probes = True
        await asyncio.wait_for(remote.probed.wait(), WAIT_S)
        # The answer to the probe is under way.
        endings = [await stage.ending(hello(number)) for number in range(3, 30)]
        assert isinstance(endings[-1], Finished)


# The end


async def test_a_cancelled_request_leaves_its_server() -> None:
    async def script(answering: Answering) -> None:
        await answering.head()
        await answering.event(chunk("endless"))
        while True:
            await answering.event(chunk("."))
            await asyncio.sleep(0.01)

    async with scripted_remote(script) as remote, staged(remote.url) as stage:
        stage.engine.send(hello())
        await stage.until(lambda: "endless" in stage.text)
        stage.engine.send(Cancel(ONE))
        await stage.until(lambda: isinstance(stage.events[-1], Cancelled))
        assert stage.events[-1].usage is not None  # type: ignore[union-attr]
        assert stage.engine.status()[0].running == 0


async def test_a_request_that_is_cancelled_at_once_ends() -> None:
    async with scripted_remote(says("a")) as remote, staged(remote.url) as stage:
        stage.engine.send(hello())
        stage.engine.send(Cancel(ONE))
        await stage.until(lambda: Cancelled(ONE, None) in stage.events)


async def test_a_suspension_takes_back_what_has_not_begun_and_waits_for_the_rest() -> None:
    go_on = asyncio.Event()

    async def slow(answering: Answering) -> None:
        await answering.head()
        await answering.event(chunk("begun"))
        await go_on.wait()
        await answering.event(chunk("", "stop"))
        await answering.end()

    async with scripted_remote(slow, hangs) as remote:
        stage = Stage()
        stage.engine = await remote_engine(RemoteSettings("big", (remote.url,), "m"), stage.publish)
        stage.engine.start()
        stage.engine.send(hello())
        await stage.until(lambda: stage.text == "begun")
        stage.engine.send(hello(2))
        stage.engine.send(Stop(suspend=True))
        await stage.until(lambda: Returned(SequenceId(2)) in stage.events)
        assert not stage.engine.join(0)
        go_on.set()
        await stage.until(lambda: isinstance(stage.events[-1], Stopped))
        assert Finished(ONE, "stop", Usage(0, 0, 0)) in stage.events
        assert stage.engine.join(0)


def test_the_key_is_in_no_representation() -> None:
    settings = RemoteSettings("big", ("http://h/v1",), "m", "sk-secret")
    assert "sk-secret" not in repr(settings)
