"""MCP servers that are programs: their tools, how they end, and what becomes of calls when they misbehave."""

import asyncio
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from modelyard.mcp import connection, session
from modelyard.mcp.clients import McpClients
from modelyard.mcp.session import MAX_PAGES, MAX_TOOLS
from modelyard.yard.requests.context import Caller
from support.mcp_clients import (
    call,
    connected,
    mcp_config,
    processes_with,
    raw_server,
    resident_bytes,
    running,
    tools_of,
    until,
)

TESTS = Path(__file__).parents[1]


def state(clients, number=0):
    return clients.statuses()[number].state


async def test_tools_of_official_servers_are_called(tmp_path):
    await asyncio.to_thread(subprocess.run, ["git", "init", "-q", tmp_path], check=True)
    servers = [
        {"name": "time", "command": sys.executable, "args": ["-m", "mcp_server_time"]},
        {"name": "git", "command": sys.executable, "args": ["-m", "mcp_server_git"], "exclude": ["git_reset"]},
    ]
    async with connected(*servers) as clients:
        assert [status.state for status in clients.statuses()] == ["connected", "connected"]
        tools = tools_of(clients)
        assert tools["get_current_time"].name == "time_get_current_time"
        assert tools["git_status"].is_read_only
        assert "git_reset" not in tools
        result = await call(clients, "get_current_time", timezone="UTC")
        assert json.loads(result.text)["timezone"] == "UTC"
        refused = await call(clients, "get_current_time", timezone="Nowhere")
        assert refused.is_error
        assert "Nowhere" in refused.text
        assert "No commits yet" in (await call(clients, "git_status", repo_path=str(tmp_path))).text


async def test_results_progress_and_errors_of_a_server_reach_the_caller():
    async with connected(raw_server("greeting", resources=["a:b"])) as clients:
        assert (await call(clients, "echo", a=1)).text == '{"a": 1}'
        assert (await call(clients, "image")).text == "[An image is left out: image/png, 3 B.]"
        assert (await call(clients, "read_resource", uri="a:b")).text == "content of a:b"
        assert "There is no such resource" in (await call(clients, "read_resource", uri="a:c")).text
        error = await call(clients, "error")
        assert (error.is_error, error.text) == (True, "The server answers with an error: out of\\x1b order")
        cut = await call(clients, "big")
        assert cut.is_cut
        assert len(cut.text) < 70_000
        reports = []
        assert (await tools_of(clients)["progress"].run({}, reports.append)).text == "done"
        assert [(report.progress, report.total, report.message) for report in reports] == [
            (0, 3, "step 0\\n"),
            (1, 3, "step 1\\n"),
            (2, 3, "step 2\\n"),
        ]


async def test_a_changed_list_of_tools_is_taken_up():
    async with connected(raw_server()) as clients:
        assert len(tools_of(clients)) == 11
        await call(clients, "grow")
        await until(lambda: len(tools_of(clients)) == 12)


async def test_calls_are_bounded_in_time_and_number_and_cancelled_at_the_server():
    async with connected(raw_server(timeout=1, max_concurrent_calls=1)) as clients:
        hanging, waiting = await asyncio.gather(call(clients, "hang"), call(clients, "echo"))
        assert hanging.text == "The call was given up after 1 s: the MCP server raw did not answer."
        assert waiting.is_error
        cancelled = asyncio.create_task(call(clients, "hang"))
        await until(lambda: running(clients) == 1)
        cancelled.cancel()
        await asyncio.wait((cancelled,))
        assert cancelled.cancelled()
        assert len(json.loads((await call(clients, "log")).text)["cancelled"])


async def test_a_server_that_hangs_is_found_and_started_again(monkeypatch):
    monkeypatch.setattr(connection, "CHECK_S", 0.2)
    monkeypatch.setattr(session, "PING_S", 0.5)
    async with connected(raw_server()) as clients:
        await call(clients, "freeze")
        await until(lambda: state(clients) != "connected")
        assert clients.statuses()[0].reason == "it does not answer in time"
        await until(lambda: state(clients) == "connected")
        assert (await call(clients, "echo")).text == "{}"


