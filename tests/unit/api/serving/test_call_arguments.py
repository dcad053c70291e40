"""Arguments that a model writes are sent as objects, whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelyard.api.serving.call_arguments import arguments_object
from support.scripted_server import scripted_server
from support.scripted_tools import ScriptedTools, add, server_tool

DEEP = f'{{"a": {"[" * 300}{"]" * 300}}}'


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"a": [1, "é"]}', {"a": [1, "é"]}),
        (f'{{"a": 1{"0" * 30}}}', {"a": 1e30}),
        (f'{{"a": [NaN, 1{"0" * 400}]}}', {"a": [None, None]}),
        (r'{"\ud800": "a\ud800"}', {"?": "a?"}),
        (DEEP, {}),
        ("[" * 100_000, {}),
        ("[1]", {}),
        ("", {}),
    ],
    ids=["plain", "large", "infinite", "surrogate", "deep", "cut", "list", "empty"],
)
def test_they_can_be_written(written: str, sent: dict[str, Any]) -> None:
    assert orjson.loads(orjson.dumps(arguments_object(written))) == sent


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat"])
@pytest.mark.parametrize("name", ["calc_add", "own"])
async def test_no_arguments_of_a_call_end_an_answer(tmp_path: Path, path: str, name: str, *, stream: bool) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    function = {"name": "own", "parameters": {"type": "object"}}
    tools = [{"name": "own", "input_schema": {"type": "object"}}, {"type": "function", "function": function}]
    body |= {"tools": tools[:1], "max_tokens": 99} if path == "/v1/messages" else {"tools": tools[1:]}
    async with scripted_server(tmp_path, tools=[ScriptedTools(server_tool("add", add))]) as server:
        for arguments in (r'{"a": "\ud800"}', f'{{"a": 1{"0" * 30}}}', DEEP):
            text = f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'
            server.answers = [[text], ["Done."]]
            answer = await server.post(path, **body)
            assert answer.status_code == 200, answer.text
            assert '"stop_reason":"' in answer.text or '"done":true' in answer.text
