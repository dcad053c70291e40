"""Answers of agents over HTTP: when the status is sent, what a failure looks like, and what an end leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard.agent.agent import Agent
from modelyard.agent.offer import agent_request
from modelyard.agent.request import DecidedCall
from modelyard.api.openai.chat import agent_choices
from modelyard.api.openai.schema import ChatCompletionRequest
from modelyard.api.serving.agent import respond_agent
from modelyard.config import validate_config
from modelyard.errors import ContextLengthExceeded, InvalidRequest
from modelyard.protocol.deltas import ToolCall
from modelyard.protocol.requests import Submit
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines
from support.scripted_server import HERMES, call
from support.scripted_tools import Gate, add, server_tool

Answer = Callable[[Submit], list[str]]


@asynccontextmanager
async def scripted_yard(folder: Path, answer: Answer) -> AsyncIterator[Yard]:
    write(folder / "m.gguf", tiny_model())
    config = validate_config({"models": [{"model_id": "./m.gguf", "alias": "m"}]}, source="test", base=folder)
    engines = ScriptedEngines(answer=answer, output_format=HERMES)
    yard = Yard(config, engines.make_handle)
    await yard.start()
    try:
        yield yard
    finally:
        await yard.close()
        assert await asyncio.to_thread(engines.end)


class Client:
    """The other end of one request.

    Attributes:
        sent: what it was sent.
        gate: the tool ``calc_gate``.
        closed: whether the connections of the answer were closed.
    """

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._gone = asyncio.Event()
        self._news = asyncio.Condition()
        self.sent: list[dict[str, Any]] = []
        self.gate = Gate()
        self.closed = False

    def leave(self) -> None:
        """Hang up."""
        self._gone.set()

    async def wait_for(self, is_reached: Callable[[], bool]) -> None:
        """Wait until what was sent has ``is_reached`` return true."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(is_reached)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    async def ask(self, *, stream: bool = True, n: int = 1, decided: tuple[DecidedCall, ...] = ()) -> None:
        """Have the request answered."""
        body = ChatCompletionRequest.model_validate({"messages": "Hi", "stream": stream, "n": n})
        agent = Agent()
        tools = [server_tool("add", add), server_tool("gate", self.gate)]
        asked = agent_request(agent, body.checked(), tools, self._yard.config, decided=decided)
        assert asked is not None
        connections = AsyncExitStack()
        connections.callback(self._close)
        response = respond_agent(self._yard, agent, agent_choices(body, asked), stream=stream, connections=connections)
        async with asyncio.timeout(20):
            await response({"type": "http"}, self._receive, self._send)

    def _close(self) -> None:
        self.closed = True

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        async with self._news:
            self.sent.append(message)
            self._news.notify_all()


async def test_a_refusal_comes_before_the_status(tmp_path: Path) -> None:
    def refuse(_submit: Submit) -> list[str]:
        raise InvalidRequest("No.")

    async with scripted_yard(tmp_path, refuse) as yard:
        for stream in (True, False):
            client = Client(yard)
            with pytest.raises(InvalidRequest):
                await client.ask(stream=stream, n=2)
            assert (client.sent, client.closed) == ([], True)


async def test_the_failure_of_a_later_round_is_a_frame(tmp_path: Path) -> None:
    answers = [[call("calc_add", a=1)]]

    def answer(_submit: Submit) -> list[str]:
        if not answers:
            raise ContextLengthExceeded(10, 20)
        return answers.pop(0)

    async with scripted_yard(tmp_path, answer) as yard:
        client = Client(yard)
        await client.ask()
        assert client.sent[0]["status"] == 200
        assert "context_length_exceeded" in client.text
        assert "[DONE]" not in client.text
        assert not client.sent[-1]["more_body"]
        answers.append([call("calc_add", a=1)])
        with pytest.raises(ContextLengthExceeded):
            await Client(yard).ask(stream=False)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_leaves_cancels_its_tools(tmp_path: Path, stream: bool) -> None:
    async with scripted_yard(tmp_path, lambda _: [call("calc_gate"), call("calc_gate")]) as yard:
        client = Client(yard)
        asking = asyncio.create_task(client.ask(stream=stream))
        await client.gate.wait_for(started=2)
        assert not client.closed
        client.leave()
        await asking
        assert (client.gate.cancelled, client.closed) == (2, True)


async def test_a_stream_that_waits_for_an_approved_call_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.api.serving.agent.QUIET_S", 0.01)
    monkeypatch.setattr("modelyard.api.serving.streaming.KEEP_ALIVE_S", 0.01)
    async with scripted_yard(tmp_path, lambda _: ["Done."]) as yard:
        client = Client(yard)
        decided = DecidedCall(ToolCall("c1", "calc_gate", "{}"), is_approved=True)
        asking: Awaitable[None] = asyncio.create_task(client.ask(decided=(decided,)))
        await client.wait_for(lambda: ": keep-alive" in client.text)
        assert client.sent[0]["status"] == 200
        client.gate.open()
        await asking
        frames = [frame for frame in client.text.split("\n\n") if frame.startswith("data")]
        # The first chunk has the role; what happened before the first round follows.
        assert '"role":"assistant"' in frames[0]
        assert ['"phase":"calling"' in frames[1], '"phase":"complete"' in frames[2]] == [True, True]
        assert "Done." in frames[3]


async def test_text_that_has_gathered_is_one_frame(tmp_path: Path) -> None:
    async with scripted_yard(tmp_path, lambda _: ["a"] * 50) as yard:
        client = Client(yard)
        await client.ask()
        assert 1 <= client.text.count('"content":"a') <= 2