async def test_a_call_whose_server_dies_fails_at_once_and_later_ones_go_on():
    async with connected(raw_server(), max_concurrent_calls=20) as clients:
        tool = tools_of(clients)["echo"]
        ten = [asyncio.create_task(call(clients, "hang")) for _ in range(10)]
        await until(lambda: running(clients) == 10)
        # Not after the 30 s that a call may take.
        async with asyncio.timeout(20):
            crashed = await call(clients, "crash")
            results = await asyncio.gather(*ten)
        assert all("The connection to the MCP server raw was lost" in result.text for result in (crashed, *results))
        assert "exit status 9" in crashed.text
        # The same tool, which an answer still has, works again.
        assert (await tool.run({"a": 2}, lambda _: None)).text == '{"a": 2}'


async def test_calls_that_wait_for_a_lost_connection_hold_up_no_other_server(monkeypatch):
    monkeypatch.setattr(connection, "delay_s", lambda *_: 3600)
    servers = raw_server(name="a"), raw_server(name="b")
    async with connected(*servers, max_concurrent_calls=1) as clients:
        tools = {tool.name: tool for tool in clients.all_tools()}
        await tools["a_crash"].run({}, lambda _: None)
        waiting = asyncio.create_task(tools["a_echo"].run({}, lambda _: None))
        await until(lambda: running(clients) == 1)
        assert (await tools["b_echo"].run({}, lambda _: None)).text == "{}"
        assert not waiting.done()
        waiting.cancel()


async def test_a_flood_is_an_error_of_its_call_and_takes_no_memory():
    async with connected(raw_server()) as clients:
        await call(clients, "big")
        gc.collect()
        before = resident_bytes()
        result = await call(clients, "flood")
        gc.collect()
        assert (result.is_error, result.text) == (
            True,
            "The server answers with an error: The answer has 100 MB, which is too long.",
        )
        assert resident_bytes() - before < 60 * 2**20
        assert (await call(clients, "echo")).text == "{}"


async def test_lists_of_tools_are_bounded():
    servers = [raw_server("many", name="many"), raw_server("endless", name="endless"), raw_server("deep", name="deep")]
    async with connected(*servers) as clients:
        assert [status.tools for status in clients.statuses()] == [MAX_TOOLS, MAX_PAGES, 11]


async def test_tools_that_no_answer_could_list_are_left_out():
    async with connected(raw_server("odd")) as clients:
        (tool,) = tools_of(clients).values()
        assert (tool.own_name, tool.description) == ("half", "Half ?.")


async def test_a_program_that_writes_garbage_is_given_up(caplog):
    async with connected(raw_server("garbage")) as clients:
        (status,) = clients.statuses()
        assert (status.state, status.tools) == ("failed", 0)
        assert "writes other things than MCP messages" in status.reason


async def test_a_program_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_S", 1.0)
    async with connected(raw_server("mute")) as clients:
        (status,) = clients.statuses()
        assert (status.state, status.reason) == ("failed", "it does not answer in time")


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"command": "no-such-program"}, "no-such-program cannot be started: No such file or directory"),
        ({"command": "sh", "args": ["-c", "echo oops >&2; exit 3"]}, "exit status 3: oops"),
        ({"command": "sh", "args": ["-c", "kill -9 $$"]}, "its program has ended by SIGKILL"),
        ({"command": "sh", "cwd": "/no/folder"}, "/no/folder does not exist"),
    ],
)
async def test_a_program_that_cannot_run_has_its_reason(keys, reason):
    async with connected({"name": "a", **keys}) as clients:
        (status,) = clients.statuses()
        assert (status.state, status.tools) == ("failed", 0)
        assert status.reason.endswith(reason)
        assert tools_of(clients) == {}


