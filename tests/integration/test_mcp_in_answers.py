"""Ten answers whose model calls tools of an MCP server that hangs, is killed, or floods: none of them hangs with it."""

import asyncio
import json
import os
import signal
import uuid
from contextlib import asynccontextmanager

import websockets.asyncio.server

from support.mcp_clients import connected, processes_with, raw_server, running, tools_of, until
from support.mcp_peers.raw_peer import serve_websocket
from support.scripted_server import call, scripted_server
from support.tool_turns import turns

MODELS = [{"model_id": "org/m", "alias": "m"}]
MANY = 10


@asynccontextmanager
async def serving(folder, *servers, **mcp):
    """Enter with a scripted server, and the clients whose tools it has."""
    async with (
        connected(*servers, models=MODELS, **{"max_concurrent_calls": 20, **mcp}) as clients,
        scripted_server(folder, tools=[clients]) as server,
    ):
        yield server, clients


async def answer(server):
    """Stream one answer, and return its text."""
    body = {"messages": [{"role": "user", "content": "Go on."}], "stream": True}
    streamed = await server.post("/v1/chat/completions", **body)
    assert streamed.text.endswith("data: [DONE]\n\n")
    return streamed.text


def many(server):
    return asyncio.gather(*(answer(server) for _ in range(MANY)))


async def test_calls_that_hang_end_with_their_time(tmp_path):
    async with serving(tmp_path, raw_server(timeout=1)) as (server, _):
        server.answer = turns(call("raw_hang"), "So: {result}")
        for text in await many(server):
            assert "So: The call was given up after 1 s" in text


async def test_answers_go_on_when_the_server_is_killed_and_later_ones_use_it_again(tmp_path):
    mark = uuid.uuid4().hex
    async with serving(tmp_path, raw_server(env={"MARK": mark})) as (server, clients):
        server.answer = turns(call("raw_hang"), "So: {result}")
        answers = asyncio.ensure_future(many(server))
        await until(lambda: running(clients) == MANY)
        (process,) = processes_with(mark, "raw_peer.py")
        os.kill(process, signal.SIGKILL)
        for text in await answers:
            assert "So: The connection to the MCP server raw was lost during the call" in text
        await until(lambda: "echo" in tools_of(clients, "m"))
        server.answer = turns(call("raw_echo", a=1), "So: {result}")
        assert 'So: {\\"a\\": 1}' in await answer(server)


async def test_answers_go_on_when_a_websocket_is_closed(tmp_path):
    async with websockets.asyncio.server.serve(serve_websocket, "127.0.0.1", 0, subprotocols=["mcp"]) as peer:
        port = next(iter(peer.sockets)).getsockname()[1]
        async with serving(tmp_path, {"name": "raw", "url": f"ws://127.0.0.1:{port}"}) as (server, clients):
            server.answer = turns(call("raw_hang"), "So: {result}")
            answers = asyncio.ensure_future(many(server))
            await until(lambda: running(clients) == MANY)
            peer.close()
            for text in await answers:
                assert "So: The connection to the MCP server raw was lost during the call" in text


async def test_a_flood_is_an_error_that_the_model_reads(tmp_path):
    async with serving(tmp_path, raw_server()) as (server, _):
        server.answer = turns(call("raw_flood"), "So: {result}")
        assert "which is too long." in await answer(server)


async def test_a_client_that_leaves_cancels_its_call_at_the_mcp_server(tmp_path):
    async with serving(tmp_path, raw_server()) as (server, clients):
        server.answer = turns(call("raw_hang"), "So: {result}")
        leaving = asyncio.ensure_future(answer(server))
        await until(lambda: running(clients) == 1)
        leaving.cancel()
        await until(lambda: running(clients) == 0)
        logged = await tools_of(clients, "m")["log"].run({}, lambda _: None)
        assert len(json.loads(logged.text)["cancelled"]) == 1
