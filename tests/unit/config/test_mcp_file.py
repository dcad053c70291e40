"""JSON files with MCP servers, in the shapes of several programs."""

import json
from pathlib import Path

import pytest

from modelyard.config import load_config, mcp_config_path, mcp_tables, validate_config
from modelyard.errors import ConfigError

TOML = "[runtime]\nmcp_config = 'mcp.json'\n[[models]]\nmodel_id = 'org/smol'\n"


@pytest.fixture
def write(tmp_path):
    def write(content, name="mcp.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), "utf-8")
        return path

    write(TOML, "models.toml")
    return write


def servers(path):
    return load_config(path.parent / "models.toml").mcp.servers


def refused(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path.parent / "models.toml")
    return [
        (problem.line, problem.column, problem.key, problem.advice)
        for problem in caught.value.problems
        if problem.source == str(path)
    ]


def test_the_widespread_shape_names_servers_by_keys(write, tmp_path):
    files, web, socket = servers(
        write(
            {
                "mcpServers": {
                    "files": {
                        "command": "./server",
                        "args": ["-y"],
                        "env": {"A": "b"},
                        "cwd": "work",
                        "disabled": True,
                        "type": "stdio",
                    },
                    "web": {"type": "streamable-http", "url": "https://a/mcp", "headers": {"X-Key": "k"}},
                    "socket": {"serverUrl": "wss://a"},
                }
            }
        )
    )
    assert (files.command, files.args, files.cwd) == (str(tmp_path / "server"), ("-y",), tmp_path / "work")
    assert (files.enabled, files.env[0][1].get_secret_value()) == (False, "b")
    assert (web.effective_transport, web.url, web.headers[0][0]) == ("http", "https://a/mcp", "X-Key")
    assert socket.effective_transport == "websocket"


def test_the_servers_of_vs_code_are_read(write, monkeypatch):
    monkeypatch.setenv("THE_TOKEN", "abc")
    document = {
        "servers": {"hub": {"type": "sse", "url": "https://a", "headers": {"Authorization": "${env:THE_TOKEN}"}}}
    }
    (server,) = servers(write(document))
    assert (server.name, server.effective_transport) == ("hub", "sse")
    assert server.headers[0][1].get_secret_value() == "abc"


def test_the_shape_of_mistralrs_is_read(write, tmp_path):
    path = write(
        {
            "servers": [
                {
                    "id": "1",
                    "name": "files",
                    "source": {"type": "Process", "command": "npx", "args": ["-y"], "work_dir": ".", "env": {"A": "b"}},
                    "enabled": False,
                    "tool_prefix": "fs",
                    "resources": ["file:///a"],
                },
                {
                    "id": "two",
                    "source": {"type": "WebSocket", "url": "wss://a", "timeout_secs": 7, "headers": None},
                    "tool_prefix": None,
                    "bearer_token": "secret",
                },
                {"name": "", "source": {"type": "Http", "url": "http://a"}},
                {"name": "sse", "source": {"type": "Sse", "url": "http://a"}},
            ],
            "auto_register_tools": True,
            "tool_timeout_secs": 60,
            "max_concurrent_calls": 5,
        }
    )
    mcp = load_config(path.parent / "models.toml").mcp
    files, socket, http, sse = mcp.servers
    assert (files.name, files.command, files.cwd, files.prefix) == ("files", "npx", tmp_path, "fs")
    assert (files.enabled, files.resources) == (False, ("file:///a",))
    assert (socket.name, socket.prefix, socket.timeout) == ("two", "", 7)
    assert [server.effective_transport for server in (socket, http, sse)] == ["websocket", "http", "sse"]
    assert http.name == "server 3"
    assert (mcp.tool_timeout, mcp.max_concurrent_calls) == (60, 5)


def test_servers_whose_tools_are_not_registered_offer_nothing(write):
    (server,) = servers(write({"mcpServers": {"a": {"command": "a"}}, "auto_register_tools": False}))
    assert (server.tools, server.resources, server.enabled) == ((), (), True)


def test_the_table_mcp_prevails_over_the_file(write):
    path = write({"mcpServers": {"a": {"command": "a"}}, "tool_timeout_secs": 60})
    write(f"{TOML}[mcp]\ntool_timeout = 5\n[[mcp.servers]]\nname = 'b'\ncommand = 'b'\n", "models.toml")
    mcp = load_config(path.parent / "models.toml").mcp
    assert (mcp.tool_timeout, [server.name for server in mcp.servers]) == (5, ["b", "a"])


def test_a_path_of_the_command_line_prevails_over_that_of_the_file_and_that_over_the_environments(write, monkeypatch):
    for name in ("option", "environment"):
        write({"mcpServers": {name: {"command": "a"}}}, f"{name}.json")
    path = write({"mcpServers": {"key": {"command": "a"}}})
    monkeypatch.setenv("MCP_CONFIG_PATH", str(path.with_name("environment.json")))
    toml = path.parent / "models.toml"

    def names(given=None):
        return [server.name for server in load_config(toml, mcp_config=given).mcp.servers]

    assert names(path.with_name("option.json")) == ["option"]
    assert names() == ["key"]
    write("[[models]]\nmodel_id = 'a/b'\n", "models.toml")
    assert names() == ["environment"]
    # Programs that describe models in Python do not read it.
    assert validate_config({"models": [{"model_id": "a/b"}]}).mcp.servers == ()


def test_a_relative_path_of_the_environment_starts_at_the_working_directory():
    assert mcp_config_path(None, {"MCP_CONFIG_PATH": "a.json"}) == Path.cwd() / "a.json"
    assert mcp_config_path(Path("b.json"), {"MCP_CONFIG_PATH": "a.json"}) == Path.cwd() / "b.json"
    assert mcp_config_path(None, {}) is None


def test_other_settings_of_the_program_whose_file_it_is_are_left_alone(write):
    (server,) = servers(write({"globalShortcut": "", "preferences": {"a": 1}, "mcpServers": {"a": {"command": "a"}}}))
    assert server.name == "a"
    (server,) = servers(write({"inputs": [], "servers": {"b": {"command": "b"}}}))
    assert server.name == "b"
    path = write({"preferences": {}, "mcpServers": {}, "tool_timeout_sec": 5})
    assert [problem[3] for problem in refused(path)] == [
        "unknown key 'tool_timeout_sec'. Did you mean 'tool_timeout_secs'?"
    ]
    path = write({"preferences": {}, "servers": {}})
    assert [problem[2] for problem in refused(path)] == ["preferences"]


@pytest.mark.parametrize(
    ("key", "advice"),
    [("httpUrl", "Write url."), ("includeTools", "Write tools."), ("excludeTools", "Write exclude.")],
)
def test_keys_of_other_programs_are_named_with_those_that_do_the_same_here(write, key, advice):
    path = write({"mcpServers": {"a": {"url": "https://a", key: ["b"]}}})
    assert [problem[3] for problem in refused(path)] == [f"unknown key '{key}'. {advice}"]


def test_every_problem_has_its_position_in_the_file(write):
    path = write(
        """{
  "mcpServers": {
    "a": {"command": "a", "args": ["b", 5], "autoApprove": []},
    "b": {"url": "ftp://b"},
    "c": {"command": "c", "type": "pigeon"}
  },
  "tool_timeout_secs": 0,
  "inputs": [{"id": "key"}]
}"""
    )
    assert refused(path) == [
        (3, 41, "mcpServers.a.args.1", 'args: item 2 must be non-empty text in quotes: write "5", not 5.'),
        (
            3,
            45,
            "mcpServers.a.autoApprove",
            "unknown key 'autoApprove'. Write approval: a list of the tools that need one.",
        ),
        (
            4,
            18,
            "mcpServers.b.url",
            "url is no URL of a server. The transport http takes http://… or https://….",
        ),
        (5, 35, "mcpServers.c.type", "type must be one of stdio, http, sse, websocket, not 'pigeon'."),
        (
            7,
            24,
            "tool_timeout_secs",
            "tool_timeout_secs must be a number of seconds from 1 to 14400, or a duration such as "
            '"90s", "10m" or "1h30m", not 0.',
        ),
        (
            8,
            3,
            "inputs",
            "unknown key 'inputs'. Modelyard asks for no values: write ${NAME} for those of the environment.",
        ),
    ]


def test_a_source_of_an_unknown_type_is_named(write):
    path = write('{"servers": [{"name": "a", "source": {"type": "Pipe"}}, {"name": "b"}, 5]}')
    assert [problem[3] for problem in refused(path)] == [
        "type must be one of Http, Sse, WebSocket, Process, not 'Pipe'.",
        "source must be an object, not nothing.",
        "A server must be an object, not 5.",
    ]


@pytest.mark.parametrize(
    ("text", "line"), [('{"mcpServers": {}', 1), ('{\n  "mcpServers": {},\n\n  5}', 4), ("{\n  // mine\n}", 2)]
)
def test_a_mistake_in_the_syntax_has_its_line_and_column(write, text, line):
    ((found, column, _, advice),) = refused(write(text))
    assert (found, column is None) == (line, False)
    assert advice.startswith("not valid JSON: ")
    assert ("JSON has no comments" in advice) == ("//" in text)


def test_a_key_that_occurs_twice_is_refused(write):
    path = write('{"mcpServers": {"a": {"command": "a"}, "a": {"command": "b"}}}')
    assert [problem[3] for problem in refused(path)] == ["the key 'a' occurs twice."]


def test_only_keys_that_occur_twice_in_the_same_object_are_refused(write):
    server = '{"command": "a", "env": {"B": "c"}}'
    path = write(f'{{"mcpServers": {{"a": {server}, "a": {{"command": "a", "command": "b", "env": {{"B": "c"}}}}}}}}')
    assert [(problem[2], problem[3]) for problem in refused(path)] == [
        ("mcpServers.a", "the key 'a' occurs twice."),
        ("mcpServers.a.command", "the key 'command' occurs twice."),
    ]


@pytest.mark.parametrize("text", ["[]", "{}", '{"mcpServers": 5}', "[" * 5000, '{"a":' * 500 + "1" + "}" * 500])
def test_what_is_in_no_shape_is_refused(write, text):
    assert refused(write(text))


def test_a_file_that_is_not_there_is_named_and_the_names_of_its_servers_are_not_judged(write, tmp_path):
    write(f"{TOML}mcp = ['files']\n", "models.toml")
    assert [problem[3] for problem in refused(tmp_path / "mcp.json")] == [
        "There is no such file. mcp_config names a JSON file with MCP servers."
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "models.toml")
    assert len(caught.value.problems) == 1


def test_variables_come_from_the_environment_and_are_not_shown(write, monkeypatch):
    monkeypatch.setenv("SECRET", "tell-nobody")
    path = write({"mcpServers": {"a": {"url": "${SECRET}", "headers": {"A": "${MISSING:-x}"}}}})
    ((*_, advice),) = refused(path)
    assert "url is no URL" in advice
    with pytest.raises(ConfigError) as caught:
        load_config(path.parent / "models.toml")
    assert "tell-nobody" not in str(caught.value)


def test_a_variable_that_is_not_set_is_named_once(write, monkeypatch):
    monkeypatch.delenv("MISSING", raising=False)
    path = write({"mcpServers": {"a": {"url": "${MISSING}"}, "b": {"command": "b", "env": {"A": "${MISSING}"}}}})
    message = "the environment variable MISSING is not set. Set it, or write a default: ${MISSING:-value}."
    assert [(problem[2], problem[3]) for problem in refused(path)] == [
        ("mcpServers.a.url", message),
        ("mcpServers.b.env.A", message),
    ]


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"mcpServers": {"a": {"command": "a", "type": "${MISSING}"}}}, "mcpServers.a.type"),
        ({"servers": [{"name": "a", "source": {"type": "${MISSING}"}}]}, "servers.0.source.type"),
        ({"mcpServers": {}, "auto_register_tools": "${MISSING}"}, "auto_register_tools"),
        ({"mcpServers": {}, "tool_timeout_secs": "${MISSING}"}, "tool_timeout_secs"),
    ],
)
def test_nothing_more_is_said_about_the_reference_to_a_variable_that_is_not_set(write, monkeypatch, document, key):
    monkeypatch.delenv("MISSING", raising=False)
    message = "the environment variable MISSING is not set. Set it, or write a default: ${MISSING:-value}."
    assert [(problem[2], problem[3]) for problem in refused(write(document))] == [(key, message)]
    with pytest.raises(ValueError, match="MISSING is not set") as caught:
        mcp_tables(document)
    assert str(caught.value) == f"{key}: {message}"