async def test_standard_error_is_logged_without_secrets_and_within_bounds(caplog):
    caplog.set_level(logging.INFO)
    async with connected(raw_server("noisy", env={"A_SECRET": "tell-nobody"})):
        lines = [record.getMessage() for record in caplog.records if record.name == "modelyard.mcp.servers"]
        assert lines[0] == "MCP server raw: a secret: …"
        assert lines[1] == "MCP server raw: \\x1b[31mred"
        assert len(lines) == 120


async def test_a_program_inherits_no_secrets(monkeypatch):
    monkeypatch.setenv("MODELYARD_API_KEYS", "sk-secret")
    async with connected(raw_server(env={"OWN": "1"})) as clients:
        environ = json.loads((await call(clients, "log")).text)["environ"]
        assert environ["OWN"] == "1"
        assert "PATH" in environ
        assert "MODELYARD_API_KEYS" not in environ


async def test_a_server_ends_with_everything_that_it_has_started():
    mark = uuid.uuid4().hex
    async with connected(raw_server("family", "stubborn", env={"MARK": mark})):
        # The launcher, the server, and its two children.
        await until(lambda: len(processes_with(mark)) == 4)
    assert processes_with(mark) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_no_process_is_left_when_ours_is_killed(number):
    mark = uuid.uuid4().hex
    program = (
        "import asyncio, sys\n"
        "from support.mcp_clients import connected, raw_server\n"
        "async def main():\n"
        f"    async with connected(raw_server('family', 'stubborn', env={{'MARK': {mark!r}}})):\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    assert ours.stdout is not None
    assert await asyncio.wait_for(ours.stdout.readline(), 60) == b"ready\n"
    await until(lambda: len(processes_with(mark)) == 4)
    ours.send_signal(number)
    await ours.wait()
    await until(lambda: not processes_with(mark))


async def test_what_models_and_keys_may_not_use_is_not_offered():
    models = [{"model_id": "org/all"}, {"model_id": "org/one", "mcp": ["b"]}, {"model_id": "org/none", "mcp": []}]
    servers = [raw_server(name="a", tools=["echo"]), raw_server(name="b", tools=["echo"], approval=["echo"])]
    async with connected(*servers, models=models) as clients:

        def names(model, allowed=None):
            return [tool.name for tool in tools_of(clients, model, allowed).values()]

        assert [tool.name for tool in clients.tools("org/all", Caller())] == ["a_echo", "b_echo"]
        assert names("org/one") == ["b_echo"]
        assert names("org/none") == []
        assert names("org/all", ["a"]) == ["a_echo"]
        assert names("org/one", ["a"]) == []
        assert tools_of(clients, "org/one")["echo"].needs_approval
        assert [clients.connected_servers(model, Caller()) for model in ("org/all", "org/one", "org/none")] == [
            2,
            1,
            None,
        ]


async def test_a_reload_keeps_the_connections_that_do_not_change():
    async with connected(raw_server(name="a"), raw_server(name="b")) as clients:
        kept = clients._connections["a"]
        gone = clients._connections["b"]
        clients.reconfigure(mcp_config(raw_server(name="a"), raw_server(name="c")))
        assert clients._connections["a"] is kept
        assert [status.name for status in clients.statuses()] == ["a", "c"]
        await clients.wait_settled()
        assert [status.state for status in clients.statuses()] == ["connected", "connected"]
        await until(lambda: gone._task is not None and gone._task.done())


async def test_a_disabled_server_is_not_started():
    mark = uuid.uuid4().hex
    async with connected(raw_server(enabled=False, env={"MARK": mark})) as clients:
        assert state(clients) == "disabled"
        assert processes_with(mark) == []


def test_clients_without_servers_import_nothing_of_the_sdk():
    program = (
        "import sys\n"
        "import modelyard.inprocess.async_model\n"
        "from modelyard.mcp.clients import McpClients\n"
        "assert not {'mcp', 'mcp_types', 'websockets'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_clients_without_servers_do_nothing():
    clients = McpClients(mcp_config())
    clients.start()
    assert clients.statuses() == ()
    await clients.aclose()
