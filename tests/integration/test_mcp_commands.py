"""``modelyard mcp check``, ``list`` and ``call``."""

import json
import sys

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard.cli.exit_codes import CONFIGURATION, FAILURE, OK, USAGE
from support.mcp_clients import PEERS

RAW = {"command": sys.executable, "args": [str(PEERS / "raw_peer.py")]}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**servers):
        path = tmp_path / "mcp.json"
        path.write_text(json.dumps({"mcpServers": servers}))
        return str(path)

    return write


def run(*arguments):
    return CliRunner().invoke(app, ["mcp", *arguments])


def test_check_shows_the_state_of_each_server(file):
    path = file(raw=RAW, off={**RAW, "disabled": True}, bad={"command": "no-such-program"})
    result = run("check", "--mcp-config", path)
    assert result.exit_code == FAILURE
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0][:5] == ["Server", "State", "Tools", "Time", "Transport"]
    assert (lines[1][:3], lines[1][4:]) == (["raw", "connected", "11"], ["s", "stdio", "raw", "1"])
    assert lines[2] == ["off", "disabled", "stdio"]
    assert lines[3][:4] == ["bad", "failed", "stdio", "no-such-program"]


def test_check_prints_json_and_is_content_where_all_are_connected(file):
    result = run("check", "--mcp-config", file(raw=RAW), "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["ok"]) == (OK, True)
    (server,) = facts["servers"]
    assert (server["name"], server["state"], server["tools"], server["reason"]) == ("raw", "connected", 11, "")


def test_check_reads_the_configuration_of_this_folder(file, tmp_path):
    file(raw=RAW)
    (tmp_path / "models.toml").write_text("[runtime]\nmcp_config = 'mcp.json'\n[[models]]\nmodel_id = 'org/model'\n")
    assert "connected" in run("check").stdout


def test_mistakes_in_the_file_are_those_of_a_configuration(file):
    result = run("check", "--mcp-config", file(raw={"comand": "a"}))
    assert result.exit_code == CONFIGURATION
    assert "Did you mean 'command'?" in result.stderr


@pytest.mark.parametrize("command", ["check", "call echo"])
def test_servers_have_to_be_named(command, file):
    result = run(*command.split())
    assert result.exit_code == USAGE
    assert "No MCP servers are given." in result.stderr


def test_list_shows_the_names_by_which_models_call_tools(file, tmp_path):
    path = file(raw={**RAW, "tools": ["echo"], "approval": "always"}, other={**RAW, "tools": ["big"]})
    result = run("list", "--mcp-config", path)
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["raw_echo", "raw", "needs", "approval", "Does", "echo."],
        ["other_big", "other", "Does", "big."],
    ]
    (tmp_path / "models.toml").write_text("[[models]]\nmodel_id = 'org/model'\nmcp = ['other']\n")
    of_model = run("list", "-f", "models.toml", "--mcp-config", path, "-m", "org/model", "--json")
    assert [tool["own_name"] for tool in json.loads(of_model.stdout)["tools"]] == ["big"]


def test_call_prints_the_result_and_its_progress(file):
    path = file(raw=RAW)
    result = run("call", "raw_progress", "--mcp-config", path)
    assert (result.exit_code, result.stdout) == (OK, "done\n")
    assert result.stderr.splitlines()[0] == "0 of 3 step 0\\n"
    echoed = run("call", "echo", '{"a": 1}', "--mcp-config", path, "--json")
    assert json.loads(echoed.stdout) == {
        "tool": "raw_echo",
        "is_error": False,
        "is_cut": False,
        "text": '{"a": 1}',
    }


def test_a_tool_that_fails_fails_the_command(file):
    result = run("call", "error", "--mcp-config", file(raw=RAW))
    assert result.exit_code == FAILURE
    assert "out of\\x1b order" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["raw_ech"], "'raw_ech' is no tool. Did you mean 'raw_echo'?"),
        (["echo", "{"], "The arguments are no JSON"),
        (["echo", "[]"], "The arguments must be a JSON object"),
    ],
)
def test_a_call_that_cannot_be_made_is_explained(file, arguments, problem):
    result = run("call", *arguments, "--mcp-config", file(raw=RAW))
    assert result.exit_code == USAGE
    assert problem in result.stderr
