"""Streams under the application: who wakes for a token, who waits for a slow client, what a leaving client ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from modelyard.api.app import create_app
from modelyard.api.serving import streaming
from modelyard.api.serving.streaming import while_connected
from modelyard.config import validate_config
from modelyard.protocol.events import Token
from modelyard.protocol.requests import Cancel, Submit
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngine, ScriptedEngines

WAIT_S = 20.0


async def eventually(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_true():  # noqa: ASYNC110 (what is waited for knows of no event)
            await asyncio.sleep(0.001)


class Client:
    """One streamed chat, under no server. It reads all that it is sent, unless ``reads`` is cleared."""

    def __init__(self, app: FastAPI) -> None:
        self.status: int | None = None
        self.frames: list[str] = []
        self.is_complete = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.failure: Exception | None = None
        self._left = asyncio.Event()
        body = {"messages": "Hi", "stream": True}
        self._body: bytes | None = json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        self.task = asyncio.create_task(self._ask(app(scope, self._receive, self._send)))

    @property
    def texts(self) -> list[str]:
        """The content of every frame that has any."""
        frames = (json.loads(frame.removeprefix("data: ")) for frame in self.frames if frame.startswith("data: {"))
        contents = (frame["choices"][0]["delta"].get("content") for frame in frames)
        return [content for content in contents if content]

    def leave(self) -> None:
        self._left.set()

    async def _ask(self, answer: Awaitable[None]) -> None:
        await answer

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        if self.failure is not None:
            raise self.failure
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.frames += [frame for frame in message["body"].decode().split("\n\n") if frame]
        self.is_complete = not message["more_body"]


class Stage:
    """The application on a yard with one scripted model."""

    def __init__(self, yard: Yard, engine: ScriptedEngine) -> None:
        self.yard, self.engine = yard, engine
        self.app = create_app(yard)
        self.clients: list[Client] = []

    async def streams(self, number: int) -> list[Client]:
        """So many clients, who have been told their role."""
        clients = [Client(self.app) for _ in range(number)]
        self.clients += clients
        await eventually(lambda: self.running() == len(self.clients))
        submits = await asyncio.to_thread(self.engine.heard, Submit, len(self.clients))
        assert len(submits) == len(self.clients)
        await eventually(lambda: all(client.frames for client in clients))
        return clients

    def running(self) -> int:
        (model,) = self.yard.controller.state.models.values()
        return len(model.leases)

    async def step(self, *texts: str) -> None:
        """One step of the engine, in which every sequence says ``texts``, until the event loop turns."""
        self.receive(*texts)
        await asyncio.sleep(0)

    def receive(self, *texts: str) -> None:
        """What the event loop is called for with a step."""
        (model,) = self.yard.controller.state.models.values()
        batch = [Token(sequence, text) for text in texts for sequence in model.leases]
        self.yard.controller._receive("a", batch)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    write(tmp_path / "tiny.gguf", tiny_model())
    model = {"model_id": "./tiny.gguf", "alias": "a"}
    config = validate_config({"models": [model]}, source="test", base=tmp_path)
    engines = ScriptedEngines()
    yard = Yard(config, engines.make_handle)
    await yard.start()
    stage = Stage(yard, engines.started("a"))
    yield stage
    for client in stage.clients:
        client.reads.set()
    await yard.close()
    await asyncio.gather(*(client.task for client in stage.clients), return_exceptions=True)
    assert await asyncio.to_thread(engines.end)


async def test_the_frames_of_a_step_are_sent_by_one_callback_and_wake_no_task(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = await stage.streams(20)
    called: list[Callable[..., object]] = []
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_soon", lambda call, *_, **__: called.append(call))
        stage.receive("one")
        (write,) = called
        write()
        assert called == [write]
    assert [client.texts for client in clients] == [["one"]] * 20


async def test_all_that_a_step_says_in_one_stream_is_one_frame(stage: Stage) -> None:
    (client,) = await stage.streams(1)
    await stage.step("three", " tokens", " drafted")
    assert client.texts == ["three tokens drafted"]


async def test_steps_that_arrive_together_are_one_frame_however_many(stage: Stage) -> None:
    clients = await stage.streams(3)
    for text in ("an", " engine", " outruns", " the event loop"):
        stage.receive(text)
    await asyncio.sleep(0)
    assert [client.texts for client in clients] == [["an engine outruns the event loop"]] * 3


async def test_a_stream_has_one_task_beside_that_of_its_request(stage: Stage) -> None:
    before = len(asyncio.all_tasks())
    await stage.streams(20)
    assert len(asyncio.all_tasks()) == before + 2 * 20


async def test_a_slow_client_gets_what_gathered_in_one_frame_and_holds_up_no_other(stage: Stage) -> None:
    slow, fast = await stage.streams(2)
    slow.reads.clear()
    for text in ("one", " two", " three"):
        await stage.step(text)
    await asyncio.sleep(0)
    assert fast.texts == ["one", " two", " three"]
    assert slow.texts == []
    slow.reads.set()
    await eventually(lambda: len(slow.texts) == 2)
    assert slow.texts == ["one", " two three"]
    await stage.step(" four")
    assert slow.texts == ["one", " two three", " four"]
    stage.engine.finish()
    await eventually(lambda: slow.is_complete and fast.is_complete)
    assert slow.frames[-1] == "data: [DONE]"


async def test_a_slow_client_gets_the_end_after_its_text(stage: Stage) -> None:
    (client,) = await stage.streams(1)
    client.reads.clear()
    await stage.step("one")
    stage.engine.say(" two")
    stage.engine.finish()
    await eventually(lambda: stage.running() == 0)
    client.reads.set()
    await eventually(lambda: client.is_complete)
    assert client.texts == ["one", " two"]
    assert client.frames[-1] == "data: [DONE]"


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_client_that_leaves_is_cancelled_also_while_it_is_waited_for(stage: Stage, is_slow: bool) -> None:
    leaver, stayer = await stage.streams(2)
    if is_slow:
        leaver.reads.clear()
        await stage.step("one")
    leaver.leave()
    await leaver.task
    (cancel,) = await asyncio.to_thread(stage.engine.heard, Cancel)
    assert isinstance(cancel, Cancel)
    await eventually(lambda: stage.running() == 1)
    assert not leaver.is_complete
    await stage.step(" more")
    assert "".join(stayer.texts).endswith(" more")


async def test_a_send_that_fails_ends_its_own_stream_only(stage: Stage) -> None:
    broken, sound = await stage.streams(2)
    broken.failure = OSError("the server is at fault")
    await stage.step("one")
    assert sound.texts == ["one"]
    with pytest.raises(OSError, match="the server is at fault"):
        await broken.task
    await eventually(lambda: stage.running() == 1)


async def test_a_silent_stream_says_that_it_lives_and_then_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "QUIET_S", 0.01)
    monkeypatch.setattr(streaming, "KEEP_ALIVE_S", 0.02)
    (client,) = await stage.streams(1)
    await eventually(lambda: client.frames.count(": keep-alive") >= 2)
    await stage.step("one")
    assert client.texts == ["one"]


async def test_a_stream_that_was_answered_soon_never_comments(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "QUIET_S", 0.01)
    (client,) = await stage.streams(1)
    await asyncio.sleep(0.05)
    stage.engine.finish()
    await eventually(lambda: client.is_complete)
    assert not any(frame.startswith(":") for frame in client.frames)


# Work for a client


async def leaves(left: asyncio.Event) -> dict[str, Any]:
    await left.wait()
    return {"type": "http.disconnect"}


async def test_work_ends_when_the_client_leaves() -> None:
    left, was_cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(WAIT_S)
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    asyncio.get_running_loop().call_soon(left.set)
    async with asyncio.timeout(WAIT_S):
        await while_connected(lambda: leaves(left), work())
    assert was_cancelled.is_set()
    assert len(asyncio.all_tasks()) <= 2


async def test_the_client_that_leaves_as_the_work_ends_harms_nobody() -> None:
    left = asyncio.Event()

    async def work() -> None:
        left.set()

    await while_connected(lambda: leaves(left), work())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_the_work_raises_is_raised_also_a_timeout() -> None:
    async def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await while_connected(lambda: leaves(asyncio.Event()), work())


async def test_cancelling_from_outside_cancels_the_work() -> None:
    task = asyncio.create_task(while_connected(lambda: leaves(asyncio.Event()), asyncio.sleep(WAIT_S)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