def test_numbers_and_booleans_come_from_the_environment_as_in_the_toml_file(write, monkeypatch):
    for name, value in {"ON": "true", "N": "7", "T": "2.5", "PORT": "8080"}.items():
        monkeypatch.setenv(name, value)
    a = {"command": "a", "disabled": "${ON}", "max_concurrent_calls": "${N}", "timeout": "${T}", "tool_prefix": "${N}"}
    b = {"command": "b", "env": {"timeout": "${PORT}"}, "enabled": "${ON}", "args": ["${N}"]}
    path = write({"mcpServers": {"a": a, "b": b}, "max_concurrent_calls": "${N}"})
    one, two = servers(path)
    assert (one.enabled, one.max_concurrent_calls, one.timeout, one.tool_prefix) == (False, 7, 2.5, "7")
    assert (two.enabled, two.env[0][1].get_secret_value(), two.args) == (True, "8080", ("7",))
    assert load_config(path.parent / "models.toml").mcp.max_concurrent_calls == 7
    listed = {"name": "c", "source": {"type": "Http", "url": "http://c", "timeout_secs": "${N}"}}
    assert mcp_tables({"servers": [listed], "auto_register_tools": "${ON}"})["servers"][0]["timeout"] == 7


@pytest.mark.parametrize("table", ["env", "headers"])
def test_the_lines_of_secrets_are_not_shown(tmp_path, table):
    other = "command = 'a'" if table == "env" else "url = 'http://a'"
    path = tmp_path / "models.toml"
    path.write_text(f"[[mcp.servers]]\nname = 'a'\n{other}\n[mcp.servers.{table}]\nA = 'tell-nobody' 5\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "tell-nobody" not in str(caught.value)


@pytest.mark.parametrize(
    "env",
    [
        '{\n"A": "tell-nobody", "B": "${MISSING}"\n}',
        '{\n"B": "tell-nobody-${MISSING}"\n}',
        '\n{"A": "tell-nobody", "B": "${MISSING}"}',
        '{"A": "tell-nobody", "B": "${MISSING}"}',
    ],
)
def test_secrets_of_a_json_file_are_not_shown_wherever_its_lines_end(write, monkeypatch, env):
    monkeypatch.delenv("MISSING", raising=False)
    path = write(f'{{"mcpServers": {{"a": {{"command": "a", "env": {env}}}}}}}')
    with pytest.raises(ConfigError, match="the environment variable MISSING is not set") as caught:
        load_config(path.parent / "models.toml")
    assert "tell-nobody" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["env.A = 'tell-nobody-${MISSING}'", "env.'A' = 'tell-nobody' 5", "env.A = 'tell-nobody"]
)
def test_a_secret_behind_a_dotted_key_is_not_shown(tmp_path, monkeypatch, line):
    monkeypatch.delenv("MISSING", raising=False)
    path = tmp_path / "models.toml"
    path.write_text(f"[[models]]\nmodel_id = 'org/smol'\n[[mcp.servers]]\nname = 'a'\ncommand = 'a'\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "env." in str(caught.value)
    assert "tell-nobody" not in str(caught.value)


def test_a_mapping_in_one_of_the_shapes_becomes_the_table():
    assert mcp_tables({"mcpServers": {"a": {"command": "a"}}}) == {"servers": [{"command": "a", "name": "a"}]}
    with pytest.raises(ValueError, match=r"mcpServers.a: unknown key 'comand'. Did you mean 'command'\?"):
        mcp_tables({"mcpServers": {"a": {"comand": "a"}}})
