"""MCP servers of a server that runs: its list of models, its tools, a reload, and its end."""

import json
import re
import signal
import time
import uuid

import httpx
import pytest
from typer.testing import CliRunner

from integration.test_command_line import started
from modelyard.cli import app
from support.mcp_clients import processes_with, raw_server
from support.server import WAIT_S


class File:
    """A configuration with a model that is loaded on demand, and a JSON file with MCP servers beside it."""

    def __init__(self, folder, weights):
        self.path, self.json = folder / "models.toml", folder / "mcp.json"
        self.path.write_text(
            "[server]\nport = 0\n[runtime]\nmcp_config = 'mcp.json'\n"
            f"[[models]]\nmodel_id = '{weights['smollm2']}'\nalias = 'smol'\nload = 'on-demand'\n"
            f"[[models]]\nmodel_id = '{weights['smollm2']}'\nalias = 'other'\nload = 'on-demand'\nmcp = []\n"
        )

    def write(self, *servers):
        tables = {server.pop("name"): server for server in servers}
        self.json.write_text(json.dumps({"mcpServers": tables}))


@pytest.fixture
def file(tmp_path, drawn_weights):
    return File(tmp_path, drawn_weights)


def wait_for(look):
    """Return the first thing that ``look`` returns that counts as true."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it has not come in time")


def address(said):
    url = re.search(r"(http://\S+)/v1", said)
    assert url
    return url[1]


def tools_at(url, model="smol"):
    answer = httpx.get(f"{url}/v1/agent/tools", params={"model": model}, timeout=WAIT_S).json()
    return [tool["name"] for tool in answer["data"]]


def test_a_server_offers_the_tools_of_its_mcp_servers_and_follows_its_files(file):
    file.write(raw_server(name="one", tools=["echo"]), {"name": "bad", "command": "no-such-program"})
    with started("from-config", "-f", str(file.path)) as (_, said):
        url = address(said)
        wait_for(lambda: tools_at(url) == ["one_echo"])
        assert tools_at(url, "other") == []
        listed = CliRunner().invoke(app, ["mcp", "list", "--url", url, "-m", "smol"])
        assert "one_echo" in listed.stdout
        assert (listed.exit_code, "bad is not connected: no-such-program cannot be started" in listed.stderr) == (
            1,
            True,
        )
        servers = httpx.get(f"{url}/v1/agent/servers", timeout=WAIT_S).json()["data"]
        assert [(server["name"], server["state"], server["tools"]) for server in servers] == [
            ("one", "connected", 1),
            ("bad", "failed", 0),
        ]
        assert servers[1]["reason"] == "no-such-program cannot be started: No such file or directory"
        file.write(raw_server(name="one", tools=["echo"]), raw_server(name="two", tools=["big"]))
        reloaded = httpx.post(f"{url}/v1/config/reload", timeout=WAIT_S).json()
        assert (reloaded["mcp"], reloaded["changed"]) == (["servers.bad", "servers.two"], {})
        wait_for(lambda: tools_at(url) == ["one_echo", "two_big"])
        file.write(raw_server(name="two", tools=["big"], comand="x"))
        refused = httpx.post(f"{url}/v1/config/reload", timeout=WAIT_S).json()
        assert "Did you mean 'command'?" in refused["error"]["message"]
        assert tools_at(url) == ["one_echo", "two_big"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_program_of_an_mcp_server_is_left_by_a_server(file, number):
    mark = uuid.uuid4().hex
    file.write(raw_server("family", "stubborn", name="one", env={"MARK": mark}))
    with started("from-config", "-f", str(file.path)) as (process, said):
        wait_for(lambda: tools_at(address(said)))
        assert len(processes_with(mark)) == 4
        process.send_signal(number)
        process.wait(WAIT_S)
        wait_for(lambda: not processes_with(mark))


def test_the_file_may_be_an_option_or_named_by_the_environment(file, tmp_path, monkeypatch, drawn_weights):
    file.write(raw_server(name="one", tools=["echo"]))
    model = str(drawn_weights["smollm2"])
    with started("serve", model, "--port", "0", "--mcp-config", str(file.json)) as (_, said):
        wait_for(lambda: tools_at(address(said), "default") == ["one_echo"])
    monkeypatch.setenv("MCP_CONFIG_PATH", str(file.json))
    with started("serve", model, "--port", "0") as (_, said):
        wait_for(lambda: tools_at(address(said), "default") == ["one_echo"])
