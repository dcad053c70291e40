"""The application on a scripted model ``m``, without a socket: each test says what the model answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from modelyard.agent.agent import Agent
from modelyard.agent.approvals import Decide
from modelyard.agent.tools import ToolSource
from modelyard.api.app import create_app
from modelyard.config import AccessKey, validate_config
from modelyard.protocol.prompts import Chat
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import OutputFormat
from modelyard.yard.yard import Yard
from support.gguf_writer import tiny_model, write
from support.scripted_engines import ScriptedEngines

HERMES = OutputFormat("hermes", "think", is_open=False)


def call(name: str, **arguments: Any) -> str:
    """A call as a model of the format ``HERMES`` writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class ScriptedServer:
    """The application, its model's answers, and what its model was asked.

    Attributes:
        app: the application.
        client: speaks to it.
        answers: texts for the next requests, in pieces; the last one answers all that come later.
        asked: what the model was sent.
    """

    def __init__(self, app: FastAPI, client: httpx.AsyncClient) -> None:
        self.app, self.client = app, client
        self.answers: list[Sequence[str]] = [["Hello", " world"]]
        self.asked: list[Submit] = []

    def answer(self, submit: Submit) -> Sequence[str]:
        self.asked.append(submit)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def chat(self) -> Chat:
        """The last conversation that the model was asked to answer."""
        prompt = self.asked[-1].prompt
        assert isinstance(prompt, Chat)
        return prompt

    @property
    def turns(self) -> list[tuple[Any, ...]]:
        """The turns of that conversation: role and content, and the calls by name and arguments."""
        return [
            (turn["role"], turn["content"], *(tuple(each["function"].values()) for each in turn.get("tool_calls", ())))
            for turn in self.chat.messages
        ]

    @property
    def offered(self) -> list[str]:
        """The functions that the model could call in that conversation."""
        return [tool["function"]["name"] for tool in self.chat.tools]

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def events(self, **body: Any) -> list[dict[str, Any]]:
        """The events of a streamed response."""
        answer = await self.post("/v1/responses", **body, stream=True)
        assert answer.status_code == 200, answer.text
        frames = [frame for frame in answer.text.split("\n\n") if frame]
        events = [json.loads(frame.split("\ndata: ", 1)[1]) for frame in frames]
        assert [f"event: {event['type']}" for event in events] == [frame.split("\n", 1)[0] for frame in frames]
        return events


@asynccontextmanager
async def scripted_server(
    folder: Path,
    *,
    keys: Sequence[AccessKey] = (),
    output_format: OutputFormat | None = HERMES,
    responses_file: Path | None = None,
    model: dict[str, Any] | None = None,
    mcp: dict[str, Any] | None = None,
    tools: Sequence[ToolSource] = (),
    decide: Decide | None = None,
) -> AsyncIterator[ScriptedServer]:
    """Serve one model whose answers the test decides, for the length of the context."""
    write(folder / "tiny.gguf", tiny_model())
    config = validate_config(
        {
            "models": [{"model_id": "./tiny.gguf", "alias": "m", **(model or {})}],
            **({} if mcp is None else {"mcp": mcp}),
        },
        source="test",
        base=folder,
    )
    servers: list[ScriptedServer] = []
    engines = ScriptedEngines(answer=lambda submit: servers[0].answer(submit), output_format=output_format)
    yard = Yard(config, engines.make_handle)
    await yard.start()
    app = create_app(yard, keys, responses_file=responses_file, agent=Agent.of(tools, decide))
    try:
        # ASGITransport hands an answer over when it is whole.
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20) as client:
            servers.append(ScriptedServer(app, client))
            yield servers[0]
    finally:
        await yard.close()
        app.state.responses.store.close()
        assert await asyncio.to_thread(engines.end)
